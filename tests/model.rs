//! What the words of the model mean, and what a person is told of a decision: each by its cases, without a database. Where another test
//! says the same over HTTP, this one says it of every case.

use crate::support::plan_words::{A, B, Case, agent_id, chat, of, pin_on, snapshot};
use moorline::{
    model::{
        chat::{BoundAgent, Chat, ChatSpec, ChatState, ChatView, PinCause, Reference, RefreshPolicy},
        condition::{ConditionPatch, ConditionType, Conditions, Truth, Verdict, Verdicts, reason},
        fault::{Fault, FaultKind},
        name,
        object::{DeletionPolicy, Metadata, PAUSED_ANNOTATION, Progress, REFRESH_ANNOTATION, Requests, Source, TextMap},
        prompt,
        push::{Limits, Phase},
        resource::{Named, Resource, ResourceKind, ResourceStatus, count_degraded},
        snapshot::{self, Snapshot, name_with_uid},
        target::{Candidate, Target, resolve},
        unified,
    },
    plan::{
        Rule,
        conditions::{AgentAfter, ChatAfter, Health, of_agent, of_chat},
        why::{Remedy, Seen, SeenPin, Why, why},
    },
};
use uuid::Uuid;

#[test]
fn the_limits_are_those_of_the_api() {
    let bytes = [Limits::BODY, Limits::BODIES, Limits::SOURCE, Limits::SOURCE_PATH, Limits::ERROR];
    assert_eq!(bytes, [262_144, 4_194_304, 1_024, 4_096, 4_096]);
    assert_eq!((Limits::RESOURCES, Limits::NUMBER), (1_000, 9_007_199_254_740_992));
    assert_eq!((unified::ONE_MAX, unified::ALL_MAX, name::ANNOTATIONS_MAX), (65_536, 1_048_576, 262_144));
}

#[test]
fn every_line_end_becomes_one() {
    assert_eq!(prompt::sanitise("a\rb\r\nc\n\rd\u{85}e\u{2028}f\u{2029}g"), "a\nb\nc\n\nd\ne\nf\ng");
}

#[test]
fn a_reference_names_one_thing_or_none() {
    let some = |text: &str| Some(text.to_owned());
    for (reference, agent, workspace) in [
        (Reference::from_columns(None, None), None, None),
        (Reference::from_columns(some("a"), None), Some("a"), None),
        (Reference::from_columns(None, some("w")), None, Some("w")),
    ] {
        assert_eq!((reference.agent(), reference.workspace()), (agent, workspace), "{reference:?}");
    }
}

#[test]
fn what_ended_is_not_active() {
    use ChatState::{Paused, Pending, RequiresAction, Running, Waiting};
    let active: Vec<ChatState> = ChatState::ALL.iter().copied().filter(|state| state.is_active()).collect();
    assert_eq!(active, [Waiting, Running, Paused, Pending, RequiresAction]);
}

fn record() -> Chat {
    let at = jiff::Timestamp::from_second(1).unwrap();
    let meta = Metadata {
        namespace: "team-a".into(),
        id: Uuid::nil(),
        name: "fix".into(),
        labels: TextMap::new(),
        annotations: TextMap::new(),
        generation: 1,
        rv: 1,
        created_at: at,
    };
    let spec = ChatSpec {
        owner: "alice".into(),
        title: String::new(),
        reference: Reference::Agent("ws".into()),
        parent: None,
        refresh_policy: RefreshPolicy::Manual,
        suspend: false,
        archived: false,
        deletion_policy: DeletionPolicy::Delete,
    };
    Chat {
        meta,
        spec,
        inherited_archived: false,
        source: Source::Api,
        paused: false,
        parent_id: None,
        root_id: Uuid::nil(),
        created_by: "alice".into(),
        updated_at: at,
        state: ChatState::Running,
        last_error: String::new(),
        pin: None,
        dirty_since: None,
        refresh_requested: None,
        refresh_handled: None,
        reconcile_handled: None,
        event_seq: 0,
        progress: Progress::default(),
        conditions: Conditions::default(),
    }
}

#[test]
fn a_chat_is_archived_by_its_own_wish_or_by_an_ancestors() {
    let mut chat = record();
    for (own, inherited) in [(false, false), (true, false), (false, true), (true, true)] {
        (chat.spec.archived, chat.inherited_archived) = (own, inherited);
        assert_eq!(chat.is_archived(), own || inherited, "{own} {inherited}");
    }
}

#[test]
fn a_chat_is_bound_to_its_pins_agent_and_to_its_target_only_without_a_pin() {
    let target = BoundAgent { id: agent_id(2), name: "other".into() };
    let mut view = ChatView { chat: record(), pinned: None, target: Some(target.clone()) };
    assert_eq!(view.bound_agent(), Some(target));
    view.pinned = Some(Snapshot {
        namespace: "team-a".into(),
        id: snapshot(1, A).snapshot,
        name: "ws-0a".into(),
        agent_id: agent_id(1),
        agent_name: "ws".into(),
        revision: 1,
        hash: snapshot(1, A).hash,
        error: String::new(),
        resource_count: 0,
        degraded_count: 0,
        size_bytes: 0,
        created_at: jiff::Timestamp::from_second(1).unwrap(),
        rv: 1,
    });
    assert_eq!(view.bound_agent(), Some(BoundAgent { id: agent_id(1), name: "ws".into() }));
    (view.pinned, view.target) = (None, None);
    assert_eq!(view.bound_agent(), None);
}

#[test]
fn requests_are_read_from_annotations_and_only_true_pauses() {
    let map = |pairs: &[(&str, &str)]| -> TextMap { pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect() };
    assert_eq!(Requests::of(&map(&[("other", "true")])), Requests::default());
    let asked = Requests::of(&map(&[(REFRESH_ANNOTATION, "t"), (PAUSED_ANNOTATION, "true")]));
    assert_eq!(asked, Requests { refresh: Some("t".into()), reconcile: None, paused: true });
    assert!(!Requests::of(&map(&[(PAUSED_ANNOTATION, "false")])).paused);
    for source in [Source::Api, Source::Manifest] {
        assert_eq!(Source::parse(source.as_str()), Some(source));
    }
    assert_eq!((Source::parse("nobody"), Source::Api.as_str(), Source::Manifest.as_str()), (None, "api", "manifest"));
}

#[test]
fn a_resource_has_a_key_and_is_counted_when_it_is_not_ok() {
    let mut skill = Resource::ok(ResourceKind::Skill, "skills/tdd", "skills/tdd/SKILL.md", b"x".to_vec()).meta;
    assert_eq!((skill.key(), Named(&skill).to_string().as_str()), (("Skill", "skills/tdd"), "Skill skills/tdd"));
    assert_eq!(count_degraded([&skill]), 0);
    skill.status = ResourceStatus::Oversize;
    assert_eq!(count_degraded([&skill, &skill]), 2);
    assert_eq!(Fault::new("spec.title", FaultKind::TooLong, "must be short").to_string(), "spec.title: must be short");
    let pinned: Vec<_> = ResourceKind::ALL.iter().filter(|kind| !kind.is_pinned_class()).collect();
    assert_eq!(pinned, [&ResourceKind::McpServer]);
}

#[test]
fn snapshots_whose_hashes_begin_alike_are_numbered() {
    let hash = snapshot(1, A).hash;
    let names: Vec<String> = (0..4).map(|n| snapshot::name("ws", &hash, n)).collect();
    assert_eq!(names, ["ws-0a0a0a0a0a0a", "ws-0a0a0a0a0a0a", "ws-0a0a0a0a0a0a-2", "ws-0a0a0a0a0a0a-3"]);
    assert_eq!(name_with_uid("ws", &hash, Uuid::nil()), format!("ws-0a0a0a0a0a0a-{}", "0".repeat(32)));
}

#[test]
fn a_workspace_means_its_highest_build_and_then_its_oldest_agent() {
    let candidate = |n: u8, build: Option<i64>, second: i64| Candidate {
        id: agent_id(n),
        name: format!("a{n}"),
        workspace: Some("w".into()),
        build,
        created_at: jiff::Timestamp::from_second(second).unwrap(),
        deleting: false,
        latest: None,
    };
    let all = [candidate(1, None, 1), candidate(2, Some(0), 3), candidate(3, Some(7), 5), candidate(4, Some(7), 4)];
    let workspace = |name: &str, of: &[Candidate]| resolve(&Reference::Workspace(name.into()), of);
    assert_eq!(workspace("w", &all), Target::Agent { id: agent_id(4), latest: None });
    assert_eq!(workspace("w", &all[..2]), Target::Agent { id: agent_id(2), latest: None });
    assert_eq!(workspace("other", &all), Target::Missing);
    let leaving = Candidate { deleting: true, ..candidate(9, Some(9), 9) };
    assert_eq!(workspace("w", std::slice::from_ref(&leaving)), Target::Missing);
    assert_eq!(resolve(&Reference::Agent("a9".into()), &[leaving]), Target::Missing);
    assert_eq!(resolve(&Reference::Agent("a3".into()), &all), Target::Agent { id: agent_id(3), latest: None });
    assert_eq!(resolve(&Reference::Unbound, &all), Target::Unbound);
    assert_eq!((Target::Missing.latest(), of(1, A).latest()), (None, Some(snapshot(1, A))));
}

#[test]
fn a_patch_of_conditions_is_empty_only_when_nothing_is_set_or_dropped() {
    let now = jiff::Timestamp::from_second(1).unwrap();
    let ready = Verdicts::from([(ConditionType::Ready, Verdict::new(Truth::True, reason::PINNED, ""))]);
    let set = Conditions::default().patch(&ready, now);
    assert!(ConditionPatch::default().is_empty() && !set.is_empty());
    assert_eq!((set.set.len(), set.drop.len()), (2, 0));
    let stored = Conditions::from_stored(&serde_json::Value::Object(set.set)).unwrap();
    let dropped = stored.patch(&Verdicts::new(), now);
    assert!(!dropped.is_empty(), "only dropping is a change too");
    assert_eq!((dropped.set.len(), dropped.drop), (0, vec!["Ready".to_owned(), "Ready@".to_owned()]));
    assert!(stored.get(ConditionType::Drifted).is_none());
    assert_eq!(stored.verdicts(), ready);
}

const WELL: Health<'_> = Health { degraded: 0, resources: 3, error: "" };

/// What is said of a chat, as `Type=Status/Reason`.
fn said(case: Case, health: Health<'_>, target: Target, phase: Option<Phase>, before: &Verdicts) -> Vec<String> {
    let pin = case.pin.map(|pin| (pin, health));
    let after = ChatAfter { facts: case.facts, pin, target, target_name: "agent ws", target_phase: phase, before };
    of_chat(&after).iter().map(|(kind, verdict)| format!("{kind}={}/{}", verdict.status, verdict.reason)).collect()
}

#[test]
fn the_conditions_of_a_chat_are_these() {
    let none = Verdicts::new();
    let of_case = |case: Case, target: Target| said(case, WELL, target, Some(Phase::Complete), &none);
    let pinned = chat().pinned(1, A);
    for (conditions, ready, drifted) in [
        (of_case(chat(), Target::Unbound), "True/Unbound", None),
        (of_case(chat().archived(), Target::Missing), "True/Archived", None),
        (of_case(chat().suspended(), Target::Missing), "True/Suspended", None),
        (of_case(chat().terminal(), Target::Missing), "True/Terminal", None),
        (of_case(chat(), Target::Missing), "False/AgentNotFound", None),
        (of_case(chat(), of(1, None)), "Unknown/WaitingForSnapshot", None),
        (of_case(pinned, of(1, A)), "True/Pinned", Some("False/UpToDate")),
        (of_case(pinned.dirty(), of(1, B)), "True/PinnedStale", Some("True/ContentChanged")),
        (of_case(pinned, of(2, None)), "Unknown/WaitingForSnapshot", Some("Unknown/NoSnapshot")),
        (of_case(pinned.terminal(), Target::Missing), "True/Pinned", Some("Unknown/NoSnapshot")),
        (of_case(pinned.archived(), of(1, B)), "True/Archived", Some("Unknown/NoSnapshot")),
        (of_case(pinned.suspended(), of(1, A)), "True/Suspended", Some("False/UpToDate")),
    ] {
        let got = |kind: &str| conditions.iter().find_map(|text| text.strip_prefix(&format!("{kind}=")));
        assert_eq!((got("Ready"), got("Drifted")), (Some(ready), drifted), "{conditions:?}");
        assert_eq!(got("ResourcesDegraded").is_some(), drifted.is_some(), "{conditions:?}");
    }
    // What was said of the drift of a frozen chat is kept, but for that it is there: then its marker would be.
    for (before, kept) in [(Truth::False, "False/UpToDate"), (Truth::True, "Unknown/NoSnapshot")] {
        let before = Verdicts::from([(ConditionType::Drifted, Verdict::new(before, reason::UP_TO_DATE, ""))]);
        for case in [pinned.archived(), pinned.suspended(), pinned.terminal()] {
            let conditions = said(case, WELL, of(1, B), None, &before);
            assert!(conditions.contains(&format!("Drifted={kept}")), "{conditions:?}");
        }
        let active = said(pinned, WELL, of(2, A), None, &before);
        assert!(active.contains(&"Drifted=Unknown/NoSnapshot".to_owned()), "{active:?}");
    }
}

#[test]
fn a_context_is_degraded_by_its_resources_or_by_its_scan() {
    for (degraded, error, status, message) in [
        (0, "", Truth::False, ""),
        (0, "no disk", Truth::True, "no disk"),
        (2, "", Truth::True, "2 of 3 resources could not be used"),
        (1, "no disk", Truth::True, "1 of 3 resources could not be used; the agent says: no disk"),
    ] {
        let latest = Some(Health { degraded, resources: 3, error });
        let agent = AgentAfter { deleting: false, suspended: false, phase: Some(Phase::Complete), latest };
        let verdict = of_agent(&agent)[&ConditionType::ResourcesDegraded].clone();
        assert_eq!((verdict.status, verdict.message.as_str()), (status, message));
    }
    let leaving = AgentAfter { deleting: true, suspended: false, phase: None, latest: None };
    assert_eq!(of_agent(&leaving)[&ConditionType::Reconciling].status, Truth::True);
    let waiting = of_agent(&AgentAfter { deleting: false, ..leaving });
    assert_eq!(waiting.keys().collect::<Vec<_>>(), [&ConditionType::Ready]);
}

/// What a person is told who asks why, of a chat named `fix`.
fn told(case: Case, cause: PinCause, target: Target, reference: Option<&str>) -> Why {
    let at = jiff::Timestamp::from_second(1_000).unwrap();
    let agent = |id: Uuid| if id == agent_id(1) { "ws" } else { "other" };
    let target_agent = match target {
        Target::Agent { id, .. } => Some(agent(id)),
        Target::Unbound | Target::Missing => None,
    };
    why(&Seen {
        name: "fix",
        facts: case.facts,
        inherited_archived: false,
        pin: case.pin.map(|pin| SeenPin { pin, agent: agent(pin.agent), cause, at }),
        target,
        target_agent,
        reference,
        dirty_since: case.facts.dirty.then_some(at),
    })
}

#[test]
fn a_person_is_told_which_rule_made_a_chat_what_it_is_and_what_to_do() {
    let (a, b) = (pin_on(1, A).hash, pin_on(1, B).hash);
    let pinned = chat().pinned(1, A);
    let hydrated = |case: Case, target: Target| told(case, PinCause::Hydrated, target, Some("agent ws"));
    let unbound = |case: Case| told(case, PinCause::Hydrated, Target::Unbound, None);
    let workspace = |target: Target| told(pinned, PinCause::Hydrated, target, Some("workspace w"));
    let made = format!("pinned {a} from ws as its first context at 1970-01-01T00:16:40Z");
    let dirty = format!("pinned {a} from ws, whose latest is {b} (since 1970-01-01T00:16:40Z)");
    let bare = format!("pinned {a} from ws, whose latest is {b}");
    for (why, rule, message, remedy) in [
        (hydrated(chat(), of(1, A)), 4, format!("fix is about to be hydrated: rule 4 (Hydrate): it has no pin, and names agent ws, with latest {a}"), None),
        (hydrated(pinned, of(2, B)), 2, format!("fix is about to be rebound: rule 2 (Repin(Rebound)): pinned {a} from ws, and it names agent ws, with latest {b}"), None),
        (workspace(of(2, B)), 2, format!("fix is about to be rebound: rule 2 (Repin(Rebound)): pinned {a} from ws, and it names workspace w, whose current agent is other, with latest {b}"), None),
        (hydrated(pinned.refresh(), of(1, B)), 3, format!("fix is about to be refreshed: rule 3 (Repin(Refreshed)): a refresh was asked for, and it names agent ws, with latest {b}"), None),
        (unbound(pinned.refresh()), 3, "fix is about to lose its pin: rule 3 (Unpin(Cleared)): a refresh was asked for, and it names no agent".into(), None),
        (unbound(chat().refresh()), 3, "fix is about to have its refresh acknowledged: rule 3 (Acknowledge): it names no agent and has no pin".into(), None),
        (hydrated(chat().archived().refresh(), of(1, A)), 1, "fix is about to have its refresh acknowledged: rule 1 (Acknowledge): it is archived, so there is nothing to refresh".into(), None),
        (hydrated(pinned.dirty(), of(1, None)), 5, format!("fix is about to be clean: rule 5 (MarkClean): marked dirty, but pinned {a} from ws, which has no latest snapshot"), None),
        (hydrated(pinned.on_drift(), of(1, B)), 6, format!("fix is about to follow its agent: rule 6 (Repin(AutoRefreshed)): {bare}; refreshPolicy OnDrift, so it moves by itself"), None),
        (hydrated(pinned, of(1, B)), 7, format!("fix is about to be dirty: rule 7 (MarkDirty): {bare}"), None),
        (hydrated(pinned.dirty(), of(1, B)), 7, format!("fix is dirty: rule 7 (MarkDirty): {dirty}; refreshPolicy Manual, so it waits for a refresh"), Some(Remedy::Refresh)),
        (hydrated(pinned.dirty().terminal(), of(1, B)), 7, format!("fix is dirty: rule 7 (MarkDirty): {dirty}; its state is Completed, so it stays as it is"), Some(Remedy::Refresh)),
        (hydrated(pinned.archived(), of(1, B)), 1, format!("fix is archived: rule 1 (Keep): it keeps the context it has: pinned {a} from ws"), Some(Remedy::Unarchive)),
        (hydrated(pinned.suspended().dirty(), of(1, B)), 1, format!("fix is suspended or paused: rule 1 (Keep): until it is resumed it keeps the context it has, and stays dirty: {dirty}"), Some(Remedy::Resume)),
        (hydrated(pinned.suspended().dirty(), of(2, B)), 1, format!("fix is suspended or paused: rule 1 (Keep): until it is resumed it keeps the context it has, and stays dirty: pinned {a} from ws, and it names agent ws, with latest {b}"), Some(Remedy::Resume)),
        (hydrated(chat().suspended().refresh(), of(1, B)), 1, "fix is suspended or paused: rule 1 (Keep): until it is resumed it stays without a context; a refresh was asked for and waits until that changes".into(), Some(Remedy::Resume)),
        (unbound(chat()), 8, "fix is unbound: rule 8 (Keep): it names no agent and no workspace".into(), Some(Remedy::NameAgent)),
        (hydrated(chat().terminal(), of(1, A)), 8, "fix is without a context: rule 8 (Keep): it was never pinned; its state is Completed, so it stays as it is".into(), Some(Remedy::Refresh)),
        (hydrated(chat(), Target::Missing), 8, "fix is waiting for its agent: rule 8 (Keep): it names agent ws, which does not exist or is being deleted".into(), Some(Remedy::CreateAgent)),
        (hydrated(chat(), of(1, None)), 8, "fix is waiting for a snapshot: rule 8 (Keep): it names agent ws, which has not reported a complete context yet".into(), Some(Remedy::Report)),
        (hydrated(pinned, of(1, A)), 4, format!("fix is pinned: rule 4 (Hydrate): {made}; that is the agent's latest"), None),
        (hydrated(pinned, of(1, None)), 4, format!("fix is pinned: rule 4 (Hydrate): {made}; the agent has no latest snapshot to compare with"), None),
        (hydrated(pinned.terminal(), of(1, B)), 4, format!("fix is pinned: rule 4 (Hydrate): {made}; the agent's latest is {b}; its state is Completed, so it stays as it is"), Some(Remedy::Refresh)),
        (unbound(pinned), 4, format!("fix is pinned: rule 4 (Hydrate): {made}; it names no agent, so it keeps that"), None),
        (hydrated(pinned, Target::Missing), 4, format!("fix is pinned: rule 4 (Hydrate): {made}; it names agent ws, which does not exist or is being deleted, so it keeps that"), Some(Remedy::CreateAgent)),
        (hydrated(pinned, of(2, None)), 4, format!("fix is pinned: rule 4 (Hydrate): {made}; it names agent ws, which has not reported a complete context yet, so it keeps that"), Some(Remedy::Report)),
        (hydrated(pinned.terminal(), of(2, B)), 4, format!("fix is pinned: rule 4 (Hydrate): {made}; it names agent ws, with latest {b}, so it keeps that; its state is Completed, so it stays as it is"), None),
    ] {
        assert_eq!((usize::from(why.rule.number()), why.message, why.remedy), (rule, message, remedy));
    }
    for (cause, rule, how) in [
        (PinCause::Refreshed, Rule::RefreshPending, "because a refresh was asked for"),
        (PinCause::AutoRefreshed, Rule::FollowsDrift, "because refreshPolicy is OnDrift"),
        (PinCause::Rebound, Rule::AnotherAgent, "because it came to name another agent"),
        (PinCause::Inherited, Rule::NothingToDo, "with its parent's pin, when it was created"),
    ] {
        let why = told(pinned, cause, of(1, A), Some("agent ws"));
        assert!(why.rule == rule && why.message.contains(how) && why.next.is_none(), "{why:?}");
    }
}
