//! The checker finds what is wrong: a real history, in which nothing is, is spoilt in one place at a time, as a defect of the
//! server would have spoilt it, and what it says names the place.

use super::{
    Evidence, Violation, check,
    history::{Done, Outcome, Record},
    log::Event,
    operation::Op,
    watchers::{Stretch, Told, Transition, Word},
};
use moorline::model::event::EventKind;
use uuid::Uuid;

/// One way to spoil a history.
struct Spoilt {
    name: &'static str,
    /// What the checker says is not so.
    rule: &'static str,
    /// Spoils it. Answers with what the message has to name.
    spoil: fn(&mut Evidence) -> Vec<String>,
}

const ALL: &[Spoilt] = &[
    Spoilt {
        name: "a dropped event",
        rule: "a chat's events are numbered without a gap",
        spoil: |evidence| {
            let at = middle(evidence, EventKind::ContextDrifted);
            let event = evidence.log.events.remove(at);
            let next = evidence.log.events[at..].iter().find(|next| next.subject == event.subject).unwrap();
            vec![chat(&event), next.to_string()]
        },
    },
    Spoilt {
        name: "a dropped event, whose chat never counted it",
        rule: "a transition goes on from where the one before it led",
        spoil: |evidence| {
            let at = middle(evidence, EventKind::ContextHydrated);
            let event = evidence.log.events.remove(at);
            for later in evidence.log.events[at..].iter_mut().filter(|later| later.subject == event.subject) {
                later.chat_seq = later.chat_seq.map(|number| number - 1);
            }
            evidence.state.chats.get_mut(&event.subject.unwrap()).unwrap().events -= 1;
            vec![chat(&event)]
        },
    },
    Spoilt {
        name: "a doubled event",
        rule: "a chat's events are numbered without a gap",
        spoil: |evidence| {
            let at = middle(evidence, EventKind::ContextRefreshed);
            let mut event = evidence.log.events[at].clone();
            event.place.1 += 1_000; // later in the same transaction
            let double = event.to_string();
            let after = evidence.log.events.partition_point(|other| other.place <= event.place);
            evidence.log.events.insert(after, event.clone());
            vec![chat(&event), double]
        },
    },
    Spoilt {
        name: "two events that are swapped",
        rule: "dirty begins with a drift and ends once",
        spoil: |evidence| {
            let at = middle(evidence, EventKind::ContextDrifted);
            let subject = evidence.log.events[at].subject;
            let next = (at + 1..evidence.log.events.len()).find(|next| ends_drift(&evidence.log.events[*next], subject)).unwrap();
            let (first, second) = (evidence.log.events[at].clone(), evidence.log.events[next].clone());
            let numbered = |event: &Event, like: &Event| Event { place: like.place, chat_seq: like.chat_seq, ..event.clone() };
            evidence.log.events[at] = numbered(&second, &first);
            evidence.log.events[next] = numbered(&first, &second);
            vec![chat(&first), evidence.log.events[at].to_string()]
        },
    },
    Spoilt {
        name: "a snapshot that was never accepted",
        rule: "a snapshot is there from its acceptance to its deletion",
        spoil: |evidence| vec![dropped(evidence, EventKind::SnapshotAccepted)],
    },
    Spoilt {
        name: "a snapshot that goes without an event",
        rule: "a snapshot is there from its acceptance to its deletion",
        spoil: |evidence| vec![dropped(evidence, EventKind::SnapshotDeleted)],
    },
    Spoilt {
        name: "an acknowledged write that is not there",
        rule: "every acknowledged write is there",
        spoil: |evidence| {
            let mut record = acknowledged(evidence, |op| matches!(op, Op::Mark)).clone();
            record.number = 1_000_000;
            evidence.history.records.push(record.clone());
            vec![record.target.to_string(), record.mark()]
        },
    },
    Spoilt {
        name: "an acknowledged push that is not there",
        rule: "every acknowledged write is there",
        spoil: |evidence| {
            // Of an agent of whose pushes nobody need be in doubt.
            let records = &evidence.history.records;
            let doubtful = |of: &Record| {
                records.iter().any(|record| record.target == of.target && matches!(record.outcome, Outcome::Maybe(_)))
            };
            let moved =
                |record: &&Record| matches!(&record.outcome, Outcome::Done(Done { changed: true, .. })) && !doubtful(record);
            let record = evidence.history.records.iter().find(moved).unwrap().clone();
            evidence.history.records.push(record.clone());
            vec![format!("agent {}", record.target)]
        },
    },
    Spoilt {
        name: "an acknowledged deletion of what is still there",
        rule: "every acknowledged write is there",
        spoil: |evidence| {
            let (id, there) = evidence.state.chats.first_key_value().map(|(id, there)| (*id, there.clone())).unwrap();
            let mut record = acknowledged(evidence, |op| matches!(op, Op::DeleteChat { .. })).clone();
            record.outcome = Outcome::Done(Done { uid: Some(id), ..Done::default() });
            record.target.name.clone_from(&there.name);
            evidence.history.records.push(record.clone());
            vec![there.name, record.mark()]
        },
    },
    Spoilt {
        name: "a refused write that is there",
        rule: "a write is there at most once, and none that was refused",
        spoil: |evidence| {
            let mark = acknowledged(evidence, |op| matches!(op, Op::Rebind(_))).mark();
            let record = evidence.history.records.iter_mut().find(|record| record.mark() == mark).unwrap();
            record.outcome = Outcome::Refused(409, "Conflict".into());
            vec![mark, record.target.to_string()]
        },
    },
    Spoilt {
        name: "a state that was acknowledged and is another",
        rule: "every acknowledged write is there",
        spoil: |evidence| {
            let reports =
                |record: &&mut Record| matches!((&record.op, &record.outcome), (Op::Report("Running"), Outcome::Done(_)));
            let record = evidence.history.records.iter_mut().find(reports).unwrap();
            record.op = Op::Report("Paused");
            vec![record.mark(), record.target.to_string()]
        },
    },
    Spoilt {
        name: "two writes in the wrong order",
        rule: "who came later in time comes later in the log",
        spoil: |evidence| {
            let marked: Vec<usize> = (0..evidence.history.records.len())
                .filter(|at| {
                    let record = &evidence.history.records[*at];
                    record.op == Op::Mark && matches!(record.outcome, Outcome::Done(_))
                })
                .collect();
            let records = &mut evidence.history.records;
            let uid = |record: &Record| if let Outcome::Done(done) = &record.outcome { done.uid } else { None };
            let pair = marked.iter().flat_map(|first| marked.iter().map(move |second| (*first, *second)));
            let mut pair = pair.filter(|(first, second)| {
                uid(&records[*first]) == uid(&records[*second]) && records[*first].precedes(&records[*second])
            });
            let (first, second) = pair.next().unwrap();
            drop(pair);
            let (early, late) = (records[first].clone(), records[second].clone());
            (records[first].invoked, records[first].returned) = (late.invoked, late.returned);
            (records[second].invoked, records[second].returned) = (early.invoked, early.returned);
            vec![early.mark(), late.mark(), early.target.to_string()]
        },
    },
    Spoilt {
        name: "a read of what was long over",
        rule: "a read shows what was written before it, whole",
        spoil: |evidence| {
            let end = evidence.history.records.iter().map(|record| record.returned).max().unwrap() + 1;
            let write = acknowledged(evidence, |op| matches!(op, Op::Mark)).clone();
            let Outcome::Done(done) = &write.outcome else { unreachable!("{write}") };
            let story = evidence.log.events.iter().filter(|event| event.subject == done.uid);
            let first = story.map(|event| event.place.0).next().unwrap();
            let read = Done { uid: done.uid, rv: Some(first), ..Done::default() };
            let read = Record {
                number: 1_000_000,
                op: Op::Read,
                invoked: end,
                returned: end,
                outcome: Outcome::Done(read),
                ..write.clone()
            };
            evidence.history.records.push(read.clone());
            vec![read.mark(), write.target.to_string()]
        },
    },
    Spoilt {
        name: "a read of another pin",
        rule: "a read shows what was written before it, whole",
        spoil: |evidence| {
            let pinned = |record: &&mut Record| {
                matches!((&record.op, &record.outcome), (Op::Read, Outcome::Done(Done { hash: Some(_), .. })))
            };
            let pins: Vec<&mut Record> = evidence.history.records.iter_mut().filter(pinned).collect();
            for record in pins {
                let Outcome::Done(done) = &mut record.outcome else { continue };
                done.hash = Some("sha256:another".into());
            }
            vec!["sha256:another".into()]
        },
    },
    Spoilt {
        name: "a pin that is not where the log leads",
        rule: "the pin is where the log leads",
        spoil: |evidence| {
            let mut snapshots = evidence.state.snapshots.iter();
            // Not one whose pin is its parent's: of that the log says only that it is there.
            let moved = |id: Uuid| evidence.log.events.iter().any(|event| event.subject == Some(id) && event.tells_contexts);
            let pinned = evidence.state.chats.values().filter(|chat| moved(chat.id));
            let pinned = pinned.filter_map(|chat| Some((chat.id, evidence.state.pinned(chat)?.hash.clone())));
            let (id, hash) = pinned.into_iter().next().unwrap();
            let other = snapshots.find(|(_, snapshot)| snapshot.hash != hash).map(|(id, _)| *id).unwrap();
            let chat = evidence.state.chats.get_mut(&id).unwrap();
            chat.snapshot = Some(other);
            vec![format!("{}/{}", chat.namespace, chat.name), hash]
        },
    },
    Spoilt {
        name: "a snapshot that is not what its hash says",
        rule: "a snapshot is what its hash says",
        spoil: |evidence| {
            let snapshot = evidence.state.snapshots.values_mut().next().unwrap();
            snapshot.computed = "sha256:another".into();
            vec![format!("{}/{}", snapshot.namespace, snapshot.name)]
        },
    },
    Spoilt {
        name: "a chat that drifted and nobody marked it",
        rule: "dirty is what DESIGN says",
        spoil: |evidence| {
            let dirty = evidence.state.chats.values().find(|chat| chat.dirty && chat.is_live());
            // One that is clean is marked, when none is dirty now.
            let id = dirty.or_else(|| evidence.state.chats.values().find(|chat| chat.is_live())).unwrap().id;
            let chat = evidence.state.chats.get_mut(&id).unwrap();
            chat.dirty = !chat.dirty;
            vec![format!("{}/{}", chat.namespace, chat.name)]
        },
    },
    Spoilt {
        name: "a chat that is still due",
        rule: "it converges",
        spoil: |evidence| {
            let chat = evidence.state.chats.values_mut().next().unwrap();
            chat.due = true;
            vec![format!("{}/{}", chat.namespace, chat.name)]
        },
    },
    Spoilt {
        name: "a refresh that another has overtaken",
        rule: "every acknowledged write is there",
        spoil: |evidence| {
            let asked = |record: &&Record| {
                let Outcome::Done(Done { uid: Some(id), .. }) = &record.outcome else { return false };
                record.op == Op::Refresh && evidence.state.chats.contains_key(id)
            };
            let record = evidence.history.records.iter().find(asked).unwrap().clone();
            let Outcome::Done(Done { uid: Some(id), .. }) = record.outcome else { unreachable!("{record}") };
            evidence.state.chats.get_mut(&id).unwrap().refresh_requested = None;
            vec![record.target.to_string()]
        },
    },
    Spoilt {
        name: "a watcher that missed a transition",
        rule: "a watcher with a cursor sees every event exactly once, in order",
        spoil: |evidence| {
            let (watcher, told) = transitions(evidence);
            let missed = told.remove(told.len() / 2);
            vec![watcher, format!("{}-{}", missed.place.0, missed.place.1)]
        },
    },
    Spoilt {
        name: "a watcher that was told a transition twice",
        rule: "a watcher with a cursor sees every event exactly once, in order",
        spoil: |evidence| {
            let (watcher, told) = transitions(evidence);
            let twice = told[told.len() / 2].clone();
            told.insert(told.len() / 2, twice.clone());
            vec![watcher, twice.name]
        },
    },
    Spoilt {
        name: "a watcher that missed the last transition",
        rule: "a watcher with a cursor sees every event exactly once, in order",
        spoil: |evidence| {
            let (watcher, told) = transitions(evidence);
            let missed = told.pop().unwrap();
            vec![watcher, format!("{}-{}", missed.place.0, missed.place.1)]
        },
    },
    Spoilt {
        name: "a watch that added a chat twice",
        rule: "a watch adds what is new, once, changes what is known, and deletes it once",
        spoil: |evidence| {
            let (watcher, told) = lines(evidence);
            let known = told.iter().position(|told| told.word == Word::Modified).unwrap();
            told[known].word = Word::Added;
            vec![watcher, told[known].name.clone(), told[known].id.to_string()]
        },
    },
    Spoilt {
        name: "a watch that never added a chat",
        rule: "a watch adds what is new, once, changes what is known, and deletes it once",
        spoil: |evidence| {
            let (watcher, told) = lines(evidence);
            let added = told.iter().position(|line| {
                let goes_on =
                    |next: &Told| next.id == line.id && next.word == Word::Modified && next.connection == line.connection;
                line.word == Word::Added && told.iter().any(goes_on)
            });
            let added = told.remove(added.unwrap());
            vec![watcher, added.name, added.id.to_string()]
        },
    },
    Spoilt {
        name: "a watch that told a version before an earlier one",
        rule: "a watch tells each object's versions in order, and each is in the log",
        spoil: |evidence| {
            let (watcher, told) = lines(evidence);
            let pair = (1..told.len()).find_map(|later| {
                let same = |line: &Told| {
                    line.id == told[later].id && line.rv < told[later].rv && line.connection == told[later].connection
                };
                Some((told[..later].iter().position(same)?, later))
            });
            let (earlier, later) = pair.unwrap();
            let (name, version) = (told[earlier].name.clone(), told[later].rv);
            (told[earlier].rv, told[later].rv) = (version, told[earlier].rv);
            vec![watcher, name, version.to_string()]
        },
    },
    Spoilt {
        name: "a watch that was not told of the end of a chat",
        rule: "a watch ends with what there is",
        spoil: |evidence| {
            let (watcher, told) = lines(evidence);
            let end = told.iter().rposition(|line| {
                line.word == Word::Deleted && told.iter().any(|other| other.id == line.id && other.word != Word::Deleted)
            });
            let end = told.remove(end.unwrap());
            vec![watcher, end.name, end.id.to_string()]
        },
    },
];

/// As messages name a chat.
fn chat(event: &Event) -> String {
    format!("chat {}/{} ({})", event.namespace, event.name, event.subject.unwrap())
}

/// An event of this kind, of a chat that is there still and that has a later event.
/// Takes the first event of a kind out of the log. Answers with whose it was.
fn dropped(evidence: &mut Evidence, kind: EventKind) -> String {
    let events = &mut evidence.log.events;
    let at = events.iter().position(|event| event.kind == kind).unwrap_or_else(|| panic!("a history with a {kind}"));
    let event = events.remove(at);
    format!("{}/{}", event.namespace, event.name)
}

fn middle(evidence: &Evidence, kind: EventKind) -> usize {
    let events = &evidence.log.events;
    let is_in_the_middle = |at: &usize| {
        let event = &events[*at];
        event.kind == kind
            && event.subject.is_some_and(|id| evidence.state.chats.contains_key(&id))
            && events[at + 1..].iter().any(|later| {
                let goes_on = later.subject == event.subject && later.tells_contexts;
                if kind == EventKind::ContextDrifted { ends_drift(later, event.subject) } else { goes_on }
            })
    };
    (0..events.len()).find(is_in_the_middle).unwrap_or_else(|| panic!("a history with a {kind} in the middle"))
}

fn ends_drift(event: &Event, subject: Option<Uuid>) -> bool {
    let dirty = event.before.as_ref().and_then(|before| before.get("dirty"));
    event.subject == subject && dirty == Some(&serde_json::Value::Bool(true))
}

fn acknowledged(evidence: &Evidence, of: impl Fn(&Op) -> bool) -> &Record {
    let mut records = evidence.history.records.iter();
    records.find(|record| of(&record.op) && matches!(record.outcome, Outcome::Done(_))).unwrap()
}

/// What the first watcher of transitions was told, to its end.
fn transitions(evidence: &mut Evidence) -> (String, &mut Vec<Transition>) {
    let of = |stretch: &Stretch| matches!(stretch, Stretch::Events { .. });
    let seen = evidence.seen.iter_mut().find(|seen| seen.stretches.last().is_some_and(of)).unwrap();
    match seen.stretches.last_mut() {
        Some(Stretch::Events { told, .. }) => (seen.watcher.clone(), told),
        other => unreachable!("{other:?}"),
    }
}

/// The same of a watcher of chats that never listed anew.
fn lines(evidence: &mut Evidence) -> (String, &mut Vec<Told>) {
    let seen = evidence
        .seen
        .iter_mut()
        .find(|seen| matches!(seen.stretches.as_slice(), [Stretch::Objects { selects: false, .. }]))
        .unwrap();
    match seen.stretches.last_mut() {
        Some(Stretch::Objects { told, .. }) => (seen.watcher.clone(), told),
        other => unreachable!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_spoilt_in_a_history_is_found_and_named() {
    let (whole, _) = super::one_history(2_000, 7, true).await;
    let sound: Vec<Violation> = check(&whole);
    assert!(sound.is_empty(), "{} violations of a sound history, the first: {}", sound.len(), sound[0]);
    for Spoilt { name, rule, spoil } in ALL {
        let mut evidence = whole.clone();
        let named = spoil(&mut evidence);
        let found = check(&evidence);
        let tells = |violation: &&Violation| violation.rule == *rule && named.iter().all(|part| violation.what.contains(part));
        let told = found.iter().find(tells);
        assert!(told.is_some(), "{name}: no message says that it is not so that {rule}, and names {named:?}; found: {found:#?}");
    }
    println!("histories: {} ways to spoil one, each found", ALL.len());
}
