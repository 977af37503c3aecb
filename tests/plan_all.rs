//! All states of the decision, counted (DESIGN.md §4): 64 flags × 12 classes of pin and target, and two agents in every
//! condition × their order in a workspace × what the chat names × its pin.
//!
//! What a step must leave behind is [`step`], which says what the invariants demand and not how the table gets there;
//! what the conditions must then say is [`conditions`]. Both are also what `plan_walk` asks along random sequences.

use crate::support::plan_words::{A, B, agent_id, of, pin_on, snapshot};
use moorline::{
    model::{
        chat::{ChatState, Reference, RefreshPolicy},
        condition::{ConditionType, Truth, Verdict, Verdicts, reason},
        push::Phase,
        target::{Candidate, Pin, Target, resolve},
    },
    plan::{
        Action, ChatFacts,
        conditions::{ChatAfter, Health, of_chat},
        plan,
    },
};

/// Every combination of the six flags.
pub(crate) fn flags() -> impl Iterator<Item = ChatFacts> {
    (0..64_u8).map(|bits| {
        let bit = |n: u8| bits >> n & 1 == 1;
        ChatFacts {
            archived: bit(0),
            suspended: bit(1),
            state: if bit(2) { ChatState::Completed } else { ChatState::Waiting },
            policy: if bit(3) { RefreshPolicy::OnDrift } else { RefreshPolicy::Manual },
            refresh_pending: bit(4),
            dirty: bit(5),
        }
    })
}

/// A state that the schema cannot hold: a drift marker without a pin (I3, a CHECK).
fn forbidden(facts: ChatFacts, pin: Option<Pin>) -> bool {
    facts.dirty && pin.is_none()
}

/// Whether I3 speaks of it.
fn live(facts: ChatFacts) -> bool {
    !facts.archived && !facts.suspended && facts.state.is_active()
}

/// Whether the pin's own agent has moved on.
fn drifted(pin: Option<Pin>, target: Target) -> bool {
    match (pin, target) {
        (Some(pin), Target::Agent { id, latest: Some(latest) }) => pin.agent == id && pin.hash != latest.hash,
        (_, Target::Agent { .. } | Target::Missing | Target::Unbound) => false,
    }
}

/// Converges once; panics unless what is left is what the invariants demand.
pub(crate) fn step(facts: ChatFacts, pin: Option<Pin>, target: Target) -> (Action, ChatFacts, Option<Pin>) {
    let action = plan(facts, pin, target);
    let (after, new_pin) = action.apply(facts, pin, target);
    let state = || format!("{facts:?} {pin:?} {target:?}: {action:?} → {after:?} {new_pin:?}");
    assert!(!forbidden(facts, pin), "no such state: {}", state());

    assert_eq!(plan(after, new_pin, target), Action::Keep, "settles in one step: {}", state());
    assert!(!forbidden(after, new_pin), "dirty without a pin: {}", state());
    let desired = |facts: ChatFacts| (facts.archived, facts.suspended, facts.state, facts.policy);
    assert_eq!(desired(facts), desired(after), "converging writes observed columns only: {}", state());

    if live(facts) {
        assert_eq!(after.dirty, drifted(new_pin, target), "I3: {}", state());
        if let Target::Agent { id, latest: Some(latest) } = target {
            let to = new_pin.expect("a live chat whose target has a snapshot is pinned");
            assert_eq!(to.agent, id, "it follows its target, equal hashes or not: {}", state());
            let must = facts.refresh_pending || facts.policy == RefreshPolicy::OnDrift;
            assert!(!must || to.hash == latest.hash, "it was asked to follow: {}", state());
        }
    }
    let moves = match action {
        Action::Hydrate(_) => {
            assert!(pin.is_none() && live(facts), "I4: hydration never overwrites a pin: {}", state());
            true
        }
        Action::Repin(..) | Action::Unpin(_) => true,
        Action::Keep | Action::Acknowledge | Action::MarkDirty | Action::MarkClean => false,
    };
    assert!(moves || pin == new_pin, "only Hydrate, Repin and Unpin move a pin: {}", state());
    if let Some(new_pin) = new_pin.filter(|_| moves) {
        let Target::Agent { id, latest: Some(latest) } = target else { panic!("pinned to nothing: {}", state()) };
        assert_eq!((new_pin.agent, new_pin.snapshot, new_pin.hash), (id, latest.snapshot, latest.hash), "{}", state());
    }
    if pin.is_some() && new_pin.is_none() {
        assert!(target == Target::Unbound && facts.refresh_pending, "a pin went with nothing in its place: {}", state());
    }
    if let (Some(old), Some(new)) = (pin, new_pin)
        && moves
    {
        let followed = drifted(pin, target) && facts.policy == RefreshPolicy::OnDrift;
        let asked = facts.refresh_pending || followed || old.agent != new.agent;
        assert!(asked, "I4: nobody asked for the pin to move: {}", state());
    }
    if facts.archived || facts.suspended {
        assert_eq!((pin, facts.dirty), (new_pin, after.dirty), "frozen: {}", state());
        let token = facts.refresh_pending && !facts.archived;
        assert_eq!(after.refresh_pending, token, "archived acknowledges, suspended waits: {}", state());
    }
    if !facts.state.is_active() && !facts.refresh_pending {
        assert_eq!(pin, new_pin, "terminal, and nobody asked: {}", state());
        assert!(facts.dirty || !after.dirty, "a terminal chat may only be cleaned: {}", state());
    }
    let waits = match target {
        Target::Missing | Target::Agent { latest: None, .. } => true,
        Target::Unbound | Target::Agent { latest: Some(_), .. } => false,
    };
    if facts.refresh_pending && !facts.archived && !facts.suspended {
        assert_eq!(after.refresh_pending, waits, "a token waits only for something to refresh to: {}", state());
    }
    let quiet = (pin, facts.dirty) == (new_pin, after.dirty) && !matches!(action, Action::Repin(..));
    assert_eq!(action.change().event.is_none(), quiet, "one transition, one event: {}", state());
    (action, after, new_pin)
}

/// The conditions after a step, which must say what api.md §1 and kubernetes.md §1.3 demand.
pub(crate) fn conditions(facts: ChatFacts, pin: Option<Pin>, target: Target, before: &Verdicts) -> Verdicts {
    let health = Health { degraded: 0, resources: 3, error: "" };
    let target_phase = match target {
        Target::Agent { latest: Some(_), .. } => Some(Phase::Complete),
        Target::Agent { latest: None, .. } => Some(Phase::Pending),
        Target::Unbound | Target::Missing => None,
    };
    let after = ChatAfter { facts, pin: pin.map(|pin| (pin, health)), target, target_name: "agent-1", target_phase, before };
    let verdicts = of_chat(&after);
    let state = || format!("{facts:?} {pin:?} {target:?}: {verdicts:?}");

    for abnormal in [ConditionType::Stalled, ConditionType::Reconciling] {
        assert!(!verdicts.contains_key(&abnormal), "{abnormal} is for the loop to say: {}", state());
    }
    let ready = &verdicts[&ConditionType::Ready];
    let active = facts.state.is_active();
    let expected = match (target, pin) {
        _ if facts.archived => (Truth::True, reason::ARCHIVED),
        _ if facts.suspended => (Truth::True, reason::SUSPENDED),
        (Target::Unbound, _) => (Truth::True, reason::UNBOUND),
        (_, None) if !active => (Truth::True, reason::TERMINAL),
        (Target::Missing, _) if active => (Truth::False, reason::AGENT_NOT_FOUND),
        (Target::Agent { latest: None, .. }, _) if active => (Truth::Unknown, reason::WAITING_FOR_SNAPSHOT),
        _ if facts.dirty => (Truth::True, reason::PINNED_STALE),
        _ => (Truth::True, reason::PINNED),
    };
    assert_eq!((ready.status, ready.reason.as_str()), expected, "{}", state());
    assert!(!facts.dirty || ready.status == Truth::True, "drift never turns Ready False: {}", state());

    assert_eq!(verdicts.contains_key(&ConditionType::Drifted), pin.is_some(), "Drifted is there once pinned: {}", state());
    assert_eq!(verdicts.contains_key(&ConditionType::ResourcesDegraded), pin.is_some(), "{}", state());
    if let Some(pin) = pin {
        let drift = &verdicts[&ConditionType::Drifted];
        let word = (drift.status, drift.reason.as_str());
        assert_eq!(drift.status == Truth::True, facts.dirty, "Drifted says what the marker says: {}", state());
        match (drift.status, drift.reason.as_str()) {
            (Truth::True, reason::CONTENT_CHANGED)
            | (Truth::False, reason::UP_TO_DATE)
            | (Truth::Unknown, reason::NO_SNAPSHOT) => {}
            _ => panic!("no such word: {}", state()),
        }
        if live(facts) && !facts.dirty {
            let comparable = matches!(target, Target::Agent { id, latest: Some(_) } if id == pin.agent);
            let expected = if comparable { (Truth::False, reason::UP_TO_DATE) } else { (Truth::Unknown, reason::NO_SNAPSHOT) };
            assert_eq!(word, expected, "{}", state());
        }
    }
    for (kind, verdict) in &verdicts {
        let Verdict { status: _, reason, message: _ } = verdict;
        assert!(reason.starts_with(|c: char| c.is_ascii_uppercase()) && reason.chars().all(char::is_alphanumeric), "{kind}");
    }
    verdicts
}

/// What a chat's Drifted may have said before, given its marker.
fn said_before(facts: ChatFacts, pin: Option<Pin>) -> Vec<Verdicts> {
    let of = |status, reason| Verdicts::from([(ConditionType::Drifted, Verdict::new(status, reason, "as it was"))]);
    match (pin, facts.dirty) {
        (None, _) => vec![Verdicts::new()],
        (Some(_), true) => vec![of(Truth::True, reason::CONTENT_CHANGED)],
        (Some(_), false) => {
            vec![Verdicts::new(), of(Truth::False, reason::UP_TO_DATE), of(Truth::Unknown, reason::NO_SNAPSHOT)]
        }
    }
}

/// One state: the step, then the conditions after it, whatever they said before.
fn judge(facts: ChatFacts, pin: Option<Pin>, target: Target) {
    if forbidden(facts, pin) {
        return judge_forbidden(facts, target);
    }
    let (action, after, new_pin) = step(facts, pin, target);
    for before in said_before(facts, pin) {
        let verdicts = conditions(after, new_pin, target, &before);
        assert_eq!(conditions(after, new_pin, target, &verdicts), verdicts, "I10: saying it again changes nothing");
        let untouched = matches!(action, Action::Keep | Action::Acknowledge) && !live(facts);
        if let Some(was) = before.get(&ConditionType::Drifted).filter(|_| untouched) {
            let is = &verdicts[&ConditionType::Drifted];
            // The one thing that a frozen chat may learn: that its pin, of which nobody could tell, is the latest after all.
            let learned = was.status == Truth::Unknown && (is.status, is.reason.as_str()) == (Truth::False, reason::UP_TO_DATE);
            let kept = (was.status, &was.reason) == (is.status, &is.reason);
            assert!(kept || learned, "frozen, it keeps what was said: {was:?} {is:?} {facts:?} {pin:?} {target:?}");
        }
    }
}

/// A marker without a pin cannot be stored, so nothing is promised of it but that deciding is total: it settles, begins no
/// episode, and hydrates as any unpinned chat does. (Where it hydrates, the marker takes a second step to go.)
fn judge_forbidden(facts: ChatFacts, target: Target) {
    let (mut now, mut pin) = (facts, None);
    for _ in 0..2 {
        let action = plan(now, pin, target);
        assert_ne!(action, Action::MarkDirty, "{now:?} {pin:?} {target:?}");
        (now, pin) = action.apply(now, pin, target);
    }
    assert_eq!(plan(now, pin, target), Action::Keep, "{facts:?} {target:?}");
    let clean = plan(ChatFacts { dirty: false, ..facts }, None, target);
    assert_eq!(pin, clean.apply(facts, None, target).1, "the marker has no say in the pin: {facts:?} {target:?}");
    conditions_without_panic(now, pin, target);
}

fn conditions_without_panic(facts: ChatFacts, pin: Option<Pin>, target: Target) {
    let health = Health { degraded: 1, resources: 3, error: "the disk is slow" };
    let before = Verdicts::new();
    let pin = pin.map(|pin| (pin, health));
    let after = ChatAfter { facts, pin, target, target_name: "", target_phase: None, before: &before };
    assert!(of_chat(&after).contains_key(&ConditionType::Ready));
}

/// The twelve classes of pin and target.
fn classes() -> Vec<(Option<Pin>, Target)> {
    let unpinned = [Target::Unbound, Target::Missing, of(1, None), of(1, A)].map(|target| (None, target));
    let targets = [Target::Unbound, Target::Missing, of(1, None), of(1, A), of(1, B), of(2, None), of(2, A), of(2, B)];
    unpinned.into_iter().chain(targets.map(|target| (Some(pin_on(1, A)), target))).collect()
}

#[test]
fn all_768_states_of_one_chat_settle_in_one_step_and_keep_the_invariants() {
    let mut states = 0;
    for facts in flags() {
        for (pin, target) in classes() {
            states += 1;
            judge(facts, pin, target);
        }
    }
    assert_eq!((classes().len(), states), (12, 768));
    let impossible = |facts: ChatFacts| classes().into_iter().filter(|(pin, _)| forbidden(facts, *pin)).count();
    assert_eq!(flags().map(impossible).sum::<usize>(), 32 * 4, "those that the schema cannot hold");
}

/// What an agent may be: absent, or there: deleted or not, with one of three latests.
fn agent(n: u8, build: i64) -> Vec<Option<Candidate>> {
    let there = [false, true].into_iter().flat_map(|deleting| [None, Some(A), Some(B)].map(|hash| (deleting, hash)));
    let candidate = |(deleting, hash): (bool, Option<u8>)| Candidate {
        id: agent_id(n),
        name: format!("agent-{n}"),
        workspace: Some("ws".into()),
        build: Some(build),
        created_at: jiff::Timestamp::from_second(n.into()).unwrap(),
        deleting,
        latest: hash.map(|hash| snapshot(n, hash)),
    };
    std::iter::once(None).chain(there.map(candidate).map(Some)).collect()
}

/// What the words of DESIGN.md §1 make of it, said again without the code: which agent, if any, the reference names.
fn expected_target(reference: &Reference, agents: [Option<&Candidate>; 2]) -> Target {
    let [one, two] = agents.map(|agent| agent.filter(|agent| !agent.deleting));
    let chosen = match reference {
        Reference::Unbound => return Target::Unbound,
        Reference::Agent(name) if name == "agent-1" => one,
        Reference::Agent(_) => two,
        Reference::Workspace(_) => match (one, two) {
            (Some(one), Some(two)) => Some(if one.build > two.build { one } else { two }),
            (one, two) => one.or(two),
        },
    };
    chosen.map_or(Target::Missing, |agent| Target::Agent { id: agent.id, latest: agent.latest })
}

#[test]
fn all_125_440_states_of_two_agents_settle_in_one_step_and_keep_the_invariants() {
    let references = [
        Reference::Unbound,
        Reference::Agent("agent-1".into()),
        Reference::Agent("agent-2".into()),
        Reference::Workspace("ws".into()),
    ];
    let pins = [None, Some(pin_on(1, A)), Some(pin_on(1, B)), Some(pin_on(2, A)), Some(pin_on(2, B))];
    let mut states = 0;
    for (build_of_1, build_of_2) in [(1, 2), (2, 1)] {
        for one in &agent(1, build_of_1) {
            for two in &agent(2, build_of_2) {
                let agents: Vec<Candidate> = [one, two].into_iter().flatten().cloned().collect();
                for reference in &references {
                    let target = resolve(reference, &agents);
                    assert_eq!(target, expected_target(reference, [one.as_ref(), two.as_ref()]), "{reference:?} {agents:?}");
                    for pin in pins {
                        for facts in flags() {
                            states += 1;
                            judge(facts, pin, target);
                        }
                    }
                }
            }
        }
    }
    assert_eq!((agent(1, 1).len(), states), (7, 125_440));
}
