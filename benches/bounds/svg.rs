//! A curve for each thing that was measured, one below the other over the same time, as an SVG that reads on light and dark pages.

use std::fmt::Write as _;

/// The size of one panel, and the room beside and between them, in pixels.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 70.0;
const LEFT: f64 = 10.0;
const GAP: f64 = 34.0;

/// One panel.
pub struct Panel {
    /// What it shows, with the unit.
    pub title: String,
    /// Values by time, in seconds.
    pub points: Vec<(f64, f64)>,
    /// What must not be passed, where there is one number for it.
    pub bound: Option<f64>,
}

/// A span of time to shade, and what it is.
pub struct Span {
    pub from: f64,
    pub to: f64,
    pub what: &'static str,
}

/// Draws them.
pub fn draw(title: &str, panels: &[Panel], spans: &[Span]) -> String {
    let seconds = panels.iter().flat_map(|panel| &panel.points).map(|(at, _)| *at).fold(1.0, f64::max);
    let height = 60.0 + (HEIGHT + GAP) * panels.len() as f64;
    let x = |at: f64| LEFT + at / seconds * WIDTH;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {:.0} {height:.0}\" font-family=\"sans-serif\" font-size=\"11\" fill=\"#777\">\n\
         <text x=\"{LEFT}\" y=\"16\">{title}</text>\n",
        WIDTH + 2.0 * LEFT
    );
    for (n, panel) in panels.iter().enumerate() {
        let top = 44.0 + (HEIGHT + GAP) * n as f64;
        for span in spans {
            let (from, to) = (x(span.from), x(span.to));
            let _ = writeln!(
                svg,
                "<rect x=\"{from:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{HEIGHT}\" fill=\"#e8a33d\" opacity=\"0.18\"><title>{}</title></rect>",
                to - from,
                span.what
            );
        }
        let most = panel.points.iter().map(|(_, value)| *value).fold(0.0, f64::max);
        // A bound far above everything would flatten the curve: it is told in words.
        let shown = panel.bound.filter(|bound| *bound <= 4.0 * most);
        let ceiling = shown.unwrap_or(most).max(most).max(f64::MIN_POSITIVE) * 1.05;
        let y = |value: f64| top + HEIGHT - value / ceiling * HEIGHT;
        let bound = panel.bound.map_or(String::new(), |bound| format!(", bound {}", human(bound)));
        let last = panel.points.last().map_or(0.0, |(_, value)| *value);
        let _ = writeln!(
            svg,
            "<text x=\"{LEFT}\" y=\"{:.1}\">{}: at most {}, last {}{bound}</text>",
            top - 5.0,
            panel.title,
            human(most),
            human(last)
        );
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {top:.1}V{0:.1}H{1:.1}\" fill=\"none\" stroke=\"#999\" stroke-width=\"0.6\"/>",
            top + HEIGHT,
            LEFT + WIDTH
        );
        if let Some(bound) = shown {
            let _ = writeln!(
                svg,
                "<path d=\"M{LEFT} {0:.1}H{1:.1}\" stroke=\"#c0392b\" stroke-dasharray=\"4 3\" stroke-width=\"0.8\"/>",
                y(bound),
                LEFT + WIDTH
            );
        }
        let line: Vec<String> = panel.points.iter().map(|(at, value)| format!("{:.1},{:.1}", x(*at), y(*value))).collect();
        let _ = writeln!(svg, "<polyline points=\"{}\" fill=\"none\" stroke=\"#2f7fc1\" stroke-width=\"1.2\"/>", line.join(" "));
    }
    let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"{:.1}\">0 to {seconds:.0} s</text>\n</svg>", height - 4.0);
    svg
}

/// A number for a person: 1234567 is 1.23 M.
pub fn human(value: f64) -> String {
    for (unit, size) in [("G", 1e9), ("M", 1e6), ("k", 1e3)] {
        if value >= size {
            return format!("{:.2} {unit}", value / size);
        }
    }
    format!("{value:.0}")
}
