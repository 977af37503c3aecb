//! What the measures of one run share: a PostgreSQL, how large everything is to be, and one database of 1,000,000 chats.

use super::seed;
use anyhow::Context as _;
use moorline::{
    embedded::{self, Embedded},
    store,
};
use sqlx::{AssertSqlSafe, Executor as _, PgPool};
use std::path::PathBuf;
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// How large everything is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// As the goals say.
    Full,
    /// For every day: `QUICK=1`.
    Quick,
    /// To see that a measure works: `TINY=1`. Its figures mean nothing.
    Tiny,
}

/// What the measures of one run share.
pub struct Setting {
    /// How large everything is to be.
    pub size: Size,
    /// The database server: fsync and all else as PostgreSQL has it, but for what [`settings`] says.
    pub server: Embedded,
    directory: TempDir,
    million: OnceCell<()>,
    events: OnceCell<()>,
}

/// Not in any ratio's favour: both sides of each run on this server.
fn settings() -> Vec<(String, String)> {
    let settings = [
        // PostgreSQL's own, where ours for a laptop is smaller.
        ("shared_buffers", "128MB"),
        ("max_connections", "100"),
        // When a transaction committed, and what each statement cost.
        ("track_commit_timestamp", "on"),
        ("shared_preload_libraries", "pg_stat_statements"),
        // So that a checkpoint falls on neither side of a ratio, as far as may be.
        ("max_wal_size", "8GB"),
        ("checkpoint_timeout", "30min"),
    ];
    settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

impl Setting {
    /// Starts the server.
    pub async fn start(size: Size) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("moorline-bench-").tempdir()?;
        let data_dir = directory.path().join("data");
        let options = embedded::Options { data_dir, pg_bin: None, ephemeral: true, settings: settings() };
        let server = embedded::start(options).await?;
        Ok(Self { size, server, directory, million: OnceCell::new(), events: OnceCell::new() })
    }

    /// Stops it.
    pub async fn stop(self) -> anyhow::Result<()> {
        Ok(self.server.stop().await?)
    }

    /// One of three, by how large everything is to be.
    pub fn of<T>(&self, full: T, quick: T, tiny: T) -> T {
        match self.size {
            Size::Full => full,
            Size::Quick => quick,
            Size::Tiny => tiny,
        }
    }

    /// A file of this run, below a directory that goes with it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A database of this name, made and migrated if it is not there, with a pool of 8.
    pub async fn database(&self, name: &str) -> anyhow::Result<PgPool> {
        self.server.ensure_database(name).await?;
        let pool = self.pool(name);
        store::schema::migrate(&pool, false).await?;
        pool.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements").await?;
        Ok(pool)
    }

    /// A pool of 8 on a database that is there.
    pub fn pool(&self, database: &str) -> PgPool {
        store::pool(self.server.connect_options(database), 8)
    }

    /// Lets a database go.
    pub async fn drop_database(&self, name: &str) -> anyhow::Result<()> {
        let admin = PgPool::connect_with(self.server.connect_options("postgres")).await?;
        admin.execute(AssertSqlSafe(format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))).await?;
        admin.close().await;
        Ok(())
    }

    /// How many chats [`Self::million`] has.
    pub fn million_chats(&self) -> i64 {
        self.of(1_000_000, 100_000, 4_000)
    }

    /// How many rows of events [`Self::million_with_events`] has.
    pub fn million_events(&self) -> i64 {
        self.of(10_000_000, 1_000_000, 20_000)
    }

    /// The database of 1,000,000 chats that all measures share ([`seed::chats`] says what is in it), made by the first that asks.
    /// It is called [`MILLION`]. Whoever adds to it uses a namespace of its own, or removes it again.
    pub async fn million(&self) -> anyhow::Result<PgPool> {
        let pool = self.database(MILLION).await?;
        let make = async || seed::chats(&pool, self.million_chats()).await.context("making 1,000,000 chats");
        self.million.get_or_try_init(make).await?;
        Ok(pool)
    }

    /// The same with 10,000,000 rows of events.
    pub async fn million_with_events(&self) -> anyhow::Result<PgPool> {
        let pool = self.million().await?;
        let make = async || seed::events(&pool, self.million_events()).await.context("making 10,000,000 events");
        self.events.get_or_try_init(make).await?;
        Ok(pool)
    }
}

/// The name of the database that all measures share.
pub const MILLION: &str = "million";
