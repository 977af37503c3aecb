//! Figures for people: percentiles, medians, and one line a measure.

/// A percentile of sorted values.
pub fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last * percent).div_ceil(100)).copied().unwrap_or_default()
}

/// One number by another.
#[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
pub fn ratio(a: u64, b: u64) -> f64 {
    a as f64 / b.max(1) as f64
}

/// Prints the median of some, with the least and the most, against what is asked. Returns whether it is kept.
pub fn at_most(name: &str, of: &mut [f64], goal: f64) -> bool {
    let (median, spread) = median(of);
    say(name, &format!("ratio={median:.2} ({spread}) goal<={goal}"), median <= goal)
}

/// The same, for what should be large.
pub fn at_least(name: &str, of: &mut [f64], goal: f64) -> bool {
    let (median, spread) = median(of);
    say(name, &format!("ratio={median:.2} ({spread}) goal>={goal}"), median >= goal)
}

fn median(of: &mut [f64]) -> (f64, String) {
    of.sort_by(f64::total_cmp);
    let at = |n: usize| of.get(n).copied().unwrap_or(f64::NAN);
    (at(of.len() / 2), format!("{:.2} to {:.2}", at(0), at(of.len().saturating_sub(1))))
}

/// One line a measure.
pub fn say(name: &str, what: &str, passed: bool) -> bool {
    println!("{name} {what} {}", if passed { "pass" } else { "MISS" });
    passed
}
