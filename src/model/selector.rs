//! Selectors, as Kubernetes writes them: over labels and over fields. Parsing and matching; nothing here knows SQL or HTTP.
//!
//! The grammars are those of a kube-apiserver (k8s.io/apimachinery, `labels.Parse` and `fields.ParseSelector`), down to what it
//! makes of empty values and stray commas: terms joined by commas, all of which must hold. What is refused is refused with what
//! was found, where, and what would have been understood.
//!
//! Both match plain values, so that one parsed selector serves a page of a list (the store turns it into SQL) and a change seen
//! by a watch (which asks it of the old and of the new state).

mod fields;
mod labels;
#[cfg(test)]
mod tests;

pub use fields::{FieldSelector, FieldTerm};
pub use labels::{LabelSelector, Requirement};

/// What is wrong with a selector: a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadSelector(String);
