//! Connections to a PostgreSQL that speaks TLS with a certificate of a private authority: each mode does what its name says,
//! and a server that is not the right one is refused with words that say why.

use crate::support::{
    api::Caller,
    certificates::Authority,
    moorline::{Said, Shell, ended},
    secure::{NAME, PASSWORD, Secure},
    serve::Replica,
};
use serde_json::json;
use std::process::Stdio;

/// What `moorline migrate` says of a URL.
async fn migrate(url: &str) -> Said {
    Shell::bare().run(&["migrate", "--database-url", url]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_mode_of_tls_does_what_its_name_says() {
    let postgres = Secure::start().await;
    let who = format!("{NAME}:{PASSWORD}");
    let right = postgres.file("right.crt", &postgres.authority.pem);
    let wrong = postgres.file("wrong.crt", &Authority::new("an authority that signed nothing").pem);
    let client = postgres.authority.client("certified");
    let (certificate, key) = (postgres.file("client.crt", &client.certificate), postgres.file("client.key", &client.key));
    let stranger = postgres.authority.client("stranger");
    let (his, his_key) = (postgres.file("his.crt", &stranger.certificate), postgres.file("his.key", &stranger.key));
    // `moorline` is let in with TLS only, `plain` without as well. The certificate is for `localhost`.
    let taken = [
        (&who, "localhost", NAME, String::new()),
        (&who, "127.0.0.1", NAME, "sslmode=prefer".to_owned()),
        (&who, "127.0.0.1", "plain", "sslmode=disable".to_owned()),
        (&who, "127.0.0.1", NAME, "sslmode=require".to_owned()),
        (&who, "127.0.0.1", NAME, format!("sslmode=verify-ca&sslrootcert={right}")),
        (&who, "localhost", NAME, format!("sslmode=verify-full&sslrootcert={right}")),
        (
            &"certified".to_owned(),
            "localhost",
            NAME,
            format!("sslmode=verify-full&sslrootcert={right}&sslcert={certificate}&sslkey={key}"),
        ),
    ];
    for (who, host, database, more) in &taken {
        let done = migrate(&postgres.url(who, host, database, more)).await;
        assert_eq!(done.code, Some(0), "{host} {database} {more}: {}", done.err);
    }
    let refused = [
        (&who, "127.0.0.1", NAME, "sslmode=disable".to_owned(), "no encryption"),
        (&who, "127.0.0.1", NAME, "sslmode=verify-ca".to_owned(), "sslrootcert"),
        (&who, "127.0.0.1", NAME, format!("sslmode=verify-ca&sslrootcert={wrong}"), "sslrootcert"),
        (&who, "localhost", NAME, format!("sslmode=verify-full&sslrootcert={wrong}"), "sslrootcert"),
        (&who, "127.0.0.1", NAME, format!("sslmode=verify-full&sslrootcert={right}"), "localhost"),
        (&who, "localhost", NAME, "sslmode=verify-full&sslrootcert=/nowhere/ca.crt".to_owned(), "/nowhere/ca.crt"),
        (&"certified".to_owned(), "localhost", NAME, format!("sslmode=verify-full&sslrootcert={right}"), "certificate"),
        (
            &"certified".to_owned(),
            "localhost",
            NAME,
            format!("sslmode=verify-full&sslrootcert={right}&sslcert={his}&sslkey={his_key}"),
            "certificate authentication failed",
        ),
        (&format!("{NAME}:wr0ng"), "localhost", NAME, "sslmode=require".to_owned(), "password authentication failed"),
    ];
    for (who, host, database, more, why) in &refused {
        let url = postgres.url(who, host, database, more);
        let said = migrate(&url).await;
        assert_eq!(said.code, Some(1), "{host} {database} {more}: {}", said.out);
        assert!(said.err.contains(why), "{host} {database} {more}: {}", said.err);
        assert!(!said.err.contains(PASSWORD) && !said.err.contains("wr0ng"), "{}", said.err);
    }

    // A URL that somebody else writes says nothing of TLS; libpq's variables do.
    for (file, code) in [(&right, Some(0)), (&wrong, Some(1))] {
        let shell = Shell::bare();
        let mut command = shell.command(&["migrate", "--database-url", &postgres.url(&who, "localhost", NAME, "")]);
        command.env("PGSSLMODE", "verify-full").env("PGSSLROOTCERT", file);
        assert_eq!(ended(command.spawn().unwrap()).await.code, code, "{file}");
    }

    // A whole server of ours, all of whose sessions are encrypted: the pool's, and those of the wake-ups.
    let url = postgres.url("certified", "localhost", NAME, "");
    let more = format!("sslmode=verify-full&sslrootcert={right}&sslcert={certificate}&sslkey={key}");
    let replica = Replica::telling(&format!("{url}{more}"), &[], Stdio::null()).await;
    let api = Caller::new(&replica.url);
    api.create_chat("fix", json!({})).await;
    let sessions = "SELECT count(*) FROM pg_stat_activity a JOIN pg_stat_ssl s USING (pid) WHERE a.usename = 'certified'";
    assert!(postgres.count(sessions).await >= 3);
    assert_eq!(postgres.count(&format!("{sessions} AND NOT (s.ssl AND s.client_dn = '/CN=certified')")).await, 0);
    assert_eq!(replica.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_says_why_it_does_not_trust_its_database_and_goes_on_when_the_authority_comes() {
    let postgres = Secure::start().await;
    let authority = postgres.file("ca.crt", &Authority::new("an authority that signed nothing").pem);
    let more = format!("sslmode=verify-full&sslrootcert={authority}");
    let url = postgres.url(&format!("{NAME}:{PASSWORD}"), "localhost", NAME, &more);
    let trusting = postgres.url(&format!("{NAME}:{PASSWORD}"), "localhost", NAME, "sslmode=require");
    assert_eq!(migrate(&trusting).await.code, Some(0));
    let log = postgres.file("log", "");
    let to = std::fs::File::options().append(true).open(&log).unwrap();
    let starting = tokio::spawn(async move { Replica::telling(&url, &[], to.into()).await });
    crate::support::until::until("it has said why", || async {
        let said = std::fs::read_to_string(&log).unwrap();
        (said.contains("the database is away") && said.contains("sslrootcert")).then_some(())
    })
    .await;
    // The file of the authority is read for each connection: an authority can be replaced too.
    std::fs::write(&authority, &postgres.authority.pem).unwrap();
    let replica = starting.await.unwrap();
    assert_eq!(replica.terminate().await, Some(0));
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(!said.contains(PASSWORD), "{said}");
}
