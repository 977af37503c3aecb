//! A clock that jumps. The product reads time in one place (`clock::Source`; clippy.toml forbids all others), so a server with
//! this clock in this process is one on a machine whose clock jumps: for ids, for the times that records, conditions and events show
//! (`dirtySince` among them), and for how old retention takes them to be. When what is set aside is tried again (`retry_at`) it does
//! not decide: the database's clock does, which all replicas share. What this does not cover: timers of the runtime and of the
//! kernel, which are monotonic, and PostgreSQL's own clock.

use crate::support::{
    api::{Api, Caller, file, settings, settled},
    postgres::database,
    world::World,
};
use jiff::{SignedDuration, Timestamp};
use moorline::{
    clock::{self, Source},
    config,
    reconcile::Reconciler,
    server::Server,
};
use serde_json::json;
use sqlx::{Executor as _, postgres::PgConnectOptions};
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

/// The machine's clock, so many seconds off.
#[derive(Debug, Default)]
pub struct Jumping(AtomicI64);

impl Jumping {
    /// From now on it is so many seconds ahead, or behind.
    pub fn jump(&self, seconds: i64) {
        self.0.store(seconds, Ordering::SeqCst);
    }
}

impl Source for Jumping {
    fn now(&self) -> Timestamp {
        clock::system().now() + SignedDuration::from_secs(self.0.load(Ordering::SeqCst))
    }

    fn new_id(&self) -> Uuid {
        let random: [u8; 10] = clock::system().new_id().as_bytes()[6..].try_into().unwrap();
        let now = u64::try_from(self.now().as_millisecond()).unwrap();
        uuid::Builder::from_unix_timestamp_millis(now, &random).into_uuid()
    }
}

/// A server of ours in this process whose clock jumps. It stops with this.
pub struct Adrift {
    pub clock: Arc<Jumping>,
    /// `host:port`.
    pub address: String,
    _stop: DropGuard,
}

impl Adrift {
    /// One on a database.
    pub async fn start(config: config::Server, options: PgConnectOptions) -> Self {
        let clock = Arc::new(Jumping::default());
        let server = Server::bind(config, options, clock.clone()).await.unwrap();
        let address = server.address().to_string();
        let stop = CancellationToken::new();
        tokio::spawn(server.run(stop.clone()));
        Self { clock, address, _stop: stop.drop_guard() }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_whose_clock_jumps_by_days_beside_one_with_a_good_clock_changes_no_outcome() {
    let db = database().await;
    let adrift = Adrift::start(settings(), db.options.clone()).await;
    let well = Api::start(&db).await;
    let api = Caller::new(&format!("http://{}", adrift.address));
    let run = api.running_agent("ws").await;
    api.pushed(&run, 0x100, json!([file("AGENTS.md", "0")])).await;
    api.create_chat("fix", json!({"agentRef": {"name": "ws"}})).await;
    let day = 86_400;
    let (mut seen, mut told) = (Vec::new(), vec!["ChatCreated", "ContextHydrated"]);
    for (n, seconds) in [day, -day, 6 * day, -3_600, -30 * day, 3 * day, 0].into_iter().enumerate() {
        adrift.clock.jump(seconds);
        // What either of them does is seen by both: a push here, a refresh there, and a chat of each.
        let seq = 0x101 + i64::try_from(n).unwrap();
        let hash = api.pushed(&run, seq, json!([file("AGENTS.md", &seq.to_string())])).await["snapshot"]["hash"].clone();
        settled(&db).await;
        let drifted = well.chat("fix").await;
        assert_eq!(drifted["status"]["dirty"], true, "{seconds} s off: {drifted}");
        let asking = if n % 2 == 0 { &api } else { &*well };
        let fresh = asking.put("chats/fix/context", &json!({"token": format!("t{n}")})).await.expect(200);
        assert_eq!((&fresh["status"]["pinned"]["hash"], &fresh["status"]["dirty"]), (&hash, &json!(false)), "{seconds} s off");
        for (who, caller) in [("adrift", &api), ("well", &*well)] {
            let name = format!("{who}-{n}");
            let chat = caller.create_chat(&name, json!({"agentRef": {"name": "ws"}})).await;
            assert_eq!(chat["status"]["pinned"]["hash"], hash, "{seconds} s off: {chat}");
            seen.push(name);
        }
        told.extend(["ContextDrifted", "ContextRefreshed"]);
    }
    settled(&db).await;
    let rows: Vec<(i64, String)> =
        sqlx::query_as("SELECT chat_seq::bigint, kind FROM events WHERE chat_id IS NOT NULL AND name = 'fix' ORDER BY rv, seq")
            .fetch_all(&db.pool)
            .await
            .unwrap();
    let (numbers, kinds): (Vec<i64>, Vec<String>) = rows.into_iter().unzip();
    assert_eq!(kinds, told);
    assert_eq!(numbers, (1..=i64::try_from(told.len()).unwrap()).collect::<Vec<_>>());
    // A list has everybody, whenever they think that they were made.
    let list = well.get("chats").await.expect(200);
    let names: Vec<&str> =
        list["items"].as_array().unwrap().iter().map(|chat| chat["metadata"]["name"].as_str().unwrap()).collect();
    assert!(seen.iter().all(|name| names.contains(&name.as_str())), "{names:?}");
    assert_eq!(names.len(), seen.len() + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_replica_sets_aside_whose_clock_is_days_off_is_tried_by_the_others_when_its_wait_is_over_and_not_before() {
    let day = 86_400;
    for seconds in [6 * day, -6 * day] {
        let db = database().await;
        let well = World::new(db.pool.clone());
        let clock = Arc::new(Jumping::default());
        clock.jump(seconds);
        let adrift = World { reconciler: Reconciler::new(db.pool.clone(), clock), ..well.clone() };
        for table in ["chats", "agents"] {
            let refuse = format!("ALTER TABLE {table} ADD CONSTRAINT refused CHECK (converged_revision = 0)");
            db.pool.execute(sqlx::AssertSqlSafe(refuse)).await.unwrap();
        }
        well.agent("ws").running().await;
        well.chat("fix").create().await;
        // How long they wait yet, by the database's clock: never more than the second wait, nor since long ago.
        let waits = async || -> Vec<(String, i32, Option<f64>)> {
            let left = "SELECT name, attempts, extract(epoch FROM retry_at - now())::float8 FROM chats
                        UNION ALL SELECT name, attempts, extract(epoch FROM retry_at - now())::float8 FROM agents ORDER BY name";
            sqlx::query_as(left).fetch_all(&db.pool).await.unwrap()
        };
        for (failures, (who, replica, other)) in (1..).zip([("adrift", &adrift, &well), ("well", &well, &adrift)]) {
            assert_eq!(replica.reconciler.converge_due("team-a").await.unwrap().poisoned, 1);
            assert_eq!(replica.reconciler.fan_out("team-a", Uuid::nil()).await.unwrap().map(|told| told.batch.poisoned), Some(1));
            for (name, attempts, left) in waits().await {
                assert_eq!(attempts, failures, "{name}");
                let left = left.expect("a time");
                assert!(left > -60.0 && left <= 2.0, "{seconds} s off: {who} sets {name} aside for {left} s");
            }
            well.retry_in(3_600.0).await;
            for early in [other, replica] {
                let chats = early.reconciler.converge_due("team-a").await.unwrap().seen;
                let agent = early.reconciler.fan_out("team-a", Uuid::nil()).await.unwrap();
                assert_eq!((chats, agent), (0, None), "{seconds} s off, after {who}: their time has not come");
            }
            well.retry_in(-3_600.0).await;
        }
        assert_eq!(adrift.reconciler.converge_due("team-a").await.unwrap().poisoned, 1);
        assert_eq!(adrift.reconciler.fan_out("team-a", Uuid::nil()).await.unwrap().map(|told| told.batch.poisoned), Some(1));
        for table in ["chats", "agents"] {
            let mend = format!("ALTER TABLE {table} DROP CONSTRAINT refused");
            db.pool.execute(sqlx::AssertSqlSafe(mend)).await.unwrap();
        }
        // A whole replica looks which namespaces have work before it claims any.
        let whole = Adrift::start(settings(), db.options.clone()).await;
        whole.clock.jump(seconds);
        settled(&db).await;
        assert!(waits().await.iter().all(|(_, attempts, _)| *attempts == 0), "{seconds} s off: {:?}", waits().await);
    }
}
