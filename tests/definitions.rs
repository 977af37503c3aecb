//! What of a real cluster does not fit this binary is said by name: a definition that is older, a verb that the account lacks.

use crate::support::{
    envtest::{ControlPlane, User},
    until::until,
};
use clap::Parser;
use moorline::kubernetes::{
    FrontOptions,
    schema::{self, Fault, Misfit, SchemaError, rights::missing_verbs},
};
use serde_json::{Value, json};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

async fn misfits(client: &kube::Client) -> Vec<Misfit> {
    match schema::check(client).await.expect_err("a refusal") {
        SchemaError::Misfits(misfits) => misfits,
        other => panic!("{other}"),
    }
}

async fn definition(control_plane: &ControlPlane, name: &str) -> Value {
    control_plane.send("GET", &format!("{DEFINITIONS}/{name}"), None).await.unwrap()
}

async fn put(control_plane: &ControlPlane, definition: &Value) {
    let name = definition["metadata"]["name"].as_str().unwrap();
    control_plane.send("PUT", &format!("{DEFINITIONS}/{name}"), Some(definition)).await.unwrap();
}

#[tokio::test]
async fn older_missing_and_unserved_definitions_are_refused_by_name_and_ours_and_newer_ones_are_not() {
    let control_plane = ControlPlane::start().await;
    let client = control_plane.access("default").client().await;
    schema::check(&client).await.unwrap();

    let mut newer = definition(&control_plane, "agents.moorline.dev").await;
    let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
    newer.pointer_mut(spec).unwrap()["mood"] = json!({"type": "string"});
    put(&control_plane, &newer).await;
    schema::check(&client).await.unwrap();

    let mut older = definition(&control_plane, "chats.moorline.dev").await;
    let version = older.pointer_mut("/spec/versions/0").unwrap();
    let properties = |of: &str| format!("/schema/openAPIV3Schema/properties/{of}/properties");
    let removed = version.pointer_mut(&properties("status")).unwrap().as_object_mut().unwrap().remove("dirtySince");
    assert!(removed.is_some());
    let policy = version.pointer_mut(&format!("{}/refreshPolicy", properties("spec"))).unwrap();
    policy["enum"] = json!(["Manual"]);
    // Columns of what is not there any more are refused by the apiserver itself in some versions.
    version["additionalPrinterColumns"] = json!([]);
    put(&control_plane, &older).await;
    let lacks = ["OnDrift of spec.refreshPolicy".to_owned(), "status.dirtySince".to_owned()];
    let expected = Misfit { name: "chats.moorline.dev".into(), fault: Fault::Lacks(lacks.into()) };
    assert_eq!(misfits(&client).await, [expected]);

    let mut unserved = definition(&control_plane, "chats.moorline.dev").await;
    unserved["spec"]["versions"][0]["served"] = json!(false);
    put(&control_plane, &unserved).await;
    control_plane.send("DELETE", &format!("{DEFINITIONS}/agentsnapshots.moorline.dev"), None).await;
    let said = until("the definition is gone, with its objects, of which there are none", || async {
        let misfits = misfits(&client).await;
        let deleting = misfits.iter().any(|misfit| misfit.fault == Fault::Deleting);
        (!deleting).then(|| SchemaError::Misfits(misfits).to_string())
    })
    .await;
    assert_eq!(
        said,
        "the cluster's definitions do not fit this binary: agentsnapshots.moorline.dev is not there; chats.moorline.dev does not \
         serve v1alpha1. Apply those of this version: moorline crd | kubectl apply --server-side -f -"
    );

    // As the refusal says.
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_moorline")).arg("crd").output().await.unwrap();
    let definitions = String::from_utf8(output.stdout).unwrap();
    let apply = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
    control_plane.kubectl("default", &apply, &definitions).await.out();
    let names = ["crd/agents.moorline.dev", "crd/agentsnapshots.moorline.dev", "crd/chats.moorline.dev"];
    let wait = [&["wait", "--for=condition=Established"], &names[..]].concat();
    control_plane.kubectl("default", &wait, "").await.out();
    schema::check(&client).await.unwrap();

    // A cluster that is away is told from one that does not fit.
    control_plane.kill_apiserver().await;
    let away = schema::check(&client).await.expect_err("it is away");
    assert!(matches!(away, SchemaError::Read { .. }), "{away}");
}

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    options: FrontOptions,
}

fn options(args: &str) -> FrontOptions {
    Line::try_parse_from(["moorline"].into_iter().chain(args.split_whitespace())).unwrap().options
}

fn rule(group: &str, resource: &str, verbs: &[&str]) -> Value {
    json!({"apiGroups": [group], "resources": [resource], "verbs": verbs})
}

/// What the front needs when it mirrors everything.
fn enough() -> Vec<Value> {
    vec![
        rule("moorline.dev", "chats", &["get", "list", "watch", "patch", "create", "delete"]),
        rule("moorline.dev", "agents", &["get", "list", "watch", "patch", "create", "delete"]),
        rule("moorline.dev", "chats/status", &["patch"]),
        rule("moorline.dev", "agents/status", &["patch"]),
        rule("moorline.dev", "agentsnapshots", &["get", "list", "watch", "create", "delete"]),
        rule("events.k8s.io", "events", &["create", "patch"]),
        rule("coordination.k8s.io", "leases", &["get", "create", "update"]),
        rule("apiextensions.k8s.io", "customresourcedefinitions", &["get"]),
    ]
}

async fn client_of(control_plane: &ControlPlane, namespace: &str, user: &User) -> kube::Client {
    control_plane.access(namespace).of(user).client().await
}

#[tokio::test]
async fn every_verb_that_the_account_lacks_is_named_and_no_other() {
    let control_plane = ControlPlane::shared().await;
    let namespace = control_plane.namespace_of_its_own().await;
    let user = control_plane.user(&namespace, "moorline", &json!(enough())).await;
    let client = client_of(control_plane, &namespace, &user).await;
    let missing = async |flags: &str| missing_verbs(&client, &options(flags), Some("own")).await.unwrap();
    let all = format!("--mirror=all --watch-namespaces={namespace}");
    assert_eq!(missing("--mirror=all").await, [""; 0]);
    assert_eq!(missing(&all).await, [""; 0]);
    schema::check(&client).await.unwrap();

    // Each of them alone.
    for (index, rule) in enough().iter().enumerate() {
        for verb in rule["verbs"].as_array().unwrap() {
            let mut rules = enough();
            rules[index]["verbs"].as_array_mut().unwrap().retain(|one| one != verb);
            rules.retain(|rule| rule["verbs"] != json!([]));
            control_plane.allow(&user, &json!(rules)).await;
            let (group, resource) = (rule["apiGroups"][0].as_str().unwrap(), rule["resources"][0].as_str().unwrap());
            let (resource, subresource) =
                resource.split_once('/').map_or((resource, String::new()), |(resource, sub)| (resource, format!("/{sub}")));
            let place = match resource {
                "leases" => " in namespace own".into(),
                "customresourcedefinitions" => String::new(),
                _ => format!(" in namespace {namespace}"),
            };
            let verb = verb.as_str().unwrap();
            let names = match resource {
                "leases" if verb != "create" => vec![" named moorline"],
                "customresourcedefinitions" => {
                    vec![" named agents.moorline.dev", " named agentsnapshots.moorline.dev", " named chats.moorline.dev"]
                }
                _ => vec![""],
            };
            let expected: Vec<String> =
                names.iter().map(|name| format!("{verb} {resource}.{group}{subresource}{name}{place}")).collect();
            until(&format!("only this is missing: {expected:?}"), || async { (missing(&all).await == expected).then_some(()) })
                .await;
        }
    }
    // The last one: nobody can say that the definitions do not fit.
    let forbidden = schema::check(&client).await.expect_err("it may not");
    assert!(matches!(forbidden, SchemaError::Forbidden(_)), "{forbidden}");
    assert!(forbidden.to_string().starts_with("this account may not get customresourcedefinitions"), "{forbidden}");
}

#[tokio::test]
async fn less_is_needed_to_mirror_less_and_rights_in_one_namespace_are_not_rights_in_all() {
    let control_plane = ControlPlane::shared().await;
    let namespace = control_plane.namespace_of_its_own().await;
    let user = control_plane.user(&namespace, "moorline", &json!([])).await;
    let client = client_of(control_plane, &namespace, &user).await;
    let missing = async |flags: &str| missing_verbs(&client, &options(flags), None).await.unwrap();
    let off = missing("--mirror=off --lease-namespace=leases").await;
    let some = missing("--mirror=manifests").await;
    let all = missing("--mirror=all").await;
    let more = |more: &[String], than: &[String]| -> Vec<String> {
        let new = more.iter().filter(|one| !than.contains(one) && !one.contains("leases"));
        new.cloned().collect()
    };
    let everywhere =
        |rights: &[&str]| -> Vec<String> { rights.iter().map(|right| format!("{right} in all namespaces")).collect() };
    assert_eq!(
        more(&off, &[]).iter().filter(|right| right.starts_with("create")).collect::<Vec<_>>(),
        ["create events.events.k8s.io in all namespaces"]
    );
    assert!(off.contains(&"update leases.coordination.k8s.io named moorline in namespace leases".into()), "{off:?}");
    assert_eq!(
        more(&some, &off),
        everywhere(&[
            "patch chats.moorline.dev/status",
            "patch agents.moorline.dev/status",
            "create agentsnapshots.moorline.dev",
            "delete agentsnapshots.moorline.dev",
        ])
    );
    assert_eq!(
        more(&all, &some),
        everywhere(&[
            "create chats.moorline.dev",
            "delete chats.moorline.dev",
            "create agents.moorline.dev",
            "delete agents.moorline.dev",
        ])
    );
}

#[tokio::test]
async fn a_token_that_is_good_for_nothing_is_an_error_and_not_a_list_of_everything() {
    let control_plane = ControlPlane::shared().await;
    let client = control_plane.access("default").with_token("worthless").client().await;
    let error = missing_verbs(&client, &options(""), None).await.unwrap_err().to_string();
    assert!(error.contains("asking whether this account may get chats.moorline.dev in all namespaces"), "{error}");
    assert!(error.to_lowercase().contains("unauthorized"), "{error}");
}
