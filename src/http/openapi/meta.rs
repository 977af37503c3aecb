//! The documents beside the group's own: discovery, the version, and the little of core/v1 that kubectl looks at.

use super::{
    operations::{BASE, NO_NAMESPACE, insert},
    schemas::meta_reference,
};
use serde_json::{Map, Value, json};

/// Each path with the document that it is in, its operation's name, what it answers, and the schema of that in a word of
/// `io.k8s.apimachinery.pkg.apis.meta.v1` if it is one of those.
const READS: &[(&str, &str, &str, &str, Option<&str>)] = &[
    (
        "version",
        "/version",
        "getCodeVersion",
        "The version of this server. gitVersion begins with the Kubernetes version whose API conventions it follows.",
        None,
    ),
    ("api", "/api", "getCoreAPIVersions", "The versions of the core group.", Some("APIVersions")),
    ("api/v1", "/api/v1", "getCoreV1APIResources", "What is served of the core group.", Some("APIResourceList")),
    (
        "api/v1",
        "/api/v1/events",
        "listCoreV1EventForAllNamespaces",
        "What happened, as core/v1 Events: the newest 500 that fieldSelector selects; a projection of contextevents, read-only.",
        None,
    ),
    (
        "api/v1",
        "/api/v1/namespaces/{namespace}/events",
        "listCoreV1NamespacedEvent",
        "What happened in a namespace, as core/v1 Events.",
        None,
    ),
    (
        "api/v1",
        "/api/v1/namespaces/{namespace}",
        "readCoreV1Namespace",
        "A namespace. Each is there: it needs no creating.",
        None,
    ),
    ("apis", "/apis", "getAPIVersions", "The groups that are served.", Some("APIGroupList")),
    ("apis/moorline.dev", "/apis/moorline.dev", "getMoorlineDevAPIGroup", "The group and its versions.", Some("APIGroup")),
];

/// The documents, by their name in the index: paths only.
pub fn documents() -> Vec<(&'static str, Map<String, Value>)> {
    let mut documents: Vec<(&'static str, Map<String, Value>)> = Vec::new();
    for (document, path, id, about, schema) in READS {
        if documents.last().is_none_or(|(last, _)| last != document) {
            documents.push((document, Map::new()));
        }
        if let Some((_, paths)) = documents.last_mut() {
            insert(paths, path, "get", read(path, id, about, *schema));
        }
    }
    documents
}

/// Adds the list of the group's resources to the paths of the group.
pub fn add_resource_list(paths: &mut Map<String, Value>) {
    insert(
        paths,
        BASE,
        "get",
        read(BASE, "getMoorlineDevV1alpha1APIResources", "The resources of the group.", Some("APIResourceList")),
    );
}

fn read(path: &str, id: &str, about: &str, schema: Option<&str>) -> Value {
    let gives = schema.map_or_else(|| json!({"type": "object"}), meta_reference);
    let answer = |description: &str, schema: Value| json!({"description": description, "content": {"application/json": {"schema": schema}}});
    let mut responses = json!({
        "200": answer("OK", gives),
        "401": answer("Unauthorized: the caller is not known.", meta_reference("Status")),
    });
    if path.contains("{namespace}") {
        responses["422"] = answer(NO_NAMESPACE, meta_reference("Status"));
    }
    json!({"operationId": id, "description": about, "tags": ["discovery"], "responses": responses})
}
