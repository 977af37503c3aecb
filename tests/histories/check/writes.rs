//! What clients were told: every acknowledged write is there, once, as it was acknowledged; none that was refused is; and who came
//! after another in time comes after him in the log.

use super::{Evidence, Findings, chats::Followed, follow};
use crate::histories::{
    history::{Outcome, Record, Target},
    log::{Event, Place},
    operation::Op,
};
use moorline::model::event::EventKind;
use std::collections::HashMap;
use uuid::Uuid;

const THERE: &str = "every acknowledged write is there";
const ONCE: &str = "a write is there at most once, and none that was refused";
const ORDER: &str = "who came later in time comes later in the log";
const READ: &str = "a read shows what was written before it, whole";

/// Where a mark came to be.
struct Marked {
    id: Uuid,
    target: Target,
    place: Place,
}

/// Compares the history with the stories.
pub fn check(
    evidence: &Evidence,
    stories: &HashMap<Uuid, Vec<&Event>>,
    followed: &HashMap<Uuid, Followed>,
    findings: &mut Findings,
) {
    let marks = marks(evidence, stories, followed, findings);
    let mut placed: HashMap<(bool, &Target), Vec<(&Record, Place)>> = HashMap::new();
    for record in &evidence.history.records {
        if record.op.leaves_mark() {
            marked(record, &marks, findings);
        }
        if let Some(place) = place(record, &marks, stories, followed, findings) {
            placed.entry((record.op.is_of_chat(), &record.target)).or_default().push((record, place));
        }
    }
    for writes in placed.values_mut() {
        in_time(writes, findings);
    }
    reads(evidence, followed, &placed, findings);
    pushes(evidence, findings);
    refreshes(evidence, findings);
}

/// Every mark that any object has ever had.
fn marks(
    evidence: &Evidence,
    stories: &HashMap<Uuid, Vec<&Event>>,
    followed: &HashMap<Uuid, Followed>,
    findings: &mut Findings,
) -> HashMap<String, Marked> {
    let mut all: HashMap<String, Marked> = HashMap::new();
    for (id, story) in stories {
        let kept;
        let of_story = if let Some(chat) = followed.get(id) {
            &chat.marks
        } else {
            let gone = story[story.len() - 1].last.as_ref();
            let last =
                evidence.state.agents.get(id).map_or_else(|| gone.and_then(|last| last.mark.clone()), |agent| agent.mark.clone());
            kept = follow::afterwards(story, last, follow::mark);
            &kept
        };
        let target = Target { namespace: story[0].namespace.to_string(), name: story[0].name.to_string() };
        let mut before = None;
        for (event, mark) in story.iter().zip(of_story) {
            if let Some(mark) = mark.as_ref().filter(|_| before != Some(mark)) {
                let here = Marked { id: *id, target: target.clone(), place: event.place };
                if let Some(other) = all.insert(mark.clone(), here) {
                    let (rv, seq) = other.place;
                    findings.add(ONCE, format!("{mark} was done by {event} ({id}) and by {rv}-{seq} of {}", other.target));
                }
            }
            before = Some(mark);
        }
    }
    all
}

/// A write that leaves a mark is there as it was acknowledged.
fn marked(record: &Record, marks: &HashMap<String, Marked>, findings: &mut Findings) {
    match (&record.outcome, marks.get(&record.mark())) {
        (Outcome::Done(done), Some(marked)) => {
            let same = done.uid == Some(marked.id) && done.rv == Some(marked.place.0) && record.target == marked.target;
            findings.unless(same, THERE, || {
                format!("{record} is in the log as {:?} of {} ({})", marked.place, marked.target, marked.id)
            });
        }
        (Outcome::Done(_), None) => findings.add(THERE, format!("{record} is not in the log")),
        (Outcome::Refused(..), Some(marked)) => {
            findings.add(ONCE, format!("{record} is in the log as {:?} of {}", marked.place, marked.target));
        }
        (Outcome::Refused(..), None) | (Outcome::Maybe(_), _) => {}
    }
}

/// Where in the log an acknowledged write is, if it is one that has a place of its own.
fn place(
    record: &Record,
    marks: &HashMap<String, Marked>,
    stories: &HashMap<Uuid, Vec<&Event>>,
    followed: &HashMap<Uuid, Followed>,
    findings: &mut Findings,
) -> Option<Place> {
    let Outcome::Done(done) = &record.outcome else { return None };
    let id = done.uid?;
    match &record.op {
        Op::DeleteChat { .. } => {
            let over = stories.get(&id).and_then(|story| story.iter().find(|event| event.kind == EventKind::ChatDeleted));
            findings.unless(over.is_some(), THERE, || format!("{record} has no ChatDeleted in the log"));
            over.map(|event| event.place)
        }
        Op::DeleteAgent => {
            let over = stories.get(&id).and_then(|story| story.iter().find(|event| event.kind == EventKind::AgentDeleted));
            findings.unless(over.is_some(), THERE, || format!("{record} has no AgentDeleted in the log"));
            None // it goes when its chats have been let go
        }
        Op::Report(state) => {
            let at = followed.get(&id).and_then(|chat| Some((chat, chat.at(done.rv?)?)));
            let Some((chat, at)) = at else {
                findings.add(THERE, format!("{record}: the log has no event of {id} at its version"));
                return None;
            };
            let was = chat.states[at].as_deref();
            findings.unless(was == Some(state), THERE, || format!("{record}: after {:?} the state was {was:?}", chat.places[at]));
            // Reporting what it was already changes nothing: then this is the place of another.
            let before = at.checked_sub(1).and_then(|before| chat.states[before].as_deref());
            (before != was).then_some(chat.places[at])
        }
        Op::CreateChat { .. }
        | Op::Mark
        | Op::Suspend(_)
        | Op::Archive(_)
        | Op::Follow(_)
        | Op::Rebind(_)
        | Op::CreateAgent { .. }
        | Op::MoveAgent { .. }
        | Op::RefreshAgent => marks.get(&record.mark()).map(|marked| marked.place),
        Op::Refresh | Op::Read | Op::Run | Op::Push { .. } => None,
    }
}

/// One object's writes: none that had come back before another went out comes after it in the log.
fn in_time(writes: &mut [(&Record, Place)], findings: &mut Findings) {
    let mut returned = writes.to_vec();
    returned.sort_by_key(|(record, _)| record.returned);
    writes.sort_by_key(|(record, _)| record.invoked);
    let (mut earlier, mut highest): (_, Option<(&Record, Place)>) = (returned.into_iter().peekable(), None);
    for (record, place) in writes.iter() {
        while let Some(before) = earlier.next_if(|(before, _)| before.precedes(record)) {
            highest = highest.filter(|highest| highest.1 >= before.1).or(Some(before));
        }
        if let Some((before, at)) = highest {
            findings.unless(at <= *place, ORDER, || format!("{before} is at {at:?}, and {record} at {place:?}"));
        }
    }
}

/// Reads are of something that was there, are not older than what had been acknowledged, and show the pin of their version.
fn reads(
    evidence: &Evidence,
    followed: &HashMap<Uuid, Followed>,
    placed: &HashMap<(bool, &Target), Vec<(&Record, Place)>>,
    findings: &mut Findings,
) {
    for record in &evidence.history.records {
        let (Op::Read, Outcome::Done(done)) = (&record.op, &record.outcome) else { continue };
        if let Some(fault) = &done.fault {
            findings.add(READ, format!("{record}: {fault}"));
        }
        let (Some(id), Some(rv)) = (done.uid, done.rv) else { continue };
        let Some((chat, at)) = followed.get(&id).and_then(|chat| Some((chat, chat.at(rv)?))) else {
            findings.add(READ, format!("{record}: the log has no event of {id} at its version"));
            continue;
        };
        findings.unless(chat.target == record.target, READ, || format!("{record} shows {}", chat.target));
        findings.unless(chat.pins[at].agrees(done.hash.as_deref()), READ, || {
            format!("{record}: after {:?} the pin was {:?}", chat.places[at], chat.pins[at])
        });
        let writes = placed.get(&(true, &record.target)).map_or(&[][..], Vec::as_slice);
        let newest = writes.iter().filter(|(write, _)| write.precedes(record)).max_by_key(|(_, place)| *place);
        if let Some((write, place)) = newest {
            findings.unless(place.0 <= rv, READ, || format!("{record} is older than {write} at {place:?}"));
        }
    }
}

/// Every acknowledged push that moved its agent is one event, and every such event is a push that was acknowledged or may have been.
fn pushes(evidence: &Evidence, findings: &mut Findings) {
    let mut counts: HashMap<(&str, &str, &str), (i64, i64, i64)> = HashMap::new();
    for event in &evidence.log.events {
        if let (EventKind::AgentUpdated, Some(to)) = (event.kind, &event.to)
            && event.from != event.to
        {
            counts.entry((&event.namespace, &event.name, to)).or_default().0 += 1;
        }
    }
    let maybes: Vec<(&Target, String)> = evidence
        .history
        .records
        .iter()
        .filter_map(|record| match (&record.op, &record.outcome) {
            (Op::Push { content, complete: true }, Outcome::Maybe(_)) => {
                Some((&record.target, crate::histories::contents::hash(&record.target, *content)))
            }
            _ => None,
        })
        .collect();
    for record in &evidence.history.records {
        if let (Op::Push { .. }, Outcome::Done(done)) = (&record.op, &record.outcome)
            && let (Some(hash), true) = (&done.hash, done.changed)
        {
            counts.entry((&record.target.namespace, &record.target.name, hash)).or_default().1 += 1;
        }
    }
    for (target, hash) in &maybes {
        counts.entry((&target.namespace, &target.name, hash)).or_default().2 += 1;
    }
    for ((namespace, name, hash), (logged, acknowledged, maybe)) in counts {
        findings.unless((acknowledged..=acknowledged + maybe).contains(&logged), THERE, || {
            format!("agent {namespace}/{name} was moved to {hash} {logged} times by the log, {acknowledged} by acknowledged pushes, {maybe} perhaps")
        });
    }
}

/// The last token that a chat was asked with is of a refresh after which no acknowledged one began.
fn refreshes(evidence: &Evidence, findings: &mut Findings) {
    let mut asked: HashMap<Uuid, Vec<&Record>> = HashMap::new();
    let mut by_mark: HashMap<String, &Record> = HashMap::new();
    for record in &evidence.history.records {
        if matches!(record.op, Op::Refresh | Op::RefreshAgent) {
            by_mark.insert(record.mark(), record);
            if let (Op::Refresh, Outcome::Done(done)) = (&record.op, &record.outcome)
                && let Some(id) = done.uid
            {
                asked.entry(id).or_default().push(record);
            }
        }
    }
    for (id, asked) in asked {
        let Some(chat) = evidence.state.chats.get(&id) else { continue };
        let last = chat.refresh_requested.as_ref().and_then(|token| by_mark.get(token));
        let Some(last) = last else {
            findings
                .add(THERE, format!("{}: the chat was asked last with {:?}, and nobody did", asked[0], chat.refresh_requested));
            continue;
        };
        findings
            .unless(!matches!(last.outcome, Outcome::Refused(..)), ONCE, || format!("{last} is what the chat was asked last"));
        if last.op == Op::Refresh
            && let Some(later) = asked.iter().find(|later| last.precedes(later))
        {
            findings.add(ORDER, format!("{later} came after {last}, which is what the chat was asked last"));
        }
    }
}
