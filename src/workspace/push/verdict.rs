//! What to do about a step that failed: pure, total, without clock, network or randomness of its own.

use super::client::CallError;
use std::time::Duration;

/// The shortest window of a pause.
const FIRST: Duration = Duration::from_millis(250);
/// The longest window of a pause.
const LONGEST: Duration = Duration::from_secs(30);
/// The longest `Retry-After` that is obeyed: a mistake there must not silence an agent for a day.
const LONGEST_ASKED: Duration = Duration::from_mins(5);

/// What failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Registering a run.
    Register,
    /// Creating the Agent.
    Create,
    /// Pushing a report.
    Push,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may pass by itself: ask again, but not before this long.
    Again {
        /// What the server asked for; zero when it asked for nothing.
        not_before: Duration,
    },
    /// A person must act (access, configuration, a suspended agent): ask again slowly.
    Later,
    /// The run is of no use any more: register another.
    NewRun,
    /// The report itself is refused: do not send it again.
    Rejected,
    /// A newer run reports for this agent: end.
    Superseded,
}

/// Decides. `creates` is whether a missing Agent may be created.
pub fn verdict(step: Step, error: &CallError, creates: bool) -> Verdict {
    let refusal = match error {
        CallError::Lost(_) => return Verdict::Again { not_before: Duration::ZERO },
        CallError::Token { .. } | CallError::Answer(_) => return Verdict::Later,
        CallError::Refused(refusal) => refusal,
    };
    match (step, refusal.code) {
        (_, 409) if error.has_cause("StaleRun") => Verdict::Superseded,
        (_, 409) if error.has_cause("OutOfOrder") => Verdict::NewRun,
        // The agent was deleted meanwhile; registering creates it again if that is allowed.
        (Step::Push, 404) => Verdict::NewRun,
        // It was just created, or existed a moment ago: it is being deleted.
        (Step::Register, 404) if creates => Verdict::Again { not_before: Duration::ZERO },
        (Step::Push, 400 | 413 | 422) => Verdict::Rejected,
        (_, 408 | 409 | 425 | 429 | 500..) => Verdict::Again { not_before: refusal.retry_after.unwrap_or_default() },
        (_, _) => Verdict::Later,
    }
}

/// How long to wait before the next attempt, after `failures` earlier ones; `random` is from 0 to 1.
///
/// Exponential with full jitter (Brooker, "Exponential Backoff And Jitter", 2015), from 250 ms to 30 s, and never sooner
/// than the server asked for. What waits for a person is asked every 15 to 30 s.
pub fn pause(verdict: Verdict, failures: u32, random: f64) -> Duration {
    let random = random.clamp(0.0, 1.0);
    let window = FIRST.saturating_mul(1 << failures.min(10)).min(LONGEST);
    match verdict {
        Verdict::Again { not_before } => {
            let not_before = not_before.min(LONGEST_ASKED);
            // Above what was asked for, jitter too: all who were told the same must not come at once.
            not_before + window.mul_f64(random)
        }
        Verdict::NewRun => window.mul_f64(random),
        Verdict::Later | Verdict::Rejected | Verdict::Superseded => LONGEST.mul_f64(0.5 + 0.5 * random),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::client::{Cause, Refusal},
        *,
    };

    fn refused(code: u16, cause: &str, retry_after: Option<u64>) -> CallError {
        let causes = vec![Cause { field: String::new(), reason: cause.into(), message: String::new() }];
        let retry_after = retry_after.map(Duration::from_secs);
        CallError::Refused(Box::new(Refusal { code, message: String::new(), causes, retry_after }))
    }

    const AGAIN: Verdict = Verdict::Again { not_before: Duration::ZERO };

    #[test]
    fn every_refusal_of_the_api_page_has_its_verdict() {
        use Step::{Create, Push, Register};
        use Verdict::{Again, Later, NewRun, Rejected, Superseded};
        let seven = Again { not_before: Duration::from_secs(7) };
        for (step, code, cause, retry_after, expected) in [
            (Push, 409, "StaleRun", None, Superseded),
            (Push, 409, "OutOfOrder", None, NewRun),
            (Push, 409, "", None, AGAIN),
            (Push, 403, "Suspended", None, Later),
            (Push, 403, "", None, Later),
            (Register, 403, "", None, Later),
            (Create, 403, "", None, Later),
            (Push, 401, "", None, Later),
            (Push, 400, "", None, Rejected),
            (Push, 422, "FieldValueTooLong", None, Rejected),
            (Push, 413, "", None, Rejected),
            (Create, 422, "", None, Later),
            (Push, 404, "", None, NewRun),
            (Register, 404, "", None, AGAIN),
            (Create, 404, "", None, Later),
            (Push, 429, "", Some(7), seven),
            (Push, 503, "", Some(7), seven),
            (Register, 503, "", Some(7), seven),
            (Push, 500, "", None, AGAIN),
            (Push, 502, "", None, AGAIN),
            (Push, 504, "", None, AGAIN),
            (Push, 301, "", None, Later),
            (Push, 405, "", None, Later),
        ] {
            assert_eq!(verdict(step, &refused(code, cause, retry_after), true), expected, "{step:?} {code} {cause}");
        }
    }

    #[test]
    fn a_missing_agent_waits_for_a_person_when_it_may_not_be_created() {
        assert_eq!(verdict(Step::Register, &refused(404, "", None), false), Verdict::Later);
    }

    #[test]
    fn the_window_doubles_up_to_half_a_minute_and_is_used_in_full() {
        let longest = |failures| pause(AGAIN, failures, 1.0).as_millis();
        assert_eq!(
            [0, 1, 2, 3, 6, 7, 8, 100, u32::MAX].map(longest),
            [250, 500, 1000, 2000, 16_000, 30_000, 30_000, 30_000, 30_000]
        );
        assert_eq!(pause(AGAIN, 7, 0.0), Duration::ZERO);
        assert_eq!(pause(AGAIN, 7, 0.5), Duration::from_secs(15));
    }

    #[test]
    fn retry_after_is_the_least_but_not_for_ever() {
        let asked = |s| Verdict::Again { not_before: Duration::from_secs(s) };
        assert_eq!(pause(asked(7), 0, 0.0), Duration::from_secs(7));
        assert_eq!(pause(asked(7), 0, 1.0), Duration::from_millis(7_250));
        assert_eq!(pause(asked(86_400), 0, 0.0), Duration::from_mins(5));
    }

    #[test]
    fn what_waits_for_a_person_is_asked_slowly() {
        assert_eq!(pause(Verdict::Later, 0, 0.0), Duration::from_secs(15));
        assert_eq!(pause(Verdict::Later, 0, 1.0), Duration::from_secs(30));
    }
}
