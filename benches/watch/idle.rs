//! What 10,000 watchers to whom nothing happens cost of the server's memory: at first, and after each has been told of one change,
//! for buffers are made when they are needed and may be kept.
//!
//! Nothing is measured, and nothing changes, before each has had its list: the server answers at once and reads the lists one after the other,
//! a few at a time, so whoever is late would find the change in the list, and wait in vain to be told of it.

use super::{
    clients::Clients,
    got::Wanted,
    place::{self, BASE, Place},
    report::Report,
    setting::Setting,
};
use anyhow::{Context as _, ensure};
use serde_json::json;
use std::time::Duration;

const WATCHERS: usize = 10_000;
/// What they may cost, in MiB.
const MOST: f64 = 200.0;
/// How long the server has to itself before it is looked at.
const REST: Duration = Duration::from_secs(3);

/// Measures.
pub async fn run(setting: &Setting) -> anyhow::Result<Report> {
    place::files(11_000)?;
    let (mut report, watchers) = (Report::default(), setting.of(WATCHERS, WATCHERS, 200));
    setting.database("w2").await?.close().await;
    let place = &Place::start(&setting.server, "w2").await?;
    let mut agent = place.agent("idle", 1).await?;
    let path = format!("{BASE}/chats?watch=1");
    // Whatever is made once is there before.
    let open = |watchers, file| {
        tokio::task::block_in_place(|| Clients::open(place.process.address, &path, watchers, setting.file(file)))
    };
    let mut warm = open(100, "warm")?;
    tokio::task::block_in_place(|| warm.told(Wanted::Lines(1)))?;
    drop(warm);
    tokio::time::sleep(REST).await;
    let before = place.process.cost()?;
    let mut clients = open(watchers, "idle")?;
    let listed = tokio::task::block_in_place(|| clients.told(Wanted::Lines(1)))?;
    tokio::time::sleep(REST).await;
    let opened = place.process.cost()?;
    tokio::time::sleep(REST).await;
    let cores = (place.process.cost()?.cpu - opened.cpu) / REST.as_secs_f64();
    agent.push(place, "two", true).await?;
    let chat = place.ask(reqwest::Method::GET, "chats/idle-chat-0", &json!(null)).await?;
    ensure!(chat["status"]["dirty"] == true, "nothing drifted");
    let version = chat["metadata"]["resourceVersion"].as_str().context("the chat's version")?.parse()?;
    let told = tokio::task::block_in_place(|| clients.told(Wanted::Version(version)))?;
    // Each once: unless somebody was cut off, and was told again of what it had.
    ensure!(told.resumed > 0 || told.differ == 0, "{} were told something else than the first", told.differ);
    ensure!(told.resumed > 0 || (listed.lines, told.lines) == (1, 2), "{} lines, then {}", listed.lines, told.lines);
    tokio::time::sleep(REST).await;
    let after = place.process.cost()?;
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    report.figure("RSS before", "MiB", &[mib(before.rss)]);
    report.figure("RSS with watchers", "MiB", &[mib(opened.rss)]);
    report.figure("RSS after a change to each", "MiB", &[mib(after.rss)]);
    report.figure("until each had its list", "s", &[listed.took]);
    let cost = opened.rss.max(after.rss).saturating_sub(before.rss);
    report.fact("a watcher", format!("{} bytes", cost / watchers as u64));
    report.fact("cut off, and went on", told.resumed);
    report.at_most("rss", "MiB", &[mib(cost)], MOST);
    report.told("cpu", "cores", &[cores]);
    Ok(report)
}
