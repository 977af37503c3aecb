//! What an upgrade asks of the schema, without the binary of the version before: every earlier schema is brought to this one with what
//! was in it, and every statement of the version before is understood by this schema and gives what it gave.
//!
//! `tests/data/previous/statements.json` holds those statements; `scripts/previous-version note` makes it from the history. That both versions
//! really work side by side is `upgrades`' to show, where the history is there to build the one before.

use crate::support::{
    postgres::{TestDb, database, empty_database},
    until::until,
    world::World,
};
use moorline::{
    model::condition::ConditionType,
    store::{self, MIGRATOR, schema},
};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Column as _, Connection as _, Either, Executor as _, PgConnection, SqlSafeStr as _, TypeInfo as _};

/// What the version before asks.
fn previous() -> Value {
    let text = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/previous/statements.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// What the database says that a statement takes and gives, as `statements.json` has it.
async fn described(connection: &mut PgConnection, sql: &str) -> Result<(Value, Value), sqlx::Error> {
    let said = connection.describe(AssertSqlSafe(sql.to_owned()).into_sql_str()).await?;
    let takes = match said.parameters() {
        Some(Either::Left(types)) => types.iter().map(|of| of.name().to_owned()).collect(),
        Some(Either::Right(_)) | None => Vec::new(),
    };
    let gives = said.columns().iter().map(|column| format!("{}: {}", column.name(), column.type_info().name()));
    Ok((json!(takes), json!(gives.collect::<Vec<_>>())))
}

#[tokio::test]
async fn every_statement_of_the_version_before_means_on_this_schema_what_it_meant() {
    let db = database().await;
    let previous = previous();
    let statements = previous["statements"].as_array().unwrap();
    assert!(statements.len() > 100, "{} statements", statements.len());
    assert!(previous["schema"].as_i64().unwrap() <= schema::needed());
    let mut connection = db.pool.acquire().await.unwrap();
    let mut wrong = Vec::new();
    for statement in statements {
        let sql = statement["sql"].as_str().unwrap();
        match described(&mut connection, sql).await {
            Ok((takes, gives)) if takes == statement["takes"] && gives == statement["gives"] => {}
            Ok((takes, gives)) => wrong.push(format!(
                "{sql}\n    takes {takes}, took {}\n    gives {gives}, gave {}",
                statement["takes"], statement["gives"]
            )),
            Err(error) => wrong.push(format!("{sql}\n    {error}")),
        }
    }
    let version = &previous["commit"];
    assert!(
        wrong.is_empty(),
        "moorline of {version}, which runs while this one takes over, is not understood any more:\n{}",
        wrong.join("\n")
    );
}

/// An agent with a snapshot that a chat is pinned to, by the columns of the first versions, under a name of their own.
const RECORDS: &str = "
    INSERT INTO agents (namespace, id, name, rv, created_at, workspace, phase, seq, epoch, snapshot_revision)
    VALUES ('team-a', gen_random_uuid(), 'ws-STEP', log_rv(), now(), 'w', 'Complete', 1, 1, 1);
    INSERT INTO snapshots (namespace, agent_id, agent_name, name, revision, context_hash, manifest, resource_count, degraded_count, size_bytes, created_at, rv)
    SELECT namespace, id, name, name || '-1', 1, sha256(convert_to(name, 'UTF8')), '[]', 0, 0, 0, now(), rv FROM agents WHERE name = 'ws-STEP';
    UPDATE agents a SET latest_snapshot_id = s.id FROM snapshots s WHERE s.agent_id = a.id AND a.name = 'ws-STEP';
    INSERT INTO chats (namespace, id, name, rv, owner, agent, root_id, created_by, created_at, updated_at, snapshot_id, pin_cause, pinned_at)
    SELECT a.namespace, a.id, 'chat-STEP', a.rv, 'alice', a.name, a.id, 'alice', now(), now(), s.id, 'Hydrated', now()
    FROM agents a JOIN snapshots s ON s.agent_id = a.id WHERE a.name = 'ws-STEP';
    INSERT INTO events (namespace, rv, seq, kind, subject, name, chat_id, chat_seq, payload)
    SELECT namespace, rv, 1, 'ChatCreated', id, name, id, 1, '{}' FROM chats WHERE name = 'chat-STEP'";

/// The first version of the schema that has a place for each of [`RECORDS`].
const WHOLE: i64 = 5;

/// A database as a version with this schema left it.
async fn left_by(step: i64) -> TestDb {
    let db = empty_database().await;
    let mut connection = PgConnection::connect_with(&db.options).await.unwrap();
    MIGRATOR.run_to(step, &mut connection).await.unwrap();
    if step >= WHOLE {
        connection
            .execute(AssertSqlSafe(format!("BEGIN; {}; COMMIT", RECORDS.replace("STEP", &step.to_string()))))
            .await
            .unwrap();
    }
    connection.close().await.unwrap();
    db
}

#[tokio::test]
async fn a_database_of_each_earlier_schema_is_brought_to_this_one_with_what_is_in_it_and_goes_on() {
    let last = schema::needed();
    for migration in MIGRATOR.iter().filter(|migration| migration.version < last) {
        let step = migration.version;
        let db = left_by(step).await;
        let refused = schema::check(&mut db.pool.acquire().await.unwrap()).await.unwrap_err().to_string();
        assert!(refused.contains("moorline migrate"), "{step}: {refused}");
        let migrated = schema::migrate(&store::migrating(db.options.clone()), false).await.unwrap();
        assert_eq!((migrated.from, migrated.to), (Some(step), last));
        schema::check(&mut db.pool.acquire().await.unwrap()).await.unwrap();
        if step >= WHOLE {
            let world = World::new(db.pool.clone());
            world.settle().await;
            let chat = world.look(&format!("chat-{step}")).await.chat;
            assert!(chat.pin.is_some() && chat.dirty_since.is_none(), "{step}: {chat:?}");
            assert_eq!(chat.conditions.get(ConditionType::Ready).expect("Ready").verdict.reason, "Pinned", "{step}");
        }
    }
}

#[tokio::test]
async fn a_migration_that_falls_to_a_deadlock_with_those_who_write_begins_again() {
    let db = left_by(11).await;
    let waits = async |mode: &str| {
        until(&format!("somebody waits for a {mode} of chats"), || async {
            let found: bool = sqlx::query_scalar(
                "SELECT EXISTS (SELECT FROM pg_locks l WHERE l.relation = 'chats'::regclass AND l.mode = $1 AND NOT l.granted
                                AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))",
            )
            .bind(mode)
            .fetch_one(&db.pool)
            .await
            .unwrap();
            found.then_some(())
        })
        .await;
    };
    let (mut holder, mut writer) = (db.pool.acquire().await.unwrap(), db.pool.acquire().await.unwrap());
    let nothing = "UPDATE chats SET title = title WHERE false";
    holder.execute("BEGIN; SET LOCAL idle_in_transaction_session_timeout = 0").await.unwrap();
    holder.execute(nothing).await.unwrap();
    // It reads, and writes later: it has a lock that the migration's second step must have for itself.
    writer.execute("BEGIN; SET LOCAL deadlock_timeout = '1h'; SET LOCAL statement_timeout = 0; SELECT FROM chats").await.unwrap();
    let meanwhile = async {
        waits("ShareLock").await;
        let writing = async {
            writer.execute(nothing).await.unwrap();
            writer.execute("COMMIT").await.unwrap();
        };
        let letting_go = async {
            waits("RowExclusiveLock").await;
            holder.execute("COMMIT").await.unwrap();
        };
        tokio::join!(writing, letting_go);
    };
    let migrating = store::migrating(db.options.clone());
    let (migrated, ()) = tokio::join!(schema::migrate(&migrating, false), meanwhile);
    assert_eq!(migrated.expect("it begins again").from, Some(11));
}
