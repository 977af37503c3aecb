//! One replica at a time writes to the cluster, whatever happens to it, to the others, to their clocks and to the network between
//! them and a real kube-apiserver.

use crate::support::{
    envtest::ControlPlane,
    link::{Flow, Link},
    until::{until, until_within},
};
use clap::Parser;
use jiff::{SignedDuration, Timestamp};
use moorline::{
    clock::{self, Clock, Source, SystemClock},
    kubernetes::lease::{Holding, Lease, LeaseOptions},
};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    options: LeaseOptions,
}

fn options(args: &str) -> LeaseOptions {
    let options = Line::try_parse_from(["moorline"].into_iter().chain(args.split_whitespace())).unwrap().options;
    options.check().unwrap();
    options
}

/// Short enough for a test: lost after 4 s, taken over after 6 s.
fn quick() -> LeaseOptions {
    LeaseOptions {
        lease_duration: Duration::from_secs(6),
        lease_renew_deadline: Duration::from_secs(4),
        lease_retry_period: Duration::from_millis(500),
        ..options("")
    }
}

/// A replica that looks for the lease until it is stopped.
struct Contender {
    lease: Lease,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Contender {
    fn begin(client: kube::Client, namespace: &str, options: LeaseOptions, clock: &Clock) -> Self {
        let lease = Lease::new(client, options, namespace, clock);
        let stop = CancellationToken::new();
        let running = tokio::spawn(lease.clone().run(stop.clone()));
        Self { lease, stop, running }
    }

    async fn on(control_plane: &ControlPlane, namespace: &str) -> Self {
        Self::begin(control_plane.access(namespace).client().await, namespace, quick(), &clock::system())
    }

    async fn until_it_writes(&self) -> u64 {
        until("it holds the lease", || async {
            match *self.lease.holding().borrow() {
                holding @ Holding::Holder { term, .. } => holding.may_write().then_some(term),
                Holding::Standby => None,
            }
        })
        .await
    }

    async fn until_it_does_not_write(&self) {
        until("it does not hold the lease any more", || async { (!self.lease.may_write()).then_some(()) }).await;
    }

    async fn stopped(self) {
        self.stop.cancel();
        self.running.await.unwrap();
    }

    /// Ends as a process that is killed: nothing is let go.
    fn killed(self) {
        self.running.abort();
    }
}

fn path(namespace: &str) -> String {
    format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/moorline")
}

async fn record(control_plane: &ControlPlane, namespace: &str) -> Value {
    control_plane.send("GET", &path(namespace), None).await.map(|lease| lease["spec"].clone()).unwrap_or_default()
}

/// Writes into the Lease what it is told, as somebody who does not ask for its version.
async fn write(control_plane: &ControlPlane, namespace: &str, spec: &Value) {
    control_plane.send("PATCH", &path(namespace), Some(&json!({"spec": spec}))).await.unwrap();
}

fn now() -> Timestamp {
    clock::system().now()
}

#[tokio::test]
async fn of_two_one_writes_and_when_it_stops_the_other_does_at_once_with_the_next_term() {
    let control_plane = ControlPlane::shared().await;
    let namespace = control_plane.namespace_of_its_own().await;
    let one = Contender::on(control_plane, &namespace).await;
    assert_eq!(one.until_it_writes().await, 0);
    let two = Contender::on(control_plane, &namespace).await;
    let spec = record(control_plane, &namespace).await;
    assert_eq!((&spec["holderIdentity"], &spec["leaseDurationSeconds"]), (&json!(one.lease.identity()), &json!(6)));

    // While the one renews, the other does not come to hold it, for longer than an expiry.
    let renewed = until_within(Duration::from_mins(1), "it was renewed often", || async {
        assert!(one.lease.may_write() && !two.lease.may_write());
        let renewed = record(control_plane, &namespace).await["renewTime"].as_str()?.parse::<Timestamp>().unwrap();
        let begun: Timestamp = spec["renewTime"].as_str()?.parse().unwrap();
        (renewed.duration_since(begun) > SignedDuration::from_secs(8)).then_some(renewed)
    });
    renewed.await;
    let later = record(control_plane, &namespace).await;
    assert_eq!((&later["acquireTime"], &later["leaseTransitions"]), (&spec["acquireTime"], &json!(0)));

    let (first, before) = (one.lease.clone(), Instant::now());
    one.stopped().await;
    assert!(!first.may_write());
    assert_eq!(two.until_it_writes().await, 1);
    assert!(before.elapsed() < Duration::from_secs(4), "it did not wait until the lease expired: {:?}", before.elapsed());
    let identity = two.lease.identity().to_owned();
    two.stopped().await;
    let spec = record(control_plane, &namespace).await;
    assert_eq!((&spec["holderIdentity"], &spec["leaseDurationSeconds"]), (&json!(""), &json!(1)), "let go by {identity}");
}

#[tokio::test]
async fn when_the_holder_is_killed_the_other_writes_after_the_lease_duration_and_not_before() {
    let control_plane = ControlPlane::shared().await;
    let namespace = control_plane.namespace_of_its_own().await;
    let one = Contender::on(control_plane, &namespace).await;
    one.until_it_writes().await;
    let two = Contender::on(control_plane, &namespace).await;
    let held = one.lease.clone();
    one.killed();
    let killed = Instant::now();
    until("the first may not write any more", || async {
        assert!(!(held.may_write() && two.lease.may_write()), "both write");
        (!held.may_write()).then_some(())
    })
    .await;
    assert_eq!(two.until_it_writes().await, 1);
    // The last renewal was seen at most a second before the kill, when the other looked.
    assert!(killed.elapsed() > Duration::from_secs(4), "{:?}", killed.elapsed());
    two.stopped().await;
}

#[tokio::test]
async fn a_holder_that_the_network_isolates_stops_before_the_other_begins_and_does_not_take_it_back() {
    let control_plane = ControlPlane::shared().await;
    for flow in [Flow::Silent, Flow::Cut] {
        let namespace = control_plane.namespace_of_its_own().await;
        let link = Link::to(&control_plane.url).await;
        let client = control_plane.access(&namespace).via(&link.https()).client().await;
        let isolated = Contender::begin(client, &namespace, quick(), &clock::system());
        isolated.until_it_writes().await;
        let other = Contender::on(control_plane, &namespace).await;

        link.set(flow);
        let both = || isolated.lease.may_write() && other.lease.may_write();
        until("the isolated one stops", || async {
            assert!(!both(), "{flow:?}: both write");
            (!isolated.lease.may_write()).then_some(())
        })
        .await;
        assert!(!other.lease.may_write(), "{flow:?}: there is a time in which nobody writes");
        until("and it is told", || async { (*isolated.lease.holding().borrow() == Holding::Standby).then_some(()) }).await;
        assert_eq!(other.until_it_writes().await, 1, "{flow:?}");

        link.set(Flow::Whole);
        let before = record(control_plane, &namespace).await["renewTime"].clone();
        until("it is renewed by whoever has it", || async {
            assert!(!isolated.lease.may_write(), "{flow:?}");
            (record(control_plane, &namespace).await["renewTime"] != before).then_some(())
        })
        .await;
        other.stopped().await;
        assert_eq!(isolated.until_it_writes().await, 2, "{flow:?}: when the other is gone");
        isolated.stopped().await;
    }
}

#[tokio::test]
async fn a_network_that_is_silent_for_less_than_the_renew_deadline_costs_nothing() {
    let control_plane = ControlPlane::shared().await;
    let namespace = control_plane.namespace_of_its_own().await;
    let link = Link::to(&control_plane.url).await;
    let client = control_plane.access(&namespace).via(&link.https()).client().await;
    // A call that hangs is given up after five seconds, and there are five more for another.
    let patient = options("--lease-retry-period 1s");
    let holder = Contender::begin(client, &namespace, patient, &clock::system());
    holder.until_it_writes().await;
    let before = record(control_plane, &namespace).await["renewTime"].clone();
    let mut changes = holder.lease.holding();
    link.set(Flow::Silent);
    until("four seconds of silence have passed", || async {
        let since: Timestamp = before.as_str().unwrap().parse().unwrap();
        (now().duration_since(since) > SignedDuration::from_secs(4)).then_some(())
    })
    .await;
    link.set(Flow::Whole);
    until("it is renewed again", || async { (record(control_plane, &namespace).await["renewTime"] != before).then_some(()) })
        .await;
    assert!(holder.lease.may_write());
    changes.borrow_and_update();
    assert!(!changes.has_changed().unwrap());
    let spec = record(control_plane, &namespace).await;
    assert_eq!(spec["leaseTransitions"], 0);
    holder.stopped().await;
}

#[tokio::test]
async fn a_stolen_lease_is_given_up_at_the_next_renewal_and_had_again_when_the_thief_does_not_renew() {
    let control_plane = ControlPlane::shared().await;
    let namespace = control_plane.namespace_of_its_own().await;
    let holder = Contender::on(control_plane, &namespace).await;
    holder.until_it_writes().await;
    // Its renewal time lies far in the future, which says nothing about whether it renews.
    let theft = json!({
        "holderIdentity": "thief", "leaseDurationSeconds": 3, "leaseTransitions": 7,
        "renewTime": "2199-01-01T00:00:00.000000Z", "acquireTime": "2199-01-01T00:00:00.000000Z",
    });
    write(control_plane, &namespace, &theft).await;
    let stolen = Instant::now();
    holder.until_it_does_not_write().await;
    assert!(stolen.elapsed() < Duration::from_secs(2), "{:?}", stolen.elapsed());
    assert_eq!(record(control_plane, &namespace).await["holderIdentity"], "thief", "it is not stolen back");
    assert_eq!(holder.until_it_writes().await, 8);
    assert!(stolen.elapsed() >= Duration::from_secs(3), "{:?}", stolen.elapsed());
    // What is let go by hand is taken at once, with a number of its own.
    write(control_plane, &namespace, &json!({"holderIdentity": ""})).await;
    until("it has another number", || async {
        matches!(*holder.lease.holding().borrow(), Holding::Holder { term: 9, .. }).then_some(())
    })
    .await;
    // And what is deleted is made again, with the next.
    control_plane.send("DELETE", &path(&namespace), None).await.unwrap();
    until("it is there again", || async {
        matches!(*holder.lease.holding().borrow(), Holding::Holder { term: 10, .. }).then_some(())
    })
    .await;
    assert!(holder.lease.may_write());
    holder.stopped().await;
}

/// The machine's clock, wrong by so much.
#[derive(Debug)]
struct Wrong(SignedDuration);

impl Source for Wrong {
    fn now(&self) -> Timestamp {
        SystemClock.now() + self.0
    }
}

#[tokio::test]
async fn a_holder_whose_clock_is_years_behind_keeps_the_lease_and_one_whose_clock_is_ahead_loses_it_when_it_is_killed() {
    let control_plane = ControlPlane::shared().await;
    let years = SignedDuration::from_hours(24 * 365 * 3);
    for wrong in [-years, years] {
        let namespace = control_plane.namespace_of_its_own().await;
        let client = control_plane.access(&namespace).client().await;
        let clock: Clock = Arc::new(Wrong(wrong));
        let one = Contender::begin(client, &namespace, quick(), &clock);
        one.until_it_writes().await;
        let two = Contender::on(control_plane, &namespace).await;
        let began = now();
        until("longer than the lease duration has passed", || async {
            assert!(one.lease.may_write() && !two.lease.may_write(), "{wrong}");
            (now().duration_since(began) > SignedDuration::from_secs(8)).then_some(())
        })
        .await;
        let held = one.lease.clone();
        one.killed();
        let killed = Instant::now();
        assert_eq!(two.until_it_writes().await, 1, "{wrong}");
        assert!(!held.may_write());
        assert!(
            killed.elapsed() > Duration::from_secs(4) && killed.elapsed() < Duration::from_secs(12),
            "{:?}",
            killed.elapsed()
        );
        two.stopped().await;
    }
}

#[tokio::test]
async fn of_eight_that_begin_at_once_one_writes_and_the_others_watch_it() {
    let control_plane = ControlPlane::shared().await;
    let namespace = control_plane.namespace_of_its_own().await;
    let mut all = Vec::new();
    for _ in 0..8 {
        all.push(Contender::on(control_plane, &namespace).await);
    }
    for term in 0..3 {
        let writes = |all: &[Contender]| all.iter().filter(|one| one.lease.may_write()).count();
        until("one writes", || async {
            let writing = writes(&all);
            assert!(writing <= 1, "{writing} write");
            (writing == 1).then_some(())
        })
        .await;
        let place = all.iter().position(|one| one.lease.may_write()).unwrap();
        let holder = all.remove(place);
        let spec = record(control_plane, &namespace).await;
        assert_eq!((&spec["holderIdentity"], &spec["leaseTransitions"]), (&json!(holder.lease.identity()), &json!(term)));
        holder.stopped().await;
    }
    for one in all {
        one.stopped().await;
    }
}

#[tokio::test]
async fn who_may_not_touch_the_lease_writes_nothing_until_it_may() {
    let control_plane = ControlPlane::shared().await;
    let namespace = control_plane.namespace_of_its_own().await;
    let rules = |verbs: Value| json!([{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": verbs}]);
    let user = control_plane.user(&namespace, "poor", &rules(json!(["get"]))).await;
    let client = control_plane.access(&namespace).of(&user).client().await;
    let poor = Contender::begin(client, &namespace, quick(), &clock::system());
    let mark = control_plane.mark();
    until("it has tried twice", || async {
        let writes = control_plane.writes_since(mark).await;
        let refused = writes.iter().filter(|write| write.user == user.name && write.code == 403).count();
        (refused >= 2).then_some(())
    })
    .await;
    assert!(!poor.lease.may_write());
    control_plane.allow(&user, &rules(json!(["get", "create", "update"]))).await;
    assert_eq!(poor.until_it_writes().await, 0);
    poor.stopped().await;
}
