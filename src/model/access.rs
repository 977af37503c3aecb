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
