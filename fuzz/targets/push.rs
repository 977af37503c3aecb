//! The body of a push, from bytes to `model::push::Push`: what is taken keeps every limit of docs/api, what keeps them all is
//! taken, and every refusal names a field.

use moorline::{
    http::negotiate::{FieldValidation, Json, NulAllowed},
    model::{
        fault::Fault,
        hash::ContentHash,
        push::{Limits, Phase, Push},
        resource::{Resource, ResourceKind, ResourceStatus},
    },
    v1alpha1::push::{PushRequest, ResourceReport},
};
use std::collections::HashSet;
use uuid::Uuid;

use super::tape::Tape;

/// The bytes are a body; or, after `#`, the decisions of which one is made that is about as large as one may be.
pub fn run(data: &[u8]) {
    if let Some(decisions) = data.strip_prefix(b"#") {
        return taken_or_not(&large(Tape(decisions)));
    }
    for validation in [FieldValidation::Warn, FieldValidation::Strict] {
        let read = Json::parse(data, NulAllowed::InResourceBodies).and_then(|json| json.into_type::<PushRequest>(validation));
        match read {
            Ok((request, warnings)) => {
                let headers: usize = warnings.into_headers().map(|(_, value)| value.len()).sum();
                assert!(headers < 5_000, "{headers} bytes of warnings");
                taken_or_not(&request);
            }
            Err(error) => assert!(matches!(error.code().as_u16(), 400 | 422), "{}", error.message()),
        }
    }
}

fn taken_or_not(request: &PushRequest) {
    let allowed = allowed(request);
    match Push::try_from(request.clone()) {
        Ok(push) => {
            assert_eq!(allowed, Ok(()), "what is taken keeps every limit");
            is_as_promised(&push, request);
        }
        Err(faults) => {
            assert!(allowed.is_err(), "what keeps every limit is taken: {faults:?}");
            assert!(!faults.is_empty(), "a refusal says why");
            for Fault { field, message, .. } in &faults {
                assert!(!field.is_empty() && !message.is_empty(), "a fault names a field: {field:?} {message:?}");
                assert!(field.len() < 64 && message.len() < 2_000, "a message stays a message: {field} {}", message.len());
            }
        }
    }
}

fn is_as_promised(push: &Push, request: &PushRequest) {
    let reports = request.resources.as_deref().unwrap_or_default();
    assert_eq!(push.pinned.len() + push.live.len(), reports.len(), "nothing is left out");
    for (class, pinned) in [(&push.pinned, true), (&push.live, false)] {
        assert!(class.iter().all(|resource| resource.meta.kind.is_pinned_class() == pinned), "the classes are parted");
        assert!(class.windows(2).all(|two| two[0].meta.key() < two[1].meta.key()), "in order, and no two of one name");
    }
    for Resource { meta, body } in push.pinned.iter().chain(&push.live) {
        if let Some(body) = body {
            assert_eq!((meta.content_hash, meta.size_bytes), (Some(ContentHash::of(body)), body.len() as u64), "{meta:?}");
            assert_ne!(meta.kind, ResourceKind::McpConfig, "it holds tokens");
        }
    }
    // As an agent would send it: the same push.
    let all: Vec<&Resource> = push.pinned.iter().chain(&push.live).collect();
    let again = PushRequest { resources: Some(all.into_iter().map(ResourceReport::from).collect()), ..request.clone() };
    let again = Push::try_from(again).unwrap_or_else(|faults| panic!("it was taken before: {faults:?}"));
    assert_eq!(&again, push, "sent again");
    assert_eq!((again.digest(), again.context_hash()), (push.digest(), push.context_hash()));
}

/// Whether api.md §3 and DESIGN §7 let a push in; if not, the first thing that is wrong.
fn allowed(request: &PushRequest) -> Result<(), String> {
    let demand = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
    let number = |number: i64| (1..1 << 53).contains(&number);
    let text = |text: &str, most: usize| text.len() <= most && !text.contains('\0');
    demand(request.api_version.as_deref().is_none_or(|version| version == "moorline.dev/v1alpha1"), "apiVersion")?;
    demand(request.kind.as_deref().is_none_or(|kind| kind == "AgentSnapshotPush"), "kind")?;
    demand(Uuid::try_parse(&request.run_id).is_ok(), "runID")?;
    demand(number(request.epoch) && number(request.seq), "epoch, seq")?;
    demand(request.phase.parse::<Phase>().is_ok(), "phase")?;
    demand(text(&request.error, 4096), "error")?;
    let resources = request.resources.as_ref().ok_or("resources")?;
    demand(resources.len() <= 1000, "at most 1,000 resources")?;
    let (mut names, mut total) = (HashSet::new(), 0);
    for report in resources {
        demand(names.insert((&report.kind, &report.source)), "no two of one kind and source")?;
        let kind: ResourceKind = report.kind.parse().map_err(|_| "kind")?;
        let status: ResourceStatus = report.status.parse().map_err(|_| "status")?;
        demand(!report.source.is_empty() && text(&report.source, 1024), "source")?;
        demand(text(&report.source_path, 4096) && text(&report.error, 4096), "sourcePath, error")?;
        let body = match (&report.body, &report.body_base64) {
            (Some(_), Some(_)) => return Err("body and bodyBase64".into()),
            (Some(body), None) => Some(body.as_bytes().to_vec()),
            (None, Some(base64)) => Some(decoded(base64).ok_or("bodyBase64")?),
            (None, None) => None,
        };
        demand(kind != ResourceKind::McpConfig || body.is_none(), "an McpConfig without a body")?;
        demand(body.as_ref().is_none_or(|body| body.len() <= 256 << 10), "256 KiB a body")?;
        total += body.as_ref().map_or(0, Vec::len);
        let hash = report.content_hash.as_ref();
        demand(hash.is_none_or(|hash| is_hash(hash)), "contentHash")?;
        demand(report.size_bytes.is_none_or(|size| (0..1 << 53).contains(&size)), "sizeBytes")?;
        if let Some(body) = &body {
            demand(hash.is_none_or(|hash| *hash == ContentHash::of(body).to_string()), "the hash of the body")?;
            demand(report.size_bytes.is_none_or(|size| usize::try_from(size) == Ok(body.len())), "the size of the body")?;
        }
        let content = if kind == ResourceKind::McpConfig { hash.is_some() } else { body.is_some() };
        demand(status != ResourceStatus::Ok || content, "what is Ok has content")?;
    }
    demand(total <= 4 << 20, "4 MiB of bodies")
}

fn is_hash(text: &str) -> bool {
    let digits = text.strip_prefix("sha256:").unwrap_or_default();
    digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit))
}

/// Base64 with padding (RFC 4648 §4), in one form for each value.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let value =
        |letter: u8| b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".iter().position(|l| *l == letter);
    let mut bytes = Vec::new();
    let quads = text.as_bytes().chunks(4);
    let last = quads.len().saturating_sub(1);
    for (n, quad) in quads.enumerate() {
        let letters = quad.iter().take_while(|letter| **letter != b'=').count();
        let padded = quad.len() == 4 && quad[letters..].iter().all(|letter| *letter == b'=');
        if !padded || letters < 2 || (letters < 4 && n < last) {
            return None;
        }
        let bits =
            quad[..letters].iter().try_fold(0_u32, |bits, letter| Some(bits << 6 | u32::try_from(value(*letter)?).ok()?))?
                << (6 * (4 - letters));
        let whole = letters - 1;
        if bits & ((1 << (8 * (3 - whole))) - 1) != 0 {
            return None; // bits that are no byte's
        }
        bytes.extend_from_slice(&bits.to_be_bytes()[1..=whole]);
    }
    Some(bytes)
}

/// A push at its limits: one more byte or resource here and there is too many.
fn large(mut tape: Tape<'_>) -> PushRequest {
    let mut near = |limit: usize| match tape.byte() {
        0 => limit,
        1 => limit + 1,
        2 => limit - 1,
        n => usize::from(n) % 9,
    };
    let error = "é".repeat(near(Limits::ERROR) / 2);
    let many = near(Limits::RESOURCES);
    let bodies = [near(Limits::BODY), near(Limits::BODY)];
    let sizes = [near(Limits::SOURCE), near(Limits::SOURCE_PATH), near(Limits::ERROR)];
    // 16 bodies of 256 KiB are 4 MiB; they take long, so not often.
    let repeated = if tape.byte() == 255 { tape.byte() % 18 } else { 0 };
    let mut resources: Vec<ResourceReport> = (0..many).map(|n| report("Skill", &format!("s{n}"), Some(String::new()))).collect();
    for (n, size) in bodies.into_iter().enumerate() {
        resources.push(report("InstructionFile", &format!("a{n}"), Some("x".repeat(size))));
    }
    if repeated > 14 {
        resources.extend((0..repeated - 2).map(|n| report("McpServer", &format!("m{n}"), Some("y".repeat(Limits::BODY)))));
    }
    let mut long = report(["Plugin", "McpConfig", "Nothing"][usize::from(tape.byte()) % 3], &"s".repeat(sizes[0]), None);
    long.source_path = "p".repeat(sizes[1]);
    long.error = "e".repeat(sizes[2]);
    ["Invalid", "Ok", "ok"][usize::from(tape.byte()) % 3].clone_into(&mut long.status);
    long.size_bytes = Some(tape.number());
    resources.push(long);
    let duplicate = tape.byte();
    if duplicate > 250 {
        resources.extend(resources.get(usize::from(tape.byte())).cloned());
    }
    PushRequest {
        run_id: Uuid::nil().to_string(),
        epoch: 1,
        seq: 1,
        phase: "Complete".into(),
        error,
        resources: Some(resources),
        ..PushRequest::default()
    }
}

fn report(kind: &str, source: &str, body: Option<String>) -> ResourceReport {
    let (kind, source, status) = (kind.to_owned(), source.to_owned(), "Ok".to_owned());
    ResourceReport { kind, source, body, status, ..ResourceReport::default() }
}
