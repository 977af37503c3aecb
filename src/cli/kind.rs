//! The kinds that can be named on a command line, by every name that kubectl takes for them.

use crate::v1alpha1::GROUP;
use std::{fmt, str::FromStr};

/// A kind of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `chats`
    Chats,
    /// `agents`
    Agents,
    /// `agentsnapshots`
    AgentSnapshots,
    /// `contextevents`
    ContextEvents,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Chats, Self::Agents, Self::AgentSnapshots, Self::ContextEvents];

    /// As it stands in paths.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Chats => "chats",
            Self::Agents => "agents",
            Self::AgentSnapshots => "agentsnapshots",
            Self::ContextEvents => "contextevents",
        }
    }

    /// Of one.
    pub const fn singular(self) -> &'static str {
        match self {
            Self::Chats => "chat",
            Self::Agents => "agent",
            Self::AgentSnapshots => "agentsnapshot",
            Self::ContextEvents => "contextevent",
        }
    }

    /// What may be typed instead.
    pub const fn short(self) -> &'static [&'static str] {
        match self {
            Self::Chats => &["mchat"],
            Self::Agents => &["magent"],
            Self::AgentSnapshots => &["msnap"],
            Self::ContextEvents => &[],
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.plural())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        let name = match lower.split_once('.') {
            Some((name, group)) if group == GROUP || group == format!("v1alpha1.{GROUP}") => name,
            Some(_) | None => lower.as_str(),
        };
        let named = |kind: &Self| kind.plural() == name || kind.singular() == name || kind.short().contains(&name);
        Self::ALL.into_iter().find(named).ok_or_else(|| {
            let known = Self::ALL.map(|kind| match kind.short() {
                [] => kind.plural().to_owned(),
                short => format!("{} ({}, {})", kind.plural(), kind.singular(), short.join(", ")),
            });
            format!("unknown kind {text:?}; there are {}", known.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::discovery::TABLE;

    #[test]
    fn every_kind_that_is_served_is_known_by_its_names() {
        for entry in TABLE.iter().filter(|entry| !entry.name.contains('/')) {
            let kind: Kind = entry.name.parse().unwrap();
            assert_eq!((kind.plural(), kind.singular(), kind.short()), (entry.name, entry.singular, entry.short));
            for name in [entry.singular, entry.kind].into_iter().chain(entry.short.iter().copied()) {
                assert_eq!(name.parse(), Ok(kind), "{name}");
            }
            assert_eq!(format!("{}.moorline.dev", entry.name).parse(), Ok(kind));
        }
        assert_eq!("pods".parse::<Kind>().unwrap_err().split(';').next(), Some("unknown kind \"pods\""));
        assert!("chats.example.com".parse::<Kind>().is_err());
    }
}
