//! The rules of an object are the same whoever keeps it: a table of good and bad objects, sent to a real kube-apiserver with our
//! custom resource definitions and to Moorline's HTTP API. Both take an object and show the same, or both refuse it and name
//! the same fields; where they cannot, the row says so and why, and docs/crds.md says the same.

mod agents;
mod chats;
mod metadata;
mod row;
mod sent;
mod snapshots;
mod status;

use row::{Row, Same, Verdict};
use sent::{Answered, Servers};
use std::{collections::BTreeSet, fmt::Write as _};

/// The page, whose list of differences is that of the rows.
const PAGE: &str = include_str!("../docs/crds.md");
/// What its list of differences stands under.
const HEADING: &str = "## Where the two differ";

fn table() -> Vec<Row> {
    [chats::rows(), agents::rows(), snapshots::rows(), metadata::rows(), status::rows()].into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kube_apiserver_with_our_definitions_and_the_http_api_take_and_refuse_the_same_objects() {
    let table = table();
    assert!(table.len() >= 60, "{} rows", table.len());
    let servers = Servers::start().await;
    let mut wrong = String::new();
    for (n, row) in table.iter().enumerate() {
        let name = format!("row-{n}");
        let (theirs, ours) = tokio::join!(servers.kubernetes.send(row, &name), servers.moorline.send(row, &name));
        if let Err(why) = judge(row, &theirs, &ours) {
            write!(wrong, "\n\n{}: {}: {why}\n  kube-apiserver: {theirs}\n  moorline: {ours}", row.kind, row.about).unwrap();
        }
    }
    assert!(wrong.is_empty(), "the two are not as the table says:{wrong}");
}

fn judge(row: &Row, theirs: &Answered, ours: &Answered) -> Result<(), String> {
    let is = |whose: &str, answered: &Answered, wanted: &Verdict| match (wanted, answered.refused_for()) {
        (Verdict::Taken, None) => Ok(()),
        (Verdict::Refused(fields), Some(got)) if got == fields.iter().copied().collect::<BTreeSet<_>>() => Ok(()),
        (wanted, _) => Err(format!("{whose} is to answer {wanted:?}")),
    };
    match &row.same {
        Same::Both(verdict) => {
            is("the kube-apiserver", theirs, verdict)?;
            is("moorline", ours, verdict)?;
            if theirs.shown() == ours.shown() { Ok(()) } else { Err("both are to show the same".to_owned()) }
        }
        Same::Not { theirs: of_theirs, ours: of_ours, why: _ } => {
            is("the kube-apiserver", theirs, of_theirs)?;
            is("moorline", ours, of_ours)?;
            let same = of_theirs == of_ours && theirs.shown() == ours.shown();
            if same { Err("they are to differ".to_owned()) } else { Ok(()) }
        }
    }
}

#[test]
fn the_page_lists_the_differences_that_the_table_has_and_no_other() {
    let section = PAGE.split_once(HEADING).map(|(_, rest)| rest.split("\n## ").next().unwrap()).unwrap();
    let mut listed: BTreeSet<String> = BTreeSet::new();
    for item in section.split("\n* ").skip(1) {
        let item = item.split("\n\n").next().unwrap();
        listed.insert(item.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    let rows = table();
    let in_rows: BTreeSet<String> = rows.iter().filter_map(|row| row.same.why()).map(str::to_owned).collect();
    assert_eq!(listed, in_rows);
}
