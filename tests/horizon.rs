//! A transaction that stays open holds every reader of the log back. Whoever runs Moorline sees that in the metrics, and finds in
//! the log who it is.

use crate::support::{
    serve::{Client, Replica},
    until::until,
};
use moorline::{embedded, store};
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _, PgConnection};
use std::fs::File;

/// A line of the metrics.
async fn metric(client: &Client, replica: &Replica, name: &str) -> Option<f64> {
    let text = client.http.get(format!("{}/metrics", replica.url)).send().await.ok()?.text().await.ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

#[tokio::test]
async fn who_holds_the_log_back_is_named_and_how_far_readers_are_behind_is_measured() {
    // A server of its own: an open transaction holds back every database of the cluster, and so every other test.
    let place = tempfile::Builder::new().prefix("moorline-horizon-").tempdir().expect("a place");
    let settings = [("fsync", "off")].map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let options = embedded::Options { data_dir: place.path().join("world"), pg_bin: None, ephemeral: true, settings };
    let server = embedded::start(options).await.expect("a server");
    for database in ["moorline", "other"] {
        server.ensure_database(database).await.expect("a database");
    }
    let pool = store::pool(server.connect_options("moorline"), 2);
    store::schema::migrate(&pool, false).await.expect("a schema");
    let log = place.path().join("log");
    let flags = ["--log-format", "json"];
    let replica = Replica::telling(&server.url("moorline"), &flags, File::create(&log).expect("a file").into()).await;
    let client = Client::new();
    let lines = || -> Vec<Value> {
        let text = std::fs::read_to_string(&log).expect("the log");
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    let says = |what: &str| lines().into_iter().find(|line| line["message"].as_str().is_some_and(|text| text.contains(what)));

    // Somebody else, in another database of the cluster.
    let mut holder = PgConnection::connect_with(&server.connect_options("other").application_name("nightly-report"))
        .await
        .expect("a connection");
    holder.execute("BEGIN").await.expect("a transaction");
    holder.execute("SELECT pg_current_xact_id(), 'of nobody''s concern'").await.expect("an id");
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut holder).await.expect("its pid");
    let chat =
        json!({"apiVersion": "moorline.dev/v1alpha1", "kind": "Chat", "metadata": {"name": "one"}, "spec": {"owner": "alice"}});
    assert_eq!(client.post(&replica.url, "chats", chat).await.0, 201);

    let line = until("the holder is named", || async { says("holds the event log back") }).await;
    assert_eq!((&line["level"], &line["pid"]), (&json!("WARN"), &json!(pid)), "{line}");
    assert_eq!((&line["application_name"], &line["database"]), (&json!("nightly-report"), &json!("other")), "{line}");
    assert_eq!(line["state"], "idle in transaction", "{line}");
    assert!(line["age_seconds"].as_i64().is_some_and(|age| age >= 6), "{line}");
    assert!(line["query_start"].as_str().is_some_and(|at| at.parse::<jiff::Timestamp>().is_ok()), "{line}");
    assert!(!line.to_string().contains("concern"), "the text of a query is in the log: {line}");
    let behind = metric(&client, &replica, "moorline_horizon_lag_seconds").await.expect("a metric");
    assert!(behind >= 6.0, "{behind} seconds");
    assert!(metric(&client, &replica, "moorline_horizon_lag_transactions").await.is_some_and(|open| open >= 1.0));

    // It goes on being looked at, and is not named again and again.
    until("it has been looked at again", || async {
        let now = metric(&client, &replica, "moorline_horizon_lag_seconds").await?;
        (now > behind + 1.0).then_some(())
    })
    .await;
    let named = lines().iter().filter(|line| line["pid"] == json!(pid)).count();
    assert_eq!(named, 1, "{:?}", lines());

    holder.execute("COMMIT").await.expect("its end");
    until("it is over", || async {
        let seconds = metric(&client, &replica, "moorline_horizon_lag_seconds").await?;
        (seconds == 0.0 && says("no longer held back").is_some()).then_some(())
    })
    .await;
    drop(replica);
    pool.close().await;
    holder.close().await.ok();
    server.stop().await.expect("stopping it");
}
