//! Tells a collector of traces, by OTLP over HTTP with protobuf. The environment says where and how, by OpenTelemetry's names;
//! spans are sent in batches from a thread of their own, and dropped when the collector is away or too slow.

use super::{Context as Place, Step, Story, TraceError, TraceId as Id};
use axum::body::Bytes;
use opentelemetry::{
    Context, InstrumentationScope, KeyValue,
    trace::{
        Link, Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState,
        Tracer as _, TracerProvider as _,
    },
};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    trace::{IdGenerator, RandomIdGenerator, Sampler, SamplingDecision, SdkTracer, SdkTracerProvider, ShouldSample as _},
};
use std::{
    cell::Cell,
    env,
    future::Future,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::runtime::Handle;

/// How long what has not been told yet may take at the end.
const GRACE: Duration = Duration::from_secs(5);

/// How long the collector may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A span that has begun.
pub(super) type Span = opentelemetry_sdk::trace::Span;

#[derive(Debug)]
struct Teller {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    sampler: Sampler,
}

static TELLER: OnceLock<Teller> = OnceLock::new();

pub(super) fn is_told() -> bool {
    TELLER.get().is_some()
}

/// Begins to tell.
pub(super) fn start() -> Result<(), TraceError> {
    let failed = |error: &dyn std::fmt::Display| TraceError::Exporter(error.to_string());
    let http = reqwest::Client::builder().timeout(PATIENCE).build().map_err(|error| failed(&error))?;
    let client = Client { http, runtime: Handle::current(), failing: Arc::default() };
    let exporter = SpanExporter::builder().with_http().with_http_client(client).build().map_err(|error| failed(&error))?;
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let mut resource = Resource::builder().with_attribute(version);
    if env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name("moorline");
    }
    let sampler = sampler();
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_id_generator(Ids)
        .with_sampler(Sampler::ParentBased(Box::new(sampler.clone())))
        .with_resource(resource.build())
        .build();
    let scope = InstrumentationScope::builder("moorline").with_version(env!("CARGO_PKG_VERSION")).build();
    let tracer = provider.tracer_with_scope(scope);
    TELLER.set(Teller { provider, tracer, sampler }).ok(); // once is enough
    tracing::info!("telling a collector of traces");
    Ok(())
}

/// What is sampled of what nobody has sampled before: all, none, or a part, which every replica chooses alike.
fn sampler() -> Sampler {
    let named = env::var("OTEL_TRACES_SAMPLER").unwrap_or_default();
    let part = env::var("OTEL_TRACES_SAMPLER_ARG").ok().and_then(|part| part.parse().ok()).unwrap_or(1.0);
    match named.trim_start_matches("parentbased_") {
        "always_off" => Sampler::AlwaysOff,
        "traceidratio" => Sampler::TraceIdRatioBased(part),
        _ => Sampler::AlwaysOn,
    }
}

/// Tells what has not been told yet.
pub(super) async fn end() {
    let Some(teller) = TELLER.get() else { return };
    // It waits for the exporter, which needs this runtime.
    let ended = tokio::task::spawn_blocking(|| teller.provider.shutdown_with_timeout(GRACE)).await;
    if let Ok(Err(error)) = ended {
        tracing::warn!(%error, "not every trace could be told of");
    }
}

/// Begins the span of a request.
pub(super) fn request(method: &'static str, route: &str, parent: Option<Place>) -> Option<Span> {
    let teller = TELLER.get()?;
    let parent = parent.map_or_else(Context::new, |parent| Context::new().with_remote_span_context(there(&parent)));
    let attributes = [KeyValue::new("http.request.method", method), KeyValue::new("http.route", route.to_owned())];
    let span = teller.tracer.span_builder(format!("{method} {route}")).with_kind(SpanKind::Server).with_attributes(attributes);
    Some(span.start_with_context(&teller.tracer, &parent))
}

/// Ends it.
pub(super) fn answered(mut span: Span, code: u16) {
    span.set_attribute(KeyValue::new("http.response.status_code", i64::from(code)));
    if code >= 500 {
        span.set_status(Status::error(""));
    }
    span.end();
}

/// Where a span is.
pub(super) fn context(span: &Span) -> Place {
    let context = span.span_context();
    Place { trace: Id(context.trace_id().to_bytes()), span: context.span_id().to_bytes(), sampled: context.is_sampled() }
}

fn there(place: &Place) -> SpanContext {
    let flags = TraceFlags::NOT_SAMPLED.with_sampled(place.sampled);
    SpanContext::new(TraceId::from_bytes(place.trace.0), SpanId::from_bytes(place.span), flags, true, TraceState::NONE)
}

/// Tells of a step of a story.
pub(super) fn tell(story: &Story, step: &Step<'_>, began: Instant) {
    let Some(teller) = TELLER.get() else { return };
    let (trace, first) = (TraceId::from_bytes(story.trace().0), story.first_span());
    let mut attributes = vec![
        KeyValue::new("moorline.agent.uid", story.agent.to_string()),
        KeyValue::new("moorline.snapshot.hash", story.hash.to_string()),
    ];
    let text = |name: &'static str, value: &str| KeyValue::new(name, value.to_owned());
    let (name, kind) = match step {
        Step::Push { namespace, agent, snapshot } => {
            attributes.extend([
                text("moorline.namespace", namespace),
                text("moorline.agent", agent),
                text("moorline.snapshot", snapshot),
            ]);
            ("push", SpanKind::Server)
        }
        Step::Converge { lane, namespace, chats } => {
            let chats = KeyValue::new("moorline.chats", i64::try_from(*chats).unwrap_or(i64::MAX));
            attributes.extend([text("moorline.namespace", namespace), text("moorline.lane", lane), chats]);
            ("converge", SpanKind::Consumer)
        }
        Step::Mirror { resource, namespace, name, result } => {
            let object =
                [text("moorline.resource", resource), text("moorline.namespace", namespace), text("moorline.name", name)];
            attributes.extend(object);
            attributes.push(text("moorline.result", result));
            ("mirror", SpanKind::Client)
        }
    };
    let began = opentelemetry::time::now() - began.elapsed();
    let mut span = teller.tracer.span_builder(name).with_kind(kind).with_attributes(attributes).with_start_time(began);
    if let Step::Push { .. } = step {
        if let Ok(request) = super::CURRENT.try_with(there) {
            span = span.with_links(vec![Link::with_context(request)]);
        }
        NEXT.set(Some((trace, SpanId::from_bytes(first))));
        span.start_with_context(&teller.tracer, &Context::new()).end();
        NEXT.set(None);
    } else {
        // As the first span was sampled, wherever that was.
        let sampled = teller.sampler.should_sample(None, trace, "push", &SpanKind::Server, &[], &[]).decision;
        let sampled = matches!(sampled, SamplingDecision::RecordAndSample);
        let parent = there(&Place { trace: story.trace(), span: first, sampled });
        span.start_with_context(&teller.tracer, &Context::new().with_remote_span_context(parent)).end();
    }
}

thread_local! {
    /// The ids of the next span that begins on this thread and that has no parent.
    static NEXT: Cell<Option<(TraceId, SpanId)>> = const { Cell::new(None) };
}

/// Random ids, but for the first span of a story.
#[derive(Debug)]
struct Ids;

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        NEXT.get().map_or_else(|| RandomIdGenerator::default().new_trace_id(), |(trace, _)| trace)
    }

    fn new_span_id(&self) -> SpanId {
        NEXT.get().map_or_else(|| RandomIdGenerator::default().new_span_id(), |(_, span)| span)
    }
}

/// Our client, for a thread that has no runtime.
#[derive(Clone, Debug)]
struct Client {
    http: reqwest::Client,
    runtime: Handle,
    /// It failed the last time; that is said once.
    failing: Arc<AtomicBool>,
}

impl Client {
    async fn send(&self, request: http::Request<Bytes>) -> Answer {
        let answer = self.http.execute(request.try_into()?).await?;
        let status = answer.status();
        let mut whole = http::Response::new(answer.bytes().await?);
        *whole.status_mut() = status;
        Ok(whole)
    }
}

type Answer = Result<http::Response<Bytes>, HttpError>;

impl HttpClient for Client {
    fn send_bytes<'a, 'b>(&'a self, request: http::Request<Bytes>) -> Pin<Box<dyn Future<Output = Answer> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        let it = self.clone();
        let sent = self.runtime.spawn(async move {
            let answer = it.send(request).await;
            let failing = answer.as_ref().map_or(true, |answer| !answer.status().is_success());
            if failing && !it.failing.swap(failing, Ordering::Relaxed) {
                let error = answer.as_ref().map_or_else(ToString::to_string, |answer| answer.status().to_string());
                tracing::warn!(error, "the collector does not take traces; they are dropped until it does");
            } else if it.failing.swap(failing, Ordering::Relaxed) && !failing {
                tracing::info!("the collector takes traces again");
            }
            answer
        });
        Box::pin(async move { sent.await? })
    }
}
