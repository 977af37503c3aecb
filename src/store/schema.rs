//! Whether the database has the schema that this binary was built for.

use super::{MIGRATOR, error::Named, error::StoreError, log};
use sqlx::{PgConnection, PgPool, error::DatabaseError, migrate::MigrateError};

/// The oldest PostgreSQL that has what our statements use, as servers count: 15.0.
const SERVER_MIN: u32 = 150_000;

/// Why this binary and this database do not go together.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The server is older than our statements.
    #[error("the database server is PostgreSQL {}.{}, and moorline needs {} or newer", .found / 10_000, .found % 10_000, SERVER_MIN / 10_000)]
    Server {
        /// What it is, as servers count.
        found: u32,
    },
    /// Nothing of ours is in it.
    #[error("the database has no Moorline schema: run `moorline migrate` (this binary needs version {needed})")]
    Absent {
        /// The version that this binary needs.
        needed: i64,
    },
    /// Older than this binary needs.
    #[error("the database schema is at version {found}, this binary needs {needed}: run `moorline migrate` of this version")]
    TooOld {
        /// What is there.
        found: i64,
        /// What is needed.
        needed: i64,
    },
    /// Newer than this binary knows.
    #[error("the database schema is at version {found}, this binary knows only up to {known}: run a newer moorline")]
    TooNew {
        /// What is there.
        found: i64,
        /// What this binary knows.
        known: i64,
    },
    /// A migration was begun and not finished, or is not the one that this binary carries.
    #[error("migration {version} {what}: restore the database or ask for help before going on")]
    Damaged {
        /// Which.
        version: i64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A migration was left out, though later ones were applied.
    #[error(
        "migration {version} was never applied to the database, though {found} was: `moorline migrate` makes no such schema, so somebody has changed it by hand; restore the database or ask for help before going on"
    )]
    Gap {
        /// Which is missing.
        version: i64,
        /// The last that was applied.
        found: i64,
    },
    /// The migration failed.
    #[error("migrating: {0}")]
    Migrate(#[from] MigrateError),
    /// The database could not be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The version that this binary was built for.
pub fn needed() -> i64 {
    MIGRATOR.iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// Refuses a schema that is newer than this binary knows, or older than it needs, or not made by all of the migrations up to its
/// version as this binary carries them.
pub async fn check(connection: &mut PgConnection) -> Result<(), SchemaError> {
    let needed = needed();
    look_at_server(connection.server_version_num())?;
    let present = sqlx::query_scalar!(r#"SELECT to_regclass('_sqlx_migrations') IS NOT NULL AS "present!""#)
        .fetch_one(&mut *connection)
        .named("db.schema.present")
        .await?;
    if !present {
        return Err(SchemaError::Absent { needed });
    }
    // Not a checked query: the table is sqlx's own, and not part of our migrations.
    let applied: Vec<(i64, bool, Vec<u8>)> =
        sqlx::query_as("SELECT version, success, checksum FROM _sqlx_migrations ORDER BY version")
            .fetch_all(connection)
            .named("db.schema.applied")
            .await?;
    let Some(found) = applied.iter().map(|(version, ..)| *version).max() else {
        return Err(SchemaError::Absent { needed });
    };
    for (version, success, checksum) in &applied {
        if !success {
            return Err(SchemaError::Damaged { version: *version, what: "was begun and not finished" });
        }
        let ours = MIGRATOR.iter().find(|migration| migration.version == *version);
        if ours.is_some_and(|ours| ours.checksum.as_ref() != checksum.as_slice()) {
            return Err(SchemaError::Damaged { version: *version, what: "is not the one that this binary carries" });
        }
    }
    if found > needed {
        return Err(SchemaError::TooNew { found, known: needed });
    }
    let mut ours = MIGRATOR.iter().map(|migration| migration.version).filter(|version| *version < found);
    if let Some(version) = ours.find(|version| applied.iter().all(|(applied, ..)| applied != version)) {
        return Err(SchemaError::Gap { version, found });
    }
    if found < needed { Err(SchemaError::TooOld { found, needed }) } else { Ok(()) }
}

/// Whoever does not say which version it is, as some poolers, is not refused for that.
fn look_at_server(version: Option<u32>) -> Result<(), SchemaError> {
    match version {
        Some(found) if found < SERVER_MIN => Err(SchemaError::Server { found }),
        Some(_) | None => Ok(()),
    }
}

/// What migrating did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// The version before; none when there was no schema.
    pub from: Option<i64>,
    /// The version now.
    pub to: i64,
    /// The epoch that the event log was moved to, if it was.
    pub new_epoch: Option<i64>,
}

/// How often a migration may fall to a deadlock with those who write. PostgreSQL lets each wait for a second before it looks.
const DEADLOCKS_MAX: u32 = 20;

fn is_deadlock(error: &MigrateError) -> bool {
    let (MigrateError::ExecuteMigration(error, _) | MigrateError::Execute(error)) = error else { return false };
    error.as_database_error().and_then(DatabaseError::code).is_some_and(|code| code == "40P01")
}

/// Brings the schema to the version of this binary. A second replica that does so at the same time waits for the first
/// (sqlx holds an advisory lock). `restored` begins a new epoch of the log even when nothing looks foreign.
pub async fn migrate(pool: &PgPool, restored: bool) -> Result<Migrated, SchemaError> {
    let mut connection = super::acquire_or_why(pool).await?;
    let from = match check(&mut connection).await {
        Ok(()) => Some(needed()),
        Err(SchemaError::Absent { .. }) => None,
        Err(SchemaError::TooOld { found, .. }) => Some(found),
        Err(other) => return Err(other),
    };
    // A migration, or the wait for another replica's, may take longer than a request's statement.
    sqlx::query("SET statement_timeout = 0").execute(&mut *connection).named("db.schema.timeout").await?;
    for failures in 1.. {
        match MIGRATOR.run(&mut *connection).await {
            Ok(()) => break,
            // Those who write meanwhile hold what it wants, and want what it holds. What was undone is one migration, and nobody's fault.
            Err(error) if failures <= DEADLOCKS_MAX && is_deadlock(&error) => {
                tracing::warn!(%error, failures, "the migration and those who write stood in each other's way; it begins again");
            }
            Err(error) => return Err(error.into()),
        }
    }
    let new_epoch = log::bump(&mut connection, restored).await?;
    log::make_partitions(&mut connection, super::across::PARTITIONS_AHEAD).await?;
    // The session's settings are not those of the pool any more.
    let _ = connection.detach();
    Ok(Migrated { from, to: needed(), new_epoch })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_too_old_is_told_and_one_that_does_not_say_is_let_be() {
        let refused = look_at_server(Some(140_012)).expect_err("too old").to_string();
        assert_eq!(refused, "the database server is PostgreSQL 14.12, and moorline needs 15 or newer");
        for fine in [Some(150_000), Some(180_001), None] {
            assert!(look_at_server(fine).is_ok(), "{fine:?}");
        }
    }
}
