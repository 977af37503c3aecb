//! What the pages tell people to type.
//!
//! A block of `sh` is typed by the tests here, all of a page into one shell, where `make dev` runs; a block of `text` that follows
//! it is what it prints, `…` being whatever differs. `sh,norun` and `console,norun` say that no test types it.

use super::{
    page::{Block, Page, ROOT},
    world::World,
};
use std::{path::Path, process::Command};

const TUTORIAL: &str = "docs/tutorial.md";
/// What a line of a block without a language may not begin with.
const COMMANDS: [&str; 9] = ["moorline ", "kubectl ", "curl ", "make ", "helm ", "cargo ", "psql ", "docker ", "export "];
/// What a block may be.
const KNOWN: [&str; 12] =
    ["sh", "sh,norun", "console,norun", "", "text", "json", "yaml", "sql", "toml", "diff", "python", "javascript"];

/// The blocks to type, each with what it must print.
fn typed(blocks: &[Block]) -> Vec<(&Block, Option<&Block>)> {
    let next = |at: usize| blocks.get(at + 1).filter(|block| block.info == "text");
    blocks.iter().enumerate().filter(|(_, block)| block.info == "sh").map(|(at, block)| (block, next(at))).collect()
}

/// Whether a line is this, but for what `…` stands for.
fn is_line(written: &str, line: &str) -> bool {
    let (written, line) = (written.trim_end(), line.trim_end());
    let mut pieces = written.split('…');
    let Some(mut rest) = line.strip_prefix(pieces.next().unwrap_or_default()) else { return false };
    let pieces: Vec<&str> = pieces.collect();
    let Some((last, middle)) = pieces.split_last() else { return rest.is_empty() };
    for piece in middle {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

fn is_text(written: &str, printed: &str) -> bool {
    written.lines().count() == printed.lines().count()
        && written.lines().zip(printed.lines()).all(|(written, line)| is_line(written, line))
}

#[test]
fn an_ellipsis_is_whatever_differs() {
    assert!(is_line("demo   …", "demo   3s") && is_line("a … b … c", "a 1 b 2 c") && is_line("same", "same  "));
    assert!(!is_line("demo …", "dome 3s") && !is_line("a … c", "a 1 b") && !is_line("same", "same again"));
    assert!(!is_text("one\n", "one\ntwo\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tutorial_does_what_it_says() {
    let page = Page::read(Path::new(TUTORIAL));
    let blocks = page.blocks();
    let mut typed = typed(&blocks);
    // The first is for another terminal, and goes on: what `make dev` does is what the world here has done.
    let (first, told) = typed.remove(0);
    assert_eq!(first.text, "make dev\n");
    let mut make = Command::new("make");
    make.args(["--dry-run", "dev"]).current_dir(ROOT).env_remove("MAKEFLAGS").env_remove("MAKELEVEL").env_remove("DIR");
    let steps = String::from_utf8(make.output().unwrap().stdout).unwrap();
    assert!(steps.contains("cargo run -- dev \"target/dev/workspace\""), "{steps}");

    let world = World::start().await;
    let said = world.told();
    let mut lines = said.lines();
    for line in told.expect("what it tells").text.lines() {
        assert!(lines.any(|said| is_line(line, said)), "`make dev` does not say {line:?} there: {said}");
    }
    let printed = world.types(&typed.iter().map(|(block, _)| block.text.as_str()).collect::<Vec<_>>(), &[]).await;
    for ((block, written), printed) in typed.iter().zip(&printed) {
        let Some(written) = written else { continue };
        let at = block.line;
        assert!(is_text(&written.text, printed), "{TUTORIAL}:{at} says\n{}and it prints\n{printed}", written.text);
    }
    let (code, said) = world.stops().await;
    assert_eq!(code, Some(0), "Ctrl-C ends it, and it says\n{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_other_pages_tell_people_to_type_works() {
    let world = World::start().await;
    let kubeconfig = world.kubeconfig();
    for page in Page::all_in("docs").iter().filter(|page| page.path != Path::new(TUTORIAL)) {
        let blocks = page.blocks();
        let typed = typed(&blocks);
        let lines = typed.iter().map(|(block, _)| block.text.as_str());
        // In a checkout that is built, with a kubeconfig: the tutorial says how.
        let begin = "export PATH=\"$PWD/target/debug:$PATH\"\n";
        let script: Vec<&str> = std::iter::once(begin).chain(lines).collect();
        let printed = world.types(&script, &[("KUBECONFIG", &kubeconfig)]).await;
        for ((block, written), printed) in typed.iter().zip(printed.iter().skip(1)) {
            let (place, written) = (format!("{}:{}", page.path.display(), block.line), written.map(|written| &written.text));
            assert!(
                written.is_none_or(|text| is_text(text, printed)),
                "{place} says\n{}and it prints\n{printed}",
                written.unwrap()
            );
        }
    }
}

#[test]
fn a_command_is_marked_as_one() {
    let mut found = Vec::new();
    for page in Page::all_in("docs") {
        for block in page.blocks() {
            let place = format!("{}:{}", page.path.display(), block.line);
            let mut lines = block.text.lines().map(|line| line.strip_prefix("$ ").unwrap_or(line));
            let has_commands = lines.any(|line| COMMANDS.iter().any(|command| line.starts_with(command)));
            let complaint = match block.info.as_str() {
                "sh" if block.text.lines().any(|line| line.starts_with("$ ")) => "leave the `$ ` out".to_owned(),
                "" | "text" if has_commands => "begin it with ```sh, or with ```sh,norun when no test can type it".to_owned(),
                known if KNOWN.contains(&known) => continue,
                other => format!("what is a block of {other:?}?"),
            };
            found.push(format!("{place}: {complaint}"));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}
