//! How a watch is written: JSON lines, or Server-Sent Events.

use super::asked::Style;
use crate::{
    http::{
        status::{ApiError, Resource},
        table::{Columns, Form, Wanted},
        tail::change::Told,
    },
    v1alpha1::API_VERSION,
};
use axum::body::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};

/// Writes the pieces of a stream.
#[derive(Clone, Copy, Debug)]
pub struct Frames {
    resource: Resource,
    style: Style,
}

impl Frames {
    /// Of one kind.
    pub fn new(resource: Resource, style: Style) -> Self {
        Self { resource, style }
    }

    /// The media type of the stream.
    pub fn media(self) -> &'static str {
        match self.style {
            Style::Lines(_) => "application/json",
            Style::Events => "text/event-stream",
        }
    }

    /// An object. `resumes` is the version that a stream cut off after it resumes from; none within the first list, in the middle
    /// of which nobody can resume.
    pub fn object(self, piece: &mut Vec<u8>, told: Told, json: &Bytes, resumes: Option<&str>, now: Timestamp) {
        match self.style {
            Style::Lines(Form { wanted: Wanted::Json, .. }) | Style::Events => {
                self.frame(piece, told.as_str(), json, resumes);
            }
            Style::Lines(form) => {
                let object: Value = serde_json::from_slice(json).expect("it was written here");
                self.frame(
                    piece,
                    told.as_str(),
                    form.object(Columns::of(self.resource), object, now).to_string().as_bytes(),
                    resumes,
                );
            }
        }
    }

    /// A bookmark: everything up to a version has been told; `end` says that the first list has.
    pub fn bookmark(self, piece: &mut Vec<u8>, version: &str, end: bool) {
        let mut metadata = json!({"resourceVersion": version, "creationTimestamp": null});
        if end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let wanted = match self.style {
            Style::Lines(form) => form.wanted,
            Style::Events => Wanted::Json,
        };
        let bookmark = bookmark(
            wanted,
            metadata,
            |metadata| json!({"kind": self.resource.kind(), "apiVersion": API_VERSION, "metadata": metadata, "spec": {}}),
        );
        self.frame(piece, "BOOKMARK", bookmark.to_string().as_bytes(), Some(version));
    }

    /// For whoever did not ask for bookmarks: Server-Sent Events learn where to resume, and proxies see that the stream lives.
    pub fn mark(self, piece: &mut Vec<u8>, version: &str) {
        match self.style {
            Style::Lines(_) => {}
            Style::Events => piece.extend_from_slice(format!("id: {version}\n\n").as_bytes()),
        }
    }

    /// The last thing of a stream that cannot go on.
    pub fn error(self, error: &ApiError) -> Bytes {
        let mut piece = Vec::new();
        let status = error.to_status();
        // The place that cannot be resumed from is forgotten: else an EventSource would come back to it for ever.
        let anew = (status["code"] == 410).then_some("");
        self.frame(&mut piece, "ERROR", status.to_string().as_bytes(), anew);
        piece.into()
    }

    fn frame(self, piece: &mut Vec<u8>, kind: &str, object: &[u8], resumes: Option<&str>) {
        if let (Style::Events, Some(version)) = (self.style, resumes) {
            piece.extend_from_slice(format!("id: {version}\n").as_bytes());
        }
        if self.style == Style::Events {
            piece.extend_from_slice(b"data: ");
        }
        piece.extend_from_slice(format!("{{\"type\":\"{kind}\",\"object\":").as_bytes());
        piece.extend_from_slice(object);
        piece.extend_from_slice(b"}\n");
        if self.style == Style::Events {
            piece.extend_from_slice(b"\n");
        }
    }
}

/// The object of a bookmark, in the form that the stream's objects have; `bare` makes it in the form of the kind itself.
pub fn bookmark(wanted: Wanted, metadata: Value, bare: impl FnOnce(Value) -> Value) -> Value {
    let partial =
        |metadata: &Value| json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata});
    match wanted {
        Wanted::PartialObjectMetadata => partial(&metadata),
        Wanted::Table => json!({
            "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": metadata["resourceVersion"]},
            "columnDefinitions": [], "rows": [{"cells": [], "object": partial(&metadata)}],
        }),
        Wanted::Json => bare(metadata),
    }
}
