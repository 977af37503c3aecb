//! Figures for people: medians, percentiles, and how far apart what was measured lies.

/// The median of some, and how far they lie apart.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    /// The least.
    pub least: f64,
    /// The first quartile.
    pub low: f64,
    /// The median.
    pub median: f64,
    /// The third quartile.
    pub high: f64,
    /// The largest.
    pub most: f64,
}

impl Spread {
    /// Of some figures; NaN of none.
    pub fn of(figures: &[f64]) -> Self {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |percent| percentile(&sorted, percent);
        Self { least: at(0), low: at(25), median: at(50), high: at(75), most: at(100) }
    }
}

/// A percentile of sorted figures; NaN of none.
pub fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last * percent + 50) / 100).copied().unwrap_or(f64::NAN)
}

/// The median of some.
pub fn median(figures: &[f64]) -> f64 {
    Spread::of(figures).median
}

/// Each of one side by its neighbour of the other.
pub fn ratios(ours: &[f64], theirs: &[f64]) -> Vec<f64> {
    ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect()
}

/// A figure with as many digits as say something.
pub fn short(figure: f64) -> String {
    match figure.abs() {
        large if large >= 100.0 => format!("{figure:.0}"),
        small if small < 0.01 && small > 0.0 => format!("{figure:.4}"),
        _ => format!("{figure:.2}"),
    }
}
