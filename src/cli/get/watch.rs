//! `moorline get -w`: the objects there are, then each change, until stopped. A watch that the server ends is taken up where it
//! was; one that it cannot take up (`Expired`) begins again with the objects there are.

use super::{Asked, list, table::Printer};
use crate::{
    cli::output,
    client::{CallError, Client, Refusal},
};
use serde_json::Value;
use std::{process::ExitCode, time::Duration};

/// Between two watches.
const PAUSE: Duration = Duration::from_millis(200);

/// Runs until it fails; whoever calls it stops it.
pub(super) async fn run(
    client: &Client,
    asked: &Asked<'_>,
    name: Option<&str>,
    printer: &mut Printer,
) -> anyhow::Result<ExitCode> {
    loop {
        let first = match name {
            Some(name) => client.call(asked.one(name)).await?,
            None => list(client, asked).await?,
        };
        if asked.args.output.is_table() {
            printer.print_list(&first)?;
        } else if let Some(items) = first["items"].as_array() {
            items.iter().try_for_each(|item| printer.print_object(item))?;
        } else {
            printer.print_object(&first)?;
        }
        let mut version = output::text(&first, "/metadata/resourceVersion").to_owned();
        while let Ended::Resumable = follow(client, asked, name, &mut version, printer).await? {
            // A server that ends each watch at once is not asked without a breath between.
            tokio::time::sleep(PAUSE).await;
        }
    }
}

enum Ended {
    Resumable,
    Expired,
}

async fn follow(
    client: &Client,
    asked: &Asked<'_>,
    name: Option<&str>,
    version: &mut String,
    printer: &mut Printer,
) -> anyhow::Result<Ended> {
    let mut call = asked.list().query("watch", "1").query("allowWatchBookmarks", "true").query("resourceVersion", &*version);
    if let Some(name) = name {
        call = call.query("fieldSelector", format!("metadata.name={name}"));
    }
    let mut lines = match client.lines(call).await {
        Ok(lines) => lines,
        Err(CallError::Refused(refusal)) if refusal.code == 410 => return Ok(Ended::Expired),
        Err(error) => return Err(error.into()),
    };
    while let Some(event) = lines.next().await? {
        let object = &event["object"];
        match output::text(&event, "/type") {
            "ERROR" => {
                let code = object["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or(500);
                if code == 410 {
                    return Ok(Ended::Expired);
                }
                let refusal = Refusal::read(client.place(), code, object.to_string().as_bytes());
                return Err(CallError::Refused(Box::new(refusal)).into());
            }
            "BOOKMARK" => remember(version, object),
            _ => {
                printer.print_object(object)?;
                remember(version, object);
            }
        }
    }
    Ok(Ended::Resumable)
}

/// The version that a watch goes on from: the object's, which in a Table is that of its one row.
fn remember(version: &mut String, object: &Value) {
    let found = ["/metadata/resourceVersion", "/rows/0/object/metadata/resourceVersion"];
    if let Some(found) = found.into_iter().map(|path| output::text(object, path)).find(|found| !found.is_empty()) {
        found.clone_into(version);
    }
}
