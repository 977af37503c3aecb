//! `model::prompt`: what a model reads says no more than what a person sees.

use moorline::model::{
    hash::ContentHash,
    prompt::{prompt, sanitise, unseen},
    resource::{Resource, ResourceKind, ResourceStatus},
};

use super::tape::Tape;

/// The bytes are a text; and they are a context of a few resources.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let once = sanitise(&text);
    is_clean(&once);
    assert_eq!(sanitise(&once), once, "sanitising twice is sanitising once");
    assert!(once.len() <= text.len(), "nothing is added");
    let mut left = text.chars().map(|c| if matches!(c, '\r' | '\u{85}' | '\u{2028}' | '\u{2029}') { '\n' } else { c });
    assert!(once.chars().all(|kept| left.any(|c| c == kept)), "what is left was there, in that order");
    context(Tape(data));
}

fn is_clean(text: &str) {
    assert!(!text.contains("<!--"), "no comment is left: {text:?}");
    assert!(!text.contains(['\r', '\u{2028}', '\u{2029}']), "every line ends with LF: {text:?}");
    assert!(!text.chars().any(unseen), "nothing is left that is not seen: {text:?}");
}

/// What must never be told: the body of a config, and of what is not `Ok`.
const SECRET: &[u8] = b"hunter2-hunter2";

fn context(mut tape: Tape<'_>) {
    let (mut told, mut kept): (Vec<Resource>, Vec<Resource>) = (Vec::new(), Vec::new());
    for _ in 0..tape.byte() % 5 {
        let kind = *tape.pick(ResourceKind::ALL);
        let status = *tape.pick(ResourceStatus::ALL);
        let (source, path) = (tape.text(40), tape.text(40));
        let is_told = status == ResourceStatus::Ok && matches!(kind, ResourceKind::InstructionFile | ResourceKind::Skill);
        let body = if is_told { tape.bytes(200) } else { SECRET };
        let mut resource = Resource::ok(kind, source, path, body.to_vec());
        resource.meta.status = status;
        if is_told { told.push(resource) } else { kept.push(resource) }
    }
    let all = || told.iter().chain(&kept);
    let manifest: Vec<_> = all().map(|resource| resource.meta.clone()).collect();
    let text = prompt(&manifest, |wanted: &ContentHash| {
        all().find(|resource| resource.meta.content_hash.as_ref() == Some(wanted)).and_then(|resource| resource.body.as_deref())
    });
    is_clean(&text);
    // What is kept changes nothing: neither its body nor its name is there.
    let alone: Vec<_> = told.iter().map(|resource| resource.meta.clone()).collect();
    let body = |wanted: &ContentHash| {
        told.iter().find(|resource| resource.meta.content_hash.as_ref() == Some(wanted)).and_then(|one| one.body.as_deref())
    };
    assert_eq!(text, prompt(&alone, body), "what is not for a model is not told");
    // Without bodies there are headings alone: a path cannot forge another one.
    let headings = prompt(&manifest, |_| None);
    let lines = headings.lines().filter(|line| !line.is_empty()).count();
    assert_eq!(lines, told.len(), "one line for each: {headings:?}");
}
