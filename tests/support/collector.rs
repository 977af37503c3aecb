//! A collector of traces that takes OTLP over HTTP, and keeps what it was told.

use super::wire::{Value, fields, messages};
use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::post};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

/// A span, as it was told.
#[derive(Clone, Debug, Default)]
pub struct Span {
    pub trace: String,
    pub id: String,
    pub parent: String,
    pub name: String,
    pub began: u64,
    pub ended: u64,
    /// As text, numbers too.
    pub attributes: BTreeMap<String, String>,
    /// The traces and spans it links to.
    pub links: Vec<(String, String)>,
    /// Of the process that told it.
    pub service: String,
}

/// See above.
pub struct Collector {
    pub url: String,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    /// Starts one.
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let spans = Arc::<Mutex<Vec<Span>>>::default();
        let router = Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&spans));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, spans }
    }

    /// What it has been told so far.
    pub fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap().clone()
    }
}

async fn take(State(spans): State<Arc<Mutex<Vec<Span>>>>, body: Bytes) -> StatusCode {
    // ExportTraceServiceRequest { ResourceSpans resource_spans = 1 { Resource resource = 1, ScopeSpans scope_spans = 2 { Span spans = 2 } } }
    for resource_spans in messages(&body, 1) {
        let service = messages(resource_spans, 1).flat_map(attributes_of(1)).find(|(name, _)| name == "service.name");
        let service = service.map(|(_, value)| value).unwrap_or_default();
        let told = messages(resource_spans, 2).flat_map(|scope| messages(scope, 2).collect::<Vec<_>>());
        spans.lock().unwrap().extend(told.map(|span| Span { service: service.clone(), ..span_of(span) }));
    }
    StatusCode::OK
}

fn span_of(span: &[u8]) -> Span {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let one = |number| messages(span, number).next().unwrap_or_default();
    let fixed = |number| fields(span).find_map(|(field, value)| (field == number).then(|| value.number())).unwrap_or_default();
    Span {
        trace: hex::encode(one(1)),
        id: hex::encode(one(2)),
        parent: hex::encode(one(4)),
        name: text(one(5)),
        began: fixed(7),
        ended: fixed(8),
        attributes: attributes_of(9)(span).into_iter().collect(),
        links: messages(span, 13)
            .map(|link| {
                let one = |number| hex::encode(messages(link, number).next().unwrap_or_default());
                (one(1), one(2))
            })
            .collect(),
        service: String::new(),
    }
}

/// The attributes that a message has in this field: KeyValue { key = 1, AnyValue value = 2 { string = 1, int = 3 } }.
fn attributes_of(number: u64) -> impl Fn(&[u8]) -> Vec<(String, String)> {
    move |message| {
        let attribute = |pair: &[u8]| {
            let key = messages(pair, 1).next().unwrap();
            let value = fields(messages(pair, 2).next().unwrap()).next();
            let value = value.map(|(_, value)| match value {
                Value::Bytes(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
                Value::Number(number) => number.to_string(),
            });
            (String::from_utf8(key.to_vec()).unwrap(), value.unwrap_or_default())
        };
        messages(message, number).map(attribute).collect()
    }
}
