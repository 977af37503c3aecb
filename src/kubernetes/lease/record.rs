//! What the Lease says, and what to write into it. Pure: the times are given.
//!
//! Nobody's wall clock is trusted. A holder is given up when its record has not been *seen to change* for as long as it promised
//! to renew it within, by the clock of whoever looks, which only counts forward. `renewTime` and `acquireTime` are for people.

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use std::time::Duration;
use tokio::time::Instant;

/// The longest promise that is believed; no options of ours make a longer one.
const LONGEST: Duration = Duration::from_hours(1);

/// The Lease as it was last seen, and since when it has been like that.
#[derive(Clone, Debug)]
pub struct Seen {
    /// With the version that the next write has to name.
    pub lease: Lease,
    since: Instant,
}

/// Whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Ours, by what it says.
    Ours,
    /// Nobody's: never held, let go, or not renewed for too long.
    Free,
    /// Somebody else's.
    Theirs(String),
}

impl Seen {
    /// The first time.
    pub fn first(lease: Lease, now: Instant) -> Self {
        Self { lease, since: now }
    }

    /// Again. Only what the holder writes counts as a sign of life, not what others do to the object.
    #[must_use]
    pub fn again(self, lease: Lease, now: Instant) -> Self {
        let since = if self.lease.spec == lease.spec { self.since } else { now };
        Self { lease, since }
    }

    /// Whose it is now.
    pub fn whose(&self, us: &str, ours: Duration, now: Instant) -> Whose {
        let spec = self.lease.spec.as_ref();
        let holder = spec.and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        let promised = spec.and_then(|spec| spec.lease_duration_seconds).and_then(|seconds| u64::try_from(seconds).ok());
        let promised = promised.filter(|seconds| *seconds > 0).map_or(ours, Duration::from_secs).min(LONGEST);
        match holder {
            "" => Whose::Free,
            holder if holder == us => Whose::Ours,
            _ if now.duration_since(self.since) >= promised => Whose::Free,
            holder => Whose::Theirs(holder.to_owned()),
        }
    }

    /// The holder's number.
    pub fn term(&self) -> u64 {
        let transitions = self.lease.spec.as_ref().and_then(|spec| spec.lease_transitions);
        u64::try_from(transitions.unwrap_or_default()).unwrap_or_default()
    }
}

/// What to write to take it or to keep it: on top of what was seen, so that another writer makes it fail.
pub fn renewed(seen: &Lease, us: &str, duration: Duration, now: Timestamp) -> Lease {
    let mut lease = seen.clone();
    let spec = lease.spec.take();
    let first = spec.as_ref().is_none_or(|spec| spec.holder_identity.is_none());
    let spec = spec.unwrap_or_default();
    let ours = spec.holder_identity.as_deref() == Some(us);
    // A write that changes nothing is no sign of life: the wall clock may have been set back to this very microsecond.
    let same = spec.renew_time.as_ref().is_some_and(|MicroTime(last)| last.as_microsecond() == now.as_microsecond());
    let now = if same { now.checked_add(Duration::from_micros(1)).unwrap_or(now) } else { now };
    let transitions = spec.lease_transitions.unwrap_or_default();
    lease.spec = Some(LeaseSpec {
        holder_identity: Some(us.to_owned()),
        acquire_time: spec.acquire_time.filter(|_| ours).or(Some(MicroTime(now))),
        renew_time: Some(MicroTime(now)),
        lease_duration_seconds: Some(whole_seconds(duration)),
        lease_transitions: Some(if ours || first { transitions } else { transitions.saturating_add(1) }),
        ..spec
    });
    lease
}

/// What to write when there is none.
pub fn created(name: &str, term: u64, us: &str, duration: Duration, now: Timestamp) -> Lease {
    let mut lease = renewed(&Lease::default(), us, duration, now);
    lease.metadata.name = Some(name.to_owned());
    if let Some(spec) = &mut lease.spec {
        spec.lease_transitions = Some(i32::try_from(term).unwrap_or(i32::MAX));
    }
    lease
}

/// What to write to let it go: the next holder need not wait.
pub fn released(mut lease: Lease, now: Timestamp) -> Lease {
    let spec = lease.spec.unwrap_or_default();
    lease.spec = Some(LeaseSpec {
        holder_identity: Some(String::new()),
        acquire_time: Some(MicroTime(now)),
        renew_time: Some(MicroTime(now)),
        lease_duration_seconds: Some(1),
        ..spec
    });
    lease
}

/// Never fewer: the others would come too early.
fn whole_seconds(duration: Duration) -> i32 {
    let more = u64::from(duration.subsec_nanos() > 0);
    i32::try_from(duration.as_secs() + more).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Duration = Duration::from_secs(15);

    fn of(holder: &str, seconds: i32, renewed: &str) -> Lease {
        let spec = LeaseSpec {
            holder_identity: Some(holder.into()),
            lease_duration_seconds: Some(seconds),
            renew_time: Some(MicroTime(renewed.parse().unwrap())),
            lease_transitions: Some(4),
            ..LeaseSpec::default()
        };
        Lease { spec: Some(spec), ..Lease::default() }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_holder_is_given_up_when_its_record_was_not_seen_to_change_for_as_long_as_it_promised_whatever_times_are_in_it() {
        let start = Instant::now();
        for renewed in ["1999-01-01T00:00:00Z", "2026-11-20T12:00:00Z", "2199-01-01T00:00:00Z"] {
            let seen = Seen::first(of("them", 20, renewed), start);
            let whose = |seen: &Seen, after| seen.whose("us", OURS, start + seconds(after));
            assert_eq!(whose(&seen, 19), Whose::Theirs("them".into()), "{renewed}");
            assert_eq!(whose(&seen, 20), Whose::Free, "{renewed}");
            // Seen again as it was, and with a label that somebody else has put on it.
            let mut labelled = of("them", 20, renewed);
            labelled.metadata.resource_version = Some("7".into());
            let seen = seen.again(labelled, start + seconds(19));
            assert_eq!(whose(&seen, 20), Whose::Free, "{renewed}");
            // Renewed, by a clock that goes back.
            let seen = seen.again(of("them", 20, "1980-01-01T00:00:00Z"), start + seconds(19));
            assert_eq!(whose(&seen, 38), Whose::Theirs("them".into()), "{renewed}");
            assert_eq!(whose(&seen, 39), Whose::Free, "{renewed}");
        }
    }

    #[test]
    fn a_promise_that_is_none_or_without_end_is_not_waited_for() {
        let start = Instant::now();
        for (promised, waited) in [(0, 15), (-3, 15), (2, 2), (i32::MAX, 3_600)] {
            let seen = Seen::first(of("them", promised, "2026-11-20T12:00:00Z"), start);
            let whose = |after| seen.whose("us", OURS, start + seconds(after));
            assert_eq!(whose(waited - 1), Whose::Theirs("them".into()), "{promised}");
            assert_eq!(whose(waited), Whose::Free, "{promised}");
        }
        for empty in [Lease::default(), of("", 20, "2026-11-20T12:00:00Z")] {
            assert_eq!(Seen::first(empty, start).whose("us", OURS, start), Whose::Free);
        }
    }

    #[test]
    fn every_holder_has_a_number_of_its_own_and_keeps_it() {
        let now: Timestamp = "2026-11-20T12:00:00.000001Z".parse().unwrap();
        let number = |lease: &Lease| Seen::first(lease.clone(), Instant::now()).term();
        let first = created("it", 0, "a", OURS, now);
        assert_eq!(number(&first), 0);
        let again = renewed(&first, "a", OURS, now);
        assert_eq!(number(&again), 0);
        assert_ne!(again.spec, first.spec, "a renewal in the same microsecond is one");
        let next = renewed(&again, "b", OURS, now);
        assert_eq!(number(&next), 1);
        let gone = released(next, now);
        assert_eq!(Seen::first(gone.clone(), Instant::now()).whose("a", OURS, Instant::now()), Whose::Free);
        assert_eq!(number(&renewed(&gone, "b", OURS, now)), 2, "also when the same takes it again");
        // As whoever made it by hand has left it.
        assert_eq!(number(&renewed(&Lease::default(), "a", OURS, now)), 0);
    }

    #[test]
    fn part_of_a_second_is_promised_as_a_whole_one() {
        let promised = |duration| created("it", 0, "a", duration, Timestamp::UNIX_EPOCH).spec.unwrap().lease_duration_seconds;
        assert_eq!(promised(Duration::from_millis(1_001)), Some(2));
        assert_eq!(promised(seconds(15)), Some(15));
    }
}
