//! `moorline get KIND [NAME…]`: objects as tables that the server makes, or whole.

mod table;
mod watch;

use super::{
    kind::Kind,
    output::{self, Format},
    remote::Remote,
};
use crate::client::{Call, CallError, Client};
use anyhow::{anyhow, bail};
use clap::{Args, ValueEnum};
use http::{Method, header};
use serde_json::{Value, json};
use std::process::ExitCode;
use table::Printer;

/// How many objects are asked for at once, as kubectl does.
const PAGE: &str = "500";
/// What asks for a table, and takes the objects from a server that makes none.
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// Show objects: chats, agents, agentsnapshots.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  moorline get chats
  moorline get chats -A -l team=web --field-selector status.dirty=true
  moorline get agent ws-1 -o yaml
  moorline get chats -w")]
pub struct GetArgs {
    /// What: chats, agents, agentsnapshots or contextevents; chat, mchat and so on do too, and KIND/NAME.
    pub kind: String,
    /// Only these; all when none is named.
    pub names: Vec<String>,
    /// Of every namespace that you may read.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Only objects with such labels: `a=b,c!=d,e in (f,g),h`.
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,
    /// Only objects with such fields: `spec.owner=alice,status.dirty=true`.
    #[arg(long, value_name = "SELECTOR")]
    pub field_selector: Option<String>,
    /// How.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Output,
    /// And go on, showing each change, until stopped.
    #[arg(short, long)]
    pub watch: bool,
    /// Which server.
    #[command(flatten)]
    pub remote: Remote,
}

/// The forms that objects are shown in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// As a table.
    Table,
    /// With more columns.
    Wide,
    /// Whole, as JSON.
    Json,
    /// Whole, as YAML.
    Yaml,
    /// Only KIND/NAME.
    Name,
}

impl Output {
    const fn is_table(self) -> bool {
        matches!(self, Self::Table | Self::Wide)
    }
}

/// What is asked for.
struct Asked<'a> {
    kind: Kind,
    namespace: Option<&'a str>,
    args: &'a GetArgs,
}

impl Asked<'_> {
    fn path(&self) -> Vec<&str> {
        match self.namespace {
            Some(namespace) => vec!["namespaces", namespace, self.kind.plural()],
            None => vec![self.kind.plural()],
        }
    }

    fn list(&self) -> Call {
        let call = Call::new(Method::GET, &self.path()).maybe("labelSelector", self.args.selector.as_deref());
        self.form(call.maybe("fieldSelector", self.args.field_selector.as_deref()))
    }

    fn one(&self, name: &str) -> Call {
        self.form(Call::new(Method::GET, &[&self.path()[..], &[name]].concat()))
    }

    fn form(&self, call: Call) -> Call {
        if self.args.output.is_table() { call.header(header::ACCEPT, TABLE) } else { call }
    }
}

/// Runs it.
pub async fn run(args: GetArgs) -> anyhow::Result<ExitCode> {
    let (kind, mut names) = match args.kind.split_once('/') {
        Some((kind, name)) => (kind, vec![name.to_owned()]),
        None => (args.kind.as_str(), Vec::new()),
    };
    let kind: Kind = kind.parse().map_err(|error: String| anyhow!(error))?;
    names.extend(args.names.iter().cloned());
    if !names.is_empty() {
        if args.all_namespaces {
            bail!("a name needs one namespace: give -n, not -A");
        }
        if args.selector.is_some() || args.field_selector.is_some() {
            bail!("give names or selectors, not both");
        }
        if names.iter().any(String::is_empty) {
            bail!("a name must not be empty");
        }
        if args.watch && names.len() > 1 {
            bail!("--watch takes one name or none, got {}", names.len());
        }
    }
    let client = args.remote.client().await?;
    let namespace = (!args.all_namespaces).then(|| args.remote.namespace(&client));
    let asked = Asked { kind, namespace, args: &args };
    let mut printer = Printer::new(args.output, kind, args.all_namespaces);
    if args.watch {
        return watch::run(&client, &asked, names.first().map(String::as_str), &mut printer).await;
    }
    if names.is_empty() {
        let list = list(&client, &asked).await?;
        if printer.print_list(&list)? == 0 && args.output != Output::Json && args.output != Output::Yaml {
            match namespace {
                Some(namespace) => eprintln!("No {kind} found in {namespace} namespace."),
                None => eprintln!("No {kind} found."),
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    named(&client, &asked, &names, &mut printer).await
}

/// Each of some objects; all that are missing are told.
async fn named(client: &Client, asked: &Asked<'_>, names: &[String], printer: &mut Printer) -> anyhow::Result<ExitCode> {
    let (mut found, mut errors): (Vec<Value>, Vec<CallError>) = (Vec::new(), Vec::new());
    for name in names {
        match client.call(asked.one(name)).await {
            Ok(object) => found.push(object),
            Err(error) => errors.push(error),
        }
    }
    match (asked.args.output, found.as_slice()) {
        (_, []) => {}
        (Output::Json | Output::Yaml, [one]) if names.len() == 1 => printer.print_object(one)?,
        (Output::Json | Output::Yaml, _) => {
            printer.print_object(&json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": found}))?;
        }
        (Output::Table | Output::Wide, _) => {
            printer.print_list(&merged(found))?;
        }
        (Output::Name, _) => found.iter().try_for_each(|object| printer.print_object(object))?,
    }
    let Some(last) = errors.pop() else { return Ok(ExitCode::SUCCESS) };
    if errors.is_empty() && names.len() == 1 {
        return Err(last.into());
    }
    for error in errors.iter().chain([&last]) {
        eprintln!("moorline: {error}");
    }
    Ok(ExitCode::from(super::exit::FAILED))
}

/// The whole list, page by page.
async fn list(client: &Client, asked: &Asked<'_>) -> Result<Value, CallError> {
    let mut pages: Vec<Value> = Vec::new();
    loop {
        let next = pages.last().map(|page| output::text(page, "/metadata/continue")).unwrap_or_default();
        if !pages.is_empty() && next.is_empty() {
            return Ok(merged(pages));
        }
        let call = asked.list().query("limit", PAGE);
        let call = if next.is_empty() { call } else { call.query("continue", next) };
        let page = client.call(call).await?;
        pages.push(page);
    }
}

/// Pages of one list, or tables of one kind, as one. It has the first page's version.
fn merged(pages: Vec<Value>) -> Value {
    let mut pages = pages.into_iter();
    let Some(mut first) = pages.next() else { return json!({"items": []}) };
    if let Some(metadata) = first["metadata"].as_object_mut() {
        metadata.remove("continue");
        metadata.remove("remainingItemCount");
    }
    for mut page in pages {
        for field in ["items", "rows"] {
            if let (Some(all), Some(more)) = (first[field].as_array_mut(), page[field].as_array_mut()) {
                all.append(more);
            }
        }
    }
    first
}

/// An object for programs.
fn write(output: Output, object: &Value, kind: Kind) -> anyhow::Result<String> {
    match output {
        Output::Json => Format::Json.write(object),
        Output::Yaml => Format::Yaml.write(object),
        Output::Table | Output::Wide | Output::Name => {
            Ok(format!("{}.{}/{}\n", kind.singular(), crate::v1alpha1::GROUP, output::text(object, "/metadata/name")))
        }
    }
}
