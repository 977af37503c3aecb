//! A fault in what somebody asked for: which field, what kind of fault, and a sentence that names the limit and
//! what was got. All faults of a request are collected; none is reported alone while others wait behind it.

use std::fmt;

/// What is wrong with a field. The names are those of a Kubernetes `Status` cause without their `FieldValue` prefix
/// (apimachinery, `metav1.CauseType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FaultKind {
    /// A field that must be present is not.
    Required,
    /// The value does not have the form that the field needs.
    Invalid,
    /// The value is not one of those that the field knows.
    NotSupported,
    /// The value appears twice where it must be unique.
    Duplicate,
    /// The value is longer than the field allows.
    TooLong,
    /// The list holds more items than the field allows.
    TooMany,
    /// The value names something that does not exist.
    NotFound,
    /// The field may not be set, or may not be changed, by this request.
    Forbidden,
    /// The field has the wrong type, or does not exist.
    TypeInvalid,
}

/// One fault. `message` is a whole sentence without the field's name in front of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The path of the field as the sender wrote it: `spec.agentRef.name`, `resources[3].source`.
    pub field: String,
    /// What is wrong with it.
    pub kind: FaultKind,
    /// Says the limit and what was got.
    pub message: String,
}

impl Fault {
    /// A fault of `field`.
    pub fn new(field: impl Into<String>, kind: FaultKind, message: impl Into<String>) -> Self {
        Self { field: field.into(), kind, message: message.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}
