//! What can go wrong in the store, and whether to try again. Decided by SQLSTATE, never by the name of a constraint: a
//! sharded server hides those.

use super::log;
use crate::metrics::METRICS;
use rustls::CertificateError;
use std::{future::Future, time::Duration};
use tracing::Instrument as _;

/// A failure of the store. `query` is the static name that the span and the metric carry too.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A statement failed.
    #[error("{query}: {source}{}", advice(source))]
    Database {
        /// Which.
        query: &'static str,
        /// How.
        source: sqlx::Error,
    },
    /// A row does not have the form that its constraints should have kept it to.
    #[error("inconsistent row in {table} {id}, column {column}: {message}")]
    Inconsistent {
        /// Where.
        table: &'static str,
        /// Which column.
        column: &'static str,
        /// Which row.
        id: String,
        /// What is wrong with it.
        message: String,
    },
    /// A write, or a read of what is locked, reached other rows than were locked: another transaction with a later version came first, or a row is gone.
    #[error("{query}: expected {expected} rows, got {got}")]
    Guard {
        /// Which statement.
        query: &'static str,
        /// Rows it should have reached.
        expected: u64,
        /// Rows it reached.
        got: u64,
    },
}

/// Whether to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// At once, with a fresh transaction: it lost a race.
    Transaction,
    /// Later: the database is away, or out of something.
    Later,
    /// Later, after beginning a new epoch of the log.
    AfterBump,
    /// Not with these rows: one of them is the trouble.
    Poison,
}

impl StoreError {
    /// The SQLSTATE, when the server gave one.
    pub fn sqlstate(&self) -> Option<String> {
        match self {
            Self::Database { source: sqlx::Error::Database(error), .. } => error.code().map(|code| code.to_string()),
            Self::Database { .. } | Self::Inconsistent { .. } | Self::Guard { .. } => None,
        }
    }

    /// Whether to try again.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Guard { .. } => Retry::Transaction,
            Self::Inconsistent { .. }
            | Self::Database { source: sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_), .. } => Retry::Poison,
            Self::Database { .. } => self.sqlstate().map_or(Retry::Later, |code| by_sqlstate(&code)),
        }
    }

    /// A static word for a metric's label.
    pub fn label(&self) -> &'static str {
        match self.retry() {
            Retry::Transaction => "conflict",
            Retry::Later | Retry::AfterBump => "unavailable",
            Retry::Poison => "poison",
        }
    }
}

/// What to do about a database that is not trusted, which its own words do not say.
fn advice(error: &sqlx::Error) -> &'static str {
    let sqlx::Error::Io(error) = error else { return "" };
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            " (the certificate of the database is signed by no authority that is trusted here: name the right one by sslrootcert)"
        }
        Some(rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => {
            " (the certificate of the database is for another name: connect by one that it has, or, when any server of that authority will do, with sslmode=verify-ca)"
        }
        Some(rustls::Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })) => {
            " (the certificate of the database has expired: have it renewed)"
        }
        _ => "",
    }
}

fn by_sqlstate(code: &str) -> Retry {
    match code {
        // serialization_failure, deadlock_detected, foreign_key_violation (the row referred to went away).
        "40001" | "40P01" | "23503" => Retry::Transaction,
        log::FOREIGN => Retry::AfterBump,
        // Data exceptions, other integrity violations, limits of a value, internal errors and corrupted data: of these rows.
        _ if ["22", "23", "54", "XX"].iter().any(|class| code.starts_with(class)) => Retry::Poison,
        _ => Retry::Later,
    }
}

/// Names a statement: in its span, in its metric and in its failure.
pub(crate) trait Named<T>: Future<Output = Result<T, sqlx::Error>> + Sized {
    /// Names it.
    fn named(self, query: &'static str) -> impl Future<Output = Result<T, StoreError>>;
}

impl<T, F: Future<Output = Result<T, sqlx::Error>> + Send> Named<T> for F {
    async fn named(self, query: &'static str) -> Result<T, StoreError> {
        let began = std::time::Instant::now();
        let result = self.instrument(tracing::debug_span!("db", query)).await;
        METRICS.query(query, began.elapsed(), result.is_ok());
        result.map_err(|source| StoreError::Database { query, source })
    }
}

/// Every write says how many rows it expects, and checks.
pub(crate) fn expect_rows(query: &'static str, expected: usize, got: u64) -> Result<(), StoreError> {
    let expected = expected as u64;
    if got == expected { Ok(()) } else { Err(StoreError::Guard { query, expected, got }) }
}

/// Full jitter: a random part of `base · 2^attempt`, capped (Marc Brooker, "Exponential Backoff And Jitter", AWS
/// Architecture Blog, 2015). `random` is in `0.0..1.0`.
pub fn full_jitter(base: Duration, cap: Duration, attempt: u32, random: f64) -> Duration {
    base.saturating_mul(2u32.saturating_pow(attempt.min(20))).min(cap).mul_f64(random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn races_are_tried_again_at_once_and_only_faults_of_the_rows_are_poison() {
        for code in ["40001", "40P01", "23503"] {
            assert_eq!(by_sqlstate(code), Retry::Transaction, "{code}");
        }
        for code in ["22P05", "23514", "23505", "54000", "XX001"] {
            assert_eq!(by_sqlstate(code), Retry::Poison, "{code}");
        }
        for code in ["57P01", "53100", "53300", "25006", "42P01", "08006", "57014", "55P03"] {
            assert_eq!(by_sqlstate(code), Retry::Later, "{code}");
        }
        assert_eq!(by_sqlstate(log::FOREIGN), Retry::AfterBump);
    }

    #[test]
    fn back_off_grows_to_its_cap_and_jitter_takes_any_part_of_it() {
        let (base, cap) = (Duration::from_millis(10), Duration::from_secs(1));
        assert_eq!(full_jitter(base, cap, 0, 1.0), base);
        assert_eq!(full_jitter(base, cap, 3, 1.0), base * 8);
        assert_eq!(full_jitter(base, cap, 30, 1.0), cap);
        assert_eq!(full_jitter(base, cap, 30, 0.0), Duration::ZERO);
    }
}
