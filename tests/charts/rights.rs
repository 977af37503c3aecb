//! The rights that the chart gives are those that Moorline asks about at its start, and no others: each of them taken away is
//! named by that question. What it does not ask about is in [`EXPLAINED`].

use super::matrix;
use crate::support::{
    envtest::{Audit, ControlPlane},
    helm::{Helm, args, of_kind},
    postgres::database,
    serve::Replica,
    until::until,
};
use clap::{CommandFactory as _, Parser};
use moorline::kubernetes::{FrontOptions, schema::rights::missing_verbs};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Rights that the front does not need, and who does.
const EXPLAINED: [(&str, &str, &str, &str); 2] = [
    ("create", "authentication.k8s.io", "tokenreviews", "--auth kubernetes asks who a caller is"),
    ("create", "authorization.k8s.io", "subjectaccessreviews", "--auth kubernetes asks what a caller may do"),
];

const KINDS: [&str; 5] = ["ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"];

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    options: FrontOptions,
}

/// One verb on one kind, in one place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// Where the role is that gives it; none: it is for the whole cluster.
    namespace: Option<String>,
    role: String,
    verb: String,
    group: String,
    /// With its subresource.
    resource: String,
    name: Option<String>,
}

/// A release in a cluster: its accounts and rights, and nothing that would run.
pub struct Release<'a> {
    control_plane: &'a ControlPlane,
    namespace: String,
    pub objects: Vec<Value>,
}

impl<'a> Release<'a> {
    /// Installs it.
    pub async fn of(control_plane: &'a ControlPlane, namespace: &str, values: &Value) -> Self {
        let objects = Helm::alone().objects(namespace, &matrix::with(values)).await;
        let rights: Vec<&Value> = KINDS.iter().flat_map(|kind| of_kind(&objects, kind)).collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": rights});
        control_plane.access(namespace).kubectl().fed(&["apply", "-f", "-"], &list.to_string()).await.out();
        Self { control_plane, namespace: namespace.to_owned(), objects }
    }

    /// What an account of the release shows.
    pub async fn token(&self, account: &str) -> String {
        let path = format!("/api/v1/namespaces/{}/serviceaccounts/{account}/token", self.namespace);
        let token = self.control_plane.send("POST", &path, Some(&json!({"spec": {}}))).await.unwrap();
        token["status"]["token"].as_str().unwrap().to_owned()
    }

    /// What an account may do because of the release.
    pub fn rights(&self, account: &str) -> Vec<Right> {
        let mut rights = Vec::new();
        for kind in ["Role", "ClusterRole"] {
            for role in of_kind(&self.objects, kind).filter(|role| self.is_bound(role, account)) {
                let namespace = role["metadata"]["namespace"].as_str().map(str::to_owned);
                for rule in role["rules"].as_array().unwrap() {
                    rights.extend(each(namespace.as_deref(), role["metadata"]["name"].as_str().unwrap(), rule));
                }
            }
        }
        rights
    }

    fn is_bound(&self, role: &Value, account: &str) -> bool {
        let kind = format!("{}Binding", role["kind"].as_str().unwrap());
        of_kind(&self.objects, &kind).any(|binding| {
            binding["metadata"]["namespace"] == role["metadata"]["namespace"]
                && binding["roleRef"]["name"] == role["metadata"]["name"]
                && binding["subjects"] == json!([{"kind": "ServiceAccount", "name": account, "namespace": self.namespace}])
        })
    }

    /// Gives a role these rights, of all, instead of those it has.
    async fn give(&self, role: &Right, rights: &[Right]) {
        let its = rights.iter().filter(|right| right.role == role.role && right.namespace == role.namespace);
        let one = |right: &Right| {
            let names = right.name.iter().collect::<Vec<_>>();
            json!({"apiGroups": [right.group], "resources": [right.resource], "resourceNames": names, "verbs": [right.verb]})
        };
        let rules: Vec<Value> = its.map(one).collect();
        let place =
            role.namespace.as_ref().map_or("clusterroles".to_owned(), |namespace| format!("namespaces/{namespace}/roles"));
        let path = format!("/apis/rbac.authorization.k8s.io/v1/{place}/{}", role.role);
        self.control_plane.send("PATCH", &path, Some(&json!({"rules": rules}))).await.unwrap();
    }
}

fn each(namespace: Option<&str>, of: &str, rule: &Value) -> Vec<Right> {
    let texts = |key: &str| -> Vec<String> {
        rule[key].as_array().into_iter().flatten().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let names = texts("resourceNames");
    let names: Vec<Option<String>> = if names.is_empty() { vec![None] } else { names.into_iter().map(Some).collect() };
    let mut rights = Vec::new();
    for group in texts("apiGroups") {
        for resource in texts("resources") {
            for verb in texts("verbs") {
                for name in &names {
                    rights.push(Right {
                        namespace: namespace.map(str::to_owned),
                        role: of.to_owned(),
                        verb: verb.clone(),
                        group: group.clone(),
                        resource: resource.clone(),
                        name: name.clone(),
                    });
                }
            }
        }
    }
    rights
}

impl Right {
    /// Whether a request needs it.
    pub fn is_needed_for(&self, request: &Audit) -> bool {
        (&self.verb, &self.resource) == (&request.verb, &request.resource)
            && self.namespace.as_ref().is_none_or(|namespace| *namespace == request.namespace)
            && self.name.as_ref().is_none_or(|name| *name == request.name)
    }

    /// As `verb resource`.
    pub fn short(&self) -> String {
        format!("{} {}", self.verb, self.resource)
    }

    pub fn explained(&self) -> bool {
        EXPLAINED.iter().any(|(verb, group, resource, _)| {
            (self.verb.as_str(), self.group.as_str(), self.resource.as_str()) == (*verb, *group, *resource)
                && self.namespace.is_none()
        })
    }

    /// As the binary calls it.
    fn said(&self) -> String {
        let Self { namespace, role: _, verb, group, resource, name } = self;
        let (resource, sub) =
            resource.split_once('/').map_or((resource.as_str(), String::new()), |(resource, sub)| (resource, format!("/{sub}")));
        let name = name.as_ref().map(|name| format!(" named {name}")).unwrap_or_default();
        let place = match namespace {
            Some(namespace) => format!(" in namespace {namespace}"),
            None if resource == "customresourcedefinitions" => String::new(),
            None => " in all namespaces".to_owned(),
        };
        format!("{verb} {resource}.{group}{sub}{name}{place}")
    }
}

/// What a Deployment tells the front of the binary.
pub fn options(deployment: &Value) -> FrontOptions {
    let known: BTreeSet<String> = Line::command().get_arguments().filter_map(|arg| arg.get_long().map(str::to_owned)).collect();
    let is_known =
        |arg: &String| arg.strip_prefix("--").and_then(|arg| arg.split('=').next()).is_some_and(|name| known.contains(name));
    let args = args(deployment).into_iter().filter(is_known);
    Line::try_parse_from(["moorline".to_owned()].into_iter().chain(args)).unwrap().options
}

#[tokio::test]
async fn each_right_that_is_given_is_asked_about_and_none_is_missing() {
    let control_plane = ControlPlane::shared().await;
    let other = control_plane.namespace_of_its_own().await;
    for (values, account) in [
        (json!({}), "moorline"),
        (json!({"kubernetes": {"mirror": "all", "watchNamespaces": [other, "default"]}}), "moorline"),
        (
            json!({"kubernetes": {"mirror": "off"}, "roles": "apart", "auth": {"mode": "token", "tokenSecret": {"name": "tokens"}}}),
            "moorline-controller",
        ),
    ] {
        let namespace = control_plane.namespace_of_its_own().await;
        let release = Release::of(control_plane, &namespace, &values).await;
        let runs = |deployment: &&Value| deployment["spec"]["template"]["spec"]["serviceAccountName"] == account;
        let options = options(of_kind(&release.objects, "Deployment").find(runs).unwrap());
        let client = control_plane.access(&namespace).with_token(&release.token(account).await).client().await;
        let missing = async || missing_verbs(&client, &options, Some(&namespace)).await.unwrap();
        let only = async |expected: &[String]| {
            let last = std::sync::Mutex::default();
            let look = async || {
                let missing = missing().await;
                let is_so = missing == expected;
                *last.lock().unwrap() = missing;
                is_so.then_some(())
            };
            until(&format!("{values}: this and nothing else is missing: {expected:?}"), look).await;
        };
        only(&[]).await;
        let rights = release.rights(account);
        assert!(rights.iter().all(|right| right.verb != "*" && right.resource != "*" && right.group != "*"), "{rights:#?}");
        for (index, right) in rights.iter().enumerate().filter(|(_, right)| !right.explained()) {
            let mut without = rights.clone();
            without.remove(index);
            release.give(right, &without).await;
            only(&[right.said()]).await;
            release.give(right, &rights).await;
        }
        only(&[]).await;
    }
}

#[tokio::test]
async fn accounts_have_rights_for_what_they_do_only() {
    let helm = Helm::alone();
    let rights = async |values: Value, account: &str| -> (usize, usize) {
        let objects = helm.objects("ns", &matrix::with(&values)).await;
        let release = Release { control_plane: ControlPlane::shared().await, namespace: "ns".into(), objects };
        let rights = release.rights(account);
        let explained = rights.iter().filter(|right| right.explained()).count();
        (explained, rights.len() - explained)
    };
    let tokens = json!({"mode": "token", "tokenSecret": {"name": "tokens"}});
    assert_eq!(rights(json!({"roles": "apart"}), "moorline-api").await, (2, 0), "it reviews callers");
    assert_eq!(rights(json!({"roles": "apart"}), "moorline-controller").await.0, 0, "nobody calls it");
    assert!(rights(json!({"roles": "apart"}), "moorline-controller").await.1 > 10);
    assert_eq!(rights(json!({"kubernetes": {"enabled": false}}), "moorline").await, (2, 0));
    assert_eq!(rights(json!({"auth": tokens}), "moorline").await.0, 0);
    assert_eq!(rights(json!({"auth": tokens, "kubernetes": {"enabled": false}}), "moorline").await, (0, 0));
    let objects = helm.objects("ns", &matrix::with(&json!({"kubernetes": {"watchNamespaces": ["team-a"]}}))).await;
    let release = Release { control_plane: ControlPlane::shared().await, namespace: "ns".into(), objects };
    for right in release.rights("moorline").iter().filter(|right| !right.explained()) {
        let place = right.namespace.as_deref();
        let expected = match right.resource.as_str() {
            "customresourcedefinitions" => None,
            "leases" => Some("ns"),
            _ => Some("team-a"),
        };
        assert_eq!(place, expected, "{right:?}");
    }
}

/// What [`EXPLAINED`] says: each of the two reviews taken away, nobody can be let in.
#[tokio::test]
async fn without_the_right_to_either_review_nobody_is_let_in() {
    let control_plane = ControlPlane::shared().await;
    let namespace = control_plane.namespace_of_its_own().await;
    let release = Release::of(control_plane, &namespace, &json!({"kubernetes": {"enabled": false}})).await;
    let rights = release.rights("moorline");
    assert_eq!(rights.iter().map(Right::short).collect::<Vec<_>>(), ["create tokenreviews", "create subjectaccessreviews"]);
    let (db, home) = (database().await, tempfile::tempdir().unwrap());
    let kubeconfig = home.path().join("kubeconfig");
    let moorline = control_plane.access(&namespace).with_token(&release.token("moorline").await);
    std::fs::write(&kubeconfig, moorline.kubeconfig()).unwrap();
    let flags = ["--auth=kubernetes", "--kubernetes=off", "--kubeconfig", kubeconfig.to_str().unwrap()];
    let short = ["--auth-token-ttl=1s", "--auth-allow-ttl=1s", "--auth-deny-ttl=1s"];
    let replica = Replica::start(&db, &[&flags[..], &short].concat()).await;
    let viewer = json!([{"apiGroups": ["moorline.dev"], "resources": ["chats"], "verbs": ["list"]}]);
    let viewer = control_plane.user(&namespace, "viewer", &viewer).await;
    let token = control_plane.token_for(&viewer, "moorline").await;
    let (http, url) = (reqwest::Client::new(), format!("{}/apis/moorline.dev/v1alpha1/chats", replica.url));
    let answered = async |code: u16| {
        until(&format!("the list is answered with {code}"), || async {
            let answer = http.get(&url).bearer_auth(&token).send().await.unwrap();
            (answer.status().as_u16() == code).then_some(())
        })
        .await;
    };
    answered(200).await;
    for index in 0..rights.len() {
        let mut without = rights.clone();
        let taken = without.remove(index);
        release.give(&taken, &without).await;
        answered(503).await;
        release.give(&taken, &rights).await;
        answered(200).await;
    }
}
