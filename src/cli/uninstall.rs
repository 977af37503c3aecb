//! `moorline uninstall --strip-finalizers`: what Moorline has put on the objects of a cluster, taken off again.

use crate::kubernetes::{
    connect::{self, Place},
    kind::{FINALIZER, Id, Kind},
    strip::{self, Stripped},
};
use clap::{ArgGroup, Args};
use futures::{StreamExt as _, stream};
use std::{
    collections::BTreeSet,
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    process::ExitCode,
    thread,
};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// Objects that are patched at once.
const CONCURRENCY: usize = 8;

/// Take what Moorline has put on the objects of a cluster off again, before it leaves. No object is deleted, and no record: those
/// are in the database. Stop every `moorline serve` first: one that runs puts its finalizer on again. Safe to run any number of
/// times.
///
/// Exit codes: 0 no object of those that were asked for has the finalizer; 1 failed, in part, or not confirmed; 2 the command line
/// cannot be read. With --dry-run: 0 the objects could be listed.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  moorline uninstall --strip-finalizers --all --dry-run
  moorline uninstall --strip-finalizers --namespace team-a --yes")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag, and any of them go together")]
#[command(group = ArgGroup::new("where").required(true).args(["namespaces", "all"]))]
pub struct UninstallArgs {
    /// Take the finalizer moorline.dev/cleanup off Chats and Agents, so that they can be deleted without Moorline.
    #[arg(long, required = true)]
    pub strip_finalizers: bool,
    /// In this namespace; may be given several times.
    #[arg(long = "namespace", short, value_name = "NAMESPACE")]
    pub namespaces: Vec<String>,
    /// In all namespaces.
    #[arg(long)]
    pub all: bool,
    /// Do not ask.
    #[arg(long, short)]
    pub yes: bool,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Which cluster.
    #[command(flatten)]
    pub place: Place,
}

/// Runs it until it is done or `shutdown`.
pub async fn run(args: UninstallArgs, shutdown: CancellationToken) -> anyhow::Result<ExitCode> {
    tokio::select! {
        () = shutdown.cancelled() => anyhow::bail!("stopped: the objects that were not named keep the finalizer; run it again"),
        done = strip_finalizers(args) => done,
    }
}

async fn strip_finalizers(args: UninstallArgs) -> anyhow::Result<ExitCode> {
    let UninstallArgs { strip_finalizers: _, namespaces, all: _, yes, dry_run, place } = args;
    let client = connect::connect_to(&place).await?.client;
    let found = strip::find(&client, &namespaces).await?;
    let place = place_name(&namespaces);
    if found.is_empty() {
        println!("no Chat or Agent {place} has the finalizer {FINALIZER}");
        return Ok(ExitCode::SUCCESS);
    }
    if dry_run {
        for id in &found {
            println!("{id}: the finalizer would be removed");
        }
        println!("it would be removed from {} {place}", counted(&found));
        return Ok(ExitCode::SUCCESS);
    }
    if !yes && !confirmed(&format!("Remove the finalizer {FINALIZER} from {} {place}? [y/N] ", counted(&found))).await? {
        println!("nothing was changed");
        return Ok(ExitCode::FAILURE);
    }

    let (mut removed, mut failed) = (BTreeSet::new(), 0_usize);
    let strips = found.iter().map(|id| {
        let client = &client;
        async move { (id, strip::strip(client, id).await) }
    });
    let mut strips = std::pin::pin!(stream::iter(strips).buffered(CONCURRENCY));
    while let Some((id, stripped)) = strips.next().await {
        match stripped {
            Ok(Stripped::Removed) => {
                println!("{id}: the finalizer is removed");
                removed.insert(id.clone());
            }
            Ok(Stripped::Absent) => println!("{id}: somebody else removed the finalizer"),
            Ok(Stripped::Gone) => println!("{id}: is gone"),
            Err(error) => {
                eprintln!("moorline: {error}");
                failed += 1;
            }
        }
    }
    println!("removed from {} {place}", counted(&removed));
    // A Moorline that runs has put it on again, or on new objects.
    let left = strip::find(&client, &namespaces).await?;
    if failed == 0 && left.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    if failed == 0 {
        eprintln!(
            "moorline: {} {place} have it again: stop every `moorline serve` of this cluster, and run this again",
            counted(&left)
        );
    } else {
        eprintln!("moorline: {} {place} still have it; {failed} could not be changed", counted(&left));
    }
    Ok(ExitCode::FAILURE)
}

/// Asks somebody on a terminal.
async fn confirmed(question: &str) -> anyhow::Result<bool> {
    anyhow::ensure!(io::stdin().is_terminal(), "standard input is no terminal, so nobody can be asked: use --yes");
    eprint!("{question}");
    io::stderr().flush()?;
    let (told, answer) = oneshot::channel();
    // A thread of its own: one of the runtime's would keep a command that is interrupted from ending.
    thread::spawn(move || {
        let mut answer = String::new();
        told.send(io::stdin().lock().read_line(&mut answer).map(|_| answer)).ok();
    });
    let answer = answer.await??;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

fn place_name(namespaces: &[String]) -> String {
    match namespaces {
        [] => "in all namespaces".into(),
        [one] => format!("in namespace {one}"),
        more => format!("in namespaces {}", more.join(", ")),
    }
}

/// `2 Agents and 1 Chat`.
fn counted(ids: &BTreeSet<Id>) -> String {
    let of = |kind: Kind| {
        let count = ids.iter().filter(|id| id.kind == kind).count();
        format!("{count} {kind}{}", if count == 1 { "" } else { "s" })
    };
    format!("{} and {}", of(Kind::Agent), of(Kind::Chat))
}
