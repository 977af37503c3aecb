//! Who calls, and what they may do: by the rules of `--auth none` and `token`, or by what a cluster says.
//!
//! In a cluster somebody may do something when RBAC says so, or when the record is theirs: the chats that they own, and as a
//! service account the agents of its namespace that name it. To create, and to name an agent in a chat that is there, RBAC alone
//! decides: whoever names an agent reads its context. The cluster is asked only where owning does not decide, so pushing costs
//! it a question about the token and none about rights.

use super::{
    MASTERS,
    cluster::{Deed, Reviews, Subject},
};
use crate::{
    http::status::{ApiError, GROUP, Resource},
    model::access::Reach,
};
use secrecy::SecretString;
use std::sync::Arc;
use tokio::time::Instant;

/// Who calls.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The user name.
    pub user: String,
    /// The groups.
    pub groups: Vec<String>,
    access: Access,
}

/// What decides about somebody.
#[derive(Clone, Debug)]
enum Access {
    /// The rules of `none` and `token`.
    Rules,
    /// A cluster.
    Cluster(Arc<Known>),
}

/// Somebody whom a cluster knows.
#[derive(Debug)]
struct Known {
    reviews: Arc<Reviews>,
    subject: Arc<Subject>,
    token: SecretString,
}

/// What is asked. An empty namespace means in all of them, an empty name with all objects.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// `get`, `update` and so on.
    pub verb: &'static str,
    /// Of which resource.
    pub resource: Resource,
    /// Of which subresource.
    pub subresource: Option<&'static str>,
    /// Where.
    pub namespace: &'a str,
    /// The object's name.
    pub name: &'a str,
}

/// What a list or a watch may be cut from.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Whose records.
    pub reach: Reach,
    /// Of which namespace; none means of all.
    pub namespace: Option<String>,
    /// When a watch must ask again.
    pub until: Option<Instant>,
}

impl Scope {
    /// Whether it is the same but for the time.
    pub fn shows_the_same(&self, other: &Self) -> bool {
        (&self.reach, &self.namespace) == (&other.reach, &other.namespace)
    }
}

/// The lists that tell of what happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventList {
    /// `contextevents`.
    ContextEvents,
    /// core/v1 Events: the same in another form. Both rights are needed, for many may read Events who may not read of chats.
    CoreEvents,
}

impl Identity {
    /// Somebody about whom the rules of `none` and `token` decide.
    pub fn by_rules(user: String, groups: Vec<String>) -> Self {
        Self { user, groups, access: Access::Rules }
    }

    /// Somebody about whom a cluster decides.
    pub fn in_cluster(reviews: Arc<Reviews>, subject: Arc<Subject>, token: SecretString) -> Self {
        let (user, groups) = (subject.user.clone(), subject.groups.clone());
        Self { user, groups, access: Access::Cluster(Arc::new(Known { reviews, subject, token })) }
    }

    /// Whether this is a member of `system:masters`.
    fn is_master(&self) -> bool {
        self.groups.iter().any(|group| group == MASTERS)
    }

    /// Refuses a path that is no object's to whom the cluster does not let get it (RBAC lets `system:masters`); without a cluster, to all but members of
    /// `system:masters`.
    pub async fn check_path(&self, path: &'static str) -> Result<(), ApiError> {
        let allowed = match &self.access {
            Access::Rules => self.is_master(),
            Access::Cluster(known) => known.reviews.may_get(&known.subject, path).await.map_err(|_| unanswered())?.value,
        };
        if allowed { Ok(()) } else { Err(ApiError::denied(&format!("User {:?} cannot get path {path:?}", self.user))) }
    }

    fn by_the_rules(&self) -> Reach {
        if self.is_master() { Reach::Everything } else { Reach::Own(self.user.clone()) }
    }

    /// What is somebody's own of a kind without any right; of one namespace, or of all.
    fn own(&self, resource: Resource, namespace: Option<&str>) -> (Reach, Option<String>) {
        let Access::Cluster(known) = &self.access else { return (self.by_the_rules(), namespace.map(str::to_owned)) };
        match (resource, known.subject.service_account()) {
            (Resource::Chats, _) => (Reach::OwnChats(self.user.clone()), namespace.map(str::to_owned)),
            (Resource::Agents | Resource::AgentSnapshots, Some((home, account))) if namespace.is_none_or(|own| own == home) => {
                (Reach::Own(account.to_owned()), Some(home.to_owned()))
            }
            // No account has an empty name.
            (Resource::Agents | Resource::AgentSnapshots, _) => (Reach::Own(String::new()), namespace.map(str::to_owned)),
        }
    }

    fn owns(&self, asked: &Asked<'_>, owner: Option<&str>) -> bool {
        self.own(asked.resource, Some(asked.namespace)).0.covers(owner)
    }

    /// Whether somebody may, where nobody has to be asked for that. `owner` is the chat's owner, or the agent's service account.
    pub fn known(&self, asked: &Asked<'_>, owner: Option<&str>) -> Option<bool> {
        match &self.access {
            Access::Rules => Some(self.by_the_rules().covers(owner)),
            Access::Cluster(_) if self.owns(asked, owner) => Some(true),
            Access::Cluster(known) => known.reviews.known(&known.subject, &deed(asked)),
        }
    }

    /// Refuses what somebody may not do with a record that is there. `owner` is the chat's owner, or the agent's service account.
    pub async fn check(&self, asked: &Asked<'_>, owner: Option<&str>) -> Result<(), ApiError> {
        let allowed = match self.known(asked, owner) {
            Some(known) => known,
            None => self.allowed(asked).await?,
        };
        if allowed { Ok(()) } else { Err(self.forbidden(asked)) }
    }

    /// Why somebody does not get what is not there. In a cluster it is not told to whom it would not be shown either.
    pub async fn missing(&self, asked: &Asked<'_>) -> ApiError {
        let allowed = match &self.access {
            Access::Rules => Ok(()),
            Access::Cluster(_) => self.check(asked, None).await,
        };
        allowed.err().unwrap_or_else(|| ApiError::not_found(asked.resource, asked.name))
    }

    /// The user whose a new record is when nobody says whose; none when it is nobody's.
    pub fn default_owner(&self, resource: Resource, namespace: &str, reach: &Reach) -> Option<String> {
        match (&self.access, resource) {
            (_, Resource::Chats) => Some(self.user.clone()),
            (Access::Rules, _) => reach.user().map(str::to_owned),
            // A service account that makes its own agent means that, whatever else it may.
            (Access::Cluster(_), _) => {
                self.own(resource, Some(namespace)).0.user().filter(|own| !own.is_empty()).map(str::to_owned)
            }
        }
    }

    /// What a creation may reach: in a cluster only whoever may create at all gets here, and whoever may change what others have
    /// may create for others.
    pub async fn creates(&self, asked: &Asked<'_>) -> Result<Reach, ApiError> {
        let Access::Cluster(_) = &self.access else { return Ok(self.by_the_rules()) };
        if !self.allowed(asked).await? {
            return Err(self.forbidden(asked));
        }
        let changes = Asked { verb: "update", name: "", ..*asked };
        if self.allowed(&changes).await? { Ok(Reach::Everything) } else { Ok(self.own(asked.resource, Some(asked.namespace)).0) }
    }

    /// What a write reaches besides the record that it is of, whose it is or whom RBAC lets.
    pub async fn reach(&self, asked: &Asked<'_>) -> Reach {
        let own = self.own(asked.resource, Some(asked.namespace)).0;
        match &self.access {
            Access::Rules => own,
            // Nobody answers: then somebody is here by owning it.
            Access::Cluster(_) => {
                if self.allowed(asked).await.unwrap_or(false) {
                    Reach::Everything
                } else {
                    own
                }
            }
        }
    }

    /// Refuses to name an agent in a chat that is there, to whom could not name it in a new one.
    pub async fn check_naming(&self, namespace: &str) -> Result<(), ApiError> {
        let asked = Asked { verb: "create", resource: Resource::Chats, subresource: None, namespace, name: "" };
        match &self.access {
            Access::Rules => Ok(()),
            Access::Cluster(_) if self.allowed(&asked).await? => Ok(()),
            Access::Cluster(_) => Err(self.forbidden(&asked)),
        }
    }

    /// What a list or a watch (`verb`) of a namespace, or of all, may be cut from.
    pub async fn scope(&self, verb: &'static str, resource: Resource, namespace: Option<&str>) -> Result<Scope, ApiError> {
        let asked = Asked { verb, resource, subresource: None, namespace: namespace.unwrap_or_default(), name: "" };
        let (own, within) = self.own(resource, namespace);
        self.scope_of(&[deed(&asked)], namespace, own, within).await
    }

    /// The same of what tells of events.
    pub async fn event_scope(&self, verb: &'static str, list: EventList, namespace: Option<&str>) -> Result<Scope, ApiError> {
        let deed = |group, resource| Deed {
            verb,
            group,
            resource,
            subresource: None,
            namespace: namespace.unwrap_or_default().to_owned(),
            name: String::new(),
        };
        let context = deed(GROUP, "contextevents");
        let deeds = match list {
            EventList::ContextEvents => vec![context],
            EventList::CoreEvents => vec![context, deed("", "events")],
        };
        let own = match &self.access {
            Access::Rules => self.by_the_rules(),
            Access::Cluster(_) => Reach::OwnChats(self.user.clone()),
        };
        self.scope_of(&deeds, namespace, own, namespace.map(str::to_owned)).await
    }

    async fn scope_of(
        &self,
        deeds: &[Deed],
        namespace: Option<&str>,
        own: Reach,
        within: Option<String>,
    ) -> Result<Scope, ApiError> {
        let Access::Cluster(known) = &self.access else { return Ok(Scope { reach: own, namespace: within, until: None }) };
        let mut until = Instant::now() + known.reviews.times().allow;
        for deed in deeds {
            let answer = known.reviews.allowed(&known.subject, deed).await.map_err(|_| unanswered())?;
            if !answer.value {
                return Ok(Scope { reach: own, namespace: within, until: Some(until) });
            }
            until = until.min(answer.until);
        }
        Ok(Scope { reach: Reach::Everything, namespace: namespace.map(str::to_owned), until: Some(until) })
    }

    /// The same caller, if the token is still good.
    pub async fn again(&self) -> Result<Self, ApiError> {
        let Access::Cluster(known) = &self.access else { return Ok(self.clone()) };
        identify(&known.reviews, known.token.clone()).await
    }

    async fn allowed(&self, asked: &Asked<'_>) -> Result<bool, ApiError> {
        let Access::Cluster(known) = &self.access else { return Ok(self.by_the_rules() == Reach::Everything) };
        let answer = known.reviews.allowed(&known.subject, &deed(asked)).await;
        answer.map(|answer| answer.value).map_err(|_| unanswered())
    }

    /// A refusal, as a kube-apiserver's.
    pub fn forbidden(&self, asked: &Asked<'_>) -> ApiError {
        let Asked { verb, resource, subresource, namespace, name } = asked;
        let resource_path = match subresource {
            Some(subresource) => format!("{}/{subresource}", resource.plural()),
            None => resource.plural().to_owned(),
        };
        let message = format!(
            "{}.{GROUP} {name:?} is forbidden: User {:?} cannot {verb} resource {resource_path:?} in API group {GROUP:?} in the namespace {namespace:?}",
            resource.plural(),
            self.user
        );
        ApiError::forbidden(*resource, name, message)
    }
}

/// Who sends a token, as a cluster knows them.
pub async fn identify(reviews: &Arc<Reviews>, token: SecretString) -> Result<Identity, ApiError> {
    match reviews.subject(&token).await {
        Ok(Some(subject)) => Ok(Identity::in_cluster(Arc::clone(reviews), subject, token)),
        Ok(None) => Err(ApiError::unauthorized()),
        Err(_) => Err(ApiError::unavailable(
            "the cluster, which knows who sends this token, does not answer: nothing was done; try again",
        )),
    }
}

/// Nobody says what the caller may do. Why not stands in the log.
fn unanswered() -> ApiError {
    ApiError::unavailable("the cluster, which knows what you may do, does not answer: nothing was done; try again")
}

fn deed(asked: &Asked<'_>) -> Deed {
    let Asked { verb, resource, subresource, namespace, name } = asked;
    // Why a chat is as it is: whoever may read the chat may read that.
    let subresource = subresource.filter(|subresource| *subresource != "why");
    let (namespace, name) = ((*namespace).to_owned(), (*name).to_owned());
    Deed { verb, group: GROUP, resource: resource.plural(), subresource, namespace, name }
}
