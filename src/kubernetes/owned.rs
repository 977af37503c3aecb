//! Whose a part of an object is, as the cluster has noted it (`metadata.managedFields`). Only of objects that the mirror made: of a
//! manifest nothing but its status is ours.

use super::{
    kind::{SOURCE_ANNOTATION, SOURCE_API},
    mirror::MIRROR,
};
use crate::model::object::TextMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};
use kube::core::ObjectMeta;
use serde_json::{Value, json};

/// Whether somebody's fields are the mirror's.
fn is_ours(entry: &ManagedFieldsEntry) -> bool {
    entry.manager.as_deref() == Some(MIRROR)
}

/// The keys below a part of what somebody owns.
fn keys<'a>(entry: &'a ManagedFieldsEntry, part: &[&str]) -> impl Iterator<Item = &'a str> {
    let fields = entry.fields_v1.as_ref().map(|FieldsV1(fields)| fields);
    let part = part.iter().fold(fields, |fields, key| fields?.get(key));
    part.and_then(Value::as_object).into_iter().flat_map(|fields| fields.keys()).filter_map(|key| key.strip_prefix("f:"))
}

/// The labels of an object, but for those that only others have set.
pub fn labels(metadata: &ObjectMeta) -> TextMap {
    let mut labels = metadata.labels.clone().unwrap_or_default();
    if labels.is_empty() {
        return labels;
    }
    let (ours, others): (Vec<_>, Vec<_>) = metadata.managed_fields.iter().flatten().partition(|entry| is_ours(entry));
    let owns = |entries: &[&ManagedFieldsEntry], label: &str| {
        entries.iter().any(|entry| keys(entry, &["f:metadata", "f:labels"]).any(|key| key == label))
    };
    labels.retain(|label, _| owns(&ours, label) || !owns(&others, label));
    labels
}

/// The fields of the spec that others have set.
pub fn spec_of_others(metadata: &ObjectMeta) -> impl Iterator<Item = &str> {
    let others = metadata.managed_fields.iter().flatten().filter(|entry| !is_ours(entry));
    others.flat_map(|entry| keys(entry, &["f:spec"]))
}

/// Leaves of that what [`labels`] reads, which is nothing for most objects.
pub fn trim(metadata: &mut ObjectMeta) {
    let source = metadata.annotations.as_ref().and_then(|annotations| annotations.get(SOURCE_ANNOTATION));
    let is_read =
        source.is_some_and(|source| source == SOURCE_API) && metadata.labels.as_ref().is_some_and(|all| !all.is_empty());
    if !is_read {
        metadata.managed_fields = None;
        return;
    }
    for entry in metadata.managed_fields.iter_mut().flatten() {
        let labels = entry.fields_v1.as_mut().and_then(|FieldsV1(fields)| fields.pointer_mut("/f:metadata/f:labels"));
        entry.fields_v1 = labels.map(Value::take).map(|labels| FieldsV1(json!({"f:metadata": {"f:labels": labels}})));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(managed: &Value) -> ObjectMeta {
        serde_json::from_value(json!({
            "labels": {"ours": "1", "theirs": "1", "both": "1", "nobodys": "1"},
            "annotations": {SOURCE_ANNOTATION: SOURCE_API}, "managedFields": managed,
        }))
        .unwrap()
    }

    fn names(metadata: &ObjectMeta) -> Vec<String> {
        labels(metadata).into_keys().collect()
    }

    #[test]
    fn labels_are_ours_unless_only_others_have_set_them_and_trimming_changes_nothing_about_that() {
        let by = |manager: &str, labels: &Value| json!({"manager": manager, "fieldsV1": {"f:metadata": {"f:labels": labels}, "f:spec": {"f:title": {}}}});
        let mut metadata = object(&json!([
            by(MIRROR, &json!({".": {}, "f:ours": {}, "f:both": {}})),
            by("kubectl", &json!({"f:theirs": {}, "f:both": {}})),
            {"manager": "odd"},
        ]));
        assert_eq!(names(&metadata), ["both", "nobodys", "ours"]);
        assert_eq!(spec_of_others(&metadata).collect::<Vec<_>>(), ["title"]);
        trim(&mut metadata);
        assert_eq!(names(&metadata), ["both", "nobodys", "ours"]);
        assert_eq!(spec_of_others(&metadata).count(), 0);
        assert_eq!(names(&object(&Value::Null)), ["both", "nobodys", "ours", "theirs"], "who is not named has set nothing");
    }
}
