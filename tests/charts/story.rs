//! A real Moorline lives on the rights that the chart gives, in a real cluster.

use super::rights::Release;
use crate::{
    cluster::the_story,
    support::{
        cluster::Front,
        envtest::ControlPlane,
        helm::{args, the},
    },
};
use serde_json::json;

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
        assert_eq!(front.replica.terminate().await, Some(0));

        let name = format!("system:serviceaccount:{namespace}:moorline");
        let mut requests = control_plane.requests_since(mark).await;
        requests.retain(|request| request.user == name);
        assert!(requests.iter().any(|request| request.resource == "chats/status" && request.verb == "patch"), "{requests:#?}");
        requests.retain(|request| request.code == 403);
        assert_eq!(requests, [], "it was never refused anything");
    }
}
