//! How long a manifest takes: from the request that creates it until a watch shows that it is ready. One after the other.

use super::front::{Front, OURS, number};
use crate::{many, stats};
use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use kube::{
    Api, ResourceExt as _,
    api::{PostParams, WatchEvent, WatchParams},
};
use moorline::v1alpha1::Chat;
use serde_json::json;
use std::time::{Duration, Instant};

const TIMES: usize = 200;
const PATIENCE: Duration = Duration::from_secs(30);

/// Measures.
pub async fn run(front: &Front<'_>) -> anyhow::Result<bool> {
    let place = front.serve().await?;
    place.agent("ws", 0).await?;
    front.until_quiet().await?;
    let api: Api<Chat> = Api::namespaced(front.client.clone(), OURS);
    let version = api.list(&kube::api::ListParams::default()).await?.metadata.resource_version.context("a version")?;
    let mut watch = api.watch(&WatchParams::default(), &version).await?.boxed();
    let mut took = Vec::new();
    for n in 0..many(TIMES) {
        let name = format!("manifest-{n}");
        let chat = json!({"apiVersion": "moorline.dev/v1alpha1", "kind": "Chat", "metadata": {"name": name},
                          "spec": {"owner": "bench", "agentRef": {"name": "ws"}}});
        let began = Instant::now();
        api.create(&PostParams::default(), &serde_json::from_value(chat)?).await?;
        let ready = async {
            while let Some(event) = watch.try_next().await? {
                let WatchEvent::Modified(chat) = event else { continue };
                let conditions = chat.status.iter().flat_map(|status| &status.conditions);
                if chat.name_any() == name && conditions.into_iter().any(|it| it.type_ == "Ready" && it.status == "True") {
                    return anyhow::Ok(began.elapsed());
                }
            }
            anyhow::bail!("the watch ended")
        };
        let each = tokio::time::timeout(PATIENCE, ready).await.with_context(|| format!("{name} is not shown to be ready"))??;
        took.push(u64::try_from(each.as_micros())?);
    }
    took.sort_unstable();
    ensure!(!took.is_empty(), "nothing was measured");
    let milliseconds = |percent| Duration::from_micros(stats::percentile(&took, percent)).as_secs_f64() * 1e3;
    println!(
        "ready: from a manifest's creation until a watch shows Ready: p50 {:.1} ms, p99 {:.1} ms ({:.0} times)",
        milliseconds(50),
        milliseconds(99),
        number(took.len())
    );
    Ok(true)
}
