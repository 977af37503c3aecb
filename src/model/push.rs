//! One report of an agent.

use super::word::word_enum;

word_enum! {
    /// Whether a run has reported everything it knows of.
    Phase {
        /// Not yet: what it reports never becomes a snapshot.
        Pending,
        /// It has.
        Complete,
    }
}
