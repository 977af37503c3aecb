//! How a watch of events is written: JSON lines, or Server-Sent Events.

use super::{
    super::{
        page::{list_version, object_version},
        status::ApiError,
        table::{self, Form},
        tail::{change::Told, pieces::Writing, ring::Entry},
        watch::{Style, bookmark},
    },
    core_v1,
};
use crate::{
    store::events::{Cursor, Logged},
    v1alpha1::{
        API_VERSION,
        event::{ContextEvent, core_event, cursor_text},
    },
};
use axum::body::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

/// As what events are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// As what they are.
    ContextEvent,
    /// As core/v1 Events.
    CoreEvent,
}

/// How the stream is written.
#[derive(Clone, Copy, Debug)]
pub struct Frames {
    style: Style,
    shape: Shape,
}

impl Frames {
    /// In this style, as these.
    pub fn new(style: Style, shape: Shape) -> Self {
        Self { style, shape }
    }

    /// The media type of the stream.
    pub fn media(self) -> &'static str {
        match self.style {
            Style::Lines(_) => "application/json",
            Style::Events => "text/event-stream",
        }
    }

    /// The form of the objects. Contextevents are told as what they are.
    fn form(self) -> Form {
        match (self.shape, self.style) {
            (Shape::CoreEvent, Style::Lines(form)) => form,
            (Shape::CoreEvent, Style::Events) | (Shape::ContextEvent, _) => Form::default(),
        }
    }

    /// An event.
    pub fn event(self, piece: &mut Vec<u8>, event: &Logged, now: Timestamp) {
        self.frame(piece, &self.line(event, now), Some(|| cursor_text(event.cursor)));
    }

    /// The same, of what all watchers share: each line is made once. A table's rows say how long ago it was: they are not shared.
    pub fn entry(self, piece: &mut Vec<u8>, entry: &Entry, now: Timestamp) {
        let shared = match (self.shape, self.form().wanted) {
            (Shape::CoreEvent, table::Wanted::Json) => &entry.lines.core,
            (Shape::ContextEvent, _) => &entry.lines.context,
            (Shape::CoreEvent, _) => return self.event(piece, &entry.event, now),
        };
        self.frame(piece, shared.get_or_init(|| self.line(&entry.event, now)), Some(|| cursor_text(entry.event.cursor)));
    }

    /// A piece of what all watchers share.
    pub fn piece(self, entries: &[Arc<Entry>], now: Timestamp) -> Bytes {
        let mut piece = Vec::new();
        for entry in entries {
            self.entry(&mut piece, entry, now);
        }
        piece.into_boxed_slice().into() // it is kept: no more than it takes
    }

    /// How all who see everything are sent the same, if they are: a table's rows are not shared.
    pub fn writing(self) -> Option<Writing> {
        match (self.shape, self.style) {
            (Shape::ContextEvent, Style::Lines(_)) => Some(Writing::ContextLines),
            (Shape::ContextEvent, Style::Events) => Some(Writing::ContextEvents),
            (Shape::CoreEvent, Style::Events) => Some(Writing::CoreEvents),
            (Shape::CoreEvent, Style::Lines(form)) => matches!(form.wanted, table::Wanted::Json).then_some(Writing::CoreLines),
        }
    }

    fn line(self, event: &Logged, now: Timestamp) -> Bytes {
        let object = match self.shape {
            Shape::CoreEvent => self.form().object(&core_v1::COLUMNS, core_event(event, &object_version(event.cursor.rv)), now),
            Shape::ContextEvent => serde_json::to_value(ContextEvent::from_logged(event)).expect("an event is plain data"),
        };
        line(Told::Added.as_str(), &object)
    }

    /// Everything up to a place has been told; `end` says that what there was when the watch began has.
    pub fn bookmark(self, piece: &mut Vec<u8>, cursor: Cursor, end: bool) {
        let (kind, api_version) = match self.shape {
            Shape::CoreEvent => ("Event", "v1"),
            Shape::ContextEvent => ("ContextEvent", API_VERSION),
        };
        let mut metadata = json!({"resourceVersion": list_version(cursor.rv)});
        if end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = bookmark(
            self.form().wanted,
            metadata,
            |metadata| json!({"kind": kind, "apiVersion": api_version, "metadata": metadata}),
        );
        self.frame(piece, &line("BOOKMARK", &object), Some(|| cursor_text(cursor)));
    }

    /// For whoever did not ask for bookmarks: Server-Sent Events learn where to resume, and proxies see that the stream lives.
    pub fn mark(self, piece: &mut Vec<u8>, cursor: Cursor) {
        match self.style {
            Style::Lines(_) => {}
            Style::Events => piece.extend_from_slice(format!("id: {}\n\n", cursor_text(cursor)).as_bytes()),
        }
    }

    /// The last thing of a stream that cannot go on.
    pub fn error(self, error: &ApiError) -> Bytes {
        let mut piece = Vec::new();
        let status = error.to_status();
        // The place that cannot be resumed from is forgotten: else an EventSource would come back to it for ever.
        let anew = (status["code"] == 410).then_some("");
        self.frame(&mut piece, &line("ERROR", &status), anew.map(|id| || id.to_owned()));
        piece.into()
    }

    fn frame(self, piece: &mut Vec<u8>, line: &[u8], id: Option<impl FnOnce() -> String>) {
        match self.style {
            Style::Lines(_) => {
                piece.extend_from_slice(line);
                piece.push(b'\n');
            }
            Style::Events => {
                if let Some(id) = id {
                    piece.extend_from_slice(format!("id: {}\n", id()).as_bytes());
                }
                piece.extend_from_slice(b"data: ");
                piece.extend_from_slice(line);
                piece.extend_from_slice(b"\n\n");
            }
        }
    }
}

fn line(kind: &str, object: &Value) -> Bytes {
    json!({"type": kind, "object": object}).to_string().into()
}
