use super::*;
use std::collections::BTreeSet;

/// Every operation of every document: document, path, method, and what it says.
fn operations() -> Vec<(String, String, Value)> {
    let mut found = Vec::new();
    for (_, document) in build_all() {
        let paths = document["paths"].as_object().expect("paths").clone();
        for (path, item) in paths {
            for (method, operation) in item.as_object().expect("a path").iter().filter(|(method, _)| *method != "parameters") {
                found.push((path.clone(), method.clone(), operation.clone()));
            }
        }
    }
    found
}

#[test]
fn every_route_has_an_operation_and_every_operation_a_route() {
    let documented: BTreeSet<(String, String)> = operations().into_iter().map(|(path, method, _)| (path, method)).collect();
    let routes = crate::http::routes();
    let served = routes.served().iter().filter(|(path, _)| !path.starts_with("/openapi/"));
    let served: BTreeSet<(String, String)> = served.map(|(path, method)| (path.clone(), (*method).to_owned())).collect();
    assert_eq!(
        served.difference(&documented).collect::<Vec<_>>(),
        Vec::<&(String, String)>::new(),
        "routes without an operation"
    );
    assert_eq!(documented.difference(&served).collect::<Vec<_>>(), Vec::<&(String, String)>::new(), "operations without a route");
}

#[test]
fn every_reference_leads_to_a_schema_and_every_schema_is_referred_to() {
    for (name, document) in build_all() {
        let mut used = Vec::new();
        schemas::references(&document, &mut used);
        let used: BTreeSet<&str> = used.iter().map(String::as_str).collect();
        let there: BTreeSet<&str> =
            document["components"]["schemas"].as_object().expect("schemas").keys().map(String::as_str).collect();
        assert_eq!(used, there, "{name}");
    }
}

#[test]
fn every_operation_has_a_name_of_its_own_and_says_what_it_does() {
    let mut names = BTreeSet::new();
    for (path, method, operation) in operations() {
        let id = operation["operationId"].as_str().expect("a name").to_owned();
        assert!(names.insert(id.clone()), "{id} is there twice: {method} {path}");
        assert!(operation["description"].as_str().is_some_and(|about| about.ends_with('.')), "{id}");
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            assert!(parameter["description"].as_str().is_some_and(|about| about.ends_with('.')), "{id}: {parameter}");
        }
        let responses = operation["responses"].as_object().expect("responses");
        assert!(responses.keys().any(|code| code.starts_with('2')) && responses.contains_key("401"), "{id}");
    }
}

#[test]
fn every_field_of_ours_is_described() {
    fn check(path: &str, schema: &Value) {
        for (field, inner) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{field}");
            let said = inner["description"].as_str().is_some_and(|about| !about.is_empty());
            assert!(said || inner.get("$ref").is_some(), "{path} has no description: {inner}");
            check(&path, inner);
        }
        if let Some(items) = schema.get("items") {
            check(&format!("{path}[]"), items);
        }
    }
    let document = build();
    let schemas = document["components"]["schemas"].as_object().expect("schemas");
    schemas.iter().filter(|(name, _)| name.starts_with("dev.moorline.")).for_each(|(name, schema)| check(name, schema));
}

#[test]
fn kubectl_finds_field_validation_on_every_patch_of_a_kind_because_it_looks_at_any_of_them() {
    let document = build();
    for kind in ["Chat", "Agent"] {
        let gvk = json!({"group": "moorline.dev", "version": "v1alpha1", "kind": kind});
        let schema = &document["components"]["schemas"][format!("dev.moorline.v1alpha1.{kind}")];
        assert_eq!(schema["x-kubernetes-group-version-kind"], json!([gvk]));
        let all = operations();
        let patches: Vec<_> = all
            .iter()
            .filter(|(_, method, patch)| method == "patch" && patch["x-kubernetes-group-version-kind"] == gvk)
            .collect();
        assert!(!patches.is_empty(), "{kind}");
        for (path, _, patch) in patches {
            let known = |parameter: &Value| parameter["name"] == "fieldValidation" && parameter["in"] == "query";
            assert!(patch["parameters"].as_array().is_some_and(|all| all.iter().any(known)), "{path}");
        }
    }
}

#[test]
fn a_word_of_a_list_is_a_text_with_its_words_wherever_it_stands() {
    let document = build();
    for (at, words) in [
        ("AgentStatus/properties/phase", json!(["Pending", "Complete"])),
        (
            "ChatStatus/properties/state",
            json!(["Waiting", "Running", "Paused", "Pending", "RequiresAction", "Completed", "Error"]),
        ),
        ("Chat/properties/spec/properties/refreshPolicy", json!(["Manual", "OnDrift"])),
    ] {
        let found = document.pointer(&format!("/components/schemas/dev.moorline.v1alpha1.{at}")).expect(at);
        assert_eq!((&found["type"], &found["enum"]), (&json!("string"), &words), "{at}: {found}");
    }
}

#[test]
fn what_every_object_has_is_described_as_kubernetes_describes_it() {
    let document = build();
    for kind in ["Chat", "Agent", "AgentSnapshot"] {
        let fields = &document["components"]["schemas"][format!("dev.moorline.v1alpha1.{kind}")]["properties"];
        for (field, about) in [
            ("apiVersion", "APIVersion defines the versioned schema of this representation of an object."),
            ("kind", "Kind is a string value representing the REST resource this object represents."),
            ("metadata", "Standard object's metadata."),
        ] {
            let said = fields[field]["description"].as_str().expect("a description");
            assert!(said.starts_with(about), "{kind}.{field}: {said}");
        }
        let meta = json!([{"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}]);
        assert_eq!(fields["metadata"]["allOf"], meta);
    }
}
