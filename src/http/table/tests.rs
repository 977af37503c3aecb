use super::*;

fn names(resource: Resource, widest: i32) -> Vec<String> {
    let definitions = Columns::of(resource).definitions();
    let shown =
        definitions.as_array().expect("columns").iter().filter(|column| column["priority"].as_i64() <= Some(widest.into()));
    shown.map(|column| column["name"].as_str().expect("a name").to_uppercase()).collect()
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn chat() -> Value {
    json!({
        "apiVersion": "moorline.dev/v1alpha1", "kind": "Chat",
        "metadata": {"name": "fix", "namespace": "team-a", "resourceVersion": "42", "creationTimestamp": "2026-11-21T10:00:00Z"},
        "spec": {"title": "Fix"},
        "status": {
            "state": "Waiting", "boundAgent": {"name": "ws-42"}, "pinned": {"snapshot": "ws-42-3f9c"}, "dirtySince": "2026-11-21T11:30:00Z",
            "conditions": [
                {"type": "Drifted", "status": "True", "reason": "ContentChanged", "message": "three"},
                {"type": "Ready", "status": "True", "reason": "PinnedStale", "message": "usable"},
            ],
        },
    })
}

#[test]
fn the_columns_are_those_that_were_decided_and_wide_adds_the_rest() {
    assert_eq!(names(Resource::Chats, 0), ["NAME", "AGENT", "READY", "DRIFTED", "PINNED", "REASON", "AGE"]);
    let wide = ["NAME", "AGENT", "READY", "DRIFTED", "PINNED", "REASON", "DRIFTING", "STATE", "MESSAGE", "AGE"];
    assert_eq!(names(Resource::Chats, 1), wide);
    assert_eq!(names(Resource::Agents, 0), ["NAME", "READY", "SNAPSHOT", "REV", "AGE"]);
    let wide = ["NAME", "READY", "SNAPSHOT", "REV", "WORKSPACE", "BUILD", "RUN", "MESSAGE", "AGE"];
    assert_eq!(names(Resource::Agents, 1), wide);
    assert_eq!(names(Resource::AgentSnapshots, 0), ["NAME", "AGENT", "REV", "RESOURCES", "AGE"]);
    assert_eq!(names(Resource::AgentSnapshots, 1), ["NAME", "AGENT", "REV", "RESOURCES", "HASH", "AGE"]);
}

#[test]
fn a_row_says_what_the_object_says() {
    let table = Columns::of(Resource::Chats).table(&[chat()], json!({}), IncludeObject::None, at("2026-11-21T12:00:00Z"));
    let row = ["fix", "ws-42", "True", "True", "ws-42-3f9c", "PinnedStale", "30m", "Waiting", "usable", "120m"];
    assert_eq!(table["rows"], json!([{"cells": row, "object": null}]));
    assert_eq!((&table["kind"], &table["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
}

#[test]
fn what_an_object_does_not_say_is_an_empty_cell() {
    let bare = json!({"metadata": {"name": "new"}});
    let table = Columns::of(Resource::Chats).table(&[bare], json!({}), IncludeObject::None, at("2026-11-21T12:00:00Z"));
    assert_eq!(table["rows"][0]["cells"], json!(["new", null, null, null, null, null, null, null, null, null]));
}

#[test]
fn a_cell_is_of_its_columns_type_or_empty() {
    let now = at("2026-11-21T12:00:00Z");
    for (kind, value, shown) in [
        ("integer", json!(7), json!(7)),
        ("integer", json!("7"), Value::Null),
        ("boolean", json!(false), json!(false)),
        ("number", json!(1.5), json!(1.5)),
        ("string", json!(true), json!("true")),
        ("date", json!("yesterday"), json!("<invalid>")),
        ("date", json!("2026-11-21T11:59:30.25Z"), json!("29s")),
        ("date", json!(5), Value::Null),
    ] {
        assert_eq!(cell(kind, Some(&value), now), shown, "{kind} {value}");
    }
}

#[test]
fn a_row_carries_as_much_of_the_object_as_was_asked_for() {
    let object = |include| {
        Columns::of(Resource::Chats).table(&[chat()], json!({}), include, Timestamp::UNIX_EPOCH)["rows"][0]["object"].clone()
    };
    assert_eq!(object(IncludeObject::None), Value::Null);
    assert_eq!(object(IncludeObject::Object), chat());
    let metadata = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": chat()["metadata"]});
    assert_eq!(object(IncludeObject::Metadata), metadata);
    assert!(IncludeObject::from_query(Some("Everything")).is_err());
}

#[test]
fn a_list_keeps_its_metadata_in_every_form() {
    let metadata = json!({"resourceVersion": "43", "continue": "next", "remainingItemCount": 7});
    let list = json!({"apiVersion": "moorline.dev/v1alpha1", "kind": "ChatList", "metadata": metadata, "items": [chat()]});
    for (wanted, kind) in
        [(Wanted::Json, "ChatList"), (Wanted::Table, "Table"), (Wanted::PartialObjectMetadata, "PartialObjectMetadataList")]
    {
        let form = Form { wanted, include: IncludeObject::Metadata };
        let shown = form.list(Columns::of(Resource::Chats), list.clone(), Timestamp::UNIX_EPOCH);
        assert_eq!((&shown["kind"], &shown["metadata"]), (&json!(kind), &metadata));
    }
}

#[test]
fn the_table_of_one_object_has_that_objects_version() {
    let form = Form { wanted: Wanted::Table, include: IncludeObject::None };
    let table = form.object(Columns::of(Resource::Chats), chat(), Timestamp::UNIX_EPOCH);
    assert_eq!((&table["kind"], &table["metadata"]), (&json!("Table"), &json!({"resourceVersion": "42"})));
}
