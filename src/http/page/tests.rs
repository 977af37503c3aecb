use super::*;
use crate::{model::object::Key, store::lists::Updated};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use uuid::Uuid;

fn query(pairs: &[(&str, &str)]) -> Result<Wanted, ApiError> {
    let map: serde_json::Map<_, _> = pairs.iter().map(|(key, value)| ((*key).to_owned(), serde_json::json!(value))).collect();
    let query: ListQuery = serde_json::from_value(serde_json::Value::Object(map)).expect("a query");
    query.read(Resource::Chats, Some("team-a"))
}

fn token(of: &[(&str, &str)], after: Place) -> String {
    Continue::after(after, 17 << 44, &query(of).expect("a list")).encode()
}

fn fix() -> Place {
    Place::Name(Key::new("team-a", "fix"))
}

#[test]
fn a_token_leads_to_what_comes_after_the_last_object_and_carries_the_first_pages_version() {
    let wanted = query(&[("limit", "2"), ("continue", &token(&[], fix()))]).expect("a page");
    let continued = wanted.continued.expect("the token");
    assert_eq!((continued.after, continued.rv), (fix(), 17 << 44));
    let changed = Updated { at: "2026-11-21T11:00:00.123456Z".parse().expect("a time"), id: Uuid::max() };
    let list = [("orderBy", "-updated")];
    let token = token(&list, Place::Updated(changed));
    let continued = query(&[list[0], ("continue", &token)]).expect("a page").continued.expect("the token");
    assert_eq!(continued.after, Place::Updated(changed));
}

#[test]
fn what_is_not_served_is_refused_and_never_ignored() {
    for (key, value) in [
        ("labelSelector", "a b"),
        ("fieldSelector", "spec.title=x"),
        ("fieldSelector", "nonsense"),
        ("limit", "-1"),
        ("limit", "many"),
        ("continue", "garbage"),
        ("orderBy", "updated"),
        ("orderBy", "-name"),
        ("resourceVersion", "many"),
        ("resourceVersion", "010"),
    ] {
        let refused = query(&[(key, value)]).expect_err(value);
        assert!(refused.message().starts_with(key), "{}", refused.message());
    }
}

#[test]
fn a_token_of_another_list_is_refused_with_what_is_different() {
    let list = [("labelSelector", "a=b"), ("orderBy", "name")];
    let token = token(&list, fix());
    assert!(query(&[list[0], ("continue", &token)]).is_ok());
    for (other, wanted) in [
        (&[("labelSelector", "a=c")][..], "other selectors"),
        (&[("fieldSelector", "a=b")], "fieldSelector"),
        (&[], "other selectors"),
        (&[list[0], ("orderBy", "-updated")], "orderBy=name, and this one has -updated"),
    ] {
        let refused = query(&[other, &[("continue", token.as_str())]].concat()).expect_err(wanted);
        assert!(refused.message().contains(wanted), "{}", refused.message());
    }
    for (resource, namespace, wanted) in [
        (Resource::Chats, Some("team-b"), "chats of namespace \"team-a\", and this is one of chats of namespace \"team-b\""),
        (Resource::Chats, None, "this is one of chats of every namespace"),
        (Resource::Agents, Some("team-a"), "this is one of agents of namespace"),
    ] {
        let query = ListQuery { label_selector: Some("a=b".into()), continue_: Some(token.clone()), ..ListQuery::default() };
        let refused = query.read(resource, namespace).expect_err(wanted);
        assert!(refused.message().starts_with("continue:") && refused.message().contains(wanted), "{}", refused.message());
    }
}

#[test]
fn only_chats_know_when_they_were_changed() {
    for resource in [Resource::Agents, Resource::AgentSnapshots] {
        let query = ListQuery { order_by: Some("-updated".into()), ..ListQuery::default() };
        let refused = query.read(resource, None).expect_err("no time of change");
        assert!(refused.message().starts_with("orderBy:") && refused.message().contains(resource.plural()), "{refused:?}");
    }
}

#[test]
fn how_new_a_list_must_be_is_asked_as_of_a_kube_apiserver() {
    for (asked, since) in [
        (&[][..], Since::Now),
        (&[("resourceVersion", "0")], Since::Now),
        (&[("resourceVersion", "0"), ("resourceVersionMatch", "NotOlderThan")], Since::Now),
        (&[("resourceVersion", "10")], Since::NotOlderThan(5)),
        (&[("resourceVersion", "11"), ("limit", "1")], Since::NotOlderThan(5)),
        (&[("resourceVersion", "11"), ("resourceVersionMatch", "NotOlderThan")], Since::NotOlderThan(5)),
        (&[("resourceVersion", "11"), ("resourceVersionMatch", "Exact")], Since::Exact(5)),
    ] {
        assert_eq!(query(asked).expect("a list").since, since, "{asked:?}");
    }
    let token = token(&[], fix());
    for (asked, code, said) in [
        (&[("resourceVersionMatch", "Exact")][..], 422, "forbidden unless resourceVersion is provided"),
        (&[("resourceVersion", "0"), ("resourceVersionMatch", "Exact")], 422, "forbidden for resourceVersion"),
        (&[("resourceVersion", "11"), ("resourceVersionMatch", "Newest")], 422, "Exact or NotOlderThan, got \"Newest\""),
        (
            &[("resourceVersion", "0"), ("resourceVersionMatch", "NotOlderThan"), ("continue", &token)],
            422,
            "forbidden when continue is provided",
        ),
        (&[("sendInitialEvents", "true")], 422, "sendInitialEvents is forbidden for list"),
        (&[("resourceVersion", "11"), ("continue", &token)], 400, "not allowed when using continue"),
    ] {
        let refused = query(asked).expect_err(said);
        assert_eq!(refused.code(), code, "{}", refused.message());
        assert!(refused.message().contains(said), "{}", refused.message());
    }
    assert!(query(&[("resourceVersion", "0"), ("continue", &token)]).is_ok());
}

#[test]
fn versions_are_even_on_objects_and_odd_on_lists() {
    assert_eq!((object_version(5), list_version(5)), ("10".into(), "11".into()));
    assert_eq!(parse_object_version("10"), Ok(5));
    for bad in ["-2", "x", "", "1e3", "+10"] {
        assert!(parse_object_version(bad).is_err(), "{bad}");
    }
    for strange in ["1", "11", "010", &u64::MAX.to_string(), &"9".repeat(99)] {
        assert_eq!(parse_object_version(strange), Ok(NO_OBJECT), "{strange}");
    }
    assert_eq!(parse_object_version(&object_version(i64::MAX)), Ok(i64::MAX));
}

/// Found by the fuzz target `cursors`: the database has no such time, and answered with an error of its own (500).
#[test]
fn a_token_that_this_server_would_not_write_is_refused() {
    let list = [("orderBy", "-updated")];
    let page = |text: &[u8]| query(&[list[0], ("continue", &URL_SAFE_NO_PAD.encode(text))]);
    let written = |rv: &str, at: &str| {
        format!(
            r#"{{"v":2,"rv":{rv},"of":{{"kind":"chats","namespace":"team-a"}},"after":{{"updated":["{at}","{}"]}}}}"#,
            Uuid::max()
        )
    };
    let ours = written("7", "2026-11-21T11:00:00.123456Z");
    assert!(page(ours.as_bytes()).is_ok(), "{ours}");
    for forged in [
        written("7", "-009999-01-02T01:59:59Z"),
        written("7", "2026-11-21T11:00:00.1234567Z"),
        written("-7", "2026-11-21T11:00:00.123456Z"),
        written("7", "2026-11-21T12:00:00.123456+01:00"),
        ours.replace("\"v\":2", "\"v\": 2"),
    ] {
        let refused = page(forged.as_bytes()).expect_err(&forged);
        assert!(refused.message().contains("not a token of this server"), "{}", refused.message());
    }
}
