//! Bytes of strangers break no promise: the targets of fuzz/, in the ordinary test binary. Each gets its corpus and then, for a
//! bounded time, what becomes of it when it is cut, doubled, mixed and changed at random.
//!
//! What this does not: go by coverage. `make fuzz` does, in a program that is built for that; what it finds goes into the
//! corpus, and from then on is tried here.

#[path = "../fuzz/targets/all.rs"]
mod targets;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use std::{
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::Path,
    time::{Duration, Instant},
};

/// How long each target is tried, unless MOORLINE_TEST_FUZZ_SECONDS says otherwise.
const SECONDS: u64 = 10;
/// The longest input that is made, in bytes.
const LONGEST: usize = 4096;

fn no_bytes_break(name: &str) {
    let (_, run) = targets::ALL.iter().find(|(known, _)| *known == name).expect("a target");
    let corpus = corpus(name);
    assert!(!corpus.is_empty(), "fuzz/corpus/{name} has something to begin with");
    let seconds = env::var("MOORLINE_TEST_FUZZ_SECONDS").ok().map_or(SECONDS, |text| text.parse().expect("whole seconds"));
    let seed = env::var("MOORLINE_TEST_SEED").ok().map_or(1, |text| text.parse().expect("a seed"));
    let mut random = StdRng::seed_from_u64(seed);
    let (began, mut runs) = (Instant::now(), 0_u64);
    let attempt = |input: &[u8]| {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(input))) {
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-broken"));
            fs::write(&path, input).expect("a place for what broke it");
            println!("{name} is broken by the bytes in {}", path.display());
            resume_unwind(panic);
        }
    };
    for input in &corpus {
        attempt(input);
        runs += 1;
    }
    while began.elapsed() < Duration::from_secs(seconds) {
        attempt(&changed(&corpus, &mut random));
        runs += 1;
    }
    println!("{name}: {runs} runs, {} of them the corpus, seed {seed}", corpus.len());
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut paths: Vec<_> = fs::read_dir(folder).expect("a corpus").map(|entry| entry.expect("a file").path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("a file")).collect()
}

/// One input of the corpus after a few changes.
fn changed(corpus: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    let one = |random: &mut StdRng| &corpus[random.random_range(0..corpus.len())];
    let mut input = one(random).clone();
    for _ in 0..random.random_range(1..8) {
        let at = random.random_range(0..=input.len());
        let end = (at + random.random_range(0..24)).min(input.len());
        match random.random_range(0..7) {
            0 => {
                input.drain(at..end);
            }
            1 => input.insert(at, random.random()),
            2 if at < input.len() => input[at] = random.random(),
            3 if at < input.len() => input[at] ^= 1 << random.random_range(0..8),
            4 => {
                let again = input[at..end].to_vec();
                input.splice(at..at, again);
            }
            5 => {
                // A piece of another one in its place.
                let other = one(random);
                let from = random.random_range(0..=other.len());
                let piece = other[from..(from + random.random_range(0..48)).min(other.len())].to_vec();
                input.splice(at..end, piece);
            }
            _ => {
                let sign = *b"<>!-{}[]:,\"'\\\n\r\0=()&*#|~/.%".get(random.random_range(0..27)).expect("27 signs");
                input.insert(at, sign);
            }
        }
    }
    input.truncate(LONGEST);
    input
}

#[test]
fn no_file_makes_a_complaint_that_tells_what_is_in_it() {
    no_bytes_break("content");
}

#[test]
fn no_token_leads_where_it_was_not_made_to_lead() {
    no_bytes_break("cursors");
}

#[test]
fn no_manifest_is_read_as_something_else() {
    no_bytes_break("manifests");
}

#[test]
fn no_patch_makes_more_of_an_object_than_it_says() {
    no_bytes_break("patch");
}

#[test]
fn no_text_says_more_to_a_model_than_to_a_person() {
    no_bytes_break("prompt");
}

#[test]
fn no_push_gets_past_a_limit() {
    no_bytes_break("push");
}

#[test]
fn no_tree_leads_the_scanner_out_or_holds_it_up() {
    no_bytes_break("scanner");
}

#[test]
fn no_selector_selects_what_it_does_not_say() {
    no_bytes_break("selectors");
}
