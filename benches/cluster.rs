//! The front, on a real kube-apiserver; each measure but the last is a ratio of two things in one run.
//!
//! 1. `mirror`: one push drifts 5,000 chats: from the push until the cluster shows the last of them, against a bare loop that
//!    applies the same statuses to as many objects of the same apiserver, as many at once. And how many writes that took.
//! 2. `memory`: what a `moorline serve` that mirrors 20,000 chats takes once it is idle, against a minimal program of Go's
//!    controller-runtime that has them in its cache.
//! 3. `ready`: from the creation of a manifest until a watch shows `Ready`.
//!
//! `cargo bench --bench cluster [-- mirror|memory|ready]`, after `scripts/ensure-envtest cached`; `QUICK=1` with a tenth of the
//! objects, for trying it out. All that is measured, and what it is measured on, are processes of one machine. Ends with an error
//! when a measure misses what is asked of it.

#[path = "../tests/support"]
#[expect(dead_code, unused_imports, clippy::unwrap_used, reason = "not all of it is needed, and it may fail as a test does")]
mod support {
    pub mod envtest;
    pub mod kubectl;
    pub mod ports;
    pub mod supervised;
    pub mod until;
}
#[path = "watch/place.rs"]
#[expect(dead_code, reason = "the benchmark of watching needs the rest")]
mod place;
#[path = "watch/stats.rs"]
mod stats;
mod cluster {
    pub mod bare;
    pub mod front;
    pub mod memory;
    pub mod mirror;
    pub mod ready;
}

use anyhow::{Context as _, bail, ensure};
use cluster::{front::Front, memory, mirror, ready};
use moorline::{embedded, store};

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => measure(&["mirror", "memory", "ready"]),
        [one @ ("mirror" | "memory" | "ready")] => measure(&[one]),
        _ => bail!("there is no benchmark {args:?}: mirror, memory, ready"),
    }
}

/// So many, or a tenth when it is to be quick.
fn many(all: usize) -> usize {
    if std::env::var_os("QUICK").is_some() { all / 10 } else { all }
}

fn measure(which: &[&str]) -> anyhow::Result<()> {
    rustls::crypto::ring::default_provider().install_default().ok();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let directory = tempfile::Builder::new().prefix("moorline-bench-").tempdir()?;
        let data_dir = directory.path().join("data");
        let server = embedded::start(embedded::Options { data_dir, pg_bin: None, ephemeral: true, settings: Vec::new() }).await?;
        let mut passed = true;
        for name in which {
            server.ensure_database(name).await?;
            let pool = store::pool(server.connect_options(name), 2);
            store::schema::migrate(&pool, false).await?;
            pool.close().await;
            let control_plane = support::envtest::ControlPlane::start().await;
            let front = Front::new(&control_plane, &server, name, directory.path()).await?;
            passed &= match *name {
                "mirror" => mirror::run(&front).await,
                "memory" => memory::run(&front).await,
                _ => ready::run(&front).await,
            }
            .with_context(|| (*name).to_owned())?;
        }
        server.stop().await?;
        ensure!(passed, "a measure misses what is asked of it");
        Ok(())
    })
}
