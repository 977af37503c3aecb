//! A fresh, migrated database for every test, on one private server for all of them.
//!
//! The server is ephemeral and belongs to this process: whatever ends the tests, its guard stops it and removes its files.

use moorline::{
    clock,
    embedded::{self, Embedded},
    store,
};
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use std::{path::Path, sync::LazyLock, time::Duration};

/// What the databases are copied from: migrated, and closed to everybody, because a copy needs it to be unused.
const TEMPLATE: &str = "template_moorline";

/// A database that no other test has.
pub(crate) struct TestDb {
    /// Connections to it, with the session of a server of ours.
    pub(crate) pool: PgPool,
    /// For another process.
    pub(crate) url: String,
    /// For connections and pools of another kind.
    pub(crate) options: PgConnectOptions,
    /// Its name.
    pub(crate) name: String,
}

static SERVER: LazyLock<Embedded> = LazyLock::new(|| {
    // A thread, because a runtime cannot be started inside of a test's.
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    std::thread::spawn(move || runtime().block_on(start())).join().unwrap()
});

async fn start() -> Embedded {
    let settings = [("max_connections", "500"), ("fsync", "off"), ("full_page_writes", "off"), ("synchronous_commit", "off")];
    let server = embedded::start(embedded::Options {
        data_dir: std::env::temp_dir().join(format!("moorline-tests-{}", clock::system().new_id().simple())),
        pg_bin: None,
        ephemeral: true,
        settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
    })
    .await
    .unwrap();
    server.ensure_database(TEMPLATE).await.unwrap();
    let mut template = server.connect_options(TEMPLATE).connect().await.unwrap();
    store::MIGRATOR.run(&mut template).await.unwrap();
    store::log::make_partitions(&mut template, store::across::PARTITIONS_AHEAD).await.unwrap();
    template.close().await.unwrap();
    let mut postgres = server.connect_options("postgres").connect().await.unwrap();
    execute(&mut postgres, format!("ALTER DATABASE {TEMPLATE} WITH ALLOW_CONNECTIONS false")).await;
    postgres.close().await.unwrap();
    server
}

async fn execute(connection: &mut PgConnection, statement: String) {
    sqlx::query(AssertSqlSafe(statement)).execute(connection).await.unwrap();
}

/// A fresh database with our schema, whose event log begins an epoch of its own, as a server sees to when it starts.
pub(crate) async fn database() -> TestDb {
    let server = tokio::task::spawn_blocking(|| &*SERVER).await.unwrap();
    let name = format!("test_{}", clock::system().new_id().simple());
    let mut postgres = server.connect_options("postgres").connect().await.unwrap();
    execute(&mut postgres, format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE}")).await;
    postgres.close().await.unwrap();
    let options = server.connect_options(&name);
    let mut connection = options.connect().await.unwrap();
    store::log::bump(&mut connection, false).await.unwrap();
    connection.close().await.unwrap();
    TestDb { pool: patient(options.clone()), url: server.url(&name), options, name }
}

/// A test's own connections, which look at a database as it is: they do not begin the log anew. A machine that is busy with other tests
/// is no finding, so they wait longer than a server's would.
fn patient(options: PgConnectOptions) -> PgPool {
    PgPoolOptions::new()
        .max_connections(10)
        .acquire_timeout(Duration::from_mins(1))
        .after_connect(|connection, _| Box::pin(store::connect::plan_once(connection)))
        .connect_lazy_with(store::session(options))
}

/// Where PostgreSQL's programs are.
pub(crate) fn programs() -> &'static Path {
    SERVER.bin_dir()
}

/// A database with nothing in it.
pub(crate) async fn empty_database() -> TestDb {
    let server = tokio::task::spawn_blocking(|| &*SERVER).await.unwrap();
    let name = format!("empty_{}", clock::system().new_id().simple());
    let mut postgres = server.connect_options("postgres").connect().await.unwrap();
    execute(&mut postgres, format!("CREATE DATABASE {name}")).await;
    postgres.close().await.unwrap();
    let options = server.connect_options(&name);
    TestDb { pool: patient(options.clone()), url: server.url(&name), options, name }
}

impl TestDb {
    /// Nobody gets in any more, and whoever was in is out: to its clients the database is away.
    pub(crate) async fn lock_out(&self) {
        let mut postgres = self.options.clone().database("postgres").connect().await.unwrap();
        execute(&mut postgres, format!("ALTER DATABASE {} WITH ALLOW_CONNECTIONS false", self.name)).await;
        let out = format!("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '{}'", self.name);
        execute(&mut postgres, out).await;
        postgres.close().await.unwrap();
    }

    /// It is there again.
    pub(crate) async fn let_in(&self) {
        let mut postgres = self.options.clone().database("postgres").connect().await.unwrap();
        execute(&mut postgres, format!("ALTER DATABASE {} WITH ALLOW_CONNECTIONS true", self.name)).await;
        postgres.close().await.unwrap();
    }
}
