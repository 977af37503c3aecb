//! Whose records somebody may reach: a value that becomes a predicate in SQL, so that a page of a list is cut from what may
//! be seen and never comes back short.

/// Whose records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Everybody's.
    Everything,
    /// The chats that this user owns, and the agents that may push as this user.
    Own(String),
    /// The chats that this user owns, and no agents: where users and service accounts are not named alike.
    OwnChats(String),
}

impl Reach {
    /// The user whose records they are; none when everybody's.
    pub fn user(&self) -> Option<&str> {
        match self {
            Self::Everything => None,
            Self::Own(user) | Self::OwnChats(user) => Some(user),
        }
    }

    /// Whether it leaves out whatever is no chat's.
    pub fn is_of_chats_only(&self) -> bool {
        match self {
            Self::Everything | Self::Own(_) => false,
            Self::OwnChats(_) => true,
        }
    }

    /// Whether a record of `owner` is within it, if records of its kind are.
    pub fn covers(&self, owner: Option<&str>) -> bool {
        match self {
            Self::Everything => true,
            Self::Own(user) | Self::OwnChats(user) => owner == Some(user.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reach_is_everybodys_or_one_users() {
        let (all, own, chats) = (Reach::Everything, Reach::Own("alice".into()), Reach::OwnChats("alice".into()));
        assert_eq!([&all, &own, &chats].map(Reach::user), [None, Some("alice"), Some("alice")]);
        assert_eq!([&all, &own, &chats].map(Reach::is_of_chats_only), [false, false, true]);
        for (owner, covered) in [(Some("alice"), [true; 3]), (Some("bob"), [true, false, false]), (None, [true, false, false])] {
            assert_eq!([&all, &own, &chats].map(|reach| reach.covers(owner)), covered, "{owner:?}");
        }
    }
}
