//! What a page of a list costs: the page. Counted by PostgreSQL, on the very statements that lists use, at 20,000 chats.

use crate::support::postgres::{TestDb, database};
use moorline::{
    http::{page::selectable, status::Resource},
    model::{
        access::Reach,
        object::Key,
        selector::{FieldSelector, LabelSelector},
    },
    store::lists::{self, Slice, Updated},
};
use sqlx::{Executor as _, PgConnection};
use uuid::Uuid;

const LIMIT: usize = 50;

/// 20 namespaces, 40 agents and workspaces, 100 owners, mixed up; of some things there are few.
async fn crowded() -> TestDb {
    let db = database().await;
    for statement in [
        "INSERT INTO agents (namespace, id, name, rv, created_at, service_account, workspace, converged_revision)
         SELECT 'team-' || lpad((n % 20)::text, 2, '0'), gen_random_uuid(), 'agent-' || n / 20, log_rv(), now(), 'user-' || n % 100,
                'ws-' || n % 40, 1
         FROM generate_series(0, 1999) n",
        "INSERT INTO snapshots (namespace, agent_id, agent_name, name, revision, context_hash, manifest, resource_count,
                                degraded_count, size_bytes, created_at, rv)
         SELECT a.namespace, a.id, a.name, a.name || '-' || r, r, decode(lpad(to_hex(r), 64, '0'), 'hex'), '[]', 0, 0, 0, now(), log_rv()
         FROM agents a, generate_series(1, 5) r",
        "INSERT INTO chats (namespace, id, name, rv, owner, agent, workspace, root_id, created_by, created_at, updated_at, archived,
                            state, snapshot_id, pin_cause, pinned_at, dirty_since, converged_revision)
         SELECT 'team-' || lpad((x.n % 20)::text, 2, '0'), x.id, 'chat-' || x.n, log_rv(), 'user-' || x.mixed % 100,
                CASE WHEN x.mixed % 2 = 0 THEN 'agent-' || x.mixed / 2 % 40 END,
                CASE WHEN x.mixed % 2 = 1 THEN 'ws-' || x.mixed / 2 % 40 END,
                x.id, 'x', now(), now() - x.mixed * interval '1 s', x.mixed % 100 = 3, CASE WHEN x.mixed % 100 = 7 THEN 'Error' ELSE 'Waiting' END,
                s.id, 'Hydrated', now(), CASE WHEN x.mixed % 100 = 11 THEN now() END, 1
         FROM (SELECT n, n * 7919 % 20011 AS mixed, gen_random_uuid() AS id FROM generate_series(1, 20000) n) x
         JOIN LATERAL (SELECT s.id FROM snapshots s WHERE s.namespace = 'team-' || lpad((x.n % 20)::text, 2, '0') LIMIT 1) s ON true",
        "VACUUM ANALYZE",
    ] {
        db.pool.execute(statement).await.unwrap();
    }
    db
}

/// How many rows of the tables of such a name (LIKE) this session has read so far, for whatever.
pub async fn read(connection: &mut PgConnection, tables: &str) -> i64 {
    sqlx::query_scalar(
        "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint FROM pg_stat_xact_user_tables WHERE relname LIKE $1",
    )
    .bind(tables)
    .fetch_one(connection)
    .await
    .unwrap()
}

fn fields(resource: Resource, text: &str) -> FieldSelector {
    FieldSelector::parse(text, selectable(resource)).unwrap()
}

/// A page costs its own rows, and the one that says whether there are more, and a few at most that were looked at in vain.
#[track_caller]
fn cheap(found: usize, read: i64, what: &str) {
    let bound = i64::try_from(found + 10).unwrap();
    assert!(read <= bound, "{what}: {found} found, {read} read");
}

#[tokio::test]
async fn a_page_of_chats_by_each_field_reads_its_own_rows_wherever_it_begins() {
    let db = crowded().await;
    let labels = LabelSelector::default();
    for (text, many) in [
        ("", true),
        ("spec.owner=user-7", true),
        ("spec.agentRef.name=agent-7", true),
        ("spec.workspaceRef.name=ws-7", true),
        ("status.dirty=true", true),
        ("status.dirty=false", true),
        ("status.state=Error", true),
        ("status.state=Waiting", true),
        ("spec.archived=true", true),
        ("spec.archived=false", true),
        ("metadata.name=chat-77", false),
        ("spec.owner=nobody", false),
        ("spec.agentRef.name=nobody", false),
        ("status.state=Completed", false),
    ] {
        let fields = fields(Resource::Chats, text);
        for namespace in [None, Some("team-07")] {
            let slice = Slice { namespace, labels: &labels, fields: &fields, limit: i64::try_from(LIMIT).unwrap() };
            for (after, name) in
                [(None, ""), (Some("team-07"), "chat-15"), (Some("team-15"), "chat-7"), (Some("team-19"), "chat-3")]
            {
                let after = after.map(|after| Key::new(after, name));
                let mut connection = db.pool.acquire().await.unwrap();
                let mut moment = lists::moment(&mut connection).await.unwrap();
                let before = read(&mut moment, "chats").await;
                let found = lists::chats(&mut moment, &Reach::Everything, &slice, after.as_ref()).await.unwrap().len();
                let read = read(&mut moment, "chats").await - before;
                cheap(found, read, &format!("{text:?} {namespace:?} {after:?}"));
                assert!(!many || after.is_some() || namespace.is_some() || found == LIMIT, "{text:?}: {found}");
            }
        }
    }
}

#[tokio::test]
async fn a_page_of_a_table_that_nobody_has_analyzed_joins_nothing_to_chats_that_are_not_on_it() {
    let db = database().await;
    for statement in [
        "ALTER TABLE chats SET (autovacuum_enabled = false)",
        "INSERT INTO agents (namespace, id, name, rv, created_at, converged_revision)
         VALUES ('team-a', gen_random_uuid(), 'ws', log_rv(), now(), 1)",
        "INSERT INTO chats (namespace, id, name, rv, owner, agent, root_id, created_by, created_at, updated_at)
         SELECT 'team-a', x.id, 'chat-' || x.n, log_rv(), 'alice', 'ws', x.id, 'x', now(), now()
         FROM (SELECT n, gen_random_uuid() AS id FROM generate_series(1, 5000) n) x",
    ] {
        db.pool.execute(statement).await.unwrap();
    }
    let (labels, fields) = (LabelSelector::default(), FieldSelector::default());
    let slice = Slice { namespace: Some("team-a"), labels: &labels, fields: &fields, limit: i64::try_from(LIMIT).unwrap() };
    let mut connection = db.pool.acquire().await.unwrap();
    let mut moment = lists::moment(&mut connection).await.unwrap();
    for by_time in [false, true] {
        let before = read(&mut moment, "agents").await;
        let found = if by_time {
            lists::chats_updated(&mut moment, &Reach::Everything, &slice, None).await.unwrap()
        } else {
            lists::chats(&mut moment, &Reach::Everything, &slice, None).await.unwrap()
        };
        assert!(found.len() == LIMIT && found.iter().all(|chat| chat.target.is_some()));
        cheap(LIMIT, read(&mut moment, "agents").await - before, if by_time { "what changed last" } else { "by name" });
    }
}

#[tokio::test]
async fn a_page_by_time_of_change_reads_its_own_rows_of_everything_a_namespace_and_an_owner() {
    let db = crowded().await;
    let labels = LabelSelector::default();
    let middle: (jiff_sqlx::Timestamp, Uuid) =
        sqlx::query_as("SELECT updated_at, id FROM chats ORDER BY updated_at DESC, id DESC LIMIT 1 OFFSET 10000")
            .fetch_one(&db.pool)
            .await
            .unwrap();
    let middle = Updated { at: middle.0.to_jiff(), id: middle.1 };
    for (text, namespace, reach) in [
        ("", None, Reach::Everything),
        ("", Some("team-07"), Reach::Everything),
        ("metadata.namespace=team-07", None, Reach::Everything),
        ("spec.owner=user-7", None, Reach::Everything),
        ("", None, Reach::Own("user-7".into())),
    ] {
        let fields = fields(Resource::Chats, text);
        let slice = Slice { namespace, labels: &labels, fields: &fields, limit: i64::try_from(LIMIT).unwrap() };
        for after in [None, Some(&middle)] {
            let mut connection = db.pool.acquire().await.unwrap();
            let mut moment = lists::moment(&mut connection).await.unwrap();
            let before = read(&mut moment, "chats").await;
            let found = lists::chats_updated(&mut moment, &reach, &slice, after).await.unwrap();
            let read = read(&mut moment, "chats").await - before;
            assert_eq!(found.len(), LIMIT, "{text:?} {namespace:?}");
            assert!(found.is_sorted_by(|a, b| a.chat.updated_at >= b.chat.updated_at));
            cheap(found.len(), read, &format!("{text:?} {namespace:?} {reach:?} {after:?}"));
        }
    }
}

#[tokio::test]
async fn what_a_user_reaches_is_found_without_looking_at_what_others_have() {
    let db = crowded().await;
    let (labels, reach) = (LabelSelector::default(), Reach::Own("user-7".into()));
    for namespace in [None, Some("team-07")] {
        for text in [
            "",
            "status.dirty=false",
            "spec.archived=true",
            "status.state=Error",
            "spec.agentRef.name=agent-3",
            "spec.owner=user-8",
        ] {
            let fields = fields(Resource::Chats, text);
            let slice = Slice { namespace, labels: &labels, fields: &fields, limit: i64::try_from(LIMIT).unwrap() };
            let mut connection = db.pool.acquire().await.unwrap();
            let mut moment = lists::moment(&mut connection).await.unwrap();
            let before = read(&mut moment, "chats").await;
            lists::chats(&mut moment, &reach, &slice, None).await.unwrap();
            let read = read(&mut moment, "chats").await - before;
            assert!(read <= 210, "{text:?}: {read} read, of 200 that are the user's");
        }
        let fields = FieldSelector::default();
        let slice = Slice { namespace, labels: &labels, fields: &fields, limit: i64::try_from(LIMIT).unwrap() };
        let mut connection = db.pool.acquire().await.unwrap();
        let mut moment = lists::moment(&mut connection).await.unwrap();
        let before = read(&mut moment, "agents").await;
        let agents = lists::agents(&mut moment, &reach, &slice, None).await.unwrap().len();
        cheap(agents, read(&mut moment, "agents").await - before, "agents");
        let before = (read(&mut moment, "agents").await, read(&mut moment, "snapshots").await);
        let snapshots = lists::snapshots(&mut moment, &reach, &slice, None).await.unwrap().len();
        let after = (read(&mut moment, "agents").await, read(&mut moment, "snapshots").await);
        assert_eq!((agents, snapshots), (20, LIMIT), "20 agents with 5 snapshots each");
        assert!(after.0 - before.0 <= 30 && after.1 - before.1 <= 110, "{before:?} {after:?}");
    }
}

#[tokio::test]
async fn agents_of_a_workspace_and_snapshots_of_an_agent_are_found_without_looking_at_others() {
    let db = crowded().await;
    let everything = Reach::Everything;
    for namespace in [None, Some("team-07")] {
        let (none, workspace) = (LabelSelector::default(), fields(Resource::Agents, "spec.workspace=ws-7"));
        let slice = Slice { namespace, labels: &none, fields: &workspace, limit: i64::try_from(LIMIT).unwrap() };
        let mut connection = db.pool.acquire().await.unwrap();
        let mut moment = lists::moment(&mut connection).await.unwrap();
        let before = read(&mut moment, "agents").await;
        let found = lists::agents(&mut moment, &everything, &slice, None).await.unwrap().len();
        cheap(found, read(&mut moment, "agents").await - before, "agents of a workspace");
        for (label, field) in [("moorline.dev/agent=agent-7", ""), ("", "spec.agentRef.name=agent-7")] {
            let (labels, fields) = (LabelSelector::parse(label).unwrap(), fields(Resource::AgentSnapshots, field));
            let slice = Slice { namespace, labels: &labels, fields: &fields, limit: i64::try_from(LIMIT).unwrap() };
            let before = read(&mut moment, "snapshots").await;
            let found = lists::snapshots(&mut moment, &everything, &slice, None).await.unwrap().len();
            let read = read(&mut moment, "snapshots").await - before;
            assert!(found >= 5 && read <= 110, "{found} found, {read} read, of 100 that are of agents of this name");
        }
    }
}
