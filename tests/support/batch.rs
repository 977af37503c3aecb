//! What a batch of the loop is made of, for tests that write one by hand.

use moorline::{
    model::condition::ConditionPatch,
    plan::{DirtyChange, PinChange},
    store::converge::{Class, ClassEvent, Loaded, Row},
};

/// The chats of rows that are all well.
pub fn chats(rows: Vec<Row>) -> Vec<Loaded> {
    rows.into_iter()
        .map(|row| match row {
            Row::Chat(chat) => *chat,
            Row::Bad { id, error } => panic!("{id}: {error}"),
        })
        .collect()
}

/// An outcome that leaves a chat as it is, but for what is told of it.
pub fn keeps(event: Option<ClassEvent>) -> Class {
    Class {
        pin: PinChange::Keep,
        dirty: DirtyChange::Keep,
        refresh_handled: false,
        refresh_token: None,
        conditions: ConditionPatch::default(),
        event,
    }
}
