//! Bytes as decisions: whoever builds something from them asks for one after another, and gets zeros when there are no more.

/// The rest of the bytes.
pub struct Tape<'a>(pub &'a [u8]);

impl<'a> Tape<'a> {
    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// Whether there is anything left to decide by.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A number of 64 bits, small ones more often.
    pub fn number(&mut self) -> i64 {
        let bytes: Vec<u8> = (0..self.byte() % 9).map(|_| self.byte()).collect();
        bytes.into_iter().fold(0, |number: i64, byte| number.wrapping_shl(8) | i64::from(byte))
    }

    /// One of these.
    pub fn pick<'b, T>(&mut self, of: &'b [T]) -> &'b T {
        &of[usize::from(self.byte()) % of.len()]
    }

    /// Some bytes, at most `most` and at most 255: their number first.
    pub fn bytes(&mut self, most: usize) -> &'a [u8] {
        let wanted = usize::from(self.byte()).min(most).min(self.0.len());
        let (some, rest) = self.0.split_at(wanted);
        self.0 = rest;
        some
    }

    /// Some text.
    pub fn text(&mut self, most: usize) -> String {
        String::from_utf8_lossy(self.bytes(most)).into_owned()
    }
}
