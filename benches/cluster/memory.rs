//! What a server that mirrors many chats takes of memory once it has nothing to do, against a program of controller-runtime
//! that has the same objects in its cache. Each has listed them once, at its start, and then rested equally long.

use super::front::Front;
use crate::{many, place::Cost, stats, support::envtest::programs};
use anyhow::{Context as _, ensure};
use std::{process::Stdio, time::Duration};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
};

const CHATS: usize = 20_000;
/// Of the other program's, at most.
const RATIO: f64 = 0.25;
/// How long each has to itself before it is looked at.
const REST: Duration = Duration::from_secs(15);

/// Measures.
pub async fn run(front: &Front<'_>) -> anyhow::Result<bool> {
    let chats = many(CHATS);
    {
        let place = front.serve().await?;
        place.agent("ws", 0).await?;
        front.make_chats(&place, "ws", chats).await?;
        println!("memory: {} MiB RSS after it has made {chats} chats in the cluster", place.process.cost()?.rss >> 20);
    }
    let ours = {
        let place = front.serve().await?;
        let mark = front.control_plane.mark();
        tokio::time::sleep(REST).await;
        ensure!(front.writes_since(mark).await.is_empty(), "it had something to write");
        place.process.cost()?.rss
    };
    let program = programs().join("cached");
    ensure!(program.exists(), "there is no {}: run scripts/ensure-envtest cached", program.display());
    let mut command = Command::new(program);
    command.arg("--kubeconfig").arg(&front.kubeconfig).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut process = command.spawn()?;
    let mut said = BufReader::new(process.stdout.take().context("its output")?).lines();
    let said = said.next_line().await?.context("it ended")?;
    ensure!(said == chats.to_string(), "it has {said} in its cache");
    tokio::time::sleep(REST).await;
    let theirs = Cost::of(process.id().context("it ended")?)?.rss;
    println!("memory: with {chats} chats Moorline takes {} MiB RSS, controller-runtime {} MiB", ours >> 20, theirs >> 20);
    Ok(stats::at_most("memory-ratio", &mut [stats::ratio(ours, theirs)], RATIO))
}
