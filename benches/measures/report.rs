//! What a measure has found: figures, and lines that are held against goals.

use super::{
    plot::Bars,
    stats::{Spread, short},
};
use serde_json::{Map, Value, json};

/// What is asked of a figure.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// It is to be as large at least.
    AtLeast(f64),
    /// It is to be as large at most.
    AtMost(f64),
    /// It is only told.
    Told,
}

/// One line of the result: the median of a figure, against its goal.
#[derive(Clone, Debug)]
pub struct Line {
    /// Of what, as `changed-push`.
    pub name: String,
    /// What the figure is, as `ratio` or `MB`.
    pub unit: &'static str,
    /// The figures that it is the median of.
    pub figures: Vec<f64>,
    /// What is asked.
    pub goal: Goal,
}

impl Line {
    /// Whether it is as good as is asked. A figure that is none is not.
    pub fn passed(&self) -> bool {
        let value = Spread::of(&self.figures).median;
        match self.goal {
            Goal::AtLeast(goal) => value >= goal,
            Goal::AtMost(goal) => value <= goal,
            Goal::Told => true,
        }
    }

    /// `goal>=0.60 pass`, or nothing.
    pub fn verdict(&self) -> String {
        let verdict = if self.passed() { "pass" } else { "miss" };
        match self.goal {
            Goal::AtLeast(goal) => format!("goal>={} {verdict}", short(goal)),
            Goal::AtMost(goal) => format!("goal<={} {verdict}", short(goal)),
            Goal::Told => "told".to_owned(),
        }
    }

    /// The line itself.
    pub fn text(&self, id: &str) -> String {
        format!("{id} {} {}={} {}", self.name, self.unit, short(Spread::of(&self.figures).median), self.verdict())
    }
}

/// What a measure has found.
#[derive(Debug, Default)]
pub struct Report {
    /// Held against goals.
    pub lines: Vec<Line>,
    /// What the lines were made of, by name: `results.json` has their medians and spreads.
    pub figures: Vec<(String, &'static str, Vec<f64>)>,
    /// Sizes, plans, counts: whatever explains the figures.
    pub facts: Map<String, Value>,
    /// Pictures.
    pub plots: Vec<Bars>,
}

impl Report {
    /// A figure that is to be large; the median of these counts.
    pub fn at_least(&mut self, name: &str, unit: &'static str, figures: &[f64], goal: f64) {
        self.line(name, unit, figures, Goal::AtLeast(goal));
    }

    /// A figure that is to be small.
    pub fn at_most(&mut self, name: &str, unit: &'static str, figures: &[f64], goal: f64) {
        self.line(name, unit, figures, Goal::AtMost(goal));
    }

    /// A figure of which nothing is asked, but that gets its line.
    pub fn told(&mut self, name: &str, unit: &'static str, figures: &[f64]) {
        self.line(name, unit, figures, Goal::Told);
    }

    fn line(&mut self, name: &str, unit: &'static str, figures: &[f64], goal: Goal) {
        self.lines.push(Line { name: name.to_owned(), unit, figures: figures.to_vec(), goal });
    }

    /// What a line was made of: one side of a ratio, say. Printed at once, indented, with its spread.
    pub fn figure(&mut self, name: &str, unit: &'static str, figures: &[f64]) {
        let Spread { least, low, median, high, most } = Spread::of(figures);
        let [least, low, median, high, most] = [least, low, median, high, most].map(short);
        let spread = match figures.len() {
            1 => "once".to_owned(),
            count => format!("quartiles {low} to {high}, of {count} from {least} to {most}"),
        };
        println!("    {name:<44} {median:>9} {unit:<8} {spread}");
        self.figures.push((name.to_owned(), unit, figures.to_vec()));
    }

    /// Whatever explains the figures. Printed at once, too.
    pub fn fact(&mut self, name: &str, value: impl Into<Value>) {
        let value = value.into();
        match &value {
            Value::Array(rows) if rows.len() > 1 => {
                println!("    {name}:");
                for row in rows {
                    println!("      {}", plain(row));
                }
            }
            Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
                println!("    {name}: {}", plain(&value));
            }
        }
        self.facts.insert(name.to_owned(), value);
    }

    /// As `results.json` has it.
    pub fn json(&self, id: &str) -> Value {
        let spread = |figures: &[f64]| {
            let Spread { least, low, median, high, most } = Spread::of(figures);
            json!({"median": median, "quartiles": [low, high], "range": [least, most], "of": figures.len(), "all": figures})
        };
        let lines: Vec<Value> = (self.lines.iter())
            .map(|line| json!({"line": line.text(id), "name": line.name, "unit": line.unit, "passed": line.passed(), "figure": spread(&line.figures)}))
            .collect();
        let figures: Vec<Value> = (self.figures.iter())
            .map(|(name, unit, figures)| json!({"name": name, "unit": unit, "figure": spread(figures)}))
            .collect();
        json!({"lines": lines, "figures": figures, "facts": self.facts})
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
