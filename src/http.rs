//! The API server: Kubernetes paths, objects, verbs, errors and paging, over `store` and `writes`.
//!
//! What it does: authenticate, authorize, read bodies within limits, turn wire objects into writes and records into wire
//! objects, wait for the loop when asked to. What it does not: decide anything about a chat. One file per kind.

pub mod address;
pub mod agents;
pub mod audit;
pub mod auth;
pub mod chats;
pub mod context;
pub mod contextevents;
pub mod diff;
pub mod discovery;
pub mod health;
mod kept;
pub mod limit;
pub mod lists;
pub mod negotiate;
pub mod objects;
pub mod openapi;
pub mod page;
pub mod patch;
#[cfg(feature = "profile")]
pub mod profile;
pub mod records;
pub mod routes;
pub mod serve;
pub mod snapshots;
pub mod status;
pub mod table;
pub mod tail;
pub mod telemetry;
pub mod tls;
pub mod typed;
pub mod wait;
pub mod watch;
pub mod why;

use crate::{
    clock::Clock,
    liveness::Liveness,
    model::{agent::AgentView, chat::ChatView},
    wake::Wake,
};
use auth::{Authentication, Identity};
use axum::{
    Router,
    extract::{FromRequestParts, Request, State},
    http::{Method, request::Parts},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use routes::{Routes, get, post, put};
use sqlx::PgPool;
use status::ApiError;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// How many pushes are taken at once: with bodies of at most 8 MiB each, what they may hold of memory.
const PUSHES_MAX: usize = 64;
/// How many watchers at most read the database at once, for what they begin with.
const WATCH_READS_MAX: usize = 3;

/// What every handler shares.
#[derive(Clone, Debug)]
pub struct AppState(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    pool: PgPool,
    clock: Clock,
    wake: Wake,
    authentication: Authentication,
    started: AtomicBool,
    leaving: AtomicBool,
    pushes: Arc<Semaphore>,
    contexts: context::Cache,
    moorings: context::Moorings,
    tail: tail::Tail,
    watch_reads: Semaphore,
    stopping: CancellationToken,
    liveness: Liveness,
    limits: Option<limit::Limits>,
    audit: audit::Audit,
}

impl AppState {
    /// Shares these.
    pub fn new(pool: PgPool, clock: Clock, wake: Wake, authentication: Authentication) -> Self {
        Self(Arc::new(Shared {
            moorings: context::Moorings::new(pool.clone()),
            pool,
            clock,
            wake,
            authentication,
            started: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            pushes: Arc::new(Semaphore::new(PUSHES_MAX)),
            contexts: context::Cache::default(),
            tail: tail::Tail::default(),
            watch_reads: Semaphore::new(WATCH_READS_MAX),
            stopping: CancellationToken::new(),
            liveness: Liveness::default(),
            limits: None,
            audit: audit::Audit::Off,
        }))
    }

    /// The same, until this token: then nobody waits for the loop any more.
    #[must_use]
    pub fn until(self, stopping: CancellationToken) -> Self {
        let shared = Arc::into_inner(self.0).expect("it is not shared yet");
        Self(Arc::new(Shared { stopping, ..shared }))
    }

    /// The same, with so many requests a second for each caller, and so many at once.
    #[must_use]
    pub fn limited(self, rate: Option<(u32, u32)>) -> Self {
        let shared = Arc::into_inner(self.0).expect("it is not shared yet");
        Self(Arc::new(Shared { limits: rate.map(|(rate, burst)| limit::Limits::new(rate, burst)), ..shared }))
    }

    /// The same, with writes written down there.
    #[must_use]
    pub fn audited(self, audit: audit::Audit) -> Self {
        let shared = Arc::into_inner(self.0).expect("it is not shared yet");
        Self(Arc::new(Shared { audit, ..shared }))
    }

    fn audit(&self) -> &audit::Audit {
        &self.0.audit
    }

    /// The signs of life of background tasks, which `/livez` looks at.
    pub fn liveness(&self) -> &Liveness {
        &self.0.liveness
    }

    fn stopping(&self) -> &CancellationToken {
        &self.0.stopping
    }

    /// The database has answered, with a schema that is ours.
    pub fn started(&self) {
        self.0.started.store(true, Ordering::Release);
    }

    /// It will stop soon, and is not ready any more: nobody is to be sent here.
    pub fn leaves(&self) {
        self.0.leaving.store(true, Ordering::Release);
    }

    fn is_leaving(&self) -> bool {
        self.0.leaving.load(Ordering::Acquire)
    }

    /// Room for the body of one more push; none when as many as fit are being taken: the agent is asked to slow down.
    fn room_for_a_push(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0.pushes).try_acquire_owned().ok()
    }

    /// The tail of the event log, which watchers share. Somebody has to run it.
    pub fn tail(&self) -> &tail::Tail {
        &self.0.tail
    }

    /// Turns at reading what watchers begin with: many may begin at once, and others need connections too.
    fn watch_reads(&self) -> &Semaphore {
        &self.0.watch_reads
    }

    fn contexts(&self) -> &context::Cache {
        &self.0.contexts
    }

    fn moorings(&self) -> &context::Moorings {
        &self.0.moorings
    }

    fn has_started(&self) -> bool {
        self.0.started.load(Ordering::Acquire)
    }

    fn pool(&self) -> &PgPool {
        &self.0.pool
    }

    fn clock(&self) -> &Clock {
        &self.0.clock
    }

    fn wake(&self) -> &Wake {
        &self.0.wake
    }
}

/// The paths that are for known callers only.
pub fn routes() -> Routes {
    let base = "/apis/moorline.dev/v1alpha1";
    let of = |path: &str| format!("{base}{path}");
    Routes::new()
        .route(&of("/chats"), get(lists::everywhere::<chats::Listing>))
        .route(&of("/agents"), get(lists::everywhere::<agents::Listing>))
        .route(&of("/agentsnapshots"), get(lists::everywhere::<snapshots::Listing>))
        .route(&of("/contextevents"), get(contextevents::list_all))
        .route(&of("/namespaces/{namespace}/contextevents"), get(contextevents::list))
        .route(&of("/namespaces/{namespace}/chats"), get(lists::of_namespace::<chats::Listing>).post(chats::create))
        .route(
            &of("/namespaces/{namespace}/chats/{name}"),
            get(records::get::<ChatView>)
                .put(records::update::<ChatView>)
                .patch(records::patch::<ChatView>)
                .delete(chats::delete),
        )
        .route(&of("/namespaces/{namespace}/chats/{name}/status"), get(records::get::<ChatView>).patch(chats::patch_status))
        .route(&of("/namespaces/{namespace}/chats/{name}/context"), get(context::get).put(context::refresh))
        .route(&of("/namespaces/{namespace}/chats/{name}/diff"), get(diff::get))
        .route(&of("/namespaces/{namespace}/chats/{name}/why"), get(why::get))
        .route(&of("/namespaces/{namespace}/agents"), get(lists::of_namespace::<agents::Listing>).post(agents::create))
        .route(
            &of("/namespaces/{namespace}/agents/{name}"),
            get(records::get::<AgentView>)
                .put(records::update::<AgentView>)
                .patch(records::patch::<AgentView>)
                .delete(agents::delete),
        )
        .route(&of("/namespaces/{namespace}/agents/{name}/runs"), post(agents::register_run))
        .route(&of("/namespaces/{namespace}/agents/{name}/snapshot"), put(agents::push))
        .route(&of("/namespaces/{namespace}/agentsnapshots"), get(lists::of_namespace::<snapshots::Listing>))
        .route(&of("/namespaces/{namespace}/agentsnapshots/{name}"), get(snapshots::get))
        .merge(discovery::routes())
}

/// All paths.
pub fn router(state: AppState) -> Router {
    let known = routes().into_router();
    #[cfg(feature = "profile")]
    let known = known.route(profile::PATH, axum::routing::get(profile::take));
    router_of(state, known)
}

/// The paths that are for everybody, and these for known callers only.
pub fn router_of(state: AppState, known: Router<AppState>) -> Router {
    let api = known
        .layer(middleware::from_fn(expect_json_for_writes))
        .layer(middleware::from_fn_with_state(state.clone(), authenticate))
        .layer(middleware::from_fn_with_state(state.clone(), audit::write_down));
    whole(state, probes().merge(api))
}

/// Only the paths that are for everybody.
pub fn probe_router(state: AppState) -> Router {
    whole(state, probes())
}

fn probes() -> Router<AppState> {
    Router::new()
        .route("/livez", axum::routing::get(health::livez))
        .route("/readyz", axum::routing::get(health::readyz))
        .route("/healthz", axum::routing::get(health::readyz))
        .route("/metrics", axum::routing::get(health::metrics))
}

fn whole(state: AppState, paths: Router<AppState>) -> Router {
    paths
        .fallback(async || ApiError::no_such_path())
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .layer(middleware::from_fn(address::refuse_nul))
        .layer(middleware::from_fn(telemetry::observe))
        .with_state(state)
}

/// A write is answered in JSON; whoever does not take that is told before anything is done. Reads answer in other forms too
/// and look for themselves.
async fn expect_json_for_writes(request: Request, next: Next) -> Response {
    if !matches!(*request.method(), Method::GET | Method::HEAD)
        && let Err(error) = negotiate::accept::expect_json(request.headers())
    {
        return error.into_response();
    }
    next.run(request).await
}

/// Nobody unknown gets past this, whatever the path, and nobody who sends too much.
async fn authenticate(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    match state.0.authentication.identify(request.headers()).await {
        Ok(identity) => {
            let limits = state.0.limits.as_ref();
            let taken = limits.map_or(Ok(()), |limits| limits.take(&identity.user).map_err(|wait| (limits.rate(), wait)));
            let mut response = match taken {
                Ok(()) => {
                    request.extensions_mut().insert(identity.clone());
                    next.run(request).await
                }
                Err((rate, wait)) => ApiError::too_fast(rate, wait).into_response(),
            };
            audit::asked_by(&mut response, identity);
            response
        }
        Err(error) => error.into_response(),
    }
}

impl<S: Sync> FromRequestParts<S> for Identity {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get::<Self>().cloned().ok_or_else(ApiError::unauthorized)
    }
}
