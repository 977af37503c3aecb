//! Unified diffs of bodies, bounded in size, in memory and in work.
//!
//! What it does: lines, in the format of `diff -u`, with three lines around each change. What it does not: decide which
//! resources to compare (`diff` does), or run anywhere in particular: it takes a processor for up to [`WORK`], so a server
//! runs it beside its other work.

use super::push::Limits;
use similar::TextDiff;
use std::{
    fmt::Write as _,
    io,
    time::{Duration, Instant},
};

/// The largest body that is compared, in bytes; no larger one is taken by a push either.
pub const BODY_MAX: usize = Limits::BODY;
/// The longest diff of one resource, in bytes; it is cut at the end of a line.
pub const ONE_MAX: usize = 64 * 1024;
/// The longest that all diffs of one answer are together, in bytes.
pub const ALL_MAX: usize = 1024 * 1024;
/// How long the search for a short diff of one resource may take. Past it the diff is right, but longer than it need be.
pub const WORK_ONE: Duration = Duration::from_millis(250);
/// The same, for all resources of one answer.
pub const WORK: Duration = Duration::from_secs(1);

/// The bodies of a resource, compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compared {
    /// As a unified diff.
    Unified {
        /// The diff.
        text: String,
        /// Whether it was cut at a limit.
        truncated: bool,
    },
    /// One of them is no text: it is not UTF-8, or holds a NUL.
    Binary,
    /// One of them is larger than [`BODY_MAX`].
    TooLarge,
    /// The diffs before it have used up [`ALL_MAX`].
    NoRoom,
}

/// One side of a comparison.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// Where the file is.
    pub path: &'a str,
    /// What it holds.
    pub body: &'a [u8],
}

/// Compares the bodies of one answer, one resource after the other, within what all of them may take.
#[derive(Clone, Copy, Debug)]
pub struct Unifier {
    room: usize,
    until: Instant,
}

impl Unifier {
    /// With all of the room and all of the time.
    pub fn new() -> Self {
        Self { room: ALL_MAX, until: Instant::now() + WORK }
    }

    /// How `to` differs from `from`.
    pub fn compare(&mut self, from: Side<'_>, to: Side<'_>) -> Compared {
        if from.body.len().max(to.body.len()) > BODY_MAX {
            return Compared::TooLarge;
        }
        let Some((old, new)) = text(from.body).zip(text(to.body)) else { return Compared::Binary };
        let mut out = Capped { bytes: Vec::new(), limit: ONE_MAX.min(self.room) };
        let until = self.until.min(Instant::now() + WORK_ONE);
        // Lines end with LF and nothing else, as for `diff`; the crate's own would end at a lone CR too.
        let (old, new): (Vec<&str>, Vec<&str>) = (old.split_inclusive('\n').collect(), new.split_inclusive('\n').collect());
        let diff = TextDiff::configure().deadline(until).diff_slices(&old, &new);
        let whole = write(&mut out, [&name("a", from.path), &name("b", to.path)], &diff).is_ok();
        let text = out.into_lines(whole);
        if text.is_empty() && !whole {
            self.room = 0;
            return Compared::NoRoom;
        }
        self.room -= text.len();
        Compared::Unified { text, truncated: !whole }
    }
}

impl Default for Unifier {
    fn default() -> Self {
        Self::new()
    }
}

fn write(out: &mut impl io::Write, [a, b]: [&str; 2], diff: &TextDiff<'_, '_, str>) -> io::Result<()> {
    write!(out, "--- {a}\n+++ {b}\n")?;
    for hunk in diff.unified_diff().context_radius(3).iter_hunks() {
        writeln!(out, "{}", hunk.header())?;
        for change in hunk.iter_changes() {
            write!(out, "{}{}", change.tag(), change.value())?;
            if !change.value().ends_with('\n') {
                writeln!(out, "\n\\ No newline at end of file")?;
            }
        }
    }
    Ok(())
}

fn text(body: &[u8]) -> Option<&str> {
    std::str::from_utf8(body).ok().filter(|text| !text.contains('\0'))
}

/// `a/skills/tdd/SKILL.md`; in quotes and escaped when it would not stand on one line, as git does.
fn name(side: &str, path: &str) -> String {
    if !path.contains(|c: char| c.is_control() || matches!(c, '"' | '\\')) {
        return format!("{side}/{path}");
    }
    let mut quoted = format!("\"{side}/");
    for c in path.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            c if c.is_control() => {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    write!(quoted, "\\{byte:03o}").expect("a String takes everything");
                }
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// A writer that takes so much and then refuses.
struct Capped {
    bytes: Vec<u8>,
    limit: usize,
}

impl io::Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let fits = bytes.len().min(self.limit - self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..fits]);
        // Taking nothing of something is a writer's way to say that it is full.
        Ok(fits)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Capped {
    /// All of it, or its whole lines.
    fn into_lines(mut self, whole: bool) -> String {
        if !whole {
            let end = self.bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            self.bytes.truncate(end);
        }
        String::from_utf8(self.bytes).expect("lines of two texts, cut between two lines")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*, sample::select};

    fn compare(old: &str, new: &str) -> String {
        match Unifier::new().compare(side(old.as_bytes()), side(new.as_bytes())) {
            Compared::Unified { text, truncated: false } => text,
            other => panic!("{other:?}"),
        }
    }

    fn side(body: &[u8]) -> Side<'_> {
        Side { path: "AGENTS.md", body }
    }

    /// Applies a unified diff as `patch` would.
    fn patched(old: &str, diff: &str) -> String {
        let (old, mut at, mut new) = (old.split_inclusive('\n').collect::<Vec<_>>(), 0, String::new());
        let mut last_added = false;
        for line in diff.split_inclusive('\n').skip(2) {
            let (mark, rest) = line.split_at(1);
            let added = std::mem::replace(&mut last_added, matches!(mark, "+" | " "));
            match mark {
                "@" => {
                    let start = rest.split_once('-').unwrap().1;
                    let (first, count) = start.split_once(' ').unwrap().0.split_once(',').map_or_else(
                        || (start.split_once(' ').unwrap().0, 1),
                        |(first, count)| (first, count.parse::<usize>().unwrap()),
                    );
                    let first: usize = first.parse().unwrap();
                    let first = if count == 0 { first } else { first - 1 };
                    new.extend(old[at..first].iter().copied());
                    at = first;
                }
                "\\" if added => assert_eq!(new.pop(), Some('\n')),
                "\\" => {}
                " " => {
                    assert_eq!(old[at].trim_end_matches('\n'), rest.trim_end_matches('\n'));
                    new.push_str(rest);
                    at += 1;
                }
                "-" => {
                    assert_eq!(old[at].trim_end_matches('\n'), rest.trim_end_matches('\n'));
                    at += 1;
                }
                "+" => new.push_str(rest),
                other => panic!("{other:?} begins a line of {diff}"),
            }
        }
        new.extend(old[at..].iter().copied());
        new
    }

    #[test]
    fn the_largest_body_that_a_push_takes_is_compared_and_no_larger_one() {
        let body = |bytes: usize| "x".repeat(bytes).into_bytes();
        let compared = |bytes| Unifier::new().compare(side(&body(bytes)), side(b"y"));
        assert!(matches!(compared(BODY_MAX), Compared::Unified { truncated: true, .. }), "of one line that is too long to show");
        assert_eq!(compared(BODY_MAX + 1), Compared::TooLarge);
    }

    #[test]
    fn a_diff_in_time_is_short() {
        assert!(compare("a\nb\nc\nd\ne\n", "a\nX\nc\nY\ne\n").contains("\n c\n"), "what is between two changes is left as it is");
    }

    #[test]
    fn all_diffs_of_an_answer_are_a_mebibyte_at_most() {
        let old = (0..20_000).map(|n| format!("{n:06}\n")).collect::<Vec<_>>().concat();
        let (mut unifier, mut bytes, mut shown) = (Unifier::new(), 0, 0);
        while let Compared::Unified { text, truncated } = unifier.compare(side(old.as_bytes()), side(b"")) {
            let room = ONE_MAX.min(ALL_MAX - bytes);
            assert!(
                truncated && text.len() <= room && text.len() + 16 > room,
                "{} bytes where there is room for {room}",
                text.len()
            );
            assert!(text.ends_with('\n'), "cut at the end of a line");
            (bytes, shown) = (bytes + text.len(), shown + 1);
            assert!(bytes <= ALL_MAX, "{bytes} bytes of {shown} diffs");
        }
        assert!(shown >= ALL_MAX / ONE_MAX, "{shown}");
    }

    proptest! {
        #[test]
        fn the_diff_makes_the_new_of_the_old(old in lines(), new in lines(), late in any::<bool>()) {
            prop_assume!(old != new);
            let mut unifier = Unifier::new();
            if late {
                // The time is up before it began: longer than need be, and right.
                unifier.until = Instant::now();
            }
            let Compared::Unified { text, truncated: false } = unifier.compare(side(old.as_bytes()), side(new.as_bytes())) else {
                panic!("they are short texts")
            };
            prop_assert_eq!(patched(&old, &text), new, "{}", text);
        }
    }

    fn lines() -> impl Strategy<Value = String> {
        vec(select(vec!["a\n", "b\n", "c\n", "-x\n", "+y\n", "\n", " \n", "@@\n", "a\rb\n"]), 0..30)
            .prop_flat_map(|lines| (Just(lines.concat()), select(vec!["", "end", "\r", "a"])))
            .prop_map(|(lines, end)| lines + end)
    }

    #[test]
    fn a_diff_is_what_diff_u_says() {
        assert_eq!(compare("one\ntwo\n", "one\n2\n"), "--- a/AGENTS.md\n+++ b/AGENTS.md\n@@ -1,2 +1,2 @@\n one\n-two\n+2\n");
        assert_eq!(
            compare("one", "two\n"),
            "--- a/AGENTS.md\n+++ b/AGENTS.md\n@@ -1 +1 @@\n-one\n\\ No newline at end of file\n+two\n"
        );
    }

    #[test]
    fn what_is_no_text_is_binary_and_a_name_stays_on_its_line() {
        for body in [&b"\xff"[..], b"a\0b"] {
            assert_eq!(Unifier::new().compare(side(b"text"), side(body)), Compared::Binary);
            assert_eq!(Unifier::new().compare(side(body), side(b"text")), Compared::Binary);
        }
        assert_eq!(name("a", "skills/tdd ü"), "a/skills/tdd ü");
        assert_eq!(name("b", "x\n+++ \"\u{1b}\u{85}"), r#""b/x\n+++ \"\033\302\205""#);
    }

    #[test]
    fn one_diff_is_cut_at_the_end_of_a_line_and_all_of_them_have_an_end() {
        let (old, new) = ("old line\n".repeat(20_000), "another line\n".repeat(15_000));
        let mut unifier = Unifier::new();
        let mut all = 0;
        let full = loop {
            match unifier.compare(side(old.as_bytes()), side(new.as_bytes())) {
                Compared::Unified { text, truncated } => {
                    assert!(truncated && text.len() <= ONE_MAX && text.ends_with('\n'), "{} bytes", text.len());
                    all += text.len();
                }
                other => break other,
            }
        };
        assert_eq!(full, Compared::NoRoom);
        assert!((ALL_MAX - 100..=ALL_MAX).contains(&all), "{all} bytes of diffs");
        let large = "x".repeat(BODY_MAX + 1);
        assert_eq!(Unifier::new().compare(side(large.as_bytes()), side(b"")), Compared::TooLarge);
    }

    #[test]
    fn bodies_that_are_hard_to_compare_take_no_longer_than_others() {
        // Two long texts of few kinds of lines in different order: the search for the shortest diff is quadratic in them.
        let text = |mut seed: u64| {
            let lines = std::iter::repeat_with(|| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                ["a\n", "b\n", "c\n", "d\n"][usize::try_from(seed >> 62).unwrap()]
            });
            lines.take(BODY_MAX / 2).collect::<String>()
        };
        let (old, new) = (text(1), text(2));
        let began = Instant::now();
        let mut unifier = Unifier::new();
        // As many of them as two snapshots hold.
        for _ in 0..Limits::BODIES / BODY_MAX {
            unifier.compare(side(old.as_bytes()), side(new.as_bytes()));
        }
        assert!(began.elapsed() < WORK * 30, "{:?}", began.elapsed());
    }
}
