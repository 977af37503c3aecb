//! How long ago something was, in as few letters as a column has room for: the rules of apimachinery's `HumanDuration`
//! (k8s.io/apimachinery, pkg/util/duration), by which every kube-apiserver prints dates in tables.

use jiff::Timestamp;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// How long ago `then` was, `now`. Two units while the first is small, one after that, always rounded down. Clocks may
/// disagree by less than two seconds; what is further ahead than that is `<invalid>`.
pub fn human(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(then).as_secs();
    match seconds {
        ..=-2 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..=119 => format!("{seconds}s"),
        _ if seconds < 10 * MINUTE => two(seconds, (MINUTE, 'm'), (1, 's')),
        _ if seconds < 3 * HOUR => one(seconds, (MINUTE, 'm')),
        _ if seconds < 8 * HOUR => two(seconds, (HOUR, 'h'), (MINUTE, 'm')),
        _ if seconds < 2 * DAY => one(seconds, (HOUR, 'h')),
        _ if seconds < 8 * DAY => two(seconds, (DAY, 'd'), (HOUR, 'h')),
        _ if seconds < 2 * YEAR => one(seconds, (DAY, 'd')),
        _ if seconds < 8 * YEAR => two(seconds, (YEAR, 'y'), (DAY, 'd')),
        _ => one(seconds, (YEAR, 'y')),
    }
}

fn one(seconds: i64, (unit, letter): (i64, char)) -> String {
    format!("{}{letter}", seconds / unit)
}

fn two(seconds: i64, large: (i64, char), small: (i64, char)) -> String {
    let rest = seconds % large.0;
    if rest < small.0 { one(seconds, large) } else { one(seconds, large) + &one(rest, small) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;

    fn after(seconds: i64) -> String {
        let then = Timestamp::UNIX_EPOCH;
        human(then, then + SignedDuration::from_secs(seconds))
    }

    #[test]
    fn an_age_is_told_as_a_kube_apiserver_tells_it() {
        for (seconds, text) in [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (1, "1s"),
            (119, "119s"),
            (120, "2m"),
            (121, "2m1s"),
            (9 * MINUTE + 59, "9m59s"),
            (10 * MINUTE + 59, "10m"),
            (10 * MINUTE + 1, "10m"),
            (179 * MINUTE + 59, "179m"),
            (3 * HOUR, "3h"),
            (3 * HOUR + 59, "3h"),
            (3 * HOUR + MINUTE, "3h1m"),
            (8 * HOUR - 1, "7h59m"),
            (8 * HOUR, "8h"),
            (8 * HOUR + MINUTE, "8h"),
            (8 * HOUR + 59 * MINUTE, "8h"),
            (2 * DAY - 1, "47h"),
            (2 * DAY, "2d"),
            (2 * DAY + HOUR, "2d1h"),
            (8 * DAY - 1, "7d23h"),
            (8 * DAY + HOUR, "8d"),
            (8 * DAY + 23 * HOUR, "8d"),
            (2 * YEAR - 1, "729d"),
            (2 * YEAR, "2y"),
            (2 * YEAR + DAY, "2y1d"),
            (8 * YEAR - 1, "7y364d"),
            (8 * YEAR + DAY, "8y"),
            (8 * YEAR + 364 * DAY, "8y"),
        ] {
            assert_eq!(after(seconds), text, "{seconds} seconds");
        }
    }

    #[test]
    fn a_part_of_a_second_ahead_is_now() {
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(human(now + SignedDuration::from_millis(1_999), now), "0s");
        assert_eq!(human(now + SignedDuration::from_millis(2_000), now), "<invalid>");
    }
}
