//! From what schemars writes to the plain form of OpenAPI 3.0 that Kubernetes' own documents have: one type each, enumerations
//! as one list of words, no null, names under the group.
//!
//! Null goes because the API never sends it and takes it for absence: "not required" says it all, and generated clients need no
//! third state. Enumerations stand where they are used, because there `kubectl explain` looks for them.

use serde_json::{Map, Value, json};

/// What every reference to a component begins with.
pub const REFERENCES: &str = "#/components/schemas/";

/// Brings all schemas into plain form. `rename` gives each name that schemars made its published one.
pub fn components(schemas: Map<String, Value>, rename: impl Fn(&str) -> String) -> Map<String, Value> {
    let mut schemas: Map<String, Value> = schemas
        .into_iter()
        .map(|(name, mut schema)| {
            each(&mut schema, &|schema| {
                drop_null(schema);
                list_words(schema);
                drop_rust(schema);
            });
            (name, schema)
        })
        .collect();
    let words: Map<String, Value> = schemas
        .iter()
        .filter(|(_, schema)| schema.get("enum").is_some())
        .map(|(name, schema)| (name.clone(), schema.clone()))
        .collect();
    schemas.retain(|name, _| !words.contains_key(name));
    let inline = |schema: &mut Map<String, Value>| inline_words(schema, &words);
    let rename_one = |schema: &mut Map<String, Value>| {
        if let Some(name) = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix(REFERENCES)) {
            schema.insert("$ref".into(), json!(format!("{REFERENCES}{}", rename(name))));
        }
    };
    schemas
        .into_iter()
        .map(|(name, mut schema)| {
            each(&mut schema, &inline);
            each(&mut schema, &rename_one);
            (rename(&name), schema)
        })
        .collect()
}

/// Does something to a schema and to all within it, the outer ones first.
fn each(schema: &mut Value, change: &impl Fn(&mut Map<String, Value>)) {
    let Value::Object(fields) = schema else { return };
    change(fields);
    for (keyword, value) in fields.iter_mut() {
        match (keyword.as_str(), value) {
            ("properties", Value::Object(properties)) => properties.values_mut().for_each(|inner| each(inner, change)),
            ("items" | "additionalProperties", inner) => each(inner, change),
            ("allOf" | "anyOf" | "oneOf", Value::Array(branches)) => branches.iter_mut().for_each(|inner| each(inner, change)),
            _ => {}
        }
    }
}

/// `[T, null]` is T, and so is "T or null".
fn drop_null(schema: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = schema.get("type") {
        let mut types = types.iter().filter(|one| *one != "null").cloned();
        if let (Some(only), None) = (types.next(), types.next()) {
            schema.insert("type".into(), only);
        }
    }
    let Some(Value::Array(branches)) = schema.get("anyOf") else { return };
    let [branch] = branches.iter().filter(|branch| branch["type"] != "null").collect::<Vec<_>>()[..] else { return };
    let branch = branch.clone();
    schema.remove("anyOf");
    if schema.is_empty()
        && let Value::Object(branch) = branch
    {
        *schema = branch;
    } else {
        // A reference has no siblings in OpenAPI 3.0.
        schema.insert("allOf".into(), json!([branch]));
    }
}

/// One of some constants is an enumeration; what each means goes into the description.
fn list_words(schema: &mut Map<String, Value>) {
    let Some(Value::Array(branches)) = schema.get("oneOf") else { return };
    let word = |branch: &Value| match branch["enum"].as_array().map(Vec::as_slice) {
        Some([Value::String(word)]) => Some((word.clone(), branch["description"].as_str().unwrap_or_default().to_owned())),
        Some(_) | None => None,
    };
    let Some(words) = branches.iter().map(word).collect::<Option<Vec<_>>>() else { return };
    let meanings: Vec<String> = words.iter().map(|(word, meaning)| format!("{word}: {meaning}")).collect();
    let about = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    let about = format!("{about} {}", meanings.join(" ")).trim().to_owned();
    schema.remove("oneOf");
    schema.insert("type".into(), json!("string"));
    schema.insert("enum".into(), words.into_iter().map(|(word, _)| word).collect());
    schema.insert("description".into(), json!(about));
}

/// `uint` is a word of Rust's, and so is an empty text for one that is not there.
fn drop_rust(schema: &mut Map<String, Value>) {
    if schema.get("format").is_some_and(|format| format == "uint") {
        schema.insert("format".into(), json!("int64"));
    }
    // A text that serde may leave out is empty; nobody needs to be told to send that.
    if schema.get("default").is_some_and(|default| default == "") {
        schema.remove("default");
    }
}

/// Puts an enumeration in the place of a reference to it; what the place says of itself comes first.
fn inline_words(schema: &mut Map<String, Value>, words: &Map<String, Value>) {
    let referred = |value: &Value| {
        let name = value.get("$ref")?.as_str()?.strip_prefix(REFERENCES)?;
        words.get(name)?.as_object().cloned()
    };
    let target = match schema.get("allOf").and_then(Value::as_array).map(Vec::as_slice) {
        Some([only]) => referred(only),
        Some(_) => None,
        None => schema.get("$ref").and_then(|_| referred(&Value::Object(schema.clone()))),
    };
    let Some(target) = target else { return };
    schema.remove("allOf");
    schema.remove("$ref");
    let own = schema.remove("description");
    let texts = [own.as_ref(), target.get("description")].into_iter().flatten().filter_map(Value::as_str);
    let about = texts.collect::<Vec<_>>().join(" ");
    schema.extend(target);
    schema.insert("description".into(), json!(about));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(property: &Value) -> Value {
        let policy = json!({"description": "What to do.", "oneOf": [
            {"type": "string", "enum": ["Manual"], "description": "Wait."}, {"type": "string", "enum": ["OnDrift"], "description": "Move."},
        ]});
        let schemas = json!({"Policy": policy, "Spec": {"type": "object", "properties": {"it": property}}});
        let Value::Object(schemas) = schemas else { unreachable!("it is an object") };
        let mut plain = components(schemas, |name| format!("group.{name}"));
        assert_eq!(plain.len(), 1, "enumerations stand where they are used: {plain:?}");
        plain["group.Spec"]["properties"]["it"].take()
    }

    #[test]
    fn null_is_only_another_way_of_not_being_there() {
        assert_eq!(plain(&json!({"type": ["string", "null"]})), json!({"type": "string"}));
        let reference = json!({"$ref": "#/components/schemas/Spec"});
        let renamed = json!({"$ref": "#/components/schemas/group.Spec"});
        assert_eq!(plain(&json!({"anyOf": [reference, {"type": "null"}]})), renamed);
        let described = json!({"anyOf": [reference, {"type": "null"}], "description": "x"});
        assert_eq!(plain(&described), json!({"allOf": [renamed], "description": "x"}));
    }

    #[test]
    fn an_enumeration_stands_where_it_is_used_with_the_meaning_of_each_word() {
        let reference = json!({"$ref": "#/components/schemas/Policy"});
        let about = "What to do. Manual: Wait. OnDrift: Move.";
        let words = json!({"type": "string", "enum": ["Manual", "OnDrift"], "description": about});
        assert_eq!(plain(&reference), words);
        let own = json!({"allOf": [reference], "description": "Its policy.", "default": "Manual"});
        let about = format!("Its policy. {about}");
        let words = json!({"type": "string", "enum": ["Manual", "OnDrift"], "description": about, "default": "Manual"});
        assert_eq!(plain(&own), words);
    }

    #[test]
    fn a_size_is_an_int64() {
        assert_eq!(plain(&json!({"type": "integer", "format": "uint"})), json!({"type": "integer", "format": "int64"}));
    }
}
