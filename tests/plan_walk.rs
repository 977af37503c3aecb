//! The decision along random histories: pushes, rebuilt workspaces, rebinds, archiving, suspending, state reports and
//! refreshes, in any order, with the chat converged after some of them and left behind by others (a level, never an event).
//!
//! `plan_all` counts the states; this asks what only a history can show: that a marker does not move while its episode
//! lasts, that A→B→A ends clean however long it took, and that coalescing changes cannot change where they end.

use crate::{
    plan_all::{conditions, step},
    support::plan_words::{agent_id, chat, of, snapshot},
};
use moorline::{
    model::{
        chat::{ChatState, Reference, RefreshPolicy},
        condition::Verdicts,
        event::EventKind,
        target::{Candidate, Latest, Pin, Target, resolve},
    },
    plan::{Action, ChatFacts, DirtyChange, plan},
};
use proptest::{collection::vec, prelude::*, sample::select};

/// What may happen to the world. Agents are 1 to 3, hashes 0 to 3: few enough that histories come back to where they were.
#[derive(Clone, Copy, Debug)]
enum Happens {
    Push { agent: u8, hash: u8 },
    Create { agent: u8, build: Option<i64> },
    Delete { agent: u8 },
    Forget { agent: u8 },
    NameAgent(u8),
    NameWorkspace,
    NameNothing,
    Archive(bool),
    Suspend(bool),
    Report(ChatState),
    Policy(RefreshPolicy),
    Refresh,
}

fn happens() -> impl Strategy<Value = Happens> {
    let agent = || 1..=3_u8;
    prop_oneof![
        6 => (agent(), 0..=3_u8).prop_map(|(agent, hash)| Happens::Push { agent, hash }),
        2 => (agent(), proptest::option::of(0..=4_i64)).prop_map(|(agent, build)| Happens::Create { agent, build }),
        1 => agent().prop_map(|agent| Happens::Delete { agent }),
        1 => agent().prop_map(|agent| Happens::Forget { agent }),
        2 => agent().prop_map(Happens::NameAgent),
        2 => Just(Happens::NameWorkspace),
        1 => Just(Happens::NameNothing),
        1 => any::<bool>().prop_map(Happens::Archive),
        1 => any::<bool>().prop_map(Happens::Suspend),
        2 => select(ChatState::ALL).prop_map(Happens::Report),
        1 => select(RefreshPolicy::ALL).prop_map(Happens::Policy),
        1 => Just(Happens::Refresh),
    ]
}

/// Agents, one chat, and the start of its drift episode, counted in converges.
struct World {
    agents: Vec<Candidate>,
    reference: Reference,
    facts: ChatFacts,
    pin: Option<Pin>,
    since: Option<usize>,
    said: Verdicts,
    converges: usize,
}

impl World {
    fn new() -> Self {
        let reference = Reference::Workspace("ws".into());
        Self { agents: vec![], reference, facts: chat().facts, pin: None, since: None, said: Verdicts::new(), converges: 0 }
    }

    fn agent(&mut self, n: u8) -> Option<&mut Candidate> {
        self.agents.iter_mut().find(|agent| agent.id == agent_id(n))
    }

    fn happen(&mut self, what: Happens) {
        match what {
            Happens::Push { agent, hash } => {
                if let Some(found) = self.agent(agent).filter(|found| !found.deleting) {
                    found.latest = Some(snapshot(agent, hash));
                }
            }
            Happens::Create { agent, build } => {
                if self.agent(agent).is_none() {
                    self.agents.push(Candidate {
                        id: agent_id(agent),
                        name: agent.to_string(),
                        workspace: Some("ws".into()),
                        build,
                        created_at: jiff::Timestamp::from_second(agent.into()).unwrap(),
                        deleting: false,
                        latest: None,
                    });
                }
            }
            Happens::Delete { agent } => {
                if let Some(found) = self.agent(agent) {
                    found.deleting = true;
                }
            }
            Happens::Forget { agent } => self.agents.retain(|found| found.id != agent_id(agent) || !found.deleting),
            Happens::NameAgent(n) => self.reference = Reference::Agent(n.to_string()),
            Happens::NameWorkspace => self.reference = Reference::Workspace("ws".into()),
            Happens::NameNothing => self.reference = Reference::Unbound,
            Happens::Archive(archived) => self.facts.archived = archived,
            Happens::Suspend(suspended) => self.facts.suspended = suspended,
            Happens::Report(state) => self.facts.state = state,
            Happens::Policy(policy) => self.facts.policy = policy,
            Happens::Refresh => self.facts.refresh_pending = true,
        }
    }

    fn target(&self) -> Target {
        resolve(&self.reference, &self.agents)
    }

    /// Converges, holding the step to the invariants and the marker to its episode.
    fn converge(&mut self) -> Action {
        let target = self.target();
        let (was_dirty, was_since) = (self.facts.dirty, self.since);
        let (action, facts, pin) = step(self.facts, self.pin, target);
        self.converges += 1;
        match action.change().dirty {
            DirtyChange::Begin => {
                assert!(!was_dirty, "an episode that lasts does not begin again: {action:?}");
                self.since = Some(self.converges);
            }
            DirtyChange::End => self.since = None,
            DirtyChange::Keep => {}
        }
        if was_dirty && facts.dirty {
            assert_eq!(self.since, was_since, "the marker does not move while the episode lasts: {action:?}");
        }
        assert_eq!(self.since.is_some(), facts.dirty);
        self.said = conditions(facts, pin, target, &self.said);
        (self.facts, self.pin) = (facts, pin);
        assert_eq!(conditions(facts, pin, target, &self.said), self.said, "I10");
        action
    }
}

fn many() -> ProptestConfig {
    ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() }
}

fn any_facts() -> impl Strategy<Value = ChatFacts> {
    let word = (select(ChatState::ALL), select(RefreshPolicy::ALL));
    (any::<[bool; 4]>(), word).prop_map(|([archived, suspended, refresh_pending, dirty], (state, policy))| ChatFacts {
        archived,
        suspended,
        state,
        policy,
        refresh_pending,
        dirty,
    })
}

prop_compose! {
    fn any_latest()(id in 0..4_i64, hash in prop_oneof![Just([7_u8; 32]), any::<[u8; 32]>()]) -> Latest {
        Latest { snapshot: moorline::model::snapshot::SnapshotId(id), hash: moorline::model::hash::ContextHash::from_slice(&hash).unwrap() }
    }
}

fn any_target() -> impl Strategy<Value = Target> {
    let agent = (any_id(), proptest::option::of(any_latest())).prop_map(|(id, latest)| Target::Agent { id, latest });
    prop_oneof![1 => Just(Target::Unbound), 1 => Just(Target::Missing), 6 => agent]
}

fn any_id() -> impl Strategy<Value = uuid::Uuid> {
    prop_oneof![Just(agent_id(1)), any::<u128>().prop_map(uuid::Uuid::from_u128)]
}

proptest! {
    #![proptest_config(many())]

    #[test]
    fn any_state_settles_in_one_step_and_keeps_the_invariants(
        facts in any_facts(),
        pin in proptest::option::of((any_id(), any_latest())),
        target in any_target(),
    ) {
        let pin = pin.map(|(agent, Latest { snapshot, hash })| Pin { snapshot, agent, hash });
        let facts = ChatFacts { dirty: facts.dirty && pin.is_some(), ..facts };
        let (_, after, pin) = step(facts, pin, target);
        conditions(after, pin, target, &Verdicts::new());
    }

    #[test]
    fn every_history_keeps_the_invariants_after_each_converge(history in vec((happens(), any::<bool>()), 0..60)) {
        let mut world = World::new();
        for (what, converge) in history {
            world.happen(what);
            if converge {
                world.converge();
                prop_assert_eq!(world.converge(), Action::Keep, "I10: a converged chat is kept");
            }
        }
        world.converge();
    }

    #[test]
    fn a_pin_survives_everything_but_what_may_move_it(history in vec(happens(), 0..60)) {
        // I2 and I4, along a history: whatever happens to agents, the pin is there until an action puts another in its place.
        let mut world = World::new();
        for what in history {
            let before = world.pin;
            world.happen(what);
            prop_assert_eq!(world.pin, before);
            let event = world.converge().change().event;
            let moved = matches!(
                event,
                Some(EventKind::ContextHydrated | EventKind::ContextRefreshed | EventKind::AgentRebound | EventKind::ContextCleared)
            );
            prop_assert!(moved || world.pin == before);
            prop_assert!(event == Some(EventKind::ContextCleared) || world.pin.is_some() >= before.is_some());
        }
    }

    #[test]
    fn a_chat_is_dirty_exactly_while_its_agent_is_elsewhere_and_a_b_a_ends_clean(hashes in vec(0..=3_u8, 1..40)) {
        let start = hashes[0];
        let mut world = World::new();
        world.happen(Happens::Create { agent: 1, build: None });
        let mut episode = None;
        for (n, hash) in hashes.into_iter().chain([start]).enumerate() {
            world.happen(Happens::Push { agent: 1, hash });
            world.converge();
            prop_assert_eq!(world.pin.map(|pin| pin.hash), Some(snapshot(1, start).hash), "the pin does not move");
            prop_assert_eq!(world.facts.dirty, hash != start);
            episode = world.facts.dirty.then(|| episode.unwrap_or(n + 1));
            prop_assert_eq!(world.since, episode, "since the first push of this episode");
        }
        prop_assert!(!world.facts.dirty);
    }

    #[test]
    fn coalesced_pushes_end_where_single_ones_do(hashes in vec(0..=3_u8, 1..20), more in vec(0..=3_u8, 1..20)) {
        // Level-triggered: a loop that saw only the last push ends with the same pin and the same marker.
        let (mut each, mut last) = (World::new(), World::new());
        for world in [&mut each, &mut last] {
            world.happen(Happens::Create { agent: 1, build: None });
            world.happen(Happens::Push { agent: 1, hash: hashes[0] });
            world.converge();
        }
        for hash in hashes.into_iter().chain(more) {
            for world in [&mut each, &mut last] {
                world.happen(Happens::Push { agent: 1, hash });
            }
            each.converge();
        }
        last.converge();
        prop_assert_eq!((each.facts, each.pin), (last.facts, last.pin));
    }

    #[test]
    fn freezing_keeps_pin_and_marker_and_thawing_evaluates_the_level_afresh(
        before in vec(happens(), 0..30),
        meanwhile in vec((1..=3_u8, 0..=3_u8), 0..10),
        archive in any::<bool>(),
    ) {
        let mut world = World::new();
        for what in before {
            world.happen(what);
            world.converge();
        }
        let freeze = |on| if archive { Happens::Archive(on) } else { Happens::Suspend(on) };
        world.happen(freeze(true));
        world.converge();
        let frozen = (world.pin, world.facts.dirty, world.since);
        for (agent, hash) in meanwhile {
            world.happen(Happens::Push { agent, hash });
            prop_assert_eq!(world.converge(), Action::Keep);
            prop_assert_eq!((world.pin, world.facts.dirty, world.since), frozen);
        }
        world.happen(freeze(false));
        world.converge();
        prop_assert_eq!(plan(world.facts, world.pin, world.target()), Action::Keep);
    }

    #[test]
    fn under_on_drift_a_chat_follows_every_push_and_is_never_dirty(hashes in vec(0..=3_u8, 1..30)) {
        let mut world = World::new();
        world.happen(Happens::Create { agent: 1, build: None });
        world.happen(Happens::Policy(RefreshPolicy::OnDrift));
        for hash in hashes {
            world.happen(Happens::Push { agent: 1, hash });
            world.converge();
            prop_assert_eq!((world.pin.map(|pin| pin.hash), world.facts.dirty), (Some(snapshot(1, hash).hash), false));
        }
        prop_assert_eq!(world.target(), of(1, world.pin.map(|pin| pin.hash.as_bytes()[0])));
    }
}
