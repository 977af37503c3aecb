//! The one table of who may do what: docs/security.md shows it, and `security` tries every cell of it.

/// Whose objects somebody may do something with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Everybody's.
    All,
    /// Their own.
    Own,
    /// Nobody's.
    None,
}

use Whose::{All, None, Own};
use std::fmt::Write as _;

/// The columns: what RBAC gives in the namespace.
pub const ROLES: [&str; 5] = ["no role", "viewer", "reader", "editor", "admin"];

/// Something that may be done.
pub struct Deed {
    /// The right that RBAC is asked about.
    pub right: &'static str,
    /// Method.
    pub method: &'static str,
    /// Below the namespace; `{}` stands for the object's name.
    pub path: &'static str,
    /// Whether the answer holds bodies.
    pub bodies: bool,
    /// Whose, by role.
    pub cells: [Whose; 5],
}

const fn deed(right: &'static str, method: &'static str, path: &'static str, cells: [Whose; 5]) -> Deed {
    Deed { right, method, path, bodies: false, cells }
}

const fn of_bodies(right: &'static str, method: &'static str, path: &'static str, cells: [Whose; 5]) -> Deed {
    Deed { right, method, path, bodies: true, cells }
}

const VIEW: [Whose; 5] = [Own, All, All, All, All];
const READ: [Whose; 5] = [Own, Own, All, Own, All];
const EDIT: [Whose; 5] = [Own, Own, Own, All, All];
const CREATE: [Whose; 5] = [None, None, None, All, All];

/// Every deed.
pub const DEEDS: [Deed; 32] = [
    deed("list chats", "GET", "chats", VIEW),
    deed("watch chats", "GET", "chats?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&timeoutSeconds=1", VIEW),
    deed("get chats", "GET", "chats/{}", VIEW),
    deed("get chats", "GET", "chats/{}/why", VIEW),
    deed("get chats/status", "GET", "chats/{}/status", VIEW),
    of_bodies("get chats/context", "GET", "chats/{}/context", READ),
    of_bodies("get chats/context", "GET", "chats/{}/context?format=prompt", READ),
    deed("get chats/context", "GET", "chats/{}/context?bodies=false", READ),
    of_bodies("get chats/diff", "GET", "chats/{}/diff", READ),
    deed("create chats", "POST", "chats", CREATE),
    deed("update chats", "PUT", "chats/{}", EDIT),
    deed("patch chats", "PATCH", "chats/{}", EDIT),
    deed("patch chats/status", "PATCH", "chats/{}/status", EDIT),
    deed("update chats/context", "PUT", "chats/{}/context", EDIT),
    deed("delete chats", "DELETE", "chats/{}", EDIT),
    deed("list agents", "GET", "agents", VIEW),
    deed("watch agents", "GET", "agents?watch=1&timeoutSeconds=1", VIEW),
    deed("get agents", "GET", "agents/{}", VIEW),
    deed("create agents", "POST", "agents", CREATE),
    deed("update agents", "PUT", "agents/{}", EDIT),
    deed("patch agents", "PATCH", "agents/{}", EDIT),
    deed("delete agents", "DELETE", "agents/{}", EDIT),
    deed("create agents/runs", "POST", "agents/{}/runs", EDIT),
    deed("update agents/snapshot", "PUT", "agents/{}/snapshot", EDIT),
    deed("list agentsnapshots", "GET", "agentsnapshots", VIEW),
    deed("watch agentsnapshots", "GET", "agentsnapshots?watch=1&timeoutSeconds=1", VIEW),
    deed("get agentsnapshots", "GET", "agentsnapshots/{}", VIEW),
    deed("list contextevents", "GET", "contextevents", VIEW),
    deed("watch contextevents", "GET", "contextevents?watch=1&timeoutSeconds=1", VIEW),
    deed("list contextevents and events", "GET", "events", VIEW),
    deed("list contextevents and events", "GET", "events?fieldSelector=involvedObject.kind%3DChat", VIEW),
    deed("watch contextevents and events", "GET", "events?watch=1&resourceVersion=1&timeoutSeconds=1", VIEW),
];

/// The table, as docs/security.md has it.
pub fn table() -> String {
    let mut text = format!("| RBAC is asked | request | {} |\n|---|---|{}\n", ROLES.join(" | "), "---|".repeat(ROLES.len()));
    for Deed { right, method, path, cells, .. } in &DEEDS {
        let path = path.split_once('?').map_or((*path).to_owned(), |(path, query)| {
            let shown = ["watch=1", "format=prompt", "bodies=false"].iter().find(|shown| query.contains(**shown));
            shown.map_or(path.to_owned(), |shown| format!("{path}?{shown}"))
        });
        let cells = cells.map(|cell| match cell {
            All => "all",
            Own => "own",
            None => "–",
        });
        writeln!(text, "| {right} | `{method} …/{}` | {} |", path.replace("{}", "NAME"), cells.join(" | ")).unwrap();
    }
    text
}
