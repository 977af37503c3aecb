//! How PostgreSQL finds what the program asks for, in a database that looks like a large installation: every statement by an index,
//! with the plan that it keeps for any values; the hot ones by the index that is made for them; and a list by each filter by its.
//!
//! The statements are the program's own, from `.sqlx/`, or are run by the program's own functions. `benches/measures` looks at
//! the same on 1,000,000 chats.

pub mod crowd;
pub mod explain;
mod hot;
pub mod statements;

use crate::support::{
    batch,
    postgres::{TestDb, database},
    world::{World, file},
};
use explain::{Access, Catalog, generic_plan, plan_of_a_batch};
use moorline::{
    clock,
    http::{page::selectable, status::Resource},
    model::{
        access::Reach,
        event::EventKind,
        object::Key,
        selector::{FieldSelector, LabelSelector},
    },
    reconcile::Reconciler,
    store::{
        self,
        converge::{self, ClassEvent, Concerned, Lane, Outcomes},
        events::{Cursor, Read, read_after},
        lists::{self, Slice},
        log::TxLog,
    },
};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::OnceCell;
use uuid::Uuid;

/// One for all of these tests, which only read: what is made is large.
async fn crowd() -> PgConnection {
    static DB: OnceCell<TestDb> = OnceCell::const_new();
    let db = DB
        .get_or_init(|| async {
            let db = database().await;
            let mut connection = PgConnection::connect_with(&db.options).await.unwrap();
            crowd::make(&mut connection, crowd::size(crowd::CHATS).unwrap()).await.unwrap();
            connection.close().await.unwrap();
            db
        })
        .await;
    PgConnection::connect_with(&db.options).await.unwrap()
}

#[tokio::test]
async fn every_statement_of_the_program_finds_its_rows_by_an_index_whatever_its_values_are() {
    let mut connection = crowd().await;
    let catalog = Catalog::read(&mut connection).await.unwrap();
    let (mut looked, mut excused) = (0, BTreeSet::new());
    let mut whole = Vec::new();
    for statement in statements::all().unwrap() {
        if statement.is_planned_anew() || !statement.has_a_plan() {
            continue;
        }
        looked += 1;
        let accesses = catalog.accesses(&mut connection, &statement).await.unwrap();
        for Access { table, index, is_whole: _ } in accesses.into_iter().filter(|access| access.is_whole) {
            let line = statement.line();
            let excuse = hot::MAY_READ_A_TABLE.iter().position(|(words, of, _)| line.contains(words) && *of == table);
            match excuse {
                Some(excuse) => drop(excused.insert(excuse)),
                None => whole.push(format!("all of {table} by {index:?}: {line}")),
            }
        }
    }
    assert!(looked > 100, "{looked} statements");
    assert!(
        whole.is_empty(),
        "{} statements read a large table, or all that a namespace has of it:\n{}",
        whole.len(),
        whole.join("\n")
    );
    let unused: Vec<_> =
        hot::MAY_READ_A_TABLE.iter().enumerate().filter(|(n, _)| !excused.contains(n)).map(|(_, one)| one.0).collect();
    assert!(unused.is_empty(), "no statement needs this excuse any more: {unused:?}");
}

#[tokio::test]
async fn hot_statements_use_the_indexes_that_are_made_for_them() {
    let mut connection = crowd().await;
    let catalog = Catalog::read(&mut connection).await.unwrap();
    let all = statements::all().unwrap();
    let mut wrong = Vec::new();
    for (name, words, wanted) in hot::HOT {
        let found: Vec<_> = all.iter().filter(|statement| words.iter().all(|words| statement.line().contains(words))).collect();
        assert_eq!(found.len(), 1, "{name}: the words {words:?} are of {} statements", found.len());
        let accesses = catalog.accesses(&mut connection, found[0]).await.unwrap();
        let used: BTreeSet<String> = accesses.into_iter().map(|access| access.index.unwrap_or(access.table)).collect();
        let known = used.iter().all(|index| wanted.iter().any(|wanted| wanted.split('|').any(|wanted| wanted == index)));
        let all_used = wanted.iter().all(|wanted| wanted.split('|').any(|wanted| used.contains(wanted)));
        if !known || !all_used {
            wrong.push(format!("{name}: {used:?}, where it should use {wanted:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn no_statement_compares_each_row_of_a_batch_with_each_of_another() {
    let mut connection = crowd().await;
    let mut found = Vec::new();
    for statement in statements::all().unwrap() {
        if statement.is_planned_anew() || !statement.has_a_plan() {
            continue;
        }
        for (of, plan) in [
            ("any values", generic_plan(&mut connection, &statement).await.unwrap()),
            ("a thousand", plan_of_a_batch(&mut connection, &statement).await.unwrap()),
        ] {
            found.extend(explain::compares_each_with_each(&plan).iter().map(|by| format!("{of}, {by}: {}", statement.line())));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// How often this transaction has used each index of chats so far.
async fn scans(connection: &mut PgConnection) -> BTreeMap<String, i64> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT c.relname::text, pg_stat_get_xact_numscans(c.oid) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
         WHERE i.indrelid = 'chats'::regclass
         UNION ALL SELECT 'all of chats', pg_stat_get_xact_numscans('chats'::regclass)",
    )
    .fetch_all(connection)
    .await
    .unwrap();
    rows.into_iter().collect()
}

#[tokio::test]
async fn a_list_by_each_filter_uses_the_index_of_the_filter() {
    let mut connection = crowd().await;
    let labels = LabelSelector::default();
    let mut wrong = Vec::new();
    for (text, namespace, changed_last, indexes) in hot::LISTS {
        let fields = FieldSelector::parse(text, selectable(Resource::Chats)).unwrap();
        let slice = Slice { namespace: *namespace, labels: &labels, fields: &fields, limit: 50 };
        for after in [None, Some(Key::new(namespace.unwrap_or("team-09"), "chat-5"))] {
            let mut moment = lists::moment(&mut connection).await.unwrap();
            let before = scans(&mut moment).await;
            let found = if *changed_last {
                lists::chats_updated(&mut moment, &Reach::Everything, &slice, None).await.unwrap().len()
            } else {
                lists::chats(&mut moment, &Reach::Everything, &slice, after.as_ref()).await.unwrap().len()
            };
            let used = scans(&mut moment).await.into_iter().filter(|(name, n)| before.get(name).is_none_or(|before| n > before));
            // Parents are looked up by their ids.
            let used: BTreeSet<String> = used.map(|(name, _)| name).filter(|name| name != "chats_pkey").collect();
            let known: BTreeSet<String> = indexes.iter().map(|name| (*name).to_owned()).collect();
            if used.is_empty() || !used.is_subset(&known) {
                wrong.push(format!("{text:?} of {namespace:?} after {after:?} ({found} found) uses {used:?}, not {known:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// How often this transaction has used each index of events so far, on whichever day, and how often it read all of a day.
async fn scans_of_events(connection: &mut PgConnection) -> BTreeMap<String, i64> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT parent.relname::text, sum(pg_stat_get_xact_numscans(i.inhrelid))::bigint
         FROM pg_inherits i JOIN pg_class parent ON parent.oid = i.inhparent
         WHERE i.inhparent = 'events'::regclass
            OR i.inhparent IN (SELECT x.indexrelid FROM pg_index x WHERE x.indrelid = 'events'::regclass)
         GROUP BY parent.relname",
    )
    .fetch_all(connection)
    .await
    .unwrap();
    rows.into_iter().filter(|(_, scans)| *scans > 0).collect()
}

/// What a function of the database does is in no plan of the statement that calls it.
#[tokio::test]
async fn the_tail_finds_what_is_new_by_the_index_of_versions_whatever_plan_is_kept() {
    let mut connection = crowd().await;
    for mode in ["force_generic_plan", "force_custom_plan"] {
        let mut moment = connection.begin().await.unwrap();
        moment.execute(AssertSqlSafe(format!("SET LOCAL plan_cache_mode = {mode}"))).await.unwrap();
        moment.execute("UPDATE log_state SET floor = 0").await.unwrap(); // the crowd's events are of before its epoch
        let Read::Batch(batch) = read_after(&mut moment, Cursor::START, 100).await.unwrap() else { panic!("expired") };
        assert_eq!(batch.events.len(), 100, "{mode}");
        let used = scans_of_events(&mut moment).await;
        assert_eq!(used.keys().collect::<Vec<_>>(), ["events_version"], "{mode}: {used:?}");
        moment.rollback().await.unwrap();
    }
}

/// How many rows of chats, and how many entries of their indexes, this session has read. What PostgreSQL gives for a transaction has in it
/// what the session has not yet reported of those before.
async fn reads_of_chats(connection: &mut PgConnection) -> (i64, i64) {
    let sql = "SELECT t.seq_tup_read + coalesce(t.idx_tup_fetch, 0),
                      (SELECT sum(pg_stat_get_xact_tuples_returned(i.indexrelid))::bigint FROM pg_index i WHERE i.indrelid = t.relid)
               FROM pg_stat_xact_user_tables t WHERE t.relname = 'chats'";
    sqlx::query_as(sql).fetch_one(connection).await.unwrap()
}

#[tokio::test]
async fn news_of_an_agent_with_many_archived_chats_is_told_to_those_that_are_not_and_reads_no_others() {
    const LIVE: usize = 100;
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut agent = world.agent("ws-1").running().await;
    agent.push(vec![file("AGENTS.md", "one")]).await;
    world.settle().await;
    // So many, and 100 of them live, between the others. All at once: in less than a statement may take only where they are few.
    let chats = crowd::size(20_000).unwrap();
    let mut connection = PgConnection::connect_with(&db.options).await.unwrap();
    connection.execute("SET statement_timeout = 0").await.unwrap();
    connection
        .execute(AssertSqlSafe(format!(
            "INSERT INTO chats (namespace, id, name, rv, owner, agent, root_id, created_by, created_at, updated_at, archived,
                                inherited_archived, snapshot_id, pin_cause, pinned_at, converged_revision)
             SELECT a.namespace, x.id, 'chat-' || x.n, log_rv(), 'o', a.name, x.id, 'x', now(), now(), x.n % ({chats} / 100) > 0 AND x.n % 2 = 0,
                    x.n % 2 = 1, a.latest_snapshot_id, 'Hydrated', now(), 1
             FROM agents a, (SELECT n, gen_random_uuid() AS id FROM generate_series(1, {chats}) n) x",
        )))
        .await
        .unwrap();
    connection.execute("VACUUM ANALYZE chats").await.unwrap();
    connection.close().await.unwrap();
    agent.push(vec![file("AGENTS.md", "two")]).await;
    let namespace = world.key("ws-1").namespace;

    // What a page of the lap reads, counted by PostgreSQL, whatever plan it has.
    for mode in ["force_custom_plan", "force_generic_plan"] {
        let mut connection = db.pool.acquire().await.unwrap();
        let mut tx = connection.begin().await.unwrap();
        tx.execute(sqlx::AssertSqlSafe(format!("SET LOCAL plan_cache_mode = {mode}"))).await.unwrap();
        let page = Concerned { agent: "ws-1", workspace: None, former: &[], after: Uuid::nil(), limit: 1_000 };
        let before = reads_of_chats(&mut tx).await;
        let rows = converge::load_concerned(&mut tx, &namespace, &page).await.unwrap().len();
        let after = reads_of_chats(&mut tx).await;
        let (read, entries) = (after.0 - before.0, after.1 - before.1);
        assert_eq!(rows, LIVE, "{mode}");
        let bound = i64::try_from(LIVE).unwrap();
        assert!(
            read <= 2 * bound && entries <= 3 * bound,
            "{mode}: {read} rows and {entries} entries of indexes, for {LIVE} chats"
        );
    }

    // And the lap is one page.
    let reconciler = Reconciler::new(db.pool.clone(), clock::system());
    let mut seen = Vec::new();
    while let Some(told) = reconciler.fan_out(&namespace, Uuid::nil()).await.unwrap() {
        seen.push(told.batch.seen);
    }
    assert_eq!(seen, [LIVE + 1], "one transaction, of the live ones and the agent");
    let dirty: i64 =
        sqlx::query_scalar("SELECT count(*) FROM chats WHERE dirty_since IS NOT NULL").fetch_one(&db.pool).await.unwrap();
    assert_eq!(usize::try_from(dirty).unwrap(), LIVE);

    // One that comes back is due by itself, and told what it missed.
    let shelved: String = sqlx::query_scalar("SELECT name FROM chats WHERE archived LIMIT 1").fetch_one(&db.pool).await.unwrap();
    assert_eq!(world.look(&shelved).await.chat.dirty_since, None);
    world.update_chat(&shelved, |spec, _| spec.archived = false).await.unwrap();
    world.settle().await;
    assert!(world.look(&shelved).await.chat.dirty_since.is_some(), "{shelved}");
}

/// Of a namespace that is new since the statistics were made PostgreSQL thinks that it has one chat, or none.
#[tokio::test]
async fn chats_of_a_namespace_that_statistics_do_not_know_are_read_and_written_where_they_stand() {
    const CHATS: i64 = 3_000;
    const BATCH: usize = 1_000;
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut connection = PgConnection::connect_with(&db.options).await.unwrap();
    let chats = |namespace: &str, count: i64| {
        AssertSqlSafe(format!(
            "INSERT INTO chats (namespace, id, name, rv, owner, agent, root_id, created_by, created_at, updated_at)
             SELECT {namespace}, x.id, 'chat-' || x.n, log_rv(), 'o', 'ws-1', x.id, 'x', now(), now()
             FROM (SELECT n, gen_random_uuid() AS id FROM generate_series(1, {count}) n) x"
        ))
    };
    connection.execute("ALTER TABLE chats SET (autovacuum_enabled = off)").await.unwrap();
    connection.execute(chats("'other-' || n % 10", 20 * CHATS)).await.unwrap();
    connection.execute("ANALYZE chats").await.unwrap();
    connection.execute(chats(&format!("'{}'", world.namespace), CHATS)).await.unwrap();

    let mut tx = connection.begin().await.unwrap();
    let ids: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM chats WHERE namespace = $1 ORDER BY id LIMIT $2")
        .bind(&world.namespace)
        .bind(i64::try_from(BATCH).unwrap())
        .fetch_all(&mut *tx)
        .await
        .unwrap();
    let locked = store::chats::lock_all(&mut tx, &world.namespace, &ids).await.unwrap();
    let read = async |tx: &mut PgConnection| -> i64 {
        let sql = "SELECT seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_user_tables WHERE relname = 'chats'";
        sqlx::query_scalar(sql).fetch_one(tx).await.unwrap()
    };
    // All of so small a table may be gone through once for so many, and not for each.
    let all = 21 * CHATS;
    let before = read(&mut tx).await;
    let rows = converge::load_locked(&mut tx, &world.namespace, &locked).await.unwrap();
    assert!(read(&mut tx).await - before <= all, "by an index or one by one, reading");
    let loaded = batch::chats(rows);
    let event = ClassEvent { kind: EventKind::ChatUpdated, agent: None, payload: serde_json::json!({}) };
    let outcomes = Outcomes { classes: vec![batch::keeps(Some(event))], chats: ids.iter().map(|id| (*id, 0)).collect() };
    let mut log = TxLog::open(&mut tx).await.unwrap();
    let now = world.clock.now();
    let before = read(&mut tx).await;
    converge::record(&mut tx, &world.namespace, &outcomes, &loaded, Lane::Fanout, now, &mut log).await.unwrap();
    assert!(read(&mut tx).await - before <= all, "by an index or one by one, writing");
    let told: i64 =
        sqlx::query_scalar("SELECT count(*) FROM chats c JOIN events e ON e.chat_id = c.id AND e.chat_seq = c.event_seq")
            .fetch_one(&mut *tx)
            .await
            .unwrap();
    assert_eq!(usize::try_from(told).unwrap(), BATCH, "each of them, with its event");
}
