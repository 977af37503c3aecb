//! Lists and objects as tables, and as bare metadata: what kubectl and metadata clients ask for by `Accept`.

use crate::support::{
    api::{Api, BASE, Caller, file, settled},
    postgres::{TestDb, database},
    stream::all_readable,
};
use reqwest::Method;
use serde_json::{Value, json};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
/// What kubectl sends.
const KUBECTL: &str =
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
const METADATA: &str = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";

/// An agent `ws` with a snapshot, and these chats moored to it; the loop has nothing left to do.
async fn moored(db: &TestDb, api: &Api, chats: &[&str]) {
    let run = api.running_agent("ws").await;
    api.pushed(&run, 1, json!([file("AGENTS.md", "one")])).await;
    for chat in chats {
        api.create_chat(chat, json!({"agentRef": {"name": "ws"}})).await;
    }
    settled(db).await;
}

async fn read(api: &Caller, accept: &str, path: &str) -> Value {
    api.with("accept", accept).get(path).await.expect(200)
}

/// The fields of an object, whatever they say: a list's version moves on by itself, with other databases of the server.
fn fields(object: &Value) -> Vec<&String> {
    object.as_object().unwrap().keys().collect()
}

/// The same row, whatever time has passed.
fn ageless(mut row: serde_json::Map<String, Value>) -> serde_json::Map<String, Value> {
    row.remove("Age").unwrap();
    row
}

/// What a table says of the only row it has, by column.
fn said(table: &Value) -> serde_json::Map<String, Value> {
    let names = table["columnDefinitions"].as_array().unwrap().iter().map(|column| column["name"].as_str().unwrap().to_owned());
    let [row] = table["rows"].as_array().unwrap().as_slice() else { panic!("one row: {table}") };
    names.zip(row["cells"].as_array().unwrap().iter().cloned()).collect()
}

#[tokio::test]
async fn a_table_says_of_a_chat_what_the_chat_says() {
    let db = database().await;
    let api = Api::start(&db).await;
    moored(&db, &api, &["fix"]).await;
    let chat = api.chat("fix").await;
    for path in ["chats", "chats/fix", "chats/fix/status", &format!("{BASE}/chats")] {
        let table = read(&api, KUBECTL, path).await;
        assert_eq!((&table["kind"], &table["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")), "{path}");
        let row = said(&table);
        let ready = |field: &str| {
            let conditions = chat["status"]["conditions"].as_array().unwrap();
            conditions.iter().find(|condition| condition["type"] == "Ready").unwrap()[field].clone()
        };
        for (column, is) in [
            ("Name", json!("fix")),
            ("Agent", json!("ws")),
            ("Ready", json!("True")),
            ("Drifted", json!("False")),
            ("Pinned", chat["status"]["pinned"]["snapshot"].clone()),
            ("Reason", ready("reason")),
            ("Drifting", Value::Null),
            ("State", json!("Waiting")),
            ("Message", ready("message")),
        ] {
            assert_eq!(row[column], is, "{path}: {column}");
        }
        let age = row["Age"].as_str().unwrap();
        assert!(age.ends_with('s') && age.trim_end_matches('s').parse::<u32>().is_ok(), "{path}: {age}");
        let metadata = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": chat["metadata"]});
        assert_eq!(table["rows"][0]["object"], metadata, "{path}");
    }
}

#[tokio::test]
async fn agents_and_snapshots_are_tables_too() {
    let db = database().await;
    let api = Api::start(&db).await;
    moored(&db, &api, &[]).await;
    let agent = api.agent("ws").await;
    let snapshot = agent["status"]["latestSnapshot"]["name"].as_str().unwrap().to_owned();
    let row = said(&read(&api, TABLE, "agents").await);
    assert_eq!((&row["Snapshot"], &row["Rev"], &row["Run"]), (&json!(snapshot), &json!(1), &json!(1)));
    assert_eq!(ageless(row), ageless(said(&read(&api, TABLE, "agents/ws").await)));
    let row = said(&read(&api, TABLE, "agentsnapshots").await);
    assert_eq!(
        (&row["Name"], &row["Agent"], &row["Rev"], &row["Resources"]),
        (&json!(snapshot), &json!("ws"), &json!(1), &json!(1))
    );
    assert_eq!(row["Hash"], agent["status"]["latestSnapshot"]["hash"]);
    assert_eq!(ageless(row), ageless(said(&read(&api, TABLE, &format!("agentsnapshots/{snapshot}")).await)));
}

#[tokio::test]
async fn a_table_is_paged_as_the_list_is() {
    let db = database().await;
    let api = Api::start(&db).await;
    moored(&db, &api, &["a", "b", "c"]).await;
    let first = read(&api, TABLE, "chats?limit=2").await;
    assert_eq!(fields(&first["metadata"]), fields(&api.get("chats?limit=2").await.expect(200)["metadata"]));
    assert!(first["metadata"]["resourceVersion"].is_string());
    assert_eq!(first["rows"].as_array().unwrap().len(), 2);
    let token = first["metadata"]["continue"].as_str().unwrap();
    let last = read(&api, TABLE, &format!("chats?limit=2&continue={token}")).await;
    assert_eq!(said(&last)["Name"], "c");
    assert_eq!(
        (last["metadata"].get("continue"), &last["metadata"]["resourceVersion"]),
        (None, &first["metadata"]["resourceVersion"])
    );
}

#[tokio::test]
async fn a_row_carries_the_object_when_it_is_asked_to_and_nothing_when_it_is_not() {
    let db = database().await;
    let api = Api::start(&db).await;
    moored(&db, &api, &["fix"]).await;
    let whole = read(&api, TABLE, "chats?includeObject=Object").await;
    assert_eq!(whole["rows"][0]["object"], api.get("chats").await.expect(200)["items"][0]);
    assert_eq!(whole["rows"][0]["object"]["kind"], "Chat");
    assert_eq!(read(&api, TABLE, "chats?includeObject=None").await["rows"][0]["object"], Value::Null);
    let refused = api.with("accept", TABLE).get("chats?includeObject=Some").await.refused(400, "BadRequest");
    assert!(refused.message.contains("includeObject: must be None, Metadata or Object"), "{refused:?}");
}

#[tokio::test]
async fn a_client_that_wants_only_metadata_gets_only_that() {
    let db = database().await;
    let api = Api::start(&db).await;
    moored(&db, &api, &["fix"]).await;
    let list = api.get("chats").await.expect(200);
    let bare = read(&api, METADATA_LIST, "chats").await;
    let item = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": list["items"][0]["metadata"]});
    assert_eq!(bare["kind"], "PartialObjectMetadataList");
    assert_eq!((fields(&bare["metadata"]), &bare["items"]), (fields(&list["metadata"]), &json!([item])));
    assert_eq!(read(&api, METADATA, "chats/fix").await, item);
}

#[tokio::test]
async fn who_accepts_nothing_that_is_served_is_told_and_nothing_is_done() {
    let db = database().await;
    let api = Api::start(&db).await;
    moored(&db, &api, &["fix"]).await;
    let protobuf = api.with("accept", "application/vnd.kubernetes.protobuf");
    for path in ["chats", "chats/fix", "agents", "agents/ws", "agentsnapshots"] {
        protobuf.get(path).await.refused(406, "NotAcceptable");
    }
    protobuf.post("chats", &json!({"metadata": {"name": "other"}})).await.refused(406, "NotAcceptable");
    protobuf.delete("chats/fix").await.refused(406, "NotAcceptable");
    api.get("chats/other").await.refused(404, "NotFound");
    api.chat("fix").await;
}

#[tokio::test]
async fn core_events_have_the_columns_that_a_kube_apiserver_prints_them_in() {
    let db = database().await;
    let api = Api::start(&db).await;
    moored(&db, &api, &["fix"]).await;
    all_readable(&db).await;
    let of_chat = "/api/v1/namespaces/team-a/events?fieldSelector=involvedObject.name%3Dfix,reason%3DContextHydrated";
    let list = api.get(of_chat).await.expect(200);
    let event = &list["items"][0];
    let table = read(&api, KUBECTL, of_chat).await;
    assert_eq!((&table["kind"], fields(&table["metadata"])), (&json!("Table"), fields(&list["metadata"])));
    let columns = table["columnDefinitions"].as_array().unwrap();
    let columns: Vec<(&str, i64)> =
        columns.iter().map(|column| (column["name"].as_str().unwrap(), column["priority"].as_i64().unwrap())).collect();
    let [often, wide] = [0, 1];
    let wanted = [
        ("Last Seen", often),
        ("Type", often),
        ("Reason", often),
        ("Object", often),
        ("Subobject", wide),
        ("Source", wide),
        ("Message", often),
        ("First Seen", wide),
        ("Count", wide),
        ("Name", wide),
    ];
    assert_eq!(columns, wanted);
    let mut row = said(&table);
    for column in ["Last Seen", "First Seen"] {
        let age = row.remove(column).unwrap();
        assert!(age.as_str().unwrap().ends_with('s'), "{column}: {age}");
    }
    let told = json!({"Type": "Normal", "Reason": "ContextHydrated", "Object": "chat/fix", "Subobject": "", "Source": "moorline",
        "Message": event["message"], "Count": 1, "Name": event["metadata"]["name"]});
    assert_eq!(Value::Object(row), told);
    let object = &table["rows"][0]["object"];
    assert_eq!((&object["kind"], &object["metadata"]), (&json!("PartialObjectMetadata"), &event["metadata"]));
    let metadata = read(&api, METADATA_LIST, of_chat).await;
    assert_eq!(metadata["items"][0]["metadata"], event["metadata"]);
    api.with("accept", "application/yaml").get(of_chat).await.refused(406, "NotAcceptable");

    // And a watch of them.
    let version = list["metadata"]["resourceVersion"].as_str().unwrap();
    let path = format!("/api/v1/namespaces/team-a/events?watch=1&resourceVersion={version}");
    let watcher = api.with("accept", KUBECTL);
    let mut watch = watcher.request(Method::GET, &path).send().await.unwrap();
    api.patch("chats/fix", &json!({"spec": {"title": "Other"}})).await.expect(200);
    let mut text = String::new();
    while !text.contains('\n') {
        text.push_str(std::str::from_utf8(&watch.chunk().await.unwrap().expect("the watch goes on")).unwrap());
    }
    let first: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!((&first["type"], &first["object"]["kind"]), (&json!("ADDED"), &json!("Table")));
    let row = said(&first["object"]);
    assert_eq!((&row["Reason"], &row["Object"]), (&json!("ChatUpdated"), &json!("chat/fix")));
}
