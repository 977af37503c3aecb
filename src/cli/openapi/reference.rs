//! The OpenAPI description as a page for people: `docs/api-reference.md`, which is made from it and never edited.
//!
//! It says what the description says and nothing else. It knows only the parts of OpenAPI that ours uses; types of Kubernetes'
//! are named and not spelled out.

use serde_json::Value;
use std::fmt::Write as _;

/// Where our types are; the rest of the name is the heading.
const OURS: &str = "dev.moorline.v1alpha1.";
const GROUP: &str = "/apis/moorline.dev/v1alpha1";
const VERBS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

const HEAD: &str = "# The API

`moorline openapi -o markdown` makes this page from the description that a server gives at `/openapi/v3` ([openapi.md](openapi.md));
nobody edits it. It is a Kubernetes API: objects, errors (`Status`), paging and watches are as there, so what a client of Kubernetes does
need not be read here. How lists are selected and paged: [lists.md](lists.md); watches: [watch.md](watch.md); who may do
what: [auth.md](auth.md); changes of this API: [compatibility.md](compatibility.md).
";

/// The page.
pub fn page(description: &Value) -> String {
    let mut page = String::from(HEAD);
    paths(description, &mut page);
    types(description, &mut page);
    page
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// Text as it may stand in a cell of a table.
fn cell(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|").replace('<', "&lt;").trim().to_owned()
}

/// The members of an object, in their order.
fn members(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Writing to a `String` cannot fail.
macro_rules! put {
    ($into:expr, $($form:tt)*) => { writeln!($into, $($form)*).expect("a String takes everything") };
}

fn paths(description: &Value, page: &mut String) {
    put!(page, "\n## Paths\n\nBelow `{GROUP}`.\n");
    for (path, item) in members(&description["paths"]).filter(|(path, _)| *path != GROUP) {
        let below = path.strip_prefix(GROUP).unwrap_or(path).trim_start_matches('/');
        for (verb, operation) in VERBS.iter().filter_map(|verb| item.get(verb).map(|operation| (*verb, operation))) {
            // As code: mdBook would take a `{name}` at the end of a heading for attributes.
            put!(page, "### `{} {below}`\n\n{}\n", verb.to_uppercase(), text(operation, "description"));
            let in_namespaces = format!("{GROUP}/namespaces/{{namespace}}/{below}");
            if description["paths"].get(&in_namespaces).is_some() {
                put!(page, "Parameters and answers are those of `GET namespaces/{{namespace}}/{below}`.\n");
                continue;
            }
            parameters(operation, page);
            body(operation, page);
            answers(operation, page);
        }
    }
}

fn parameters(operation: &Value, page: &mut String) {
    let all: Vec<&Value> = items(&operation["parameters"]).iter().filter(|parameter| text(parameter, "in") != "path").collect();
    if all.is_empty() {
        return;
    }
    put!(page, "| parameter | type | |\n|---|---|---|");
    for parameter in all {
        let place = if text(parameter, "in") == "header" { " (header)" } else { "" };
        let told = cell(text(parameter, "description"));
        put!(page, "| `{}`{place} | {} | {told} |", text(parameter, "name"), kind(&parameter["schema"]));
    }
    put!(page, "");
}

/// The types of some content, each with its media type.
fn contents(content: &Value) -> String {
    let all: Vec<(&str, String)> = members(content).map(|(media, content)| (media, kind(&content["schema"]))).collect();
    let mut kinds: Vec<&String> = all.iter().map(|(_, kind)| kind).collect();
    kinds.dedup();
    match (all.as_slice(), kinds.as_slice()) {
        ([("application/json", kind)], _) => kind.clone(),
        (_, [kind]) => format!("{kind} as {}", all.iter().map(|(media, _)| format!("`{media}`")).collect::<Vec<_>>().join(", ")),
        _ => all.iter().map(|(media, kind)| format!("{kind} as `{media}`")).collect::<Vec<_>>().join("; "),
    }
}

fn body(operation: &Value, page: &mut String) {
    let body = &operation["requestBody"];
    if body.is_object() {
        let told = text(body, "description");
        put!(page, "Body: {}. {told}\n", contents(&body["content"]));
    }
}

fn answers(operation: &Value, page: &mut String) {
    put!(page, "| answer | | |\n|---|---|---|");
    for (code, answer) in members(&operation["responses"]) {
        put!(page, "| {code} | {} | {} |", contents(&answer["content"]), cell(text(answer, "description")));
    }
    put!(page, "");
}

fn types(description: &Value, page: &mut String) {
    put!(page, "## Types\n\nA field in **bold** is always there, or has to be given. None is ever `null`.");
    for (name, schema) in members(&description["components"]["schemas"]) {
        let Some(name) = name.strip_prefix(OURS) else { continue };
        put!(page, "\n### {name}\n\n{}\n\n| field | type | |\n|---|---|---|", text(schema, "description"));
        fields(schema, "", page);
    }
}

/// A row for each field, those of objects without a name of their own below theirs.
fn fields(schema: &Value, above: &str, page: &mut String) {
    let required: Vec<&str> = items(&schema["required"]).iter().filter_map(Value::as_str).collect();
    for (name, field) in members(&schema["properties"]) {
        let path = format!("{above}{name}");
        let shown = if required.contains(&name) { format!("**`{path}`**") } else { format!("`{path}`") };
        let told = match (name, above) {
            // Kubernetes' own words about these are long, and known.
            ("apiVersion" | "kind", "") if text(field, "description").contains("More info") => String::new(),
            _ => cell(text(field, "description")),
        };
        put!(page, "| {shown} | {} | {told} |", kind(field));
        fields(field, &format!("{path}."), page);
        fields(&field["items"], &format!("{path}[]."), page);
    }
    for rule in items(&schema["x-kubernetes-validations"]) {
        let path = format!("{}{}", above.trim_end_matches('.'), text(rule, "fieldPath"));
        put!(page, "| `{}` | | Rule: {} |", path.trim_start_matches('.'), cell(text(rule, "message")));
    }
}

/// What a value may be.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.rsplit('/').next().unwrap_or(name);
        return match name.strip_prefix(OURS) {
            Some(ours) => format!("[{ours}](#{})", ours.to_lowercase()),
            None => format!("Kubernetes' {}", name.rsplit('.').next().unwrap_or(name)),
        };
    }
    if let [only] = items(&schema["allOf"]) {
        return kind(only);
    }
    let words = items(&schema["enum"]);
    if !words.is_empty() {
        return words.iter().map(|word| format!("`{}`", word.as_str().unwrap_or_default())).collect::<Vec<_>>().join(", ");
    }
    match text(schema, "type") {
        "array" => format!("list of {}", kind(&schema["items"])),
        "object" if schema["additionalProperties"].is_object() => format!("map of {}", kind(&schema["additionalProperties"])),
        "" => "anything".to_owned(),
        plain => {
            let form = Some(text(schema, "format")).filter(|form| !form.is_empty()).map(|form| format!(" ({form})"));
            format!("{plain}{}{}", form.unwrap_or_default(), limits(schema))
        }
    }
}

/// The limits of a value, in words.
fn limits(schema: &Value) -> String {
    let within = |least: &str, most: &str| match (schema[least].as_u64(), schema[most].as_u64()) {
        (None | Some(0), Some(most)) => format!(", at most {most}"),
        (Some(least), Some(most)) => format!(", {least} to {most}"),
        (Some(least), None) => format!(", at least {least}"),
        (None, None) => String::new(),
    };
    let default = Some(&schema["default"]).filter(|default| !default.is_null()).map(|default| format!(", default `{default}`"));
    format!("{}{}{}", within("minimum", "maximum"), within("minLength", "maxLength"), default.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::openapi;

    #[test]
    fn every_path_and_every_type_of_ours_is_in_it() {
        let description = openapi::build();
        let page = page(&description);
        for (path, item) in members(&description["paths"]).filter(|(path, _)| *path != GROUP) {
            for verb in VERBS.iter().filter(|verb| item.get(**verb).is_some()) {
                let heading = format!("\n### `{} {}`\n", verb.to_uppercase(), &path[GROUP.len() + 1..]);
                assert!(page.contains(&heading), "{heading}");
            }
        }
        for (name, _) in members(&description["components"]["schemas"]) {
            let Some(name) = name.strip_prefix(OURS) else { continue };
            assert_eq!(page.matches(&format!("\n### {name}\n")).count(), 1, "{name}");
        }
    }

    #[test]
    fn every_row_has_as_many_cells_as_its_table() {
        for line in page(&openapi::build()).lines().filter(|line| line.starts_with('|')) {
            assert_eq!(line.replace("\\|", "").matches('|').count(), 4, "{line}");
        }
    }

    #[test]
    fn a_type_says_its_limits() {
        let string = serde_json::json!({"type": "string", "minLength": 1, "maxLength": 63, "default": "a"});
        assert_eq!(kind(&string), "string, 1 to 63, default `\"a\"`");
        assert_eq!(kind(&serde_json::json!({"type": "integer", "format": "int64", "minimum": 0})), "integer (int64), at least 0");
    }
}
