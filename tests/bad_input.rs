//! Whatever is sent, the server says what is wrong with it, and lives on.

use crate::support::{
    api::{Api, BASE, NAMESPACE, Refused, digest, file, settled},
    postgres::database,
};
use reqwest::Method;
use serde_json::json;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout},
};

#[tokio::test]
async fn malformed_json_is_refused_with_line_and_column() {
    let db = database().await;
    let api = Api::start(&db).await;
    api.running_agent("ws").await;
    settled(&db).await;
    let before = digest(&db).await;
    let broken = "{\"metadata\": {\"name\": \"x\"},\n  \"spec\": }";
    for (method, path) in [
        (Method::POST, "chats"),
        (Method::POST, "agents"),
        (Method::PUT, "agents/ws"),
        (Method::PUT, "agents/ws/snapshot"),
        (Method::POST, "agents/ws/runs"),
        (Method::DELETE, "agents/ws"),
    ] {
        let refused = api.send_raw(method.clone(), path, "application/json", broken).await.refused(400, "BadRequest");
        assert!(refused.message.contains("line 2 column 11"), "{method} {path}: {}", refused.message);
    }
    let patch = api.send_raw(Method::PATCH, "agents/ws", "application/merge-patch+json", broken).await;
    assert!(patch.refused(400, "BadRequest").message.contains("line 2 column 11"));
    for (what, text) in [
        ("cut off", "{\"metadata\":"),
        ("not closed", "{\"spec\":{}"),
        ("more after the end", "{} {}"),
        ("half a surrogate pair", r#"{"spec":{"title":"\ud800"}}"#),
        ("no UTF-8", "{\"spec\":{\"title\":\"\u{0}\"}}"),
        ("too deep", &"[".repeat(100_000)),
        ("no object", "[]"),
        ("a word", "chat"),
    ] {
        let refused = api.send_raw(Method::POST, "chats", "application/json", text.to_owned()).await;
        assert_eq!(refused.status, 400, "{what}: {}", refused.text);
        refused.refused(400, "BadRequest");
    }
    let bytes = api.send_raw(Method::POST, "chats", "application/json", b"{\"spec\":{\"title\":\"\xff\"}}".to_vec()).await;
    bytes.refused(400, "BadRequest");
    assert_eq!(digest(&db).await, before);
}

#[tokio::test]
async fn values_of_the_wrong_type_are_named_by_their_path() {
    let db = database().await;
    let api = Api::start(&db).await;
    for (body, field) in [
        (json!({"metadata": {"name": "x", "labels": {"a": 1}}}), "metadata.labels.a"),
        (json!({"metadata": [], "spec": {}}), "metadata"),
    ] {
        let refused = api.post("chats", &body).await.refused(400, "BadRequest");
        assert!(refused.message.contains(field), "{body}: {}", refused.message);
    }
    for (body, message) in [
        (json!({"apiVersion": "v1", "metadata": {"name": "x"}}), "apiVersion"),
        (json!({"metadata": {"name": "x", "namespace": "team-b"}}), "namespace"),
    ] {
        let refused = api.post("chats", &body).await.refused(400, "BadRequest");
        assert!(refused.message.contains(message), "{}", refused.message);
    }
    let other = json!({"kind": "Pod", "metadata": {"name": "x"}});
    assert_eq!(api.post("chats", &other).await.refused(422, "Invalid").fields(), ["kind"]);
    assert_eq!(api.get("chats").await.expect(200)["items"], json!([]));
}

/// Fields with the reason that each is refused for.
fn causes(refused: &Refused) -> Vec<(&str, &str)> {
    refused.causes.iter().map(|cause| (cause.field.as_str(), cause.reason.as_str())).collect()
}

#[tokio::test]
async fn a_spec_of_wrong_types_and_unknown_words_is_invalid_field_by_field_beside_all_else_that_is_wrong() {
    let db = database().await;
    let api = Api::start(&db).await;
    api.create_chat("fix", json!({})).await;
    api.create_agent("ws", json!({})).await;
    settled(&db).await;
    let before = digest(&db).await;
    let long = "t".repeat(513);
    let word = "FieldValueNotSupported";
    let type_ = "FieldValueTypeInvalid";
    for (kind, name, spec, wanted) in [
        ("chats", "fix", json!({"archived": "yes"}), vec![("spec.archived", type_)]),
        ("chats", "fix", json!({"title": 7}), vec![("spec.title", type_)]),
        ("chats", "fix", json!({"agentRef": "ws"}), vec![("spec.agentRef", type_)]),
        ("chats", "fix", json!({"agentRef": {"name": ["ws"]}}), vec![("spec.agentRef.name", type_)]),
        ("chats", "fix", json!({"agentRef": {}}), vec![("spec.agentRef.name", "FieldValueRequired")]),
        ("chats", "fix", json!({"refreshPolicy": "Sometimes"}), vec![("spec.refreshPolicy", word)]),
        ("chats", "fix", json!([]), vec![("spec", type_)]),
        (
            "chats",
            "fix",
            json!({"suspend": 1, "deletionPolicy": "Forget", "refreshPolicy": true, "title": long}),
            vec![
                ("spec.deletionPolicy", word),
                ("spec.refreshPolicy", type_),
                ("spec.suspend", type_),
                ("spec.title", "FieldValueTooLong"),
            ],
        ),
        (
            "agents",
            "ws",
            json!({"build": "one", "suspend": null, "workspace": 3}),
            vec![("spec.build", type_), ("spec.workspace", type_)],
        ),
        ("agents", "ws", json!({"build": 1.5}), vec![("spec.build", type_)]),
        (
            "agents",
            "ws",
            json!({"revisionHistoryLimit": 3_000_000_000_u64}),
            vec![("spec.revisionHistoryLimit", "FieldValueInvalid")],
        ),
        ("agents", "ws", json!({"build": u64::MAX}), vec![("spec.build", "FieldValueInvalid")]),
    ] {
        let named = |name: &str| json!({"metadata": {"name": name}, "spec": spec});
        let path = format!("{kind}/{name}");
        let operations = json!([{"op": "replace", "path": "/spec", "value": spec}]).to_string();
        for answer in [
            api.post(kind, &named("new")).await,
            api.put(&path, &named(name)).await,
            api.patch(&path, &json!({"spec": spec})).await,
            api.send_raw(Method::PATCH, &path, "application/json-patch+json", operations).await,
        ] {
            let refused = answer.refused(422, "Invalid");
            let mut got = causes(&refused);
            got.sort_unstable();
            assert_eq!(got, wanted, "{spec}");
            for (field, _) in &wanted {
                assert!(refused.message.contains(field), "{}", refused.message);
            }
        }
    }
    let many = json!({"metadata": {"name": "Bad Name", "labels": {"k": "not a value"}},
        "spec": {"title": 1, "refreshPolicy": "Sometimes", "agentRef": {"name": "Bad"}}});
    let refused = api.post("chats", &many).await.refused(422, "Invalid");
    for field in ["metadata.name", "metadata.labels", "spec.title", "spec.refreshPolicy", "spec.agentRef.name"] {
        assert!(refused.fields().contains(&field), "{field} is not in {:?}", refused.fields());
    }
    let word = api.patch("chats/fix", &json!({"spec": {"refreshPolicy": "Sometimes"}})).await.refused(422, "Invalid");
    let told = "spec.refreshPolicy: Unsupported value: \"Sometimes\": supported values: \"Manual\", \"OnDrift\"";
    assert_eq!(word.message, format!("Chat.moorline.dev \"fix\" is invalid: {told}"));
    assert_eq!(digest(&db).await, before);
    // What is misspelt inside of what is wrong is told as before.
    let misspelt = json!({"spec": {"agentRef": {"nam": "ws"}}});
    let refused = api.patch("chats/fix?fieldValidation=Strict", &misspelt).await.refused(400, "BadRequest");
    assert!(refused.message.contains("unknown field \"spec.agentRef.nam\""), "{}", refused.message);
    // A whole number may be written with a point.
    assert_eq!(api.patch("agents/ws", &json!({"spec": {"build": 7.0}})).await.expect(200)["spec"]["build"], 7);
}

#[tokio::test]
async fn bodies_of_another_type_are_refused_with_the_types_that_are_taken() {
    let db = database().await;
    let api = Api::start(&db).await;
    api.running_agent("ws").await;
    api.create_chat("fix", json!({})).await;
    settled(&db).await;
    let before = digest(&db).await;
    for (method, path) in [
        (Method::POST, "chats"),
        (Method::PUT, "chats/fix"),
        (Method::PUT, "chats/fix/context"),
        (Method::POST, "agents"),
        (Method::PUT, "agents/ws"),
        (Method::POST, "agents/ws/runs"),
        (Method::PUT, "agents/ws/snapshot"),
    ] {
        for type_ in ["application/yaml", "text/plain", "application/x-www-form-urlencoded", "application/jsonx"] {
            let refused = api.send_raw(method.clone(), path, type_, "{}").await.refused(415, "UnsupportedMediaType");
            assert!(refused.message.contains(type_) && refused.message.contains("application/json"), "{}", refused.message);
        }
    }
    for path in ["chats/fix", "agents/ws", "chats/fix/status"] {
        for type_ in ["application/json", "application/strategic-merge-patch+json"] {
            let refused = api.send_raw(Method::PATCH, path, type_, "{}").await.refused(415, "UnsupportedMediaType");
            assert!(refused.message.contains("application/merge-patch+json"), "{}", refused.message);
        }
        let refused = api.send_raw(Method::PATCH, path, "application/apply-patch+yaml", "{}").await;
        let refused = refused.refused(415, "UnsupportedMediaType");
        assert!(
            refused.message.contains("server-side apply") && refused.message.contains("kubectl apply"),
            "{}",
            refused.message
        );
        api.send(api.request(Method::PATCH, path).body("{}")).await.refused(415, "UnsupportedMediaType");
    }
    assert_eq!(digest(&db).await, before);
    // Parameters and case are no difference of type.
    let body = json!({"metadata": {"name": "typed"}}).to_string();
    api.send_raw(Method::POST, "chats", "Application/JSON; charset=utf-8", body).await.expect(201);
}

#[tokio::test]
async fn unknown_and_duplicate_fields_are_refused_warned_of_or_ignored_as_asked() {
    let db = database().await;
    let api = Api::start(&db).await;
    let body =
        |name: &str| format!(r#"{{"metadata":{{"name":"{name}"}},"spec":{{"titel":"typo","title":"a","title":"b"}},"extra":1}}"#);
    let post = async |name: &str, query: &str| {
        api.send_raw(Method::POST, &format!("chats{query}"), "application/json", body(name)).await
    };
    let strict = post("strict", "?fieldValidation=Strict").await.refused(400, "BadRequest");
    for said in
        ["strict decoding error", "unknown field \"spec.titel\"", "unknown field \"extra\"", "duplicate field \"spec.title\""]
    {
        assert!(strict.message.contains(said), "{said}: {}", strict.message);
    }
    api.get("chats/strict").await.refused(404, "NotFound");

    for (name, query) in [("said", "?fieldValidation=Warn"), ("unsaid", "")] {
        let warned = post(name, query).await;
        let warnings = warned.warnings();
        assert_eq!(warnings.len(), 3, "{warnings:?}");
        assert!(warnings.iter().all(|warning| warning.starts_with("299 - \"")), "{warnings:?}");
        assert!(warnings.iter().any(|warning| warning.contains("spec.titel")), "{warnings:?}");
        assert_eq!(warned.expect(201)["spec"]["title"], "b", "of a field that stands twice, the last one counts");
    }
    let ignored = post("ignored", "?fieldValidation=Ignore").await;
    assert_eq!(ignored.warnings(), Vec::<String>::new());
    ignored.expect(201);
    let refused = post("odd", "?fieldValidation=Loose").await.refused(400, "BadRequest");
    assert!(refused.message.contains("fieldValidation") && refused.message.contains("Loose"), "{}", refused.message);

    let patch = json!({"spec": {"titel": "typo"}});
    let refused = api.patch("chats/said?fieldValidation=Strict", &patch).await.refused(400, "BadRequest");
    assert!(refused.message.contains("unknown field \"spec.titel\""), "{}", refused.message);
    assert_eq!(api.patch("chats/said", &patch).await.warnings().len(), 1);

    let run = api.running_agent("ws").await;
    let mut report =
        run.report(1, json!([{"kind": "Skill", "source": "skills/tdd", "body": "x", "status": "Ok", "colour": "red"}]));
    let refused = api.put("agents/ws/snapshot?fieldValidation=Strict", &report).await.refused(400, "BadRequest");
    assert!(refused.message.contains("resources[0].colour"), "{}", refused.message);
    report["resources"][0]["colour"] = json!(null);
    let warned = api.put("agents/ws/snapshot", &report).await;
    assert_eq!(warned.warnings().len(), 1, "{:?}", warned.headers);
    warned.expect(200);
}

#[tokio::test]
async fn text_with_nul_is_refused_wherever_it_would_become_text() {
    let db = database().await;
    let api = Api::start(&db).await;
    let run = api.running_agent("ws").await;
    api.create_chat("fix", json!({"agentRef": {"name": "ws"}})).await;
    settled(&db).await;
    let before = digest(&db).await;
    let chat = |spec| json!({"metadata": {"name": "nul"}, "spec": spec});
    for (body, field) in [
        (chat(json!({"title": "a\0b"})), "spec.title"),
        (chat(json!({"owner": "\0"})), "spec.owner"),
        (json!({"metadata": {"name": "a\0b"}}), "metadata.name"),
        (json!({"metadata": {"name": "nul", "labels": {"k": "a\0b"}}}), "metadata.labels"),
        (json!({"metadata": {"name": "nul", "annotations": {"k": "a\0b"}}}), "metadata.annotations"),
        (json!({"metadata": {"name": "nul", "annotations": {"a\0b": "v"}}}), "metadata.annotations"),
    ] {
        let refused = api.post("chats", &body).await.refused(422, "Invalid");
        assert!(refused.fields()[0].starts_with(field), "{refused:?}");
        assert!(refused.message.contains("U+0000"), "{}", refused.message);
    }
    api.patch("chats/fix", &json!({"spec": {"title": "\0"}})).await.refused(422, "Invalid");
    api.patch("chats/fix/status", &json!({"status": {"lastError": "\0"}})).await.refused(422, "Invalid");
    api.put("chats/fix/context", &json!({"token": "\0"})).await.refused(422, "Invalid");
    let mut report = run.report(1, json!([file("AGENTS.md", "x")]));
    report["error"] = json!("\0");
    report["resources"][0]["source"] = json!("a\0");
    report["resources"][0]["sourcePath"] = json!("a\0");
    report["resources"][0]["error"] = json!("a\0");
    let refused = api.push("ws", &report).await.refused(422, "Invalid");
    let mut fields = refused.fields();
    fields.sort_unstable();
    assert_eq!(fields, ["error", "resources[0].error", "resources[0].source", "resources[0].sourcePath"]);
    // Nor does anything in an address have such a name.
    let other = format!("{BASE}/namespaces/a%00b/chats/fix");
    for path in [
        "chats/a%00b",
        "agents/a%00b",
        "agentsnapshots/a%00b",
        "chats/a%00b/context",
        "chats?fieldSelector=metadata.name%3Da%00b",
        &other,
    ] {
        api.get(path).await.refused(400, "BadRequest");
    }
    api.delete("chats/a%00b").await.refused(400, "BadRequest");
    api.patch("chats/a%00b", &json!({})).await.refused(400, "BadRequest");
    api.push("a%00b", &run.report(1, json!([]))).await.refused(400, "BadRequest");
    for name in ["a\0b", "a"] {
        // In the form that the server writes, to the letter: another one is no token of its.
        let (of, after) = (r#"{"kind":"chats","namespace":"team-a"}"#, json!({"name": ["team-a", name]}));
        let forged = format!(r#"{{"v":2,"rv":{},"of":{of},"after":{after}}}"#, i64::MAX);
        let forged = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, forged);
        let answer = api.get(&format!("chats?continue={forged}")).await;
        // A form that is read, so that it is the name that is refused; the other one is from a log that is not there yet.
        if name == "a" {
            answer.refused(410, "Expired")
        } else {
            answer.refused(400, "BadRequest")
        };
    }
    assert_eq!(digest(&db).await, before);
}

#[tokio::test]
async fn addresses_that_cannot_be_read_are_refused_with_a_status_too() {
    let db = database().await;
    let api = Api::start(&db).await;
    api.create_chat("fix", json!({})).await;
    for path in
        ["chats/%ff", "chats/fix/context?bodies=%ff", "chats?limit=1&limit=2", "chats?limit=x", "chats/fix/context?bodies=maybe"]
    {
        let answer = api.get(path).await;
        assert_eq!((answer.status, &answer.json["kind"]), (400, &json!("Status")), "{path}: {}", answer.text);
    }
    let twice = api.post("chats?dryRun=All&dryRun=All", &json!({"metadata": {"name": "x"}})).await;
    assert!(twice.status == 201 || twice.json["kind"] == "Status", "{} {}", twice.status, twice.text);
    api.post("chats?dryRun=Some", &json!({"metadata": {"name": "x"}})).await.refused(400, "BadRequest");
}

#[tokio::test]
async fn a_body_made_to_be_dear_to_read_is_not() {
    let db = database().await;
    let api = Api::start(&db).await;
    api.running_agent("ws").await;
    // A long key with much below it: written out once an item, or once a duplicate, its path would be terabytes.
    let key = "k".repeat(3 << 20);
    let numbers = format!("{{\"{key}\": [{}0]}}", "0,".repeat(1 << 20));
    let twins = format!("{{\"{key}\": {{{}\"a\":1}}}}", "\"a\":1,".repeat(1 << 19));
    let nuls = format!("{{\"{key}\": [{}0]}}", "\"\\u0000\",".repeat(1 << 18));
    for (body, code) in [(numbers, 422), (twins, 400), (nuls, 422)] {
        let sent = api.send_raw(Method::PUT, "agents/ws/snapshot?fieldValidation=Strict", "application/json", body);
        let answer = timeout(Duration::from_secs(20), sent).await.expect("an answer in reasonable time");
        assert!(answer.status == code || answer.status == 400, "{} {}", answer.status, &answer.text[..200]);
        assert!(answer.text.len() < 100_000, "{} bytes of answer", answer.text.len());
    }
    let unknown = json!({"metadata": {"name": "x"}, "spec": {"u".repeat(1 << 19): 1}});
    let warned = api.post("chats", &unknown).await;
    assert!(warned.warnings()[0].len() < 1_000);
    warned.expect(201);
}

#[tokio::test]
async fn names_that_are_no_dns_names_are_refused_with_the_rule_and_what_was_got() {
    let db = database().await;
    let api = Api::start(&db).await;
    let label = "a".repeat(63);
    let bad_anywhere = ["A", "-a", "a-", "a_b", "a/b", "ä", " ", "a b", "."];
    let long = "a".repeat(254);
    for (path, names) in [
        ("chats", [&bad_anywhere[..], &["a..b", &long]].concat()),
        ("agents", [&bad_anywhere[..], &["a.b", &long[..64]]].concat()),
    ] {
        for name in names {
            let refused = api.post(path, &json!({"metadata": {"name": name}})).await.refused(422, "Invalid");
            assert_eq!(refused.fields(), ["metadata.name"], "{name}");
            let got = if name.len() > 63 { name.len().to_string() } else { format!("{name:?}") };
            assert!(refused.message.contains(&got), "{}", refused.message);
        }
        let refused = api.post(path, &json!({"metadata": {}})).await.refused(422, "Invalid");
        assert!(refused.message.contains("name"), "{}", refused.message);
    }
    for namespace in ["Team", "a.b", &"a".repeat(64)] {
        let refused = api.post(&format!("{BASE}/namespaces/{namespace}/chats"), &json!({"metadata": {"name": "x"}})).await;
        refused.refused(422, "Invalid");
    }
    // A label that begins or ends with a dash, inside of a subdomain, is none either.
    for name in ["a-.b", "a.-b"] {
        api.post("chats", &json!({"metadata": {"name": name}})).await.refused(422, "Invalid");
    }
    // All faults, not the first.
    let body = json!({"metadata": {"name": "Bad Name", "labels": {"k": "not a label value"}},
        "spec": {"title": "t".repeat(513), "agentRef": {"name": "Bad"}, "workspaceRef": {"name": "ws"}}});
    let refused = api.post("chats", &body).await.refused(422, "Invalid");
    let mut fields = refused.fields();
    fields.sort_unstable();
    for field in ["metadata.name", "metadata.labels", "spec.title", "spec.agentRef"] {
        assert!(fields.iter().any(|got| got.starts_with(field)), "{field} is not in {fields:?}");
        assert!(refused.message.contains(field), "{field}: {}", refused.message);
    }
    // At the limits they are fine.
    api.create_chat(&[&label[..], &label, &label, &label[..61]].join("."), json!({})).await;
    api.create_agent(&label, json!({})).await;
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_whether_announced_or_not() {
    let db = database().await;
    let api = Api::start(&db).await;
    let run = api.running_agent("ws").await;
    settled(&db).await;
    let before = digest(&db).await;
    let huge = run.report(1, json!([file("AGENTS.md", &"x".repeat(10 << 20))])).to_string();
    for (path, method, limit) in [
        ("agents/ws/snapshot", "PUT", 8 << 20),
        ("agents/ws", "PUT", 3 << 19),
        ("chats", "POST", 3 << 19),
        ("agents/ws/runs", "POST", 3 << 19),
    ] {
        for announced in [true, false] {
            let answer = raw(&api, method, path, huge.as_bytes(), announced).await;
            assert!(answer.starts_with("HTTP/1.1 413 "), "{method} {path}: {answer}");
            assert!(answer.contains("RequestEntityTooLarge") && answer.contains(&limit.to_string()), "{answer}");
            assert!(!announced || answer.contains(&huge.len().to_string()), "what was got is not named: {answer}");
        }
    }
    assert_eq!(digest(&db).await, before);
    assert_eq!(api.get("/livez").await.status, 200);
}

/// Sends a request with a body, announced or in chunks, and takes an answer that may come before all of it is sent.
async fn raw(api: &Api, method: &str, path: &str, body: &[u8], announced: bool) -> String {
    let stream = TcpStream::connect(&api.address).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let length = if announced { format!("content-length: {}", body.len()) } else { "transfer-encoding: chunked".into() };
    let head = format!(
        "{method} {BASE}/namespaces/{NAMESPACE}/{path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{length}\r\n\r\n"
    );
    let send = async {
        writer.write_all(head.as_bytes()).await?;
        for piece in body.chunks(64 << 10) {
            if announced {
                writer.write_all(piece).await?;
            } else {
                writer.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await?;
                writer.write_all(piece).await?;
                writer.write_all(b"\r\n").await?;
            }
        }
        if announced { Ok(()) } else { writer.write_all(b"0\r\n\r\n").await }
    };
    let receive = async {
        let mut answer = Vec::new();
        let mut piece = [0; 4096];
        while let Ok(n @ 1..) = reader.read(&mut piece).await {
            answer.extend_from_slice(&piece[..n]);
            if answer.ends_with(b"}") {
                break;
            }
        }
        String::from_utf8(answer).unwrap()
    };
    // The server may close before it has read all of it: that is what the limit is for.
    tokio::pin!(receive);
    tokio::select! {
        answer = &mut receive => answer,
        _ = send => timeout(Duration::from_secs(20), receive).await.expect("an answer"),
    }
}

#[tokio::test]
async fn a_client_that_does_not_finish_its_head_is_let_go() {
    let db = database().await;
    let api = Api::start(&db).await;
    let mut stream = TcpStream::connect(&api.address).await.unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nx-slow: ").await.unwrap();
    let begun = Instant::now();
    let (mut reader, mut writer) = stream.split();
    let dripping = async {
        let mut drops = tokio::time::interval(Duration::from_millis(500));
        loop {
            drops.tick().await;
            if writer.write_all(b"x").await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let mut answer = Vec::new();
    let ended = tokio::select! {
        ended = timeout(Duration::from_secs(25), reader.read_to_end(&mut answer)) => ended,
        () = dripping => unreachable!("it drips on"),
    };
    // An end or a reset: either way the server let go.
    let _: Result<usize, std::io::Error> = ended.expect("the server holds on to a client that never finishes");
    assert!(begun.elapsed() > Duration::from_secs(5), "slow is no reason before its time: {:?}", begun.elapsed());
    assert_eq!(api.get("/livez").await.status, 200);
}

#[tokio::test]
async fn unknown_paths_and_wrong_methods_are_said_to_be_so() {
    let db = database().await;
    let api = Api::start(&db).await;
    for path in [
        "/",
        "/nothing",
        "/apis/other.dev",
        &format!("{BASE}/nothing"),
        "chats/a/b/c",
        "chats/fix/nothing",
        "agents/ws/nothing",
        "agentsnapshots/a/b",
    ] {
        api.get(path).await.refused(404, "NotFound");
    }
    for (method, path) in [
        (Method::DELETE, "chats"),
        (Method::DELETE, "agents"),
        (Method::PUT, "chats"),
        (Method::PATCH, "agents"),
        (Method::POST, "chats/fix"),
        (Method::POST, "chats/fix/context"),
        (Method::DELETE, "chats/fix/context"),
        (Method::DELETE, "chats/fix/status"),
        (Method::GET, "agents/ws/runs"),
        (Method::POST, "agents/ws/snapshot"),
        (Method::POST, "agentsnapshots"),
        (Method::PUT, "agentsnapshots/x"),
        (Method::DELETE, "agentsnapshots/x"),
        (Method::POST, "/livez"),
        (Method::POST, &format!("{BASE}/chats")),
    ] {
        let answer = api.send(api.request(method.clone(), path)).await;
        assert_eq!(answer.status, 405, "{method} {path}: {}", answer.text);
        answer.refused(405, "MethodNotAllowed");
    }
}
