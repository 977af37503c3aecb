//! A real Moorline lives on the rights that the chart gives, in a real cluster, and uses them.

use super::rights::Release;
use crate::{
    cluster::the_story,
    support::{
        cluster::Front,
        envtest::ControlPlane,
        helm::{args, the},
        until::until,
    },
};
use serde_json::json;
use std::collections::BTreeSet;

/// Rights that the story does not always come to need, and what does.
const NOT_IN_THE_STORY: [(&str, &str); 5] = [
    ("get agents", "one that is gone, or was changed by others meanwhile, is looked at again"),
    ("get chats", "the same"),
    ("get agentsnapshots", "the same"),
    ("delete agentsnapshots", "a snapshot that retention has removed"),
    ("patch events", "an Event that is told again"),
];

#[tokio::test]
async fn the_rights_of_the_chart_are_enough_for_the_whole_story() {
    let control_plane = ControlPlane::shared().await;
    for (mirror, everywhere) in [("manifests", false), ("all", true)] {
        let namespace = control_plane.namespace_of_its_own().await;
        let watched = if everywhere { json!([]) } else { json!([namespace]) };
        let values = json!({"kubernetes": {"watchNamespaces": watched, "mirror": mirror}});
        let release = Release::of(control_plane, &namespace, &values).await;
        let kubeconfig = control_plane.access(&namespace).with_token(&release.token("moorline").await).kubeconfig();
        let mut flags = args(the(&release.objects, "Deployment"));
        flags.retain(|arg| arg.starts_with("--mirror=") || arg.starts_with("--lease-name="));
        assert_eq!(flags.len(), 2);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let mark = control_plane.mark();
        let front = Front::start_by(control_plane, namespace.clone(), &kubeconfig, &flags).await;
        the_story(&front).await;
        if mirror == "all" {
            what_the_api_made_is_shown_and_goes(&front).await;
        }
        assert_eq!(front.replica.terminate().await, Some(0));

        let name = format!("system:serviceaccount:{namespace}:moorline");
        let mut requests = control_plane.requests_since(mark).await;
        requests.retain(|request| request.user == name);
        assert!(requests.iter().any(|request| request.resource == "chats/status" && request.verb == "patch"), "{requests:#?}");
        let rights = release.rights("moorline").into_iter().filter(|right| !right.explained());
        let unused = rights.filter(|right| !requests.iter().any(|request| right.is_needed_for(request)));
        let unused: BTreeSet<String> = unused.map(|right| right.short()).collect();
        let known: BTreeSet<String> = NOT_IN_THE_STORY.iter().map(|(right, _)| (*right).to_owned()).collect();
        assert_eq!(unused.difference(&known).collect::<Vec<_>>(), Vec::<&String>::new(), "given, and not needed with {mirror}");
        requests.retain(|request| request.code == 403);
        assert_eq!(requests, [], "it was never refused anything");
    }
}

async fn what_the_api_made_is_shown_and_goes(front: &Front<'_>) {
    for (kind, spec) in [("agents", json!({})), ("chats", json!({"owner": "alice"}))] {
        let (code, said) = front.send("POST", kind, Some(json!({"metadata": {"name": "made"}, "spec": spec}))).await;
        assert_eq!(code, 201, "{said}");
        let path = format!("/apis/moorline.dev/v1alpha1/namespaces/{}/{kind}/made", front.namespace);
        until("it is shown", || async { front.control_plane.send("GET", &path, None).await.map(drop) }).await;
        let (code, said) = front.send("DELETE", &format!("{kind}/made"), None).await;
        assert!(code < 300, "{said}");
        until("it is gone", || async { front.control_plane.send("GET", &path, None).await.is_none().then_some(()) }).await;
    }
}
