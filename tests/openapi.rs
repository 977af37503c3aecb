//! `/openapi/v3` over HTTP, as kube clients read it.

use crate::support::{
    api::{Answer, Api, BASE},
    postgres::database,
};
use serde_json::{Value, json};

const GROUP: &str = "apis/moorline.dev/v1alpha1";

fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.headers.get(name).map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn the_index_leads_to_documents_that_may_be_kept_for_ever() {
    let db = database().await;
    let api = Api::start(&db).await;
    let index = api.get("/openapi/v3").await.expect(200);
    let paths = index["paths"].as_object().unwrap();
    for name in ["api", "api/v1", "apis", "apis/moorline.dev", GROUP, "version"] {
        let address = paths[name]["serverRelativeURL"].as_str().unwrap();
        assert!(address.starts_with(&format!("/openapi/v3/{name}?hash=")), "{address}");
        let kept = api.get(address).await;
        assert_eq!(header(&kept, "cache-control"), "public, max-age=31536000, immutable", "{name}");
        let tag = header(&kept, "etag").to_owned();
        let document = kept.expect(200);
        assert!(document["openapi"].as_str().unwrap().starts_with("3.0"), "{name}");
        let again = api.with("if-none-match", &tag).get(address).await;
        assert_eq!((again.status, again.text.as_str()), (304, ""), "{name}");
        let unhashed = api.get(&format!("/openapi/v3/{name}")).await;
        assert_eq!(header(&unhashed, "cache-control"), "", "{name}: under an address that will mean something else");
        assert_eq!(unhashed.expect(200), document, "{name}");
    }
}

#[tokio::test]
async fn an_address_of_another_build_leads_to_what_there_is_now() {
    let db = database().await;
    let api = Api::start(&db).await;
    let now = api.get("/openapi/v3").await.expect(200)["paths"][GROUP]["serverRelativeURL"].as_str().unwrap().to_owned();
    let staying = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let moved = staying.get(format!("{}/openapi/v3/{GROUP}?hash=0123", api.url)).send().await.unwrap();
    assert_eq!((moved.status().as_u16(), moved.headers()["location"].to_str().unwrap()), (301, now.as_str()));
    api.get("/openapi/v3/apis/nobody.dev/v1").await.refused(404, "NotFound");
}

/// Follows the references of a schema, one deep.
fn schema<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    let reference = schema.get("$ref").or_else(|| schema["allOf"][0].get("$ref"));
    let Some(path) = reference.and_then(Value::as_str) else { return schema };
    document.pointer(path.trim_start_matches('#')).unwrap()
}

/// What of an object its schema does not know.
fn unknown(document: &Value, of: &Value, object: &Value, path: &str) -> Vec<String> {
    let of = schema(document, of);
    match object {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(field, value)| {
                let path = format!("{path}.{field}");
                match of["properties"].get(field).or_else(|| of.get("additionalProperties")) {
                    Some(inner) => unknown(document, inner, value, &path),
                    None => vec![path],
                }
            })
            .collect(),
        Value::Array(items) => items.iter().flat_map(|item| unknown(document, &of["items"], item, path)).collect(),
        Value::String(text) => {
            let known = of["enum"].as_array().is_none_or(|words| words.contains(&json!(text)));
            if of["type"] == "string" && known { vec![] } else { vec![format!("{path} = {text}")] }
        }
        Value::Bool(_) => {
            if of["type"] == "boolean" {
                vec![]
            } else {
                vec![path.to_owned()]
            }
        }
        Value::Number(_) => {
            if of["type"] == "integer" {
                vec![]
            } else {
                vec![path.to_owned()]
            }
        }
        Value::Null => vec![format!("{path} is null")],
    }
}

#[tokio::test]
async fn what_is_answered_is_what_the_document_says() {
    use crate::support::api::file;
    let db = database().await;
    let api = Api::start(&db).await;
    let document = api.get(&format!("/openapi/v3/{GROUP}")).await.expect(200);
    let run = api.running_agent("ws").await;
    let registered = api.post("agents/ws/runs", &json!({})).await.expect(201);
    let run = crate::support::api::Run {
        id: registered["runID"].as_str().unwrap().into(),
        epoch: registered["epoch"].as_i64().unwrap(),
        ..run
    };
    let pushed = api.pushed(&run, 1, json!([file("AGENTS.md", "one")])).await;
    api.create_chat("fix", json!({"agentRef": {"name": "ws"}, "title": "Fix", "owner": "alice"})).await;
    let drift = api.with("prefer", "wait=20").push("ws", &run.report(2, json!([file("AGENTS.md", "two")]))).await;
    drift.expect(200);
    let chat = api.chat("fix").await;
    assert!(chat["status"]["drift"].is_object() && chat["status"]["latest"].is_object(), "{chat}");
    let snapshot = format!("agentsnapshots/{}", chat["status"]["latest"]["snapshot"].as_str().unwrap());
    let all = |path: &str| format!("{BASE}/{path}");
    let missing = api.get("chats/nobody").await;
    let answers = [
        ("AgentRun", registered),
        ("AgentSnapshotPushAnswer", pushed),
        ("Chat", chat),
        ("Agent", api.agent("ws").await),
        ("AgentSnapshot", api.get(&snapshot).await.expect(200)),
        ("ChatContext", api.get("chats/fix/context").await.expect(200)),
        ("ChatList", api.get(&all("chats?limit=1")).await.expect(200)),
        ("AgentList", api.get(&all("agents")).await.expect(200)),
        ("AgentSnapshotList", api.get(&all("agentsnapshots?limit=1")).await.expect(200)),
    ];
    for (kind, answer) in answers {
        let of = json!({"$ref": format!("#/components/schemas/dev.moorline.v1alpha1.{kind}")});
        assert_eq!(unknown(&document, &of, &answer, kind), Vec::<String>::new(), "{answer}");
    }
    let of = json!({"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.Status"});
    assert_eq!(unknown(&document, &of, &missing.json, "Status"), Vec::<String>::new());
}
