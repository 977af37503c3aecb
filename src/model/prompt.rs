//! A context as one text for a model: the instruction files, then the skills, each under a heading that names its file, and
//! without what a person who looks at the files does not see. `docs/prompt.md` says the same to users.
//!
//! What it does: keep a text from saying more to a model than to a person. What it does not: judge what a text says, parse
//! Markdown (every comment goes, in code too: readers disagree about what is code), or mend it (a code fence that a file
//! leaves open stays open).

use super::{
    hash::ContentHash,
    resource::{ResourceKind, ResourceMeta, ResourceStatus},
};

/// What a prompt is made of, in its order. Resources of other kinds are not text for a model.
const KINDS: [ResourceKind; 2] = [ResourceKind::InstructionFile, ResourceKind::Skill];

const OPEN: &str = "<!--";
const CLOSE: &str = "-->";

/// The prompt of a context: its instruction files, then its skills, each in the byte order of the sources, those that are
/// `Ok`. `body` gives the content with a hash; bytes that are not UTF-8 become U+FFFD.
pub fn prompt<'a>(manifest: &[ResourceMeta], body: impl Fn(&ContentHash) -> Option<&'a [u8]>) -> String {
    let mut text = String::new();
    for kind in KINDS {
        let of_kind = |resource: &&ResourceMeta| resource.kind == kind && resource.status == ResourceStatus::Ok;
        let mut resources: Vec<&ResourceMeta> = manifest.iter().filter(of_kind).collect();
        resources.sort_unstable_by(|a, b| a.source.cmp(&b.source));
        for resource in resources {
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(&heading(resource));
            text.push('\n');
            let content = resource.content_hash.as_ref().and_then(&body).unwrap_or_default();
            let content = sanitise(&String::from_utf8_lossy(content));
            let content = content.trim_matches('\n');
            if !content.is_empty() {
                text.push('\n');
                text.push_str(content);
                text.push('\n');
            }
        }
    }
    text
}

/// `# Skill skills/tdd/SKILL.md`, on one line whatever the path holds.
fn heading(resource: &ResourceMeta) -> String {
    let path = if resource.source_path.is_empty() { &resource.source } else { &resource.source_path };
    let path = sanitise(path).replace(['\n', '\t'], " ");
    format!("# {} {}", resource.kind, path.trim()).trim_end().to_owned()
}

/// A text without HTML comments, and without characters that are not seen.
///
/// * A comment is what begins with `<!--` and ends with the next `-->` after that; one that does not end takes the rest of the
///   text with it. What is left never holds a comment: where taking something out joins two pieces to `<!--`, that is the
///   beginning of a comment too. A `-->` alone stays: it is an arrow, and hides nothing.
/// * Line ends (CR LF, CR, NEL, U+2028, U+2029) become LF; TAB stays; [`unseen`] characters go.
///
/// Where readers disagree on where a comment ends (`<!-->`, `--!>`, a character that is not seen inside of `-->`), the longest
/// reading counts: what any of them hides is gone. Sanitising twice is sanitising once. Takes time in proportion to the text.
pub fn sanitise(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(next) = rest.next() {
        match next {
            '\r' => {
                let after = rest.as_str();
                rest = after.strip_prefix('\n').unwrap_or(after).chars();
                out.push('\n');
            }
            '\u{85}' | '\u{2028}' | '\u{2029}' => out.push('\n'),
            _ if unseen(next) => {}
            _ => {
                out.push(next);
                if next == '-' && out.ends_with(OPEN) {
                    out.truncate(out.len() - OPEN.len());
                    rest = rest.as_str().split_once(CLOSE).map_or("", |(_, after)| after).chars();
                }
            }
        }
    }
    out
}

/// Whether a character is one that a person does not see, or that moves others about: by Unicode's properties, General_Category
/// Cc (but TAB and LF) or Cf (but Prepended_Concatenation_Mark: those are seen), Default_Ignorable_Code_Point, Bidi_Control.
///
/// Among them: zero-width spaces and joiners, byte-order marks, soft hyphens, bidirectional marks, overrides and isolates,
/// variation selectors, Hangul fillers, and the tag characters that spell hidden ASCII. A test holds this against Unicode's
/// own tables.
pub const fn unseen(c: char) -> bool {
    match c {
        '\t' | '\n' => false,
        '\0'..='\u{1f}'
        | '\u{7f}'..='\u{9f}'
        | '\u{ad}'
        | '\u{34f}'
        | '\u{61c}'
        | '\u{115f}'..='\u{1160}'
        | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}'
        | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}'
        | '\u{13430}'..='\u{1343f}'
        | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}' => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::resource::Resource;
    use proptest::{collection::vec, prelude::*, sample::select};
    use regex_syntax::hir::{Class, HirKind};
    use std::collections::HashMap;

    /// The characters of a class, as Unicode's tables have them.
    fn class(pattern: &str) -> Vec<(char, char)> {
        let hir = regex_syntax::Parser::new().parse(pattern).expect(pattern);
        match hir.kind() {
            HirKind::Class(Class::Unicode(class)) => class.iter().map(|range| (range.start(), range.end())).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_characters_that_are_not_seen_are_those_that_unicode_says() {
        let unicode =
            class(r"[[\p{Cc}\p{Cf}\p{Default_Ignorable_Code_Point}\p{Bidi_Control}]--[\p{Prepended_Concatenation_Mark}\t\n]]");
        for c in '\0'..=char::MAX {
            let wanted = unicode.iter().any(|(first, last)| (*first..=*last).contains(&c));
            assert_eq!(unseen(c), wanted, "U+{:04X}", u32::from(c));
        }
    }

    /// What comments are made of, what must not be seen, and a little of everything else.
    fn tricky() -> impl Strategy<Value = String> {
        let piece = select(vec![
            "<",
            "!",
            "-",
            "--",
            ">",
            "<!--",
            "-->",
            "<!-",
            "->",
            "--!>",
            "<!-->",
            "evil",
            " ",
            "\n",
            "\r",
            "\r\n",
            "\t",
            "\0",
            "```",
            "\u{200b}",
            "\u{feff}",
            "\u{202e}",
            "\u{2066}",
            "\u{e0041}",
            "\u{fe0f}",
            "\u{ad}",
            "\u{2028}",
            "\u{85}",
            "é",
            "日",
        ]);
        let any = prop_oneof![8 => piece.prop_map(str::to_owned), 1 => any::<char>().prop_map(String::from)];
        vec(any, 0..40).prop_map(|pieces| pieces.concat())
    }

    fn clean(text: &str) -> bool {
        !text.contains(OPEN) && !text.contains(['\r', '\u{2028}', '\u{2029}']) && !text.chars().any(unseen)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn no_comment_and_nothing_unseen_is_left(text in tricky()) {
            let once = sanitise(&text);
            prop_assert!(clean(&once), "{once:?}");
            prop_assert_eq!(sanitise(&once), once, "twice is once");
        }

        #[test]
        fn nothing_is_added_and_a_text_without_either_is_left_alone(text in tricky()) {
            let mut left = text.chars().map(|c| if matches!(c, '\r' | '\u{85}' | '\u{2028}' | '\u{2029}') { '\n' } else { c });
            prop_assert!(sanitise(&text).chars().all(|c| left.any(|of| of == c)), "what is left was there, in that order");
            if clean(&text) {
                prop_assert_eq!(sanitise(&text), text);
            }
        }

        #[test]
        fn what_a_comment_holds_is_gone(before in "[a-z <>!-]{0,5}[a-z ]", inside in tricky(), after in "[a-z ]{0,9}") {
            prop_assume!(!before.contains(OPEN));
            let inside = inside.replace('>', "");
            prop_assert_eq!(sanitise(&format!("{before}<!--{inside}-->{after}")), format!("{before}{after}"));
        }

        #[test]
        fn a_prompt_is_as_clean_as_its_parts_whatever_they_hold(parts in vec((tricky(), tricky()), 0..5)) {
            let resources: Vec<Resource> = parts
                .into_iter()
                .map(|(path, body)| Resource::ok(ResourceKind::Skill, path.clone(), path, body.into_bytes()))
                .collect();
            let text = of(&resources);
            prop_assert!(clean(&text), "{text:?}");
        }
    }

    fn of(resources: &[Resource]) -> String {
        let bodies: HashMap<ContentHash, &[u8]> =
            resources.iter().filter_map(|r| r.meta.content_hash.zip(r.body.as_deref())).collect();
        let manifest: Vec<ResourceMeta> = resources.iter().map(|resource| resource.meta.clone()).collect();
        prompt(&manifest, |hash| bodies.get(hash).copied())
    }

    #[test]
    fn comments_that_try_to_stay_do_not() {
        for (text, left) in [
            ("a<!-- evil -->b", "ab"),
            ("a<!-- evil", "a"),
            ("<!-<!-- -->- evil -->", ""),
            ("<!\u{200b}-- evil -->b", "b"),
            ("<!-- a <!-- b --> c -->", " c -->"),
            ("<!-- a --\u{200b}> evil -->b", "b"),
            ("<!-- a --!> evil -->b", "b"),
            ("<!--> evil -->b", "b"),
            ("<!---> evil -->b", "b"),
            ("```html\n<!-- evil -->\n```", "```html\n\n```"),
            ("<!--\r\nevil\r\n-->\r\nb", "\nb"),
            ("A --> B", "A --> B"),
            ("<!doctype html>", "<!doctype html>"),
        ] {
            assert_eq!(sanitise(text), left, "{text:?}");
        }
    }

    #[test]
    fn a_long_text_of_beginnings_takes_no_longer_than_another() {
        let text = "<!-".repeat(100_000) + &"<!-- -->".repeat(100_000);
        assert_eq!(sanitise(&text).len(), 300_000);
    }

    #[test]
    fn a_heading_is_one_line_and_other_kinds_and_statuses_are_left_out() {
        let mut broken = Resource::ok(ResourceKind::Skill, "z", "z/SKILL.md", b"broken".to_vec());
        broken.meta.status = ResourceStatus::Invalid;
        let text = of(&[
            broken,
            Resource::ok(ResourceKind::Skill, "b", "b\n# Skill forged<!-- x -->/SKILL.md", b"\n\nsecond\n\n".to_vec()),
            Resource::ok(ResourceKind::McpConfig, ".mcp.json", ".mcp.json", b"token".to_vec()),
            Resource::ok(ResourceKind::InstructionFile, "c", "", b"first \xff".to_vec()),
            Resource::ok(ResourceKind::Skill, "a", "a/SKILL.md", Vec::new()),
        ]);
        assert_eq!(
            text,
            "# InstructionFile c\n\nfirst \u{fffd}\n\n# Skill a/SKILL.md\n\n# Skill b # Skill forged/SKILL.md\n\nsecond\n"
        );
        assert_eq!(of(&[]), "");
    }
}
