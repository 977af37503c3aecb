//! Small pictures of figures: bars with their spread.

use super::stats::{Spread, short};
use std::fmt::Write as _;

/// Bars that lie below each other, on one scale.
#[derive(Clone, Debug)]
pub struct Bars {
    /// The file's name without its end, as `p3-push`.
    pub file: &'static str,
    /// What is shown.
    pub title: String,
    /// Of all figures.
    pub unit: &'static str,
    /// Each with what was measured.
    pub rows: Vec<(String, Vec<f64>)>,
}

const WIDTH: f64 = 720.0;
const LEFT: f64 = 230.0;
const RIGHT: f64 = 90.0;
const ROW: f64 = 26.0;
const TOP: f64 = 44.0;

impl Bars {
    /// The picture.
    pub fn svg(&self) -> String {
        let spreads: Vec<Spread> = self.rows.iter().map(|(_, figures)| Spread::of(figures)).collect();
        let most = spreads.iter().map(|spread| spread.high.max(spread.median)).fold(f64::MIN_POSITIVE, f64::max);
        let scale = (WIDTH - LEFT - RIGHT) / most;
        #[expect(clippy::cast_precision_loss, reason = "a few rows")]
        let height = TOP + ROW * self.rows.len() as f64 + 12.0;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
             font-family=\"sans-serif\" font-size=\"13\" fill=\"#0f172a\" role=\"img\">\n<title>{0}</title>\n\
             <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
             <text x=\"12\" y=\"24\" font-weight=\"bold\">{0} ({1})</text>\n",
            escaped(&self.title),
            escaped(self.unit)
        );
        let mut y = TOP;
        for ((label, _), spread) in self.rows.iter().zip(&spreads) {
            let (width, low, high) = (spread.median * scale, LEFT + spread.low * scale, LEFT + spread.high * scale);
            let middle = y + 9.0;
            writeln!(
                svg,
                "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>\
                 <rect x=\"{LEFT}\" y=\"{y:.0}\" width=\"{width:.1}\" height=\"18\" fill=\"#93c5fd\"/>\
                 <path d=\"M {low:.1} {middle:.0} H {high:.1}\" stroke=\"#334155\" stroke-width=\"2\"/>\
                 <text x=\"{:.1}\" y=\"{:.0}\">{}</text>",
                LEFT - 8.0,
                y + 13.0,
                escaped(label),
                high.max(LEFT + width) + 6.0,
                y + 13.0,
                short(spread.median)
            )
            .expect("a string takes what is written");
            y += ROW;
        }
        svg.push_str("</svg>\n");
        svg
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
