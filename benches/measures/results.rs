//! What a run leaves behind: `target/bench/results.json` and its pictures, and, of a whole one, the table of docs/performance.md.

use super::{
    machine,
    report::{Goal, Report},
    setting::Setting,
    stats::{Spread, short},
};
use anyhow::Context as _;
use serde_json::{Value, json};
use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// Where the table stands in docs/performance.md.
const BEGIN: &str = "<!-- measured: made by `make bench` -->";
const END: &str = "<!-- /measured -->";

/// What one measure has found.
pub struct Found<'a> {
    pub id: &'a str,
    pub name: &'a str,
    pub what: &'a str,
    pub goal: &'a str,
    pub took: Duration,
    pub report: anyhow::Result<Report>,
}

/// What all of a run have found.
pub struct Results<'a> {
    machine: Value,
    /// Of the sources, as git calls it: with `-dirty` when there is more than was committed.
    commit: String,
    size: String,
    command: Vec<String>,
    found: Vec<Found<'a>>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Always here, wherever cargo builds.
fn directory() -> PathBuf {
    root().join("target/bench")
}

impl<'a> Results<'a> {
    /// Looks at the machine.
    pub async fn begin(setting: &Setting, command: Vec<String>) -> anyhow::Result<Self> {
        let machine = machine::facts(&setting.server).await?;
        let git = ["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"];
        let git = std::process::Command::new("git").args(git).current_dir(root()).output();
        let commit =
            git.ok().filter(|git| git.status.success()).map(|git| String::from_utf8_lossy(&git.stdout).trim().to_owned());
        let commit = commit.unwrap_or_else(|| "unknown".to_owned());
        println!("{commit}, on {machine}");
        Ok(Self { machine, commit, size: format!("{:?}", setting.size), command, found: Vec::new() })
    }

    /// One more.
    pub fn add(&mut self, found: Found<'a>) {
        self.found.push(found);
    }

    /// The lines that miss their goal, and the measures that failed.
    pub fn missed(&self) -> Vec<String> {
        let mut missed = Vec::new();
        for Found { id, name, report, .. } in &self.found {
            match report {
                Ok(report) => {
                    missed.extend(report.lines.iter().filter(|line| !line.passed()).map(|line| format!("{id} {}", line.name)));
                }
                Err(_) => missed.push(format!("{id} {name} (error)")),
            }
        }
        missed
    }

    /// Writes `results.json`, and the pictures beside it.
    pub fn write(&self) -> anyhow::Result<()> {
        fs::create_dir_all(directory())?;
        let measures: Vec<Value> = (self.found.iter())
            .map(|Found { id, name, what, goal, took, report }| {
                let result = match report {
                    Ok(report) => report.json(id),
                    Err(error) => json!({"error": format!("{error:#}")}),
                };
                json!({"id": id, "name": name, "what": what, "goal": goal, "seconds": took.as_secs(), "result": result})
            })
            .collect();
        let seconds: u64 = self.found.iter().map(|found| found.took.as_secs()).sum();
        let all = json!({"commit": self.commit, "seconds": seconds, "command": format!("cargo bench --bench measures {}", self.command.join(" ")), "size": self.size,
                         "machine": self.machine, "measures": measures});
        fs::write(directory().join("results.json"), format!("{all:#}\n"))?;
        self.pictures(&directory())
    }

    fn pictures(&self, directory: &Path) -> anyhow::Result<()> {
        for plot in self.found.iter().filter_map(|found| found.report.as_ref().ok()).flat_map(|report| &report.plots) {
            fs::write(directory.join(plot.file).with_extension("svg"), plot.svg())?;
        }
        Ok(())
    }

    /// Writes the pictures and the table of the documentation.
    pub fn publish(&self) -> anyhow::Result<()> {
        let images = root().join("docs/images");
        fs::create_dir_all(&images)?;
        self.pictures(&images)?;
        let page = root().join("docs/performance.md");
        let text = fs::read_to_string(&page)?;
        let (before, rest) = text.split_once(BEGIN).with_context(|| format!("docs/performance.md has no {BEGIN}"))?;
        let (_, after) = rest.split_once(END).with_context(|| format!("docs/performance.md has no {END}"))?;
        fs::write(&page, format!("{before}{BEGIN}\n\n{}\n{END}{after}", self.table()?))?;
        Ok(())
    }

    /// What is asked for; and, folded, what is told besides.
    fn table(&self) -> anyhow::Result<String> {
        let mut table = String::from("| | measured | median | quartiles | asked | |\n|---|---|---:|---|---|---|\n");
        let mut told = String::from("| | measured | median | quartiles |\n|---|---|---:|---|\n");
        for Found { id, report, .. } in &self.found {
            let Ok(report) = report else {
                writeln!(table, "| {id} | failed | | | | **error** |")?;
                continue;
            };
            for line in &report.lines {
                let Spread { low, median, high, .. } = Spread::of(&line.figures);
                let unit = if line.unit == "ratio" { String::new() } else { format!(" {}", line.unit) };
                let spread = match line.figures.len() {
                    1 => "once".to_owned(),
                    count => format!("{} to {}, of {count}", short(low), short(high)),
                };
                let row = format!("| {id} | {} | {}{unit} | {spread} |", line.name, short(median));
                let asked = match line.goal {
                    Goal::AtLeast(goal) => format!("≥ {}", short(goal)),
                    Goal::AtMost(goal) => format!("≤ {}", short(goal)),
                    Goal::Told => {
                        writeln!(told, "{row}")?;
                        continue;
                    }
                };
                writeln!(table, "{row} {asked} | {} |", if line.passed() { "kept" } else { "**missed**" })?;
            }
        }
        write!(table, "\n<details><summary>What is told besides</summary>\n\n{told}\n</details>\n\n")?;
        for (id, plot) in self
            .found
            .iter()
            .filter_map(|found| Some((found.id, found.report.as_ref().ok()?)))
            .flat_map(|(id, report)| report.plots.iter().map(move |plot| (id, plot)))
        {
            writeln!(table, "![{id}: {}](images/{}.svg)\n", plot.title, plot.file)?;
        }
        let of = |name: &str| self.machine[name].as_str().map_or_else(|| self.machine[name].to_string(), str::to_owned);
        writeln!(
            table,
            "On {} cores ({}), {} of memory, PostgreSQL {}; a round trip took {} µs, a flushed commit {} µs.",
            of("cores"),
            of("architecture"),
            of("memory"),
            of("postgresql"),
            of("roundTripMicroseconds"),
            of("flushedCommitMicroseconds")
        )?;
        Ok(table)
    }
}
