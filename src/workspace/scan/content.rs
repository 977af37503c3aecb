//! Whether the content of a file is what its kind needs.
//!
//! A complaint is a sentence with a line and never with content: the parsers' own messages quote what they read, and an
//! `.mcp.json` holds tokens. So only positions are taken from them.

use crate::model::resource::ResourceKind;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, error::Category};
use serde_saphyr::Spanned;

/// The complaint, if there is one.
pub fn check(kind: ResourceKind, bytes: &[u8]) -> Result<(), String> {
    match kind {
        ResourceKind::Skill => front_matter(bytes),
        ResourceKind::McpConfig => json_object(bytes),
        ResourceKind::InstructionFile
        | ResourceKind::McpServer
        | ResourceKind::Plugin
        | ResourceKind::Hook
        | ResourceKind::Subagent
        | ResourceKind::Command => Ok(()),
    }
}

/// What a skill must say of itself. Other fields are the skill's own business.
#[derive(Deserialize)]
struct FrontMatter {
    name: Option<Spanned<Value>>,
    description: Option<Spanned<Value>>,
}

fn front_matter(bytes: &[u8]) -> Result<(), String> {
    let text = str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].split(|byte| *byte == b'\n').count();
        format!("line {line}: a skill must be UTF-8, and byte {} is not", error.valid_up_to())
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = text.split_inclusive('\n');
    let opening = lines.next().unwrap_or_default();
    if opening.trim_end() != "---" {
        return Err("line 1: a skill must begin with front matter, a line of ---".into());
    }
    let body: usize = lines.by_ref().take_while(|line| line.trim_end() != "---").map(str::len).sum();
    let end = opening.len() + body;
    if end == text.len() {
        return Err("line 1: the front matter is not closed by a line of ---".into());
    }
    let yaml = &text[opening.len()..end];
    // The YAML begins on the file's second line, and a mapping has no line of its own to point at.
    let FrontMatter { name, description } = serde_saphyr::from_str(yaml).map_err(|error| match error.location() {
        Some(at) => format!("line {}: the front matter is not a YAML mapping (column {})", at.line() + 1, at.column()),
        None => "line 2: the front matter is not a YAML mapping".into(),
    })?;
    for (field, value) in [("name", name), ("description", description)] {
        let Some(value) = value else { return Err(format!("line 2: the front matter has no {field}")) };
        let line = value.referenced.line() + 1;
        match value.value {
            Value::String(text) if !text.trim().is_empty() => {}
            Value::String(_) => return Err(format!("line {line}: {field} must not be empty")),
            Value::Null => return Err(format!("line {line}: {field} must be a string, got null")),
            Value::Bool(_) => return Err(format!("line {line}: {field} must be a string, got a boolean")),
            Value::Number(_) => return Err(format!("line {line}: {field} must be a string, got a number")),
            Value::Array(_) => return Err(format!("line {line}: {field} must be a string, got a list")),
            Value::Object(_) => return Err(format!("line {line}: {field} must be a string, got a mapping")),
        }
    }
    Ok(())
}

fn json_object(bytes: &[u8]) -> Result<(), String> {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    match serde_json::from_slice::<IgnoredAny>(bytes) {
        Ok(IgnoredAny) if bytes.trim_ascii_start().starts_with(b"{") => Ok(()),
        Ok(IgnoredAny) => Err("line 1: must be a JSON object".into()),
        Err(error) => {
            let what = match error.classify() {
                Category::Eof => "ends too early",
                Category::Syntax | Category::Data | Category::Io => "is not valid JSON",
            };
            Err(format!("line {}: {what} (column {})", error.line(), error.column()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn skill(text: &str, complaint: &str) {
        assert_eq!(check(ResourceKind::Skill, text.as_bytes()).err().unwrap_or_default(), complaint, "{text:?}");
    }

    #[track_caller]
    fn config(text: &str, complaint: &str) {
        assert_eq!(check(ResourceKind::McpConfig, text.as_bytes()).err().unwrap_or_default(), complaint, "{text:?}");
    }

    #[test]
    fn good_skills_are_good() {
        skill("---\nname: tdd\ndescription: Write the test first\n---\n# TDD\n", "");
        skill("---\r\nname: tdd\r\ndescription: x\r\n---\r\n", "");
        skill("\u{feff}---\nname: tdd\ndescription: x\n---", "");
        skill(
            "---\nname: 'on'\ndescription: >\n  two\n  lines\nallowed-tools: [Read, 3]\nversion: 1.0\n---\nText\n---\nmore",
            "",
        );
    }

    #[test]
    fn a_skill_has_front_matter() {
        skill("", "line 1: a skill must begin with front matter, a line of ---");
        skill("# TDD", "line 1: a skill must begin with front matter, a line of ---");
        skill("\n---\nname: a\n---\n", "line 1: a skill must begin with front matter, a line of ---");
        skill("---\nname: a\ndescription: b\n", "line 1: the front matter is not closed by a line of ---");
        skill("---", "line 1: the front matter is not closed by a line of ---");
    }

    #[test]
    fn front_matter_is_a_mapping() {
        skill("---\n- a\n- b\n---\n", "line 2: the front matter is not a YAML mapping (column 1)");
        skill("---\njust words\n---\n", "line 2: the front matter is not a YAML mapping (column 1)");
        skill(
            "---\nname: tdd\ndescription: Use when: always\n---\n",
            "line 3: the front matter is not a YAML mapping (column 22)",
        );
        skill("---\nname: tdd\nname: again\n---\n", "line 3: the front matter is not a YAML mapping (column 1)");
    }

    #[test]
    fn name_and_description_are_strings() {
        skill("---\n---\n", "line 2: the front matter has no name");
        skill("---\ndescription: x\n---\n", "line 2: the front matter has no name");
        skill("---\nname: x\n---\n", "line 2: the front matter has no description");
        skill("---\nname: 7\ndescription: x\n---\n", "line 2: name must be a string, got a number");
        skill("---\nname: x\ndescription: [a]\n---\n", "line 3: description must be a string, got a list");
        skill("---\nname: x\ndescription: ' '\n---\n", "line 3: description must not be empty");
        skill("---\nname:\n  a: b\ndescription: x\n---\n", "line 3: name must be a string, got a mapping");
    }

    #[test]
    fn a_skill_is_utf8() {
        let complaint = check(ResourceKind::Skill, b"---\nname: \xff\n---\n").unwrap_err();
        assert_eq!(complaint, "line 2: a skill must be UTF-8, and byte 10 is not");
    }

    #[test]
    fn an_mcp_config_is_a_json_object() {
        config("{\"mcpServers\": {}}", "");
        config("\u{feff} {}", "");
        config("", "line 1: ends too early (column 0)");
        config("[]", "line 1: must be a JSON object");
        config("{\n \"token\": \"hunter2\" \"x\"\n}", "line 2: is not valid JSON (column 21)");
        config("{\"token\": \"hunter2", "line 1: ends too early (column 18)");
    }

    #[test]
    fn no_complaint_quotes_the_file() {
        for bad in ["{\"hunter2\" hunter2}", "hunter2", "\"hunter2\"", "{\"a\": hunter2}"] {
            assert!(!check(ResourceKind::McpConfig, bad.as_bytes()).unwrap_err().contains("hunter2"), "{bad}");
            let skill = format!("---\n{bad}\n---\n");
            assert!(!check(ResourceKind::Skill, skill.as_bytes()).unwrap_err().contains("hunter2"), "{bad}");
        }
    }

    #[test]
    fn instruction_files_may_be_any_bytes() {
        check(ResourceKind::InstructionFile, b"\xff\0\xfe").unwrap();
    }
}
