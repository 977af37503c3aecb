//! Three replicas and a fourth whose clock jumps, on a PostgreSQL with a synchronous standby. Between each client and each
//! replica, and between each replica and PostgreSQL, is a network that somebody has a hand on.

use super::{clocks::Adrift, statements::socket_of};
use crate::support::{
    api::settings,
    link::{Flow, Link},
    pair::Pair,
    postgres::TestDb,
    proxy::Seeded,
    serve::Replica,
};
use moorline::config;
use rustix::process::Signal;
use std::{collections::BTreeMap, process::Stdio, time::Duration};
use tokio::time::sleep;

/// How many replicas are processes of their own.
const REPLICAS: usize = 3;
/// How long something stands still: longer than a session may be idle in a transaction (5 s) and a connection is waited for (3 s).
const STILL: Duration = Duration::from_millis(6_500);
/// The same for long: longer than any statement may take (30 s), and than a request waits for the database at all (35 s).
const STILL_LONG: Duration = Duration::from_secs(40);
/// How long a full disk stays full.
const FULL: Duration = Duration::from_secs(3);

/// What is done to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// `kill -9` of a replica, which starts again.
    Kill,
    /// SIGSTOP of a replica, and SIGCONT later.
    Stop,
    /// The same, but much later.
    LongStop,
    /// The connections of a replica to PostgreSQL are reset.
    Reset,
    /// The connections of clients to a replica are reset.
    ResetClients,
    /// Nothing arrives between a replica and PostgreSQL for a while, and nobody is told.
    Silence,
    /// The same, for a long while.
    LongSilence,
    /// An immediate shutdown of PostgreSQL, and a start.
    ShutDown,
    /// `kill -9` of PostgreSQL, and a start.
    Crash,
    /// `kill -9` of PostgreSQL; the standby is promoted, and another one made.
    FailOver,
    /// The disk below PostgreSQL is full for a while.
    FullDisk,
    /// The clock of the fourth jumps, by up to six hours.
    Jump,
}

/// One replica, and the networks around it.
struct Member {
    replica: Replica,
    /// To PostgreSQL.
    below: Link,
    /// From clients.
    above: Link,
    url: String,
}

/// All of them.
pub struct Fleet {
    pub pair: Pair,
    pub db: TestDb,
    members: Vec<Member>,
    adrift: Adrift,
    random: Seeded,
    /// How often each was done.
    pub counts: BTreeMap<Fault, u64>,
}

const FLAGS: [&str; 4] = ["--database-connections", "8", "--retention-interval", "1s"];

impl Fleet {
    /// On a database of this name.
    pub async fn start(pair: Pair, name: &str, seed: u64) -> Self {
        let db = pair.database_named(name).await;
        let (socket, mut members) = (socket_of(&db.options), Vec::new());
        for _ in 0..REPLICAS {
            let below = Link::to_socket(socket.clone()).await;
            let url = format!("postgres://postgres@{}/{name}?sslmode=disable", below.address);
            let replica = Replica::telling(&url, &FLAGS, log()).await;
            let above = Link::to(&replica.url).await;
            members.push(Member { replica, below, above, url });
        }
        let adrift = Adrift::start(config::Server { poll_ms: 200, ..settings() }, db.options.clone()).await;
        Self { pair, db, members, adrift, random: Seeded::new(seed), counts: BTreeMap::new() }
    }

    /// Where clients reach each of them, whatever happens.
    pub fn urls(&self) -> Vec<String> {
        let adrift = std::iter::once(self.adrift.address.as_str());
        self.members.iter().map(|member| member.above.address.as_str()).chain(adrift).map(|to| format!("http://{to}")).collect()
    }

    /// Does it, and mends it.
    pub async fn suffer(&mut self, fault: Fault) {
        let one = usize::try_from(self.random.of(0..REPLICAS as u64)).unwrap();
        let another = (one + 1) % REPLICAS;
        let member = &mut self.members[one];
        let still = if matches!(fault, Fault::LongStop | Fault::LongSilence) { STILL_LONG } else { STILL };
        let done = match fault {
            Fault::Kill => {
                member.kill().await;
                true
            }
            Fault::Stop | Fault::LongStop => {
                member.replica.signal(Signal::STOP);
                sleep(still).await;
                member.replica.signal(Signal::CONT);
                true
            }
            Fault::Reset => {
                member.below.reset();
                true
            }
            Fault::ResetClients => {
                member.above.reset();
                true
            }
            Fault::Silence | Fault::LongSilence => {
                member.below.set(Flow::Silent);
                sleep(still).await;
                member.below.set(Flow::Whole);
                true
            }
            Fault::ShutDown => {
                self.pair.shut_down_and_restart().await;
                true
            }
            Fault::Crash => {
                // And a replica with it, which has to start without a database.
                tokio::join!(self.pair.crash_and_restart(), self.members[another].kill());
                *self.counts.entry(Fault::Kill).or_default() += 1;
                true
            }
            Fault::FailOver => {
                let killed = self.pair.fail_over().await;
                // In charge alone for a while, as until somebody comes.
                self.members[another].kill().await;
                *self.counts.entry(Fault::Kill).or_default() += 1;
                self.pair.rebuild(killed).await;
                true
            }
            Fault::FullDisk => {
                let filled = self.pair.fill();
                if filled {
                    sleep(FULL).await;
                    self.pair.make_room().await;
                }
                filled
            }
            Fault::Jump => {
                let seconds = i64::try_from(self.random.of(0..12 * 3_600)).unwrap() - 6 * 3_600;
                self.adrift.clock.jump(seconds);
                true
            }
        };
        *self.counts.entry(fault).or_default() += u64::from(done);
    }

    /// Ends the servers of ours; PostgreSQL goes on, without their database: its disk is small.
    pub async fn end(self) -> Pair {
        let Self { pair, db, members, adrift, random: _, counts: _ } = self;
        drop((members, adrift));
        db.pool.close().await;
        pair.drop_database(&db.name).await;
        pair
    }
}

impl Member {
    async fn kill(&mut self) {
        self.replica.kill();
        self.replica = Replica::telling(&self.url, &FLAGS, log()).await;
        self.above.lead_to(&self.replica.url);
    }
}

/// Where a log goes when somebody looks for something, and names a file.
fn log() -> Stdio {
    crate::support::serve::log()
}
