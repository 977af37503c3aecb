//! Lists of every kind: one page loop, and the two paths that lead to it.
//!
//! A page is cut from what the caller may see and asks for, in SQL, so it is full unless it is the last. All of it is one moment
//! of the database; the next page is a later one, and shows the first one's version.

use super::{
    AppState,
    address::{Path, Query},
    auth::{Identity, Scope},
    objects,
    page::{self, Continue, ListQuery, Order, Place, Wanted},
    status::{ApiError, Resource},
    table::Form,
    watch::{self, IfWatch},
};
use crate::{
    model::access::Reach,
    store::{self, StoreError, lists, lists::Slice},
};
use axum::{extract::State, response::Response};
use serde::Serialize;
use sqlx::PgConnection;

/// A kind that is listed.
pub trait Listed: 'static {
    /// Which.
    const RESOURCE: Resource;
    /// As the store gives it.
    type Row: Send + Sync;
    /// As it is published.
    type Wire: Serialize + Send + Sync;

    /// What comes after this place.
    fn rows(
        moment: &mut PgConnection,
        reach: &Reach,
        slice: &Slice<'_>,
        order: Order,
        after: Option<&Place>,
    ) -> impl Future<Output = Result<Vec<Self::Row>, StoreError>> + Send;

    /// Its place in this order.
    fn place(row: &Self::Row, order: Order) -> Place;

    /// As they are published, each of them.
    fn wire(moment: &mut PgConnection, rows: Vec<Self::Row>) -> impl Future<Output = Result<Vec<Self::Wire>, StoreError>> + Send;
}

/// Of every namespace: the list, or a watch.
pub async fn everywhere<K: Listed>(
    State(state): State<AppState>,
    identity: Identity,
    IfWatch(watch): IfWatch,
    form: Result<Form, ApiError>,
    query: Query<ListQuery>,
) -> Result<Response, ApiError> {
    match watch {
        Some(watch) => watch::serve(&state, &identity, K::RESOURCE, None, watch).await,
        None => page::<K>(&state, &identity, form?, None, query.0).await,
    }
}

/// Of one namespace: the list, or a watch.
pub async fn of_namespace<K: Listed>(
    State(state): State<AppState>,
    identity: Identity,
    IfWatch(watch): IfWatch,
    form: Result<Form, ApiError>,
    Path(namespace): Path<String>,
    query: Query<ListQuery>,
) -> Result<Response, ApiError> {
    objects::check_namespace(K::RESOURCE, &namespace)?;
    match watch {
        Some(watch) => watch::serve(&state, &identity, K::RESOURCE, Some(&namespace), watch).await,
        None => page::<K>(&state, &identity, form?, Some(&namespace), query.0).await,
    }
}

async fn page<K: Listed>(
    state: &AppState,
    identity: &Identity,
    form: Form,
    namespace: Option<&str>,
    query: ListQuery,
) -> Result<Response, ApiError> {
    let wanted = query.read(K::RESOURCE, namespace)?;
    wanted.wait(state).await?;
    let Scope { reach, namespace, until: _ } = identity.scope("list", K::RESOURCE, namespace).await?;
    let mut connection = store::acquire_whole(state.pool()).await?;
    let read = read::<K>(&mut connection, &wanted, &reach, namespace.as_deref()).await;
    connection.give_back();
    let Read { version, items, after, more } = read?;
    let continued = after.filter(|_| more).map(|last| Continue::after(last, version, &wanted).encode());
    let list = objects::list(K::RESOURCE.kind(), &items, &page::list_version(version), continued);
    Ok(form.answer_list(K::RESOURCE, list, state.clock().now()))
}

/// What a page is made of.
struct Read<W> {
    version: i64,
    items: Vec<W>,
    after: Option<Place>,
    more: bool,
}

/// Reads a page, as of one moment.
async fn read<K: Listed>(
    connection: &mut PgConnection,
    wanted: &Wanted,
    reach: &Reach,
    namespace: Option<&str>,
) -> Result<Read<K::Wire>, ApiError> {
    let mut moment = lists::moment(connection).await?;
    let version = wanted.version(&mut moment).await?; // before the rows
    let mut items = Vec::new();
    let mut after = wanted.continued.as_ref().map(|token| token.after.clone());
    let more = loop {
        let limit = wanted.next(items.len());
        let slice = Slice { namespace, labels: &wanted.labels, fields: &wanted.fields, limit: limit + 1 };
        let mut rows = K::rows(&mut moment, reach, &slice, wanted.order, after.as_ref()).await?;
        let more = page::cut(&mut rows, limit);
        after = rows.last().map(|row| K::place(row, wanted.order)).or(after);
        items.extend(K::wire(&mut moment, rows).await?);
        if !more || wanted.is_full(items.len()) {
            break more;
        }
    };
    Ok(Read { version, items, after, more })
}
