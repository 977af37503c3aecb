//! Watching, against what it could cost at least; each measure is a ratio of two things in one run, or has a bound.
//!
//! 1. `latency`: from the commit of a push until a watcher has what came of it, against commit + NOTIFY → listener in plain SQL.
//! 2. `fanout`: 1,000 watchers and 1,000 transitions a second for ten seconds; then the same again as fast as it goes, against a
//!    bare server that sends the same bytes.
//! 3. `idle`: what 10,000 watchers to whom nothing happens cost of the server's memory.
//!
//! `cargo bench --bench watch [-- latency|fanout|idle]`. Server, clients and database are processes of their own on one machine.
//! `idle` needs 10,100 open files: `ulimit -Hn`. Ends with an error when a measure misses what is asked of it.

mod watch {
    pub mod clients;
    pub mod fanout;
    pub mod floor;
    pub mod idle;
    pub mod latency;
    pub mod place;
    pub mod stats;
    pub mod stream;
}

use anyhow::{Context as _, bail, ensure};
use moorline::{embedded, store};
use watch::{clients, fanout, floor, idle, latency, place};

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        Some(("clients", rest)) => clients::main(rest),
        Some(("floor", rest)) => floor::main(rest),
        None => measure(&["latency", "fanout", "idle"]),
        Some((one @ ("latency" | "fanout" | "idle"), [])) => measure(&[one]),
        Some(_) => bail!("there is no benchmark {args:?}: latency, fanout, idle"),
    }
}

fn measure(which: &[&str]) -> anyhow::Result<()> {
    place::files(11_000)?;
    rustls::crypto::ring::default_provider().install_default().ok();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let directory = tempfile::Builder::new().prefix("moorline-bench-").tempdir()?;
        let options = embedded::Options {
            data_dir: directory.path().join("data"),
            pg_bin: None,
            ephemeral: true,
            // For both sides alike: PostgreSQL says when a transaction committed.
            settings: vec![("track_commit_timestamp".to_owned(), "on".to_owned())],
        };
        let server = embedded::start(options).await?;
        let mut passed = true;
        for name in which {
            server.ensure_database(name).await?;
            let pool = store::pool(server.connect_options(name), 8);
            store::schema::migrate(&pool, false).await?;
            let place = place::Place::start(&server, name).await?;
            passed &= match *name {
                "latency" => Box::pin(latency::run(&place, &pool)).await,
                "fanout" => Box::pin(fanout::run(&place, &pool, directory.path())).await,
                _ => Box::pin(idle::run(&place, directory.path())).await,
            }
            .with_context(|| (*name).to_owned())?;
            drop(place);
            pool.close().await;
        }
        server.stop().await?;
        ensure!(passed, "a measure misses what is asked of it");
        Ok(())
    })
}
