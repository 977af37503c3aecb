//! What one row of the log means for a watcher, by what its object was before and is now.

use super::*;
use crate::{
    model::{
        agent::{Agent as Record, AgentSpec, AgentView},
        condition::Conditions,
        event::EventKind,
        object::{DeletionPolicy, Metadata, Progress, Source, TextMap},
    },
    store::events::Befores,
};
use serde_json::{Value, json};

const AGENT: Uuid = Uuid::from_u128(1);
/// Of whoever has followed the tail all the time.
const START: Cursor = Cursor::START;
/// Nothing is open below it.
const HORIZON: i64 = 100;

/// An agent as it stands: of which colour, and whose.
fn agent(rv: i64, colour: &str, owner: &str) -> Object {
    let meta = Metadata {
        namespace: "team-a".into(),
        id: AGENT,
        name: "ws".into(),
        labels: [("colour".to_owned(), colour.to_owned())].into(),
        annotations: TextMap::new(),
        generation: 1,
        rv,
        created_at: jiff::Timestamp::UNIX_EPOCH,
    };
    let spec = AgentSpec {
        workspace: None,
        build: None,
        service_account: Some(owner.to_owned()),
        suspend: false,
        revision_history_limit: 10,
        deletion_policy: DeletionPolicy::Delete,
    };
    let record = Record {
        meta,
        spec,
        deletion_timestamp: None,
        source: Source::Api,
        paused: false,
        run: None,
        seq: 0,
        phase: None,
        latest: None,
        latest_error: String::new(),
        refresh_requested: None,
        refresh_handled: None,
        reconcile_handled: None,
        progress: Progress::default(),
        conditions: Conditions::default(),
    };
    Object::Agent(Box::new(AgentView { agent: record, latest: None }))
}

/// A row about it.
fn row(rv: i64, kind: EventKind, before: &Value) -> Logged {
    Logged {
        cursor: Cursor { rv, seq: 1 },
        namespace: "team-a".into(),
        kind,
        subject: Some(AGENT),
        name: "ws".into(),
        chat: None,
        agent: Some(AGENT),
        payload: json!({"before": before}),
        at: jiff::Timestamp::UNIX_EPOCH,
    }
}

fn created(rv: i64) -> Logged {
    row(rv, EventKind::AgentCreated, &json!({}))
}

fn updated(rv: i64, before: &Value) -> Logged {
    row(rv, EventKind::AgentUpdated, before)
}

/// What a tail makes of a row while the object stands so, and nobody can say what became of it in between.
fn tail(row: &Logged, now: Option<Object>, missed: &mut Missed) -> Option<Change> {
    tail_before(row, now, &[], missed)
}

/// The same, before these rows.
fn tail_before(row: &Logged, now: Option<Object>, later: &[Logged], missed: &mut Missed) -> Option<Change> {
    let mut story = Story::default();
    for later in later {
        story.add(later);
    }
    tail_of(row, now, story, missed)
}

/// The same, of an object with this story.
fn tail_of(row: &Logged, now: Option<Object>, story: Story, missed: &mut Missed) -> Option<Change> {
    let gone = match &now {
        Some(last) if row.kind == EventKind::AgentDeleted => Gone::As(Box::new(last.clone())),
        Some(_) | None => Gone::No,
    };
    let objects = now.into_iter().filter(|_| matches!(gone, Gone::No)).map(|object| (object.id(), object)).collect();
    resolve(row, gone, HORIZON, &objects, &HashMap::from([(Id::Agent(AGENT), story)]), missed)
}

/// A later row brings it.
fn passes(change: Option<Change>) -> bool {
    change.is_none_or(|change| change.passed)
}

/// The same, of a row that is told.
fn resolved(row: &Logged, now: Object) -> Change {
    tail(row, Some(now), &mut Missed::default()).expect("something to tell")
}

fn red(look: &Look) -> bool {
    look.labels.get("colour").is_some_and(|colour| colour == "red")
}

fn any(_: &Look) -> bool {
    true
}

fn own(user: &str) -> Reach {
    Reach::Own(user.to_owned())
}

fn was(colour: &str) -> Value {
    json!({"labels": {"colour": colour}})
}

#[test]
fn what_a_selector_selected_before_and_selects_now_decides_what_is_told() {
    let told = |before: &str, now: &str| {
        resolved(&updated(7, &was(before)), agent(7, now, "alice")).told(&[], START, &Reach::Everything, red)
    };
    assert_eq!(told("blue", "red"), Some(Told::Added), "it comes into view");
    assert_eq!(told("red", "blue"), Some(Told::Deleted), "it goes out of view");
    assert_eq!(told("blue", "green"), None, "it was not in view and is not");
    let kept = resolved(&updated(7, &json!({})), agent(7, "red", "alice"));
    assert_eq!(kept.told(&[], START, &Reach::Everything, red), Some(Told::Modified), "it stays in view");
    let kept = resolved(&updated(7, &json!({})), agent(7, "blue", "alice"));
    assert_eq!(kept.told(&[], START, &Reach::Everything, red), None, "it stays out of view");
}

#[test]
fn what_is_created_is_added_and_only_to_those_who_see_it() {
    let change = resolved(&created(7), agent(7, "red", "alice"));
    assert_eq!(change.told(&[], START, &Reach::Everything, red), Some(Told::Added));
    assert_eq!(change.told(&[], START, &Reach::Everything, |look| !red(look)), None);
    assert_eq!(change.told_to_all(&[], START), Told::Added);
}

#[test]
fn what_is_deleted_is_told_to_those_who_saw_it_at_last() {
    let change = resolved(&row(7, EventKind::AgentDeleted, &json!({})), agent(6, "red", "alice"));
    assert!(change.gone);
    assert_eq!(change.told(&[], START, &Reach::Everything, red), Some(Told::Deleted));
    assert_eq!(change.told(&[], START, &Reach::Everything, |look| !red(look)), None);
    assert_eq!(change.told_to_all(&[], START), Told::Deleted);
}

#[test]
fn an_agent_that_changes_hands_goes_from_one_owner_and_comes_to_the_other() {
    let change = resolved(&updated(7, &json!({"serviceAccount": "alice"})), agent(7, "red", "bob"));
    assert_eq!(change.told(&[], START, &own("alice"), any), Some(Told::Deleted), "alice may see it no more");
    assert_eq!(change.told(&[], START, &own("bob"), any), Some(Told::Added));
    assert_eq!(change.told(&[], START, &own("carol"), any), None, "carol never could");
    // From nobody's.
    let from_nobody = resolved(&updated(7, &json!({"serviceAccount": null})), agent(7, "red", "alice"));
    assert_eq!(from_nobody.told(&[], START, &own("alice"), any), Some(Told::Added));
}

#[test]
fn selection_and_authorization_must_both_hold_before_and_now() {
    let told = |before: &Value, now: Object| resolved(&updated(7, before), now).told(&[], START, &own("alice"), red);
    let other = json!({"labels": {"colour": "blue"}, "serviceAccount": "bob"});
    assert_eq!(told(&other, agent(7, "red", "alice")), Some(Told::Added));
    assert_eq!(told(&was("red"), agent(7, "blue", "bob")), None, "bob's it was all the time");
    assert_eq!(told(&json!({"serviceAccount": "bob"}), agent(7, "blue", "alice")), None, "blue it was all the time");
    let was_ours = json!({"labels": {"colour": "red"}, "serviceAccount": "alice"});
    assert_eq!(told(&was_ours, agent(7, "blue", "bob")), Some(Told::Deleted));
}

#[test]
fn a_row_that_a_later_one_has_overtaken_is_not_told_and_what_it_says_was_before_is_not_lost() {
    let mut missed = Missed::default();
    // red → blue at 5, blue → green at 7; read when it is green already.
    let now = || Some(agent(7, "green", "alice"));
    assert!(passes(tail(&updated(5, &was("red")), now(), &mut missed)), "the later row brings it");
    let change = tail(&updated(7, &was("blue")), now(), &mut missed).expect("the later row");
    assert_eq!(change.told(&[], START, &Reach::Everything, red), Some(Told::Deleted), "a watcher may know it as red");
    assert_eq!(change.told(&[], START, &Reach::Everything, |look| look.labels["colour"] == "green"), Some(Told::Added));
    assert_eq!(change.told(&[], START, &Reach::Everything, |look| look.labels["colour"] == "yellow"), None);
    assert_eq!(change.told_to_all(&[], START), Told::Modified);
    assert!(missed.take(&Id::Agent(AGENT)).is_empty(), "it is told");
}

#[test]
fn what_was_created_and_changed_since_the_last_look_is_added_once() {
    let mut missed = Missed::default();
    let now = || Some(agent(7, "red", "alice"));
    assert!(passes(tail(&created(5), now(), &mut missed)));
    let change = tail(&updated(7, &was("blue")), now(), &mut missed).expect("the later row");
    assert_eq!(change.told(&[], START, &Reach::Everything, red), Some(Told::Added));
    assert_eq!(change.told_to_all(&[], START), Told::Added);
}

#[test]
fn what_was_shown_ahead_of_the_row_that_made_it_so_is_not_added_again() {
    let mut missed = Missed::default();
    // Created at 5; a transaction that is beyond the horizon when 5 is read has painted it red.
    let now = || Some(agent(HORIZON, "red", "alice"));
    let first = tail(&created(5), now(), &mut missed).expect("it does not wait");
    assert_eq!(
        (first.told_to_all(&[], START), first.told(&[], START, &Reach::Everything, red)),
        (Told::Added, Some(Told::Added))
    );
    let later = tail(&updated(HORIZON, &was("blue")), now(), &mut missed).expect("the later row");
    assert_eq!(later.told_to_all(&[], START), Told::Modified, "it was shown");
    assert_eq!(later.told(&[], START, &Reach::Everything, red), Some(Told::Modified), "it was shown red");
    // Somebody who was not shown it, because it was out of view.
    let mut missed = Missed::default();
    let first = tail(&created(5), Some(agent(HORIZON, "blue", "alice")), &mut missed).expect("it does not wait");
    assert_eq!(first.told(&[], START, &Reach::Everything, red), None);
    let later = tail(&updated(HORIZON, &was("blue")), now(), &mut missed).expect("the later row");
    assert_eq!(later.told(&[], START, &Reach::Everything, red), Some(Told::Added));
}

#[test]
fn what_was_created_before_a_watcher_joined_is_not_added_though_the_tail_has_not_told_it() {
    let mut missed = Missed::default();
    // The tail read both rows at once, and tells the later one only. A watcher with a list of version 5 has it in its list, and one
    // that read row 5 by itself, when 7 was beyond the horizon, was told.
    assert!(passes(tail(&created(5), Some(agent(7, "red", "alice")), &mut missed)));
    let change = tail(&updated(7, &was("blue")), Some(agent(7, "red", "alice")), &mut missed).expect("the later row");
    let joined = Cursor::through(5);
    assert_eq!(change.told_to_all(&[], joined), Told::Modified);
    assert_eq!(change.told(&[], joined, &Reach::Everything, any), Some(Told::Modified));
    assert_eq!(change.told_to_all(&[], START), Told::Added, "whoever was here all the time was not told yet");
    // One that read row 5 by itself when it was overtaken has missed it.
    let mut own = Missed::default();
    assert!(passes(tail(&created(5), Some(agent(7, "red", "alice")), &mut own)));
    let own = own.take(&Id::Agent(AGENT));
    assert_eq!(change.told_to_all(&own, joined), Told::Added);
    assert_eq!(change.told(&own, joined, &Reach::Everything, any), Some(Told::Added));
}

#[test]
fn whoever_has_to_let_go_learns_it_from_the_row_that_took_it_away_though_a_later_one_has_overtaken_it() {
    let mut missed = Missed::default();
    // red → green at 5, green → blue at 7; both are read at once, and a watcher of what is red is cut off between them.
    let now = || Some(agent(7, "blue", "alice"));
    let later = updated(7, &was("green"));
    let row = updated(5, &was("red"));
    let passed =
        tail_before(&row, now(), std::slice::from_ref(&later), &mut missed).expect("something for whoever knows it as red");
    assert!(passed.passed);
    assert_eq!(passed.told(&[], START, &Reach::Everything, red), Some(Told::Deleted));
    assert_eq!(passed.told(&[], START, &own("bob"), red), None, "who may not see it is told nothing");
    for colour in ["green", "blue"] {
        let selects = |look: &Look| look.labels["colour"] == colour;
        assert_eq!(
            passed.told(&[], START, &Reach::Everything, selects),
            None,
            "the later row brings it to whoever wants {colour}, or takes it away"
        );
    }
    // He comes back after 5: row 7 alone says nothing to him.
    let later = tail(&later, now(), &mut Missed::default()).expect("the later row");
    assert_eq!(later.told(&[], START, &Reach::Everything, red), None);
}

#[test]
fn whoever_has_to_let_go_learns_it_though_a_later_row_takes_it_out_of_his_view_once_more() {
    // It is red and alice's; bob has it at 5, and at 7 it is blue. Alice wants what is red.
    let now = || Some(agent(7, "blue", "bob"));
    let rows = [updated(5, &json!({"serviceAccount": "alice"})), updated(7, &was("red"))];
    let passed = tail_before(&rows[0], now(), &rows[1..], &mut Missed::default()).expect("something for alice");
    assert_eq!(passed.told(&[], START, &own("alice"), red), Some(Told::Deleted));
    assert_eq!(passed.told(&[], START, &own("bob"), red), None, "it has come into his view, and row 7 takes it out again");
    assert_eq!(
        passed.told(&[], START, &Reach::Everything, red),
        None,
        "row 7 takes it out of the view of who sees all that is red"
    );
    let later = tail(&rows[1], now(), &mut Missed::default()).expect("the later row");
    assert_eq!(later.told(&[], START, &own("alice"), red), None, "row 7 alone says nothing to alice");
    for reach in [own("bob"), Reach::Everything] {
        assert_eq!(later.told(&[], START, &reach, red), Some(Told::Deleted));
    }
}

#[test]
fn whoever_has_to_let_go_of_what_is_gone_by_now_learns_it_from_the_row_that_took_it_away() {
    // red → green at 5, green → blue at 6, gone at 7; a watcher of what is red is cut off after 5.
    let mut story = Story::default();
    story.last = Some(agent(6, "blue", "alice"));
    story.add(&updated(6, &was("green")));
    let passed = tail_of(&updated(5, &was("red")), None, story, &mut Missed::default()).expect("something for whoever knows it");
    assert_eq!(passed.told(&[], START, &Reach::Everything, red), Some(Told::Deleted));
    assert_eq!(passed.told(&[], START, &Reach::Everything, |look| look.labels["colour"] == "green"), None, "row 6 says it");
    assert_eq!(passed.told(&[], START, &Reach::Everything, |look| look.labels["colour"] == "blue"), None, "row 7 says it");
    assert_eq!(passed.told(&[], START, &own("bob"), red), None, "who may not see it is told nothing");
}

#[test]
fn whoever_has_to_let_go_learns_it_whether_the_later_rows_were_read_with_it_or_only_looked_up() {
    for (row, horizon) in [
        (updated(5, &json!({"serviceAccount": "alice"})), false),
        (updated(HORIZON - 1, &json!({"serviceAccount": "alice"})), true),
    ] {
        // It is red and alice's, then bob's, then blue: of that only the object says something, and what is looked up.
        let stands = agent(if horizon { HORIZON } else { 90 }, "blue", "bob");
        let mut story = Story::default();
        story.goes_on(&Befores { fields: was("red"), is_cut: false }, true);
        let change = tail_of(&row, Some(stands.clone()), story, &mut Missed::default()).expect("something for alice");
        assert_eq!(change.passed, !horizon);
        assert_eq!(change.told(&[], START, &own("alice"), red), Some(Told::Deleted));
        assert_eq!(change.told(&[], START, &own("carol"), red), None);
        // Nobody knows what it looked like: whoever it belonged to on either side may have known it, and nobody else.
        for befores in [Befores { fields: json!({"mood": "sunny"}), is_cut: false }, Befores { fields: json!({}), is_cut: true }]
        {
            let mut unknown = Story::default();
            unknown.goes_on(&befores, true);
            let change = tail_of(&row, Some(stands.clone()), unknown, &mut Missed::default()).expect("something for alice");
            for (user, told) in [("alice", Some(Told::Deleted)), ("bob", Some(Told::Deleted)), ("carol", None)] {
                assert_eq!(change.told(&[], START, &own(user), red), told, "{user}");
            }
        }
    }
}

#[test]
fn what_was_created_and_changed_often_is_added() {
    let mut missed = Missed::default();
    let now = || Some(agent(90, "green", "alice"));
    assert!(passes(tail(&created(1), now(), &mut missed)));
    for rv in 2..50 {
        assert!(passes(tail(&updated(rv, &was("blue")), now(), &mut missed)));
    }
    let change = tail(&updated(90, &was("blue")), now(), &mut missed).expect("the last row");
    assert_eq!(change.told_to_all(&[], START), Told::Added);
}

#[test]
fn what_a_watcher_has_missed_before_it_joined_counts_as_what_it_may_know() {
    let mut missed = Missed::default();
    assert!(passes(tail(&updated(5, &was("red")), Some(agent(7, "green", "alice")), &mut missed)));
    let missed = missed.take(&Id::Agent(AGENT));
    // The tail itself saw the later row only.
    let change = resolved(&updated(7, &was("blue")), agent(7, "green", "alice"));
    assert_eq!(change.told(&[], START, &Reach::Everything, red), None, "whoever was here then knows it as blue");
    assert_eq!(change.told(&missed, START, &Reach::Everything, red), Some(Told::Deleted), "whoever was not may know it as red");
    assert_eq!(change.told_to_all(&missed, START), Told::Modified);
}

#[test]
fn an_object_ahead_of_the_horizon_is_shown_as_it_is_under_the_version_of_the_row() {
    let mut missed = Missed::default();
    let now = || Some(agent(HORIZON, "green", "alice"));
    let first = tail(&updated(5, &was("red")), now(), &mut missed).expect("it does not wait");
    let shown: Value = serde_json::from_slice(&first.json).expect("JSON");
    assert_eq!(shown["metadata"]["labels"]["colour"], "green");
    assert_eq!(shown["metadata"]["resourceVersion"], object_version(5));
    assert_eq!(first.told(&[], START, &Reach::Everything, red), Some(Told::Deleted));
    // The row that brought it there says what was before itself; what was before the first counts again.
    let later = tail(&updated(HORIZON, &was("blue")), now(), &mut missed).expect("the later row");
    assert_eq!(later.told(&[], START, &Reach::Everything, |look| look.labels["colour"] == "blue"), Some(Told::Deleted));
    assert_eq!(later.told(&[], START, &Reach::Everything, red), Some(Told::Deleted), "too much rather than too little");
}

#[test]
fn of_an_object_that_is_gone_only_the_row_of_its_deletion_is_told() {
    let mut missed = Missed::default();
    assert!(passes(tail(&updated(5, &was("red")), None, &mut missed)));
    let gone = tail(&row(7, EventKind::AgentDeleted, &json!({})), Some(agent(6, "blue", "alice")), &mut missed).expect("it");
    assert_eq!(gone.told(&[], START, &Reach::Everything, red), Some(Told::Deleted), "a watcher may know it as red");
    assert_eq!(gone.told(&[], START, &Reach::Everything, |look| look.labels["colour"] == "blue"), Some(Told::Deleted));
    assert_eq!(gone.told(&[], START, &Reach::Everything, |look| look.labels["colour"] == "green"), None);
}

#[test]
fn after_many_changes_it_may_have_been_anything() {
    let mut missed = Missed::default();
    let now = || Some(agent(90, "green", "alice"));
    for rv in 0..40 {
        assert!(passes(tail(&updated(rv, &was("blue")), now(), &mut missed)));
    }
    let change = tail(&updated(90, &was("blue")), now(), &mut missed).expect("the last row");
    assert_eq!(change.told(&[], START, &Reach::Everything, red), Some(Told::Deleted), "nobody remembers whether it was red");
    assert_eq!(change.told(&[], START, &Reach::Everything, |look| look.labels["colour"] == "green"), Some(Told::Modified));
}

#[test]
fn whoever_sees_everything_is_told_the_same_by_the_short_way() {
    let befores = [json!({}), was("blue"), json!({"serviceAccount": "bob"})];
    let rows = befores.iter().map(|before| updated(7, before)).chain([created(7), row(7, EventKind::AgentDeleted, &json!({}))]);
    for row in rows {
        for earlier in [None, Some(created(5)), Some(updated(5, &was("red")))] {
            let mut missed = Missed::default();
            if let Some(earlier) = &earlier {
                assert!(passes(tail(earlier, Some(agent(7, "green", "alice")), &mut missed)));
            }
            let missed = missed.take(&Id::Agent(AGENT));
            let change = resolved(&row, agent(7, "green", "alice"));
            assert_eq!(
                change.told(&missed, START, &Reach::Everything, any),
                Some(change.told_to_all(&missed, START)),
                "{row:?} after {earlier:?}"
            );
        }
    }
}
