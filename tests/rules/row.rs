//! A row of the table: what is sent, and what is to come of it.

use serde_json::Value;

/// One object, or one change of an object.
pub struct Row {
    /// What is special about it.
    pub about: &'static str,
    /// The resource.
    pub kind: &'static str,
    /// What is there before, which both take.
    pub before: Option<Value>,
    pub sent: Sent,
    pub same: Same,
}

/// What is sent.
pub enum Sent {
    /// An object to create; without a name it gets one.
    Create(Value),
    /// Bytes to create an object from.
    CreateRaw(String),
    /// As strict as can be.
    CreateStrictly(Value),
    /// In the place of what is there; with its name and version unless it says its own.
    Put(Value),
    /// A merge patch.
    Merge(Value),
    /// A JSON patch.
    Operations(Value),
    /// A merge patch of the status.
    MergeStatus(Value),
    /// Nothing: it is deleted.
    Delete,
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is taken.
    Taken,
    /// It is refused, and these fields are named as the cause.
    Refused(Vec<&'static str>),
}

/// Whether the two agree.
pub enum Same {
    /// They do.
    Both(Verdict),
    /// They do not, or both take it and show different objects, for this reason.
    Not { theirs: Verdict, ours: Verdict, why: &'static str },
}

impl Same {
    /// Why not.
    pub fn why(&self) -> Option<&'static str> {
        match self {
            Self::Both(_) => None,
            Self::Not { why, .. } => Some(why),
        }
    }
}

/// The beginning of a row.
pub struct Of(pub &'static str);

impl Of {
    fn row(&self, about: &'static str, before: Option<Value>, sent: Sent) -> Row {
        Row { about, kind: self.0, before, sent, same: Same::Both(Verdict::Taken) }
    }

    /// Creates an object.
    pub fn create(&self, about: &'static str, object: Value) -> Row {
        self.row(about, None, Sent::Create(object))
    }

    /// Sends something else.
    pub fn send(&self, about: &'static str, sent: Sent) -> Row {
        self.row(about, None, sent)
    }

    /// Changes an object.
    pub fn change(&self, about: &'static str, before: Value, sent: Sent) -> Row {
        self.row(about, Some(before), sent)
    }
}

impl Row {
    /// Both refuse it for these fields.
    pub fn refused(self, fields: &[&'static str]) -> Self {
        Self { same: Same::Both(Verdict::Refused(fields.to_vec())), ..self }
    }

    /// The two differ.
    pub fn differs(self, theirs: Verdict, ours: Verdict, why: &'static str) -> Self {
        Self { same: Same::Not { theirs, ours, why }, ..self }
    }
}

/// Refused for these fields.
pub fn refused(fields: &[&'static str]) -> Verdict {
    Verdict::Refused(fields.to_vec())
}
