//! Where the database is: a URL, or a file that holds one and may be replaced while we run.
//!
//! The URL is a secret. No error and no log line repeats any part of it.

use crate::watched::{Unreadable, Watched};
use clap::Args;
use reqwest::Url;
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::PgConnectOptions;
use std::{env, fs, path::PathBuf};

/// Where the database is.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Database {
    /// The database, as `postgres://user:password@host:port/name` (or `?host=/socket/directory`). TLS: `?sslmode=verify-full`.
    #[arg(long, env = "MOORLINE_DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: Option<SecretString>,
    /// A file with such a URL. Read again when it changes: connections made from then on use it.
    #[arg(long, env = "MOORLINE_DATABASE_URL_FILE", value_name = "FILE")]
    pub database_url_file: Option<PathBuf>,
}

/// Why it is not known how to connect.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseUrlError {
    /// Neither option was given.
    #[error("one of --database-url and --database-url-file is needed")]
    None,
    /// The file cannot be read.
    #[error("--database-url-file: {0}")]
    Unreadable(#[from] Unreadable),
    /// It holds no URL.
    #[error("{from} is no PostgreSQL URL: {why}")]
    NotAUrl {
        /// Where it is from.
        from: String,
        /// What is wrong with it.
        why: String,
    },
}

/// How to connect, and the file that says so.
#[derive(Clone, Debug)]
pub struct DatabaseAccess {
    /// How to connect now.
    pub options: PgConnectOptions,
    /// What to watch for other credentials.
    pub file: Option<Watched>,
}

impl From<PgConnectOptions> for DatabaseAccess {
    fn from(options: PgConnectOptions) -> Self {
        Self { options, file: None }
    }
}

impl Database {
    /// How to connect.
    pub fn access(&self) -> Result<DatabaseAccess, DatabaseUrlError> {
        match (&self.database_url, &self.database_url_file) {
            (Some(url), _) => Ok(parse(url.expose_secret(), "--database-url")?.into()),
            (None, Some(path)) => {
                let (file, contents) = Watched::open(&[path])?;
                let options = options_in(&file, &contents.concat())?;
                Ok(DatabaseAccess { options, file: Some(file) })
            }
            (None, None) => Err(DatabaseUrlError::None),
        }
    }
}

/// What a file that holds a URL says.
pub fn options_in(file: &Watched, content: &[u8]) -> Result<PgConnectOptions, DatabaseUrlError> {
    let from = || format!("what {} holds", file.paths().iter().map(|path| path.display().to_string()).collect::<String>());
    let not_a_url = |why: &str| DatabaseUrlError::NotAUrl { from: from(), why: why.to_owned() };
    let text = std::str::from_utf8(content).map_err(|_| not_a_url("it is not UTF-8"))?.trim();
    if text.is_empty() {
        return Err(not_a_url("it is empty"));
    }
    parse(text, &from())
}

/// The parameters that sqlx takes. It logs others with their values, which may be secret: they do not come that far.
const KNOWN: [&str; 17] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "options",
];

fn parse(text: &str, from: &str) -> Result<PgConnectOptions, DatabaseUrlError> {
    // The library's reasons for a parameter's refusal repeat its value.
    let refused = |why: &str| DatabaseUrlError::NotAUrl { from: from.to_owned(), why: why.to_owned() };
    let mut url = Url::parse(text).map_err(|error| refused(&error.to_string()))?;
    if !matches!(url.scheme(), "postgres" | "postgresql") {
        return Err(refused("it must begin with postgres:// or postgresql://"));
    }
    let (known, other): (Vec<_>, Vec<_>) =
        url.query_pairs().into_owned().partition(|(key, _)| KNOWN.contains(&key.as_str()) || key.starts_with("options["));
    for (key, _) in &other {
        tracing::warn!(parameter = key, "a parameter of the database's URL is not known here; it is left out");
    }
    if !other.is_empty() {
        url.query_pairs_mut().clear().extend_pairs(known.iter());
    }
    let named = |names: &[&str], variable: &str| {
        let given = known.iter().rev().find(|(key, _)| names.contains(&key.as_str())).map(|(_, value)| value.clone());
        given.or_else(|| env::var(variable).ok()).map(|value| (names[0].to_owned(), value))
    };
    // A file that is not there would be told without its name, by each connection.
    for (parameter, path) in [
        named(&["sslrootcert", "ssl-root-cert", "ssl-ca"], "PGSSLROOTCERT"),
        named(&["sslcert", "ssl-cert"], "PGSSLCERT"),
        named(&["sslkey", "ssl-key"], "PGSSLKEY"),
    ]
    .into_iter()
    .flatten()
    .filter(|(_, value)| !value.trim_start().starts_with("-----BEGIN"))
    {
        fs::metadata(&path).map_err(|error| refused(&format!("its {parameter} {path}: {error}")))?;
    }
    url.as_str().parse().map_err(|error| match error {
        sqlx::Error::Configuration(_) => {
            refused("the value of one of its parameters has not the form that it must have: sslmode is one of disable, prefer, require, verify-ca, verify-full; port is a number")
        }
        _ => refused("it cannot be read"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        parse(url, "--database-url").expect_err(url).to_string()
    }

    #[test]
    fn a_refused_url_is_not_repeated() {
        for url in [
            "",
            "hunter2",
            "postgres://moorline:hunter2?x@db/moorline",
            "http://moorline:hunter2@db",
            "postgres://moorline:hunter2@db:port/",
            "postgres://db/?sslmode=hunter2",
            "postgres://db/?port=hunter2",
            "postgres://db/?hostaddr=hunter2",
            "postgres://a:%ff%00hunter2@db/",
        ] {
            let Err(error) = parse(url, "--database-url") else {
                assert!(url.contains("%ff"), "{url} was taken");
                continue;
            };
            let said = format!("{error} {error:?}");
            assert!(said.contains("--database-url") && !said.contains("hunter2"), "{url}: {said}");
        }
        assert!(refused("postgres://db/?sslmode=full").contains("verify-full"));
        let absent = refused("postgres://db/?sslrootcert=/nowhere/ca.crt");
        assert!(absent.contains("sslrootcert /nowhere/ca.crt"), "{absent}");
    }

    #[test]
    fn a_parameter_that_is_not_known_is_left_out_and_the_others_stay() {
        let authority = tempfile::NamedTempFile::new().expect("a file");
        let authority = authority.path().display();
        let url = "postgres://moorline:a%20b@db.example:5433/name?connect_timeout=3&sslmode=verify-full";
        let options = parse(&format!("{url}&sslrootcert={authority}"), "--database-url").expect("a URL");
        assert_eq!(
            (options.get_host(), options.get_port(), options.get_username(), options.get_database()),
            ("db.example", 5433, "moorline", Some("name"))
        );
        assert!(matches!(options.get_ssl_mode(), sqlx::postgres::PgSslMode::VerifyFull));
    }
}
