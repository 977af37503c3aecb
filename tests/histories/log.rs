//! The event log, read from the database when it is quiet: the account that is compared with what clients and watchers say.

use moorline::model::event::EventKind;
use serde_json::Value;
use sqlx::{PgConnection, Row as _, postgres::PgRow};
use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, Mutex},
};
use uuid::Uuid;

/// A text that many events have.
pub type Text = Arc<str>;

/// A place in the log.
pub type Place = (i64, i32);

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub place: Place,
    pub namespace: Text,
    pub kind: EventKind,
    pub subject: Option<Uuid>,
    pub name: Text,
    /// Numbers the chat's events.
    pub chat_seq: Option<i64>,
    pub agent: Option<Uuid>,
    /// The name of the agent that the payload tells.
    pub agent_name: Option<Text>,
    /// The context hashes before and after.
    pub from: Option<Text>,
    pub to: Option<Text>,
    /// Whether the payload tells `from` and `to` at all.
    pub tells_contexts: bool,
    /// Of a chat that was created: it has its parent's pin.
    pub inherits: bool,
    /// The epoch that a run was given.
    pub epoch: Option<i64>,
    /// What the transaction changed, as it was.
    pub before: Option<Value>,
    /// The row as it was when it was deleted, with the hash of the snapshot that it named.
    pub last: Option<Last>,
}

/// What an event of a deletion says of the last state.
#[derive(Clone, Debug, PartialEq)]
pub struct Last {
    pub mark: Option<String>,
    pub state: Option<String>,
    pub hash: Option<String>,
    pub dirty: bool,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place: (rv, seq), namespace, kind, name, chat_seq, .. } = self;
        let number = chat_seq.map(|number| format!(" (its event {number})")).unwrap_or_default();
        write!(f, "{kind} {rv}-{seq} of {namespace}/{name}{number}")
    }
}

/// All of them, in order.
#[derive(Clone, Debug, Default)]
pub struct Log {
    pub events: Vec<Event>,
}

/// Texts are kept once.
#[derive(Default)]
struct Texts(Mutex<HashSet<Text>>);

impl Texts {
    fn of(&self, text: &str) -> Text {
        let mut known = self.0.lock().unwrap();
        if let Some(text) = known.get(text) {
            return text.clone();
        }
        let text: Text = text.into();
        known.insert(text.clone());
        text
    }
}

impl Log {
    /// Reads it whole.
    pub async fn read(moment: &mut PgConnection) -> Self {
        let (texts, mut events) = (Texts::default(), Vec::new());
        let mut after: Place = (0, 0);
        loop {
            let rows = sqlx::query(
                "SELECT namespace, rv, seq, kind, subject, name, chat_seq, agent_id, payload FROM events
                 WHERE (rv, seq) > ($1, $2) ORDER BY rv, seq LIMIT 5000",
            )
            .bind(after.0)
            .bind(after.1)
            .fetch_all(&mut *moment)
            .await
            .unwrap();
            let Some(last) = rows.last() else { return Self { events } };
            after = (last.get("rv"), last.get("seq"));
            events.extend(rows.iter().map(|row| event(row, &texts)));
        }
    }
}

fn event(row: &PgRow, texts: &Texts) -> Event {
    let mut payload: Value = row.get("payload");
    let text = |payload: &Value, field: &str| payload.get(field).and_then(Value::as_str).map(|text| texts.of(text));
    let kind: EventKind = row.get::<&str, _>("kind").parse().unwrap();
    let last = [payload.get("chat"), payload.get("agent")].into_iter().flatten().find(|row| row.is_object()).map(|row| {
        let of = |pointer: &str| row.pointer(pointer).and_then(Value::as_str).map(ToOwned::to_owned);
        // As to_jsonb writes bytea: `\x` and hexadecimal digits.
        let hash = payload.pointer("/snapshot/context_hash").and_then(Value::as_str);
        Last {
            mark: of("/labels/op"),
            state: of("/state"),
            hash: hash.map(|hash| format!("sha256:{}", hash.trim_start_matches("\\x"))),
            dirty: row.get("dirty_since").is_some_and(|since| !since.is_null()),
        }
    });
    Event {
        place: (row.get("rv"), row.get("seq")),
        namespace: texts.of(row.get("namespace")),
        kind,
        subject: row.get("subject"),
        name: texts.of(row.get("name")),
        chat_seq: row.get("chat_seq"),
        agent: row.get("agent_id"),
        agent_name: text(&payload, "agent"),
        from: text(&payload, "from"),
        to: text(&payload, "to"),
        tells_contexts: payload.get("from").is_some(),
        inherits: payload.get("pinned") == Some(&Value::Bool(true)),
        epoch: payload.get("epoch").and_then(Value::as_i64),
        before: payload.get_mut("before").map(Value::take),
        last,
    }
}
