//! Versions, and how far the log may be read. The rules, each with the failure that forced it, are in docs/event-log.md.

use super::{
    error::{Named, StoreError},
    events::Cursor,
};
use jiff::{Timestamp, civil::Date};
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;
use std::time::Duration;

/// SQLSTATE with which `log_rv()` says that the log belongs to another timeline.
pub const FOREIGN: &str = "ML001";

/// The log of one transaction: its version, and how many events it has written.
#[derive(Debug)]
pub struct TxLog {
    /// The version of the transaction.
    pub rv: i64,
    /// Events written so far.
    pub written: i32,
}

impl TxLog {
    /// Takes the transaction's version. Call it after the locks are held and before the first write.
    pub async fn open(tx: &mut PgConnection) -> Result<Self, StoreError> {
        const NAME: &str = "db.log.rv";
        let rv = sqlx::query_scalar!(r#"SELECT log_rv() AS "rv!""#).fetch_one(tx).named(NAME).await?;
        Ok(Self { rv, written: 0 })
    }
}

/// Everything below it is complete: the version of the oldest transaction still open. Fetch it in a statement *before* the
/// rows.
pub async fn horizon(connection: &mut PgConnection) -> Result<i64, StoreError> {
    const NAME: &str = "db.log.horizon";
    sqlx::query_scalar!(
        r#"SELECT epoch << 44 | pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS "horizon!" FROM log_state"#
    )
    .fetch_one(connection)
    .named(NAME)
    .await
}

/// How far readers of the log are behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lag {
    /// The id of the oldest transaction that is open, in any database of the cluster.
    pub oldest_open: i64,
    /// How many ids have been given out from that one on.
    pub transactions: i64,
    /// How long ago the oldest event that is committed and cannot be read yet was written; nothing when all can be.
    pub time: Duration,
}

/// How far readers of the log are behind.
pub async fn lag(connection: &mut PgConnection) -> Result<Lag, StoreError> {
    const NAME: &str = "db.log.lag";
    let row = sqlx::query!(
        r#"SELECT epoch << 44 | pg_snapshot_xmin(s.now)::text::bigint AS "horizon!",
                  pg_snapshot_xmin(s.now)::text::bigint AS "oldest_open!", pg_snapshot_xmax(s.now)::text::bigint AS "next!"
           FROM log_state, (SELECT pg_current_snapshot() AS now) s"#
    )
    .fetch_one(&mut *connection)
    .named(NAME)
    .await?;
    let transactions = row.next - row.oldest_open;
    let held = if transactions > 0 { unread(connection, row.horizon).await? } else { None };
    Ok(Lag { oldest_open: row.oldest_open, transactions, time: held.unwrap_or_default() })
}

/// How long ago the oldest event from `horizon` on was written.
async fn unread(connection: &mut PgConnection, horizon: i64) -> Result<Option<Duration>, StoreError> {
    const NAME: &str = "db.log.unread";
    let seconds = sqlx::query_scalar!(
        r#"SELECT extract(epoch FROM clock_timestamp() - e.created_at)::double precision AS "seconds!"
           FROM events e WHERE e.rv >= $1 ORDER BY e.rv, e.seq LIMIT 1"#,
        horizon
    )
    .fetch_optional(connection)
    .named(NAME)
    .await?;
    Ok(seconds.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default()))
}

/// Who has a transaction open. What our role may not see of others' sessions is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The session; none of a prepared transaction, which has none.
    pub pid: Option<i32>,
    /// Of a prepared transaction: what it is known by.
    pub prepared: Option<String>,
    /// What the session calls itself.
    pub application_name: Option<String>,
    /// In which database.
    pub database: Option<String>,
    /// What the session does: `active`, `idle in transaction`.
    pub state: Option<String>,
    /// How long the transaction has been open.
    pub age_seconds: Option<i64>,
    /// When its last statement began.
    pub query_start: Option<String>,
}

/// Who has the transaction of this id open; none when nobody that can be seen.
pub async fn holder(connection: &mut PgConnection, xid: i64) -> Result<Option<Holder>, StoreError> {
    const NAME: &str = "db.log.holder";
    sqlx::query_as!(
        Holder,
        r#"SELECT a.pid, NULL AS prepared, a.application_name, a.datname::text AS database, a.state,
                  extract(epoch FROM clock_timestamp() - a.xact_start)::bigint AS age_seconds,
                  to_char(a.query_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS query_start
           FROM pg_stat_activity a WHERE a.backend_xid = ($1::bigint & 4294967295)::text::xid
           UNION ALL
           SELECT NULL, p.gid, NULL, p.database::text, 'prepared',
                  extract(epoch FROM clock_timestamp() - p.prepared)::bigint, NULL
           FROM pg_prepared_xacts p WHERE p.transaction = ($1::bigint & 4294967295)::text::xid
           LIMIT 1"#,
        xid
    )
    .fetch_optional(connection)
    .named(NAME)
    .await
}

/// The version of a list whose rows are read after this: the highest logged version below the horizon, at least the floor.
pub async fn list_version(connection: &mut PgConnection) -> Result<i64, StoreError> {
    let horizon = horizon(connection).await?;
    logged_below(connection, horizon).await
}

/// The highest logged version, at least the floor, whether or not everything below it is complete.
pub async fn newest(connection: &mut PgConnection) -> Result<i64, StoreError> {
    logged_below(connection, i64::MAX).await
}

async fn logged_below(connection: &mut PgConnection, horizon: i64) -> Result<i64, StoreError> {
    const NAME: &str = "db.log.list_version";
    sqlx::query_scalar!(
        r#"
        SELECT greatest(s.floor, coalesce((
            SELECT e.rv FROM events e WHERE e.rv < $1 ORDER BY e.rv DESC, e.seq DESC LIMIT 1
        ), 0)) AS "version!"
        FROM log_state s
        "#,
        horizon
    )
    .fetch_one(connection)
    .named(NAME)
    .await
}

/// The versions that a reader may start from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The lowest that is complete, as of a list: what is below it may be gone.
    pub floor: i64,
    /// No transaction has a later one yet. Beyond the horizon: a client may start from the object that it has just created.
    pub newest: i64,
}

impl Bounds {
    /// Whether a reader may start after this place.
    pub fn admit(&self, cursor: Cursor) -> bool {
        !cursor.is_too_old(self.floor) && cursor.rv <= self.newest
    }
}

/// The versions that a reader may start from.
pub async fn bounds(connection: &mut PgConnection) -> Result<Bounds, StoreError> {
    const NAME: &str = "db.log.bounds";
    sqlx::query_as!(
        Bounds,
        r#"SELECT floor, epoch << 44 | pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS "newest!" FROM log_state"#
    )
    .fetch_one(connection)
    .named(NAME)
    .await
}

/// Below it nothing need be there any more. Look at it *after* the rows are read, with [`Cursor::is_too_old`].
pub async fn floor(connection: &mut PgConnection) -> Result<i64, StoreError> {
    const NAME: &str = "db.log.floor";
    sqlx::query_scalar!("SELECT floor FROM log_state").fetch_one(connection).named(NAME).await
}

/// Begins a new epoch when this database is a copy, a restore or a promotion of the one that wrote the log (or when
/// `forced`). Returns the new epoch, or none when nothing was to be done.
pub async fn bump(connection: &mut PgConnection, forced: bool) -> Result<Option<i64>, StoreError> {
    const NAME: &str = "db.log.bump";
    let epoch = sqlx::query_scalar!("SELECT log_bump($1)", forced).fetch_one(connection).named(NAME).await?;
    if let Some(epoch) = epoch {
        tracing::warn!(
            epoch,
            "the event log begins a new epoch: this database is a restore, a copy or a promotion; every watcher relists"
        );
    }
    Ok(epoch)
}

/// Whether the partition of the last of the next `days` days is missing: the cheap look before the lock that making one takes.
pub async fn partitions_missing(connection: &mut PgConnection, days: i32) -> Result<bool, StoreError> {
    const NAME: &str = "db.events.partitions_missing";
    sqlx::query_scalar!(
        r#"SELECT to_regclass('events_' || to_char((now() AT TIME ZONE 'UTC')::date + $1::integer, 'YYYYMMDD')) IS NULL AS "missing!""#,
        days
    )
    .fetch_one(connection)
    .named(NAME)
    .await
}

/// Makes the partitions of today and the next `days` days. Returns how many were missing; none when somebody holds the log, a
/// pg_dump for instance: whoever waited for it would make all its readers and writers wait behind him.
pub async fn make_partitions(connection: &mut PgConnection, days: i32) -> Result<Option<i32>, StoreError> {
    const NAME: &str = "db.events.make_ahead";
    /// SQLSTATE lock_not_available.
    const HELD: &str = "55P03";
    match sqlx::query_scalar!(r#"SELECT events_make_ahead($1) AS "made!""#, days).fetch_one(connection).named(NAME).await {
        Ok(made) => Ok(Some(made)),
        Err(error) if error.sqlstate().as_deref() == Some(HELD) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Rows in the default partition: of days that had none of their own.
pub async fn default_partition_rows(connection: &mut PgConnection) -> Result<i64, StoreError> {
    const NAME: &str = "db.events.default_rows";
    sqlx::query_scalar!(r#"SELECT count(*) AS "rows!" FROM events_default"#).fetch_one(connection).named(NAME).await
}

/// Days (UTC) that have a partition and that ended at or before `cutoff`, the oldest first.
pub async fn days_before(connection: &mut PgConnection, cutoff: Timestamp) -> Result<Vec<Date>, StoreError> {
    const NAME: &str = "db.events.days";
    let days = sqlx::query_scalar!(
        r#"SELECT p.day AS "day!: jiff_sqlx::Date"
           FROM (SELECT to_date(right(c.relname, 8), 'YYYYMMDD') AS day
                 FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                 WHERE i.inhparent = 'events'::regclass AND c.relname ~ '^events_[0-9]{8}$') p
           WHERE (p.day + 1)::timestamp AT TIME ZONE 'UTC' <= $1 ORDER BY p.day"#,
        cutoff.to_sqlx() as _
    )
    .fetch_all(connection)
    .named(NAME)
    .await?;
    Ok(days.into_iter().map(jiff_sqlx::Date::to_jiff).collect())
}

/// The highest version among the events that were written from `from` on and before `to`.
pub async fn last_between(connection: &mut PgConnection, from: Timestamp, to: Timestamp) -> Result<Option<i64>, StoreError> {
    const NAME: &str = "db.events.last_between";
    sqlx::query_scalar!(
        "SELECT e.rv FROM events e WHERE e.created_at >= $1 AND e.created_at < $2 ORDER BY e.rv DESC, e.seq DESC LIMIT 1",
        from.to_sqlx() as _,
        to.to_sqlx() as _
    )
    .fetch_optional(connection)
    .named(NAME)
    .await
}

/// Makes every version up to and with `above` too old to start from, but for whoever has read all of them. False while one of them, or the next, is still open.
/// A transaction of its own: it must be committed before what it is about is dropped.
pub async fn raise_floor(connection: &mut PgConnection, above: i64) -> Result<bool, StoreError> {
    const NAME: &str = "db.log.raise_floor";
    sqlx::query_scalar!(r#"SELECT log_raise_floor($1) AS "raised!""#, above).fetch_one(connection).named(NAME).await
}

/// Drops the partition of a day, all of whose events are below the floor. False when it is gone, or when something was
/// written to it since.
pub async fn drop_day(connection: &mut PgConnection, day: Date) -> Result<bool, StoreError> {
    const NAME: &str = "db.events.drop_day";
    sqlx::query_scalar!(r#"SELECT events_drop_day($1) AS "dropped!""#, day.to_sqlx() as _).fetch_one(connection).named(NAME).await
}

/// Old events of the default partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    /// In which namespace.
    pub namespace: String,
    /// The highest version among them.
    pub last: i64,
}

/// Namespaces with events in the default partition that were written before `cutoff`, at most 64.
pub async fn strays(connection: &mut PgConnection, cutoff: Timestamp) -> Result<Vec<Stray>, StoreError> {
    const NAME: &str = "db.events.strays";
    sqlx::query_as!(
        Stray,
        r#"SELECT e.namespace, max(e.rv) AS "last!" FROM events_default e WHERE e.created_at < $1
           GROUP BY e.namespace ORDER BY e.namespace LIMIT 64"#,
        cutoff.to_sqlx() as _
    )
    .fetch_all(connection)
    .named(NAME)
    .await
}

/// When the oldest event that is kept was written; none when there is none.
pub async fn oldest(connection: &mut PgConnection) -> Result<Option<Timestamp>, StoreError> {
    const NAME: &str = "db.events.oldest";
    let at =
        sqlx::query_scalar!(r#"SELECT e.created_at AS "at: jiff_sqlx::Timestamp" FROM events e ORDER BY e.rv, e.seq LIMIT 1"#);
    Ok(at.fetch_optional(connection).named(NAME).await?.map(jiff_sqlx::Timestamp::to_jiff))
}
