//! A cluster, a database, and a `moorline serve` between them; what both show of the bench's chats.

use crate::{
    place::Place,
    support::envtest::{Audit, ControlPlane, audit::Mark},
};
use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::{Api, Client, api::ListParams};
use moorline::{embedded::Embedded, v1alpha1::Chat};
use serde_json::json;
use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

/// The namespace of what Moorline has to do with.
pub const OURS: &str = "bench";
/// A namespace that is none of its business.
pub const THEIRS: &str = "bare";
/// How many requests wrote the cluster.
pub const WRITTEN: &str = "mirror_patches_total{result=\"sent\"}";
/// How long anything may take.
const PATIENCE: Duration = Duration::from_mins(4);
/// Requests at once, where it does not matter how many.
const AT_ONCE: usize = 16;
/// How often to look.
const LOOK: Duration = Duration::from_millis(500);
/// Objects in a page of a list.
const PAGE: u32 = 500;

/// The place of a measure.
pub struct Front<'a> {
    /// The cluster.
    pub control_plane: &'a ControlPlane,
    /// How to reach it.
    pub kubeconfig: PathBuf,
    /// A client of the bench's own.
    pub client: Client,
    server: &'a Embedded,
    database: &'a str,
    log: PathBuf,
}

impl<'a> Front<'a> {
    /// With nothing in the cluster yet, and no server.
    pub async fn new(
        control_plane: &'a ControlPlane,
        server: &'a Embedded,
        database: &'a str,
        directory: &std::path::Path,
    ) -> anyhow::Result<Self> {
        for namespace in [OURS, THEIRS] {
            control_plane.namespace(namespace).await;
        }
        let kubeconfig = directory.join(format!("{database}.kubeconfig"));
        fs::write(&kubeconfig, control_plane.kubeconfig(OURS))?;
        let (client, log) = (control_plane.access(OURS).client().await, directory.join(format!("{database}.log")));
        Ok(Self { control_plane, kubeconfig, client, server, database, log })
    }

    /// A server that writes as fast as it can, and has compared everything once.
    pub async fn serve(&self) -> anyhow::Result<Place> {
        fs::write(&self.log, "")?;
        let place = Place::start_with(self.server, self.database, |command| {
            command.args(["--kubernetes=on", "--mirror=all", "--watch-namespaces", OURS, "--kubeconfig"]).arg(&self.kubeconfig);
            command.args(["--mirror-qps=10000", "--mirror-burst=10000"]);
            command.args(["--lease-duration=4s", "--lease-renew-deadline=3s", "--lease-retry-period=1s"]);
            command.env("RUST_LOG", "warn,moorline::kubernetes::follow=info");
            command.stderr(fs::File::options().append(true).open(&self.log)?);
            Ok(())
        })
        .await?;
        until("it has compared everything", async || {
            Ok(fs::read_to_string(&self.log)?.contains("compared every record").then_some(()))
        })
        .await?;
        Ok(place)
    }

    /// The chats of a namespace, as the cluster has them.
    pub async fn chats(&self, namespace: &str) -> anyhow::Result<Vec<Chat>> {
        let api: Api<Chat> = Api::namespaced(self.client.clone(), namespace);
        let (mut all, mut params) = (Vec::new(), ListParams::default().limit(PAGE));
        loop {
            let page = api.list(&params).await?;
            all.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(all),
            }
        }
    }

    /// How many chats the cluster shows pinned, and how many of those drifted.
    pub async fn shown(&self) -> anyhow::Result<(usize, usize)> {
        let statuses = self.chats(OURS).await?.into_iter().filter_map(|chat| chat.status);
        let pinned: Vec<_> = statuses.filter(|status| status.pinned.is_some()).collect();
        Ok((pinned.len(), pinned.iter().filter(|status| status.dirty).count()))
    }

    /// Makes so many chats through the API, and waits until the cluster shows that they are pinned.
    pub async fn make_chats(&self, place: &Place, agent: &str, count: usize) -> anyhow::Result<()> {
        let make = |n: usize| async move {
            let chat = json!({"apiVersion": "moorline.dev/v1alpha1", "kind": "Chat", "metadata": {"name": format!("{agent}-chat-{n}")},
                              "spec": {"owner": "bench", "agentRef": {"name": agent}}});
            place.ask(reqwest::Method::POST, "chats", &chat).await
        };
        stream::iter((0..count).map(make)).buffer_unordered(AT_ONCE).try_collect::<Vec<_>>().await?;
        // Each is made and then shown, at least: only when so much was written is it worth a look at all of them.
        let enough = 2.0 * number(count);
        until("about as much was written as has to be", async || Ok((metric(place, WRITTEN).await? >= enough).then_some(())))
            .await?;
        until("all chats are shown to be pinned", async || Ok((self.shown().await? == (count, 0)).then_some(()))).await?;
        self.until_quiet().await
    }

    /// Waits until a second goes by in which nobody writes but whoever holds the Lease.
    pub async fn until_quiet(&self) -> anyhow::Result<()> {
        until("nothing is written any more", async || {
            let mark = self.control_plane.mark();
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(self.writes_since(mark).await.is_empty().then_some(()))
        })
        .await
    }

    /// What was written since, the Lease left out.
    pub async fn writes_since(&self, mark: Mark) -> Vec<Audit> {
        let mut writes = self.control_plane.writes_since(mark).await;
        writes.retain(|write| write.resource != "leases");
        writes
    }
}

/// What a server says of itself under a name, summed over its labels.
pub async fn metric(place: &Place, name: &str) -> anyhow::Result<f64> {
    let text = place.text("metrics").await?;
    let of = |line: &str| line.strip_prefix("moorline_")?.strip_prefix(name)?.rsplit_once(' ')?.1.parse::<f64>().ok();
    let found: Vec<f64> = text.lines().filter_map(of).collect();
    ensure!(!found.is_empty(), "it has no metric {name}");
    Ok(found.iter().sum())
}

/// Looks every so often until it is so: not too often, because a look costs what is looked at something too.
pub async fn until<T>(what: &str, look: impl AsyncFn() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    let (began, mut ticks) = (Instant::now(), tokio::time::interval(LOOK));
    loop {
        ticks.tick().await;
        if let Some(found) = look().await.with_context(|| what.to_owned())? {
            return Ok(found);
        }
        ensure!(began.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain until {what}");
    }
}

/// A count among other numbers.
#[expect(clippy::cast_precision_loss, reason = "counts of a benchmark are small")]
pub fn number(count: usize) -> f64 {
    count as f64
}
