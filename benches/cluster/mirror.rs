//! One push drifts all chats of an agent: how long until the cluster shows the last of them, and with how many writes? Turn about
//! with a bare loop that applies the same statuses to as many objects of its own.

use super::{
    bare::Bare,
    front::{Front, WRITTEN, metric, number, until},
};
use crate::{many, stats, support::envtest::counted};
use anyhow::{Context as _, ensure};
use jiff::Timestamp;
use moorline::clock;
use std::time::Duration;

const CHATS: usize = 5_000;
const ROUNDS: usize = 4;
/// Of the bare loop's rate, at least.
const RATE: f64 = 0.9;

/// Measures.
pub async fn run(front: &Front<'_>) -> anyhow::Result<bool> {
    let place = front.serve().await?;
    let mut agent = place.agent("ws", 0).await?;
    let chats = many(CHATS);
    front.make_chats(&place, "ws", chats).await?;
    let bare = Bare::new(front).await?;
    let (mut ratios, mut redundant) = (Vec::new(), 0);
    for round in 0..ROUNDS {
        // There and back again: all drift, and all are clean again.
        let (context, drifted) = if round % 2 == 0 { ("two", chats) } else { ("one", 0) };
        let (mark, before) = (front.control_plane.mark(), metric(&place, WRITTEN).await?);
        let cost = place.process.cost()?;
        let began = clock::system().now();
        agent.push(&place, context, false).await?;
        until("as much was written as had to be", async || {
            Ok((metric(&place, WRITTEN).await? - before >= number(chats)).then_some(()))
        })
        .await?;
        let each = (place.process.cost()?.cpu - cost.cpu) * 1e6 / number(chats);
        // What is told of it as Events is no part of it, and must not be in the way of the bare loop.
        front.until_quiet().await?;
        ensure!(front.shown().await? == (chats, drifted), "the cluster shows something else");
        let writes = front.writes_since(mark).await;
        let of = |resource: &str| writes.iter().filter(|write| write.resource == resource).count();
        let (statuses, events) = (of("chats/status"), of("events"));
        // When was it so? The apiserver knows it better than whoever looks now and then.
        let at = || writes.iter().filter(|write| write.resource == "chats/status").map(|write| write.at);
        let since = |at: Option<Timestamp>| anyhow::Ok(Duration::try_from(at.context("no write")?.duration_since(began))?);
        let (first, took) = (since(at().min())?, since(at().max())?);
        let others: Vec<_> =
            writes.iter().filter(|write| !["chats/status", "events"].contains(&write.resource.as_str())).cloned().collect();
        // The agent's own status and its first snapshot are what a push is about, not redundant.
        println!(
            "mirror: {:.0} a second by Moorline ({took:.1?} from the push, {first:.1?} until the first; {each:.0} µs of processor \
             each), {statuses} writes of statuses, {events} of Events, others {:?}",
            rate(chats, took),
            counted(&others)
        );
        redundant += statuses.saturating_sub(chats);
        let mark = front.control_plane.mark();
        let (bare_took, each) = bare.follow().await?;
        ensure!(front.writes_since(mark).await.len() == chats, "the bare loop writes each once");
        let each = each * 1e6 / number(chats);
        println!(
            "mirror: {:.0} a second by the bare loop ({bare_took:.1?}, {each:.0} µs of processor each)",
            rate(chats, bare_took)
        );
        ratios.push(rate(chats, took) / rate(chats, bare_took));
    }
    let fast = stats::at_least("mirror-rate", &mut ratios, RATE);
    let rounds = ROUNDS * chats;
    Ok(stats::say("mirror-redundant", &format!("{redundant} of {rounds} writes goal=0"), redundant == 0) && fast)
}

fn rate(count: usize, took: Duration) -> f64 {
    number(count) / took.as_secs_f64()
}
