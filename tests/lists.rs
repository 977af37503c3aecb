//! Lists: pages, orders, whose they are, and tokens, as api.md §2 says them. What selectors select is in `selectors`; what a page
//! costs is in `lists_cost`.

use crate::support::{
    api::{Api, Caller, NAMESPACE, file, settled},
    postgres::{TestDb, database},
    stream::all_readable,
};
use moorline::store::log;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const BASE: &str = "/apis/moorline.dev/v1alpha1";
const UPDATED: &str = "orderBy=-updated";

fn names(list: &Value) -> Vec<String> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

fn token(list: &Value) -> Option<&str> {
    list["metadata"]["continue"].as_str()
}

async fn chat(api: &Caller, namespace: &str, name: &str, spec: Value) {
    let body = json!({"metadata": {"name": name}, "spec": spec});
    let path = format!("{BASE}/namespaces/{namespace}/chats");
    api.send(api.request(reqwest::Method::POST, &path).header("prefer", "respond-async").json(&body)).await.expect(201);
}

/// All pages of a list, with what happens between them.
async fn pages(api: &Caller, path: &str, query: &str, mut between: impl AsyncFnMut(usize)) -> Vec<Value> {
    let mut pages: Vec<Value> = Vec::new();
    loop {
        let more = pages.last().and_then(token).map(|token| format!("&continue={token}")).unwrap_or_default();
        let page = api.get(&format!("{BASE}/{path}?{query}{more}")).await.expect(200);
        let is_last = token(&page).is_none();
        assert!(pages.len() < 100, "there is no end of pages: {path}?{query}");
        pages.push(page);
        if is_last {
            return pages;
        }
        between(pages.len()).await;
    }
}

#[tokio::test]
async fn who_stays_is_seen_once_and_nobody_twice_while_chats_come_and_go_between_the_pages() {
    let db = database().await;
    let api = Api::start(&db).await;
    for (query, path) in [
        ("limit=3", "chats"),
        ("limit=3", "namespaces/team-a/chats"),
        ("limit=3&orderBy=name&fieldSelector=spec.owner%3Dalice", "chats"),
        ("limit=3&orderBy=-updated", "chats"),
        ("limit=3&orderBy=-updated", "namespaces/team-a/chats"),
        ("limit=3&orderBy=-updated&fieldSelector=spec.owner%3Dalice", "chats"),
    ] {
        sqlx::query("DELETE FROM chats").execute(&db.pool).await.unwrap();
        let spec = json!({"owner": "alice"});
        let (mut stay, mut gone) = (BTreeSet::new(), Vec::new());
        for n in 0..20 {
            let namespace = if n % 4 == 3 && path == "chats" { "team-b" } else { "team-a" };
            let name = format!("chat-{n:02}");
            chat(&api, namespace, &name, spec.clone()).await;
            if n % 5 == 2 {
                gone.push((namespace, name));
            } else {
                stay.insert(name);
            }
        }
        let found = pages(&api, path, query, async |page| {
            // Before and after every place that a page may have ended at.
            for n in [0, 5, 9, 14, 19] {
                chat(&api, "team-a", &format!("chat-{n:02}-new-{page}"), spec.clone()).await;
            }
            if let Some((namespace, name)) = gone.pop() {
                api.delete(&format!("{BASE}/namespaces/{namespace}/chats/{name}")).await.expect(200);
            }
        })
        .await;
        let (last, full) = found.split_last().unwrap();
        assert!(full.iter().all(|page| names(page).len() == 3), "a page is full unless it is the last: {path}?{query}");
        assert!(!names(last).is_empty(), "and the last is not empty, because the one before knew of more: {path}?{query}");
        let seen: Vec<String> = found.iter().flat_map(names).collect();
        let distinct: BTreeSet<String> = seen.iter().cloned().collect();
        assert_eq!(seen.len(), distinct.len(), "nobody twice: {path}?{query}: {seen:?}");
        assert_eq!(stay.difference(&distinct).collect::<Vec<_>>(), Vec::<&String>::new(), "nobody missed: {path}?{query}");
        let versions: BTreeSet<&str> = found.iter().map(|page| page["metadata"]["resourceVersion"].as_str().unwrap()).collect();
        assert_eq!(versions.len(), 1, "every page has the version of the first");
        assert!(found.iter().all(|page| page["metadata"].get("remainingItemCount").is_none()), "nobody counts the rest");
    }
}

#[tokio::test]
async fn by_minus_updated_comes_first_what_a_person_or_a_runner_changed_last_and_converging_moves_nothing() {
    let db = database().await;
    let api = Api::start(&db).await;
    let run = api.running_agent("ws").await;
    api.pushed(&run, 1, json!([file("AGENTS.md", "one")])).await;
    for name in ["a", "b", "c"] {
        api.create_chat(name, json!({"agentRef": {"name": "ws"}})).await;
    }
    let listed = async || names(&api.get(&format!("chats?{UPDATED}")).await.expect(200));
    assert_eq!(listed().await, ["c", "b", "a"], "the newest first");
    api.patch("chats/a", &json!({"spec": {"title": "again"}})).await.expect(200);
    assert_eq!(listed().await, ["a", "c", "b"], "a person changed it");
    api.patch("chats/b/status", &json!({"status": {"state": "Running"}})).await.expect(200);
    assert_eq!(listed().await, ["b", "a", "c"], "a runner reported");
    api.pushed(&run, 2, json!([file("AGENTS.md", "two")])).await;
    settled(&db).await;
    let dirty = api.get("chats?fieldSelector=status.dirty%3Dtrue").await.expect(200);
    assert_eq!(names(&dirty), ["a", "b", "c"], "all have drifted");
    assert_eq!(listed().await, ["b", "a", "c"], "and that has moved none of them");
    let page = pages(&api, "namespaces/team-a/chats", &format!("{UPDATED}&limit=1"), async |_| {}).await;
    assert_eq!(page.iter().flat_map(names).collect::<Vec<_>>(), ["b", "a", "c"], "page by page too");
    assert_eq!(names(&api.get("chats?orderBy=name").await.expect(200)), ["a", "b", "c"]);
}

#[tokio::test]
async fn many_that_changed_at_one_time_are_paged_in_the_order_of_their_ids() {
    let db = database().await;
    let api = Api::start(&db).await;
    for n in 0..10 {
        chat(&api, NAMESPACE, &format!("c{n}"), json!({})).await;
    }
    settled(&db).await;
    sqlx::query("UPDATE chats SET updated_at = '2026-11-21 11:00:00.123456+00'").execute(&db.pool).await.unwrap();
    let found = pages(&api, "chats", &format!("{UPDATED}&limit=3"), async |_| {}).await;
    let mut wanted: Vec<String> = (0..10).map(|n| format!("c{n}")).collect();
    wanted.reverse();
    assert_eq!(found.iter().flat_map(names).collect::<Vec<_>>(), wanted);
}

#[tokio::test]
async fn a_list_without_a_limit_is_whole_in_either_order() {
    let db = database().await;
    let api = Api::start(&db).await;
    sqlx::query(
        "INSERT INTO chats (namespace, id, name, rv, owner, root_id, created_by, created_at, updated_at, converged_revision)
         SELECT 'team-' || n % 3, id, 'chat-' || lpad(n::text, 4, '0'), log_rv(), 'alice', id, 'x', now(), now() - n * interval '1 s', 1
         FROM (SELECT n, gen_random_uuid() AS id FROM generate_series(0, 1233) n) x",
    )
    .execute(&db.pool)
    .await
    .unwrap();
    for query in ["", "orderBy=-updated", "limit=1234", "limit=1000000&orderBy=-updated", "limit=0"] {
        let list = api.get(&format!("{BASE}/chats?{query}")).await.expect(200);
        let mut found = names(&list);
        if query.contains(UPDATED) {
            assert!(found.is_sorted(), "the last changed first: {query}");
        }
        found.sort();
        found.dedup();
        assert_eq!((found.len(), token(&list)), (1234, None), "{query}");
    }
    let page = api.get(&format!("{BASE}/chats?limit=1200")).await.expect(200);
    assert_eq!((names(&page).len(), token(&page).is_some()), (1200, true), "a page may be longer than what is read at once");
}

#[tokio::test]
async fn another_namespace_in_the_selector_than_in_the_path_finds_nothing() {
    let db = database().await;
    let api = Api::start(&db).await;
    let run = api.running_agent("ws").await;
    api.pushed(&run, 1, json!([file("AGENTS.md", "one")])).await;
    for namespace in [NAMESPACE, "elsewhere"] {
        chat(&api, namespace, "fix", json!({})).await;
    }
    for kind in ["chats", "agents", "agentsnapshots"] {
        for (selector, found) in [("elsewhere", 0), (NAMESPACE, 1), ("", 0)] {
            let path = format!("{kind}?fieldSelector=metadata.namespace%3D{selector}");
            assert_eq!(names(&api.get(&path).await.expect(200)).len(), found, "{path}");
        }
    }
    for order in ["name", "-updated"] {
        let named = format!("chats?orderBy={order}&fieldSelector=metadata.name%3Dfix,metadata.namespace%3Delsewhere");
        assert_eq!(names(&api.get(&named).await.expect(200)), Vec::<String>::new(), "{named}");
        let everywhere = format!("{BASE}/{named}");
        assert_eq!(names(&api.get(&everywhere).await.expect(200)), ["fix"], "{everywhere}");
    }
    let both = format!("{BASE}/chats?fieldSelector=metadata.namespace%3D{NAMESPACE},metadata.namespace%3Delsewhere");
    assert_eq!(names(&api.get(&both).await.expect(200)), Vec::<String>::new());
    let not = format!("{BASE}/chats?fieldSelector=metadata.namespace!%3D{NAMESPACE}");
    assert_eq!(api.get(&not).await.expect(200)["items"][0]["metadata"]["namespace"], "elsewhere");
    // A watch begins with the same list.
    let watch = "watch=1&timeoutSeconds=1&fieldSelector=metadata.namespace%3Delsewhere";
    assert_eq!(api.get(&format!("chats?{watch}")).await.text, "");
    assert!(api.get(&format!("{BASE}/chats?{watch}")).await.text.contains("\"fix\""));
}

#[tokio::test]
async fn a_user_reaches_own_chats_own_agents_and_the_snapshots_of_own_agents_and_pages_are_full_of_them() {
    let db = database().await;
    let api = Api::with_tokens(&db, "a,alice,1\nb,bob,2\nroot,admin,3,\"system:masters\"\n").await;
    let (alice, bob, admin) = (api.as_token("a"), api.as_token("b"), api.as_token("root"));
    for n in 0..8 {
        let (caller, user, agent) =
            if n % 2 == 0 { (&alice, "alice", format!("hers-{n}")) } else { (&bob, "bob", format!("his-{n}")) };
        admin.create_agent(&agent, json!({"workspace": "ws", "serviceAccountName": user})).await;
        let run = caller.register_run(&agent).await;
        caller.pushed(&run, 1, json!([file("AGENTS.md", &agent)])).await;
        caller.create_chat(&agent, json!({"agentRef": {"name": agent}})).await;
    }
    for (kind, query) in [
        ("chats", ""),
        ("chats", "&orderBy=-updated"),
        ("chats", "&fieldSelector=status.state%3DWaiting"),
        ("chats", "&fieldSelector=spec.archived%3Dfalse"),
        ("chats", "&fieldSelector=status.dirty%3Dfalse"),
        ("chats", "&labelSelector=%21x"),
        ("agents", ""),
        ("agents", "&fieldSelector=spec.workspace%3Dws"),
        ("agentsnapshots", ""),
        ("agentsnapshots", "&labelSelector=moorline.dev/agent"),
    ] {
        for path in [kind.to_owned(), format!("namespaces/{NAMESPACE}/{kind}")] {
            for (caller, whose) in [(&alice, "hers-"), (&bob, "his-")] {
                let found = pages(caller, &path, &format!("limit=3{query}"), async |_| {}).await;
                let sizes: Vec<usize> = found.iter().map(|page| names(page).len()).collect();
                assert_eq!(sizes, [3, 1], "{path} {query}");
                let all: Vec<String> = found.iter().flat_map(names).collect();
                assert!(all.iter().all(|name| name.starts_with(whose)), "{path} {query}: {all:?}");
            }
            let all = pages(&admin, &path, &format!("limit=3{query}"), async |_| {}).await;
            assert_eq!(all.iter().map(|page| names(page).len()).collect::<Vec<_>>(), [3, 3, 2], "{path} {query}");
        }
    }
    for (kind, selector) in [
        ("chats", "fieldSelector=spec.owner%3Dalice"),
        ("chats", "fieldSelector=spec.agentRef.name%3Dhers-0"),
        ("agents", "fieldSelector=metadata.name%3Dhers-0"),
        ("agentsnapshots", "fieldSelector=spec.agentRef.name%3Dhers-0"),
        ("agentsnapshots", "labelSelector=moorline.dev/agent%3Dhers-0"),
    ] {
        let asked = format!("{BASE}/{kind}?{selector}");
        assert_eq!(names(&bob.get(&asked).await.expect(200)), Vec::<String>::new(), "{asked}");
        assert!(!names(&alice.get(&asked).await.expect(200)).is_empty(), "{asked}");
    }
}

#[tokio::test]
async fn snapshots_are_found_by_their_agent_by_field_and_by_label() {
    let db = database().await;
    let api = Api::start(&db).await;
    for name in ["ws", "ws-2"] {
        let run = api.running_agent(name).await;
        for seq in 1..=3 {
            api.pushed(&run, seq, json!([file("AGENTS.md", &format!("{name} {seq}"))])).await;
        }
    }
    for (query, found) in [
        ("fieldSelector=spec.agentRef.name%3Dws", 3),
        ("labelSelector=moorline.dev/agent%3Dws", 3),
        ("labelSelector=moorline.dev/agent+in+%28ws%29", 3),
        ("labelSelector=moorline.dev/agent+in+%28ws,ws-2%29", 6),
        ("labelSelector=moorline.dev/agent%3Dws,moorline.dev/agent%3Dws-2", 0),
        ("fieldSelector=spec.agentRef.name%3Dws&labelSelector=moorline.dev/agent%3Dws-2", 0),
        ("fieldSelector=spec.agentRef.name%3Dws&labelSelector=moorline.dev/agent!%3Dws-2", 3),
    ] {
        let list = api.get(&format!("agentsnapshots?{query}")).await.expect(200);
        assert_eq!(names(&list).len(), found, "{query}");
        let items = list["items"].as_array().unwrap();
        assert!(items.iter().all(|item| item["spec"]["resources"].as_array().is_some_and(|all| all.len() == 1)), "{query}");
    }
}

#[tokio::test]
async fn a_token_is_good_for_its_own_list_only_and_says_what_is_different() {
    let db = database().await;
    let api = Api::start(&db).await;
    for n in 0..4 {
        chat(&api, NAMESPACE, &format!("c{n}"), json!({"owner": "alice"})).await;
        api.create_agent(&format!("a{n}"), json!({})).await;
    }
    let first = async |query: &str| {
        let list = api.get(&format!("chats?limit=2&{query}")).await.expect(200);
        token(&list).expect("there are more").to_owned()
    };
    let (by_name, by_change) = (first("").await, first(UPDATED).await);
    let owned = first("fieldSelector=spec.owner%3Dalice").await;
    for (path, said) in [
        (format!("chats?{UPDATED}&continue={by_name}"), "orderBy=name, and this one has -updated"),
        (format!("chats?continue={by_change}"), "orderBy=-updated, and this one has name"),
        (format!("chats?fieldSelector=spec.owner%3Dalice&continue={by_name}"), "other selectors"),
        (format!("chats?fieldSelector=spec.owner%3Dbob&continue={owned}"), "other selectors"),
        (format!("chats?labelSelector=spec.owner%3Dalice&continue={owned}"), "other selectors"),
        (format!("{BASE}/chats?continue={by_name}"), "of namespace \"team-a\", and this is one of chats of every namespace"),
        (format!("{BASE}/namespaces/team-b/chats?continue={by_name}"), "this is one of chats of namespace \"team-b\""),
        (format!("agents?continue={by_name}"), "is of a list of chats"),
        (format!("chats?continue={}", &by_name[1..]), "not a token of this server"),
        (format!("chats?continue={by_name}&resourceVersion=5"), "not allowed when using continue"),
    ] {
        let refused = api.get(&path).await.refused(400, "BadRequest");
        assert!(refused.message.contains(said), "{path}: {}", refused.message);
    }
    // Another limit is another page of the same list, and so is version 0.
    for more in ["limit=1", "resourceVersion=0&limit=1", "orderBy=name&limit=1"] {
        assert_eq!(names(&api.get(&format!("chats?{more}&continue={by_name}")).await.expect(200)), ["c2"], "{more}");
    }
    for (kind, order) in [("agents", "-updated"), ("agentsnapshots", "-updated"), ("chats", "updated"), ("chats", "-name")] {
        let refused = api.get(&format!("{kind}?orderBy={order}")).await.refused(400, "BadRequest");
        assert!(refused.message.starts_with("orderBy:"), "{}", refused.message);
    }
}

#[tokio::test]
async fn a_token_from_before_the_log_or_from_another_log_is_expired() {
    let db = database().await;
    let api = Api::start(&db).await;
    for n in 0..3 {
        chat(&api, NAMESPACE, &format!("c{n}"), json!({})).await;
    }
    settled(&db).await;
    let first = api.get("chats?limit=1").await.expect(200);
    let path = format!("chats?limit=1&continue={}", token(&first).expect("there are more"));
    assert_eq!(names(&api.get(&path).await.expect(200)), ["c1"]);
    log::bump(&mut db.pool.acquire().await.unwrap(), true).await.unwrap();
    let refused = api.get(&path).await.refused(410, "Expired");
    assert!(refused.message.contains("continue"), "{}", refused.message);
}

/// The version of a list, of a chat, and of nothing yet.
async fn versions(api: &Caller) -> (i128, i128) {
    let of = |object: &Value| object["metadata"]["resourceVersion"].as_str().unwrap().parse::<i128>().unwrap();
    (of(&api.get("chats").await.expect(200)), of(&api.chat("c0").await))
}

#[tokio::test]
async fn how_new_a_list_must_be_is_asked_and_refused_as_by_a_kube_apiserver() {
    let db = database().await;
    let api = Api::start(&db).await;
    for n in 0..3 {
        chat(&api, NAMESPACE, &format!("c{n}"), json!({})).await;
    }
    settled(&db).await;
    all_readable(&db).await;
    let (list, object) = versions(&api).await;
    let old = list - 2;
    for query in [
        "resourceVersion=".to_owned(),
        "resourceVersion=0".to_owned(),
        "resourceVersion=0&resourceVersionMatch=NotOlderThan".to_owned(),
        format!("resourceVersion={list}"),
        format!("resourceVersion={object}"),
        format!("resourceVersion={old}&limit=500"),
        "resourceVersion=1".to_owned(),
        format!("resourceVersion={list}&resourceVersionMatch=NotOlderThan"),
        format!("resourceVersion={list}&resourceVersionMatch=Exact"),
        format!("resourceVersion={list}&resourceVersionMatch=Exact&limit=500"),
    ] {
        let answer = api.get(&format!("chats?{query}")).await.expect(200);
        assert_eq!(names(&answer), ["c0", "c1", "c2"], "{query}");
        assert_eq!(answer["metadata"]["resourceVersion"], list.to_string(), "{query}");
    }
    for (query, field) in [
        ("resourceVersionMatch=Exact", "resourceVersionMatch"),
        ("resourceVersionMatch=NotOlderThan", "resourceVersionMatch"),
        ("resourceVersion=0&resourceVersionMatch=Exact", "resourceVersionMatch"),
        ("resourceVersion=1&resourceVersionMatch=Newest", "resourceVersionMatch"),
        ("sendInitialEvents=true", "sendInitialEvents"),
    ] {
        for kind in ["chats", "agents", "agentsnapshots"] {
            assert_eq!(api.get(&format!("{kind}?{query}")).await.refused(422, "Invalid").fields(), [field], "{kind}?{query}");
        }
    }
    for bad in ["resourceVersion=many", "resourceVersion=-1", "resourceVersion=01"] {
        let refused = api.get(&format!("chats?{bad}")).await.refused(400, "BadRequest");
        assert!(refused.message.starts_with("resourceVersion:"), "{}", refused.message);
    }
    let future = api.get(&format!("chats?resourceVersion={}", list + (1 << 20))).await.refused(504, "Timeout");
    assert_eq!(future.cause("ResourceVersionTooLarge").field, "");
    assert!(future.message.contains(&list.to_string()), "{}", future.message);
    let past = format!("chats?resourceVersion={old}&resourceVersionMatch=Exact");
    api.get(&past).await.refused(410, "Expired");
    // What was exact is not any more, once something is written.
    api.patch("chats/c0", &json!({"spec": {"title": "again"}})).await.expect(200);
    api.get(&format!("chats?resourceVersion={list}&resourceVersionMatch=Exact")).await.refused(410, "Expired");
}

#[tokio::test]
async fn a_list_waits_for_the_version_it_is_asked_for_while_an_older_writer_is_open() {
    let db = database().await;
    let api = Api::start(&db).await;
    let open = held_back(&db).await;
    chat(&api, NAMESPACE, "c0", json!({})).await;
    let (list, object) = versions(&api).await;
    assert!(list < object, "the list's version is held back");
    let path = format!("chats?resourceVersion={object}");
    api.get(&path).await.refused(504, "Timeout");
    let asked = tokio::spawn({
        let api = (*api).clone();
        async move { api.get(&path).await }
    });
    open.rollback().await.unwrap();
    let answer = asked.await.unwrap().expect(200);
    assert!(answer["metadata"]["resourceVersion"].as_str().unwrap().parse::<i128>().unwrap() > object);
}

/// A writer that began and does not end.
async fn held_back(db: &TestDb) -> sqlx::Transaction<'static, sqlx::Postgres> {
    let mut tx = db.pool.begin().await.unwrap();
    sqlx::query("SET LOCAL idle_in_transaction_session_timeout = 0").execute(&mut *tx).await.unwrap();
    sqlx::query("SELECT log_rv()").execute(&mut *tx).await.unwrap();
    tx
}
