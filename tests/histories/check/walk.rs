//! One chat's walk through its events: each transition goes on from where the one before it led.

use super::{Findings, chats::Pin};
use crate::histories::{contents, history::Target, log::Event};
use moorline::model::event::EventKind;
use serde_json::Value;

const CHAIN: &str = "a transition goes on from where the one before it led";
const DIRTY: &str = "dirty begins with a drift and ends once";

/// Where it is.
pub struct Walk<'a> {
    who: &'a str,
    pub pin: Pin,
    pub dirty: bool,
    /// The event of its deletion.
    pub over: Option<&'a Event>,
    pub findings: &'a mut Findings,
}

impl<'a> Walk<'a> {
    /// Before its first event.
    pub fn new(who: &'a str, findings: &'a mut Findings) -> Self {
        Self { who, pin: Pin::None, dirty: false, over: None, findings }
    }

    /// One event; answers with the pin after it.
    pub fn step(&mut self, event: &'a Event) -> Pin {
        let who = self.who;
        if let Some(over) = self.over {
            self.findings.add("nothing comes after a deletion", format!("{who}: {event} comes after {over}"));
        }
        match event.kind {
            EventKind::ChatCreated => self.pin = if event.inherits { Pin::Inherited } else { Pin::None },
            EventKind::ChatUpdated => {}
            EventKind::ContextHydrated => {
                self.findings
                    .unless(self.pin == Pin::None, CHAIN, || format!("{who}: {event} overwrites the pin {:?}", self.pin));
                self.from(event);
                self.moves(event);
            }
            EventKind::ContextRefreshed => {
                self.from(event);
                self.moves(event);
            }
            EventKind::AgentRebound => {
                self.findings.unless(self.pin != Pin::None, CHAIN, || format!("{who}: {event} rebinds what had no pin"));
                self.from(event);
                self.moves(event);
            }
            EventKind::ContextCleared => {
                let clears = self.pin != Pin::None && event.to.is_none();
                self.findings.unless(clears, CHAIN, || format!("{who}: {event} clears {:?}", self.pin));
                self.from(event);
                self.ends(event);
                self.pin = Pin::None;
            }
            EventKind::ContextDrifted => {
                self.from(event);
                let differs = event.to.is_some() && event.to != event.from;
                self.findings.unless(differs, DIRTY, || format!("{who}: {event} goes from {:?} to the same", event.from));
                self.findings.unless(!self.dirty, DIRTY, || format!("{who}: {event} marks what is dirty already"));
                self.dirty = true;
            }
            EventKind::ContextConverged => {
                self.from(event);
                self.findings.unless(self.dirty, DIRTY, || format!("{who}: {event} ends a drift that had not begun"));
                self.ends(event);
            }
            EventKind::ChatDeleted => {
                self.over = Some(event);
                if let Some(last) = &event.last {
                    let (pin, dirty) = (&self.pin, self.dirty);
                    self.findings.unless(pin.agrees(last.hash.as_deref()) && last.dirty == dirty, CHAIN, || {
                        format!("{who}: {event} tells of {last:?}, and the log leads to {pin:?}, dirty {dirty}")
                    });
                }
            }
            EventKind::AgentCreated
            | EventKind::AgentUpdated
            | EventKind::AgentDeleted
            | EventKind::SnapshotAccepted
            | EventKind::SnapshotDeleted => self.findings.add("an event is of one object", format!("{who}: {event}")),
        }
        self.pin.clone()
    }

    /// It goes from the pin there is. A child's first event tells what it inherited.
    fn from(&mut self, event: &Event) {
        if self.pin == Pin::Inherited
            && let Some(from) = &event.from
        {
            self.pin = Pin::To(from.clone());
        }
        let (who, pin) = (self.who, &self.pin);
        self.findings.unless(pin.agrees(event.from.as_deref()), CHAIN, || {
            format!("{who}: {event} goes from {:?}, and the pin is {pin:?}", event.from)
        });
    }

    /// The pin goes to one of the contexts of the agent that the event names.
    fn moves(&mut self, event: &Event) {
        let who = self.who;
        self.ends(event);
        match (&event.to, &event.agent_name) {
            (Some(to), Some(agent)) => {
                let of = Target { namespace: event.namespace.to_string(), name: agent.to_string() };
                self.findings.unless(contents::is_of(&of, to), "a pin is a context of its agent", || {
                    format!("{who}: {event} pins {to}, which agent {of} never reported")
                });
                self.pin = Pin::To(to.clone());
            }
            (to, agent) => self.findings.add(CHAIN, format!("{who}: {event} pins {to:?} of {agent:?}")),
        }
    }

    /// No drift is left. The event says whether there was one.
    fn ends(&mut self, event: &Event) {
        let (who, dirty) = (self.who, self.dirty);
        let says = event.before.as_ref().and_then(|before| before.get("dirty")).and_then(Value::as_bool) == Some(true);
        self.findings.unless(says == dirty, DIRTY, || {
            format!("{who}: {event} says that it was dirty: {says}, and the log leads to {dirty}")
        });
        self.dirty = false;
    }
}
