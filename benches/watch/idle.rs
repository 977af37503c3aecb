//! What 10,000 watchers to whom nothing happens cost of the server's memory: at first, and after each has been told of one change,
//! for buffers are made when they are needed and may be kept.

use super::{
    clients::Clients,
    place::{BASE, Place},
    stats,
};
use anyhow::ensure;
use serde_json::json;
use std::{path::Path, time::Duration};

const WATCHERS: usize = 10_000;
/// What they may cost, in bytes.
const MOST: u64 = 200 << 20;
/// How long the server has to itself before it is looked at.
const REST: Duration = Duration::from_secs(3);

/// Measures.
pub async fn run(place: &Place, directory: &Path) -> anyhow::Result<bool> {
    let mut agent = place.agent("idle", 1).await?;
    let path = format!("{BASE}/chats?watch=1");
    // Whatever is made once is there before.
    drop(tokio::task::block_in_place(|| Clients::open(place.process.address, &path, 100, directory.join("warm")))?);
    tokio::time::sleep(REST).await;
    let before = place.process.cost()?;
    let mut clients =
        tokio::task::block_in_place(|| Clients::open(place.process.address, &path, WATCHERS, directory.join("idle")))?;
    tokio::time::sleep(REST).await;
    let opened = place.process.cost()?;
    let rested = place.process.cost()?;
    tokio::time::sleep(REST).await;
    let cores = (place.process.cost()?.cpu - rested.cpu) / REST.as_secs_f64();
    agent.push(place, "two", true).await?;
    let told = tokio::task::block_in_place(|| clients.told(2))?;
    ensure!(told.differ == 0 && clients.witness()?.contains("ADDED"), "they were not told the same");
    ensure!(
        place.ask(reqwest::Method::GET, "chats/idle-chat-0", &json!(null)).await?["status"]["dirty"] == true,
        "nothing drifted"
    );
    tokio::time::sleep(REST).await;
    let after = place.process.cost()?;
    let each = |cost: u64| cost.saturating_sub(before.rss) / WATCHERS as u64;
    println!(
        "idle: RSS {} MiB before, {} MiB with {WATCHERS} watchers ({} bytes each), {} MiB after a change to each ({} bytes each); {cores:.3} of a core",
        before.rss >> 20,
        opened.rss >> 20,
        each(opened.rss),
        after.rss >> 20,
        each(after.rss)
    );
    let cost = opened.rss.max(after.rss).saturating_sub(before.rss);
    Ok(stats::say("idle-rss", &format!("cost={}MiB goal<={}MiB", cost >> 20, MOST >> 20), cost <= MOST))
}
