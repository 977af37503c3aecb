//! `workspace::scan::content`: what is wrong with a skill or an `.mcp.json`, without a word of what stands in it.

use moorline::{model::resource::ResourceKind, workspace::scan::content::check};

/// What a complaint may be made of: numbers aside, these sentences and nothing else.
const SENTENCES: [&str; 10] = [
    "line #: a skill must be UTF-#, and byte # is not",
    "line #: a skill must begin with front matter, a line of ---",
    "line #: the front matter is not closed by a line of ---",
    "line #: the front matter is not a YAML mapping (column #)",
    "line #: the front matter is not a YAML mapping",
    "line #: must be a JSON object",
    "line #: ends too early (column #)",
    "line #: is not valid JSON (column #)",
    "line #: FIELD must not be empty",
    "line #: the front matter has no FIELD",
];
const TYPES: [&str; 5] = ["null", "a boolean", "a number", "a list", "a mapping"];

/// The bytes are a file, once of each kind.
pub fn run(data: &[u8]) {
    for kind in ResourceKind::ALL {
        let Err(complaint) = check(*kind, data) else { continue };
        assert!(matches!(kind, ResourceKind::Skill | ResourceKind::McpConfig), "a {kind} may be any bytes: {complaint}");
        let bare = without_numbers(&complaint);
        let bare = bare.replace(": name ", ": FIELD ").replace(": description ", ": FIELD ");
        let bare = bare.replace("has no name", "has no FIELD").replace("has no description", "has no FIELD");
        let typed = bare.strip_prefix("line #: FIELD must be a string, got ").is_some_and(|got| TYPES.contains(&got));
        assert!(typed || SENTENCES.contains(&bare.as_str()), "a complaint that is none of ours: {complaint:?}");
        let line = complaint.trim_start_matches("line ").split(':').next().and_then(|line| line.parse::<usize>().ok());
        let lines = data.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count() + 1;
        assert!(line.is_some_and(|line| (1..=lines + 1).contains(&line)), "of {lines} lines: {complaint}");
    }
}

fn without_numbers(text: &str) -> String {
    let mut bare = String::new();
    for c in text.chars() {
        match c {
            '0'..='9' if bare.ends_with('#') => {}
            '0'..='9' => bare.push('#'),
            c => bare.push(c),
        }
    }
    bare
}
