//! Faults under load: clients and watchers of `histories` go on while replicas, PostgreSQL, the network, the disk and a clock
//! fail around them. Then the faults end, and within half a minute everything is converged by itself; the history that
//! everybody was told is judged by the same checker as that of a quiet day.
//!
//! A long run (`make chaos`) is a sequence of rounds, each on a database of its own, so that what is found is small.

use super::fleet::{Fault, Fleet};
use crate::{
    histories::{Evidence, Load, Servers, Watchers, account, check, quiet, report},
    support::{pair::Pair, proxy::Seeded, until::until_within},
};
use std::{
    collections::BTreeMap,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

/// How long it may take from the end of the last fault until nothing is due.
const CONVERGED_WITHIN: Duration = Duration::from_secs(30);
/// How many operations are acknowledged between two faults, at least.
const SERVED: u64 = 20;
/// How many clients there are.
const CLIENTS: usize = 8;
/// The size of the disk below both servers.
const DISK: u64 = 640 << 20;

/// What is done in the short run: each fault, the frequent ones more than once.
const SHORT: [Fault; 12] = [
    Fault::Kill,
    Fault::Jump,
    Fault::Reset,
    Fault::ShutDown,
    Fault::Kill,
    Fault::ResetClients,
    Fault::FailOver,
    Fault::Stop,
    Fault::Crash,
    Fault::FullDisk,
    Fault::Jump,
    Fault::Silence,
];

/// How often each is drawn in the long run, of their sum.
const WEIGHTS: [(Fault, u64); 12] = [
    (Fault::Kill, 200),
    (Fault::Reset, 40),
    (Fault::ResetClients, 32),
    (Fault::ShutDown, 32),
    (Fault::Crash, 16),
    (Fault::Jump, 24),
    (Fault::Stop, 8),
    (Fault::LongStop, 1),
    (Fault::Silence, 8),
    (Fault::LongSilence, 1),
    (Fault::FailOver, 8),
    (Fault::FullDisk, 4),
];
/// How many faults there are in a round of the long run.
const ROUND: usize = 40;

fn drawn(random: &mut Seeded) -> Fault {
    let mut at = random.of(0..WEIGHTS.iter().map(|(_, weight)| weight).sum());
    for (fault, weight) in WEIGHTS {
        match at.checked_sub(weight) {
            None => return fault,
            Some(rest) => at = rest,
        }
    }
    unreachable!("the weights sum up to more than was drawn")
}

/// What a round came to.
struct Round {
    pair: Pair,
    counts: BTreeMap<Fault, u64>,
    converged_in: Duration,
    violations: Vec<String>,
    told: String,
}

/// A load, these faults in this order, the end of both, and what everybody was told of it.
async fn round(pair: Pair, name: &str, seed: u64, faults: impl IntoIterator<Item = Fault>, until: Instant) -> Round {
    let mut fleet = Fleet::start(pair, name, seed).await;
    let servers = Servers::new(fleet.urls());
    let watchers = Watchers::start(&servers, seed, 2, 3);
    let load = Load::new(CLIENTS, seed, u64::MAX, &servers);
    let running = tokio::spawn({
        let load = load.clone();
        async move { load.run().await }
    });
    let mut faults_over = Instant::now();
    for fault in faults {
        fleet.suffer(fault).await;
        faults_over = Instant::now();
        // The next one comes when writes and reads have been acknowledged again.
        let before = load.acknowledged.load(Ordering::SeqCst);
        until_within(CONVERGED_WITHIN, "clients are served again", || async {
            (load.acknowledged.load(Ordering::SeqCst) >= before + SERVED).then_some(())
        })
        .await;
        if Instant::now() > until {
            break;
        }
    }
    load.stop.cancel();
    let history = running.await.unwrap();
    // The pool that was there all the time has seen it all; what judges is not among what is judged.
    let pool = moorline::store::pool(fleet.db.options.clone(), 4);
    quiet(&pool).await;
    let converged_in = faults_over.elapsed();
    let seen = watchers.finish(&servers).await;
    let (log, state) = account(&pool).await;
    let evidence = Evidence { history, log, state, seen };
    let violations = check(&evidence).iter().map(ToString::to_string).collect();
    let told = report(&evidence);
    pool.close().await;
    let counts = fleet.counts.clone();
    Round { pair: fleet.end().await, counts, converged_in, violations, told }
}

fn counted(counts: &BTreeMap<Fault, u64>) -> String {
    counts.iter().map(|(fault, count)| format!("{fault:?} {count}")).collect::<Vec<_>>().join(", ")
}

#[track_caller]
fn is_well(round: &Round, what: &str) {
    println!(
        "chaos: {what}: {}; converged {:.1} s after the last fault; {}",
        counted(&round.counts),
        round.converged_in.as_secs_f64(),
        round.told
    );
    for violation in round.violations.iter().take(50) {
        println!("  {violation}");
    }
    assert!(round.violations.is_empty(), "{what}: {} violations, the first: {}", round.violations.len(), round.violations[0]);
    assert!(
        round.converged_in < CONVERGED_WITHIN,
        "{what}: converged after {:?}, not within {CONVERGED_WITHIN:?}",
        round.converged_in
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_through_every_fault_and_all_is_converged_again_by_itself() {
    let pair = Pair::synchronous(DISK).await;
    let round = round(pair, "short", 1, SHORT, Instant::now() + Duration::from_mins(5)).await;
    is_well(&round, "short");
    round.pair.remove().await;
}

/// What `make chaos` runs. Without its environment there is nothing for it to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rounds_of_faults_for_as_long_as_was_asked() {
    let asked = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty()).map(|text| text.parse::<u64>().unwrap());
    let Some(minutes) = asked("MOORLINE_CHAOS_MINUTES") else { return };
    let seed = asked("MOORLINE_CHAOS_SEED").unwrap_or(1);
    let (mut pair, mut random) = (Pair::synchronous(DISK).await, Seeded::new(seed));
    let until = Instant::now() + Duration::from_mins(minutes);
    let (mut all, mut rounds, mut slowest) = (BTreeMap::<Fault, u64>::new(), 0, Duration::ZERO);
    while Instant::now() < until {
        rounds += 1;
        let faults: Vec<Fault> = (0..ROUND).map(|_| drawn(&mut random)).collect();
        let done = round(pair, &format!("round_{rounds}"), seed + rounds, faults, until).await;
        is_well(&done, &format!("seed {seed}, round {rounds}"));
        for (fault, count) in &done.counts {
            *all.entry(*fault).or_default() += count;
        }
        slowest = slowest.max(done.converged_in);
        pair = done.pair;
    }
    pair.remove().await;
    println!(
        "chaos: seed {seed}, {rounds} rounds, {minutes} minutes: {}; converged after {:.1} s at the latest",
        counted(&all),
        slowest.as_secs_f64()
    );
}
