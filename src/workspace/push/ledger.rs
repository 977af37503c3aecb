//! What this run has told the server, and what the server is known to hold: pure bookkeeping of digests and numbers.
//!
//! What the server holds is known only after an answer. From [`Ledger::send`] until then it is unknown, also if no answer
//! ever comes, so no report is left out because of a guess.

/// The digest of a report.
pub type Digest = [u8; 32];

/// The books of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// The content that was given a number last, and the number.
    numbered: Option<(Digest, i64)>,
    /// The content that the server holds for certain.
    held: Option<Digest>,
    /// What it held before the request that is under way.
    held_before: Option<Digest>,
    /// The content that the server would refuse again.
    rejected: Option<Digest>,
}

impl Ledger {
    /// Whether there is any use in sending `content`.
    pub fn wants(&self, content: Digest) -> bool {
        self.held != Some(content) && self.rejected != Some(content)
    }

    /// A request with `content` is about to be sent; its number. The content that got the last number keeps it, because
    /// this is a retry; any other gets the next.
    pub fn send(&mut self, content: Digest) -> i64 {
        let seq = match self.numbered {
            Some((last, seq)) if last == content => seq,
            Some((_, seq)) => seq + 1,
            None => 1,
        };
        self.numbered = Some((content, seq));
        self.held_before = self.held.take();
        seq
    }

    /// The server took `content`.
    pub fn accepted(&mut self, content: Digest) {
        (self.held, self.rejected) = (Some(content), None);
    }

    /// The server certainly did nothing.
    pub fn changed_nothing(&mut self) {
        self.held = self.held_before;
    }

    /// The server will never take `content`.
    pub fn rejected(&mut self, content: Digest) {
        self.rejected = Some(content);
    }

    /// Another run begins: numbers start anew, and what an earlier run pushed has to be completed by this one.
    pub fn new_run(&mut self) {
        (self.numbered, self.held, self.held_before) = (None, None, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Digest = [1; 32];
    const B: Digest = [2; 32];

    fn holding(content: Digest) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.send(content);
        ledger.accepted(content);
        ledger
    }

    #[test]
    fn a_number_belongs_to_one_content() {
        let mut ledger = Ledger::default();
        assert_eq!([A, A, B, A, A].map(|content| ledger.send(content)), [1, 1, 2, 3, 3]);
        ledger.new_run();
        assert_eq!(ledger.send(A), 1, "numbers count within a run");
    }

    #[test]
    fn what_the_server_holds_is_not_sent_again() {
        let ledger = holding(A);
        assert!(!ledger.wants(A) && ledger.wants(B));
    }

    #[test]
    fn after_a_lost_reply_nothing_is_taken_for_held() {
        let mut ledger = holding(A);
        ledger.send(B); // and no answer: the server holds A, or B
        assert!(ledger.wants(A), "going back to A must be told");
        assert!(ledger.wants(B));
    }

    #[test]
    fn a_refusal_leaves_what_was_held() {
        let mut ledger = holding(A);
        ledger.send(B);
        ledger.changed_nothing();
        assert!(!ledger.wants(A) && ledger.wants(B));
    }

    #[test]
    fn a_refusal_after_a_lost_reply_tells_nothing_of_what_was_held() {
        let mut ledger = holding(A);
        ledger.send(B);
        ledger.send(B);
        ledger.changed_nothing();
        assert!(ledger.wants(A));
    }

    #[test]
    fn what_was_rejected_is_not_sent_again_until_something_was_taken() {
        let mut ledger = holding(A);
        ledger.send(B);
        ledger.changed_nothing();
        ledger.rejected(B);
        assert!(!ledger.wants(B), "not at every rescan");
        ledger.send(A);
        ledger.accepted(A);
        assert!(ledger.wants(B), "the limits may be others by now");
    }

    #[test]
    fn a_new_run_tells_everything_again() {
        let mut ledger = holding(A);
        ledger.new_run();
        assert!(ledger.wants(A));
    }
}
