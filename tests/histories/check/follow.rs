//! Values that the log tells backwards: an event says what a field was *before* it, so what it is after an event is what the next
//! one that changes it says it was, or what the last state says.

use crate::histories::log::Event;
use serde_json::Value;

/// What a field was after each of an object's events. `last` is what it is at the end; `of` reads it from what an event says was
/// before, none when that event did not change it.
pub fn afterwards<T: Clone>(story: &[&Event], last: T, of: impl Fn(&Value) -> Option<T>) -> Vec<T> {
    let mut now = last;
    let mut all: Vec<T> = Vec::with_capacity(story.len());
    for event in story.iter().rev() {
        all.push(now.clone());
        if let Some(before) = event.before.as_ref().and_then(&of) {
            now = before;
        }
    }
    all.reverse();
    all
}

/// The mark that the labels had before, if they changed.
#[expect(clippy::option_option, reason = "not changed, changed from none, changed from one")]
pub fn mark(before: &Value) -> Option<Option<String>> {
    let labels = before.get("labels")?;
    Some(labels.get("op").and_then(Value::as_str).map(ToOwned::to_owned))
}

/// The state that a chat had before, if it changed.
#[expect(clippy::option_option, reason = "not changed, changed from none, changed from one")]
pub fn state(before: &Value) -> Option<Option<String>> {
    before.get("state").map(|state| state.as_str().map(ToOwned::to_owned))
}
