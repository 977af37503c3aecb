//! A real history to replay: the context of a public repository over 148 commits, as sizes and hashes (`tests/data`).
//!
//! The bodies themselves are not in it, so each is generated from its hash: equal hashes give equal bodies, different ones
//! different bodies, of exactly the size that the trace says, and such that the scanner finds nothing to complain of. The
//! hash that the scanner then computes is that of the generated body, not the one in the trace.

use moorline::model::{
    hash::{ContentHash, ContextHash},
    resource::{Resource, ResourceKind, ResourceMeta, ResourceStatus},
};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

/// Steps are numbered from 1, as in the file.
#[derive(Debug)]
pub(crate) struct Trace {
    steps: Vec<Step>,
    /// By the trace's hash, each generated once.
    bodies: BTreeMap<ContentHash, Vec<u8>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    #[serde(rename = "step")]
    number: usize,
    /// When it was committed.
    #[serde(rename = "at")]
    _at: jiff::Timestamp,
    resources: Vec<Item>,
}

/// One resource of a step.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Item {
    kind: ResourceKind,
    source: String,
    source_path: String,
    size_bytes: usize,
    content_hash: ContentHash,
}

impl Item {
    /// Its content. Depends on kind, hash and size alone, so a file that was renamed keeps its content.
    fn generate(&self) -> Vec<u8> {
        let Self { kind, source, source_path: _, size_bytes, content_hash } = self;
        let mut text = match kind {
            ResourceKind::Skill => {
                let short = content_hash.short();
                format!("---\nname: skill-{short}\ndescription: Generated from {content_hash}.\n---\n")
            }
            ResourceKind::InstructionFile => format!("# Generated from {content_hash}\n"),
            ResourceKind::McpConfig
            | ResourceKind::McpServer
            | ResourceKind::Plugin
            | ResourceKind::Hook
            | ResourceKind::Subagent
            | ResourceKind::Command => panic!("the trace holds no {kind}: nobody has said what {source} should look like"),
        };
        assert!(text.len() <= *size_bytes, "{source}: {size_bytes} bytes are too few to tell two hashes apart");
        let mut line = *content_hash;
        while text.len() < *size_bytes {
            line = ContentHash::of(line.as_bytes());
            writeln!(text, "{line}").unwrap();
        }
        text.truncate(*size_bytes);
        text.into_bytes()
    }
}

impl Trace {
    /// Reads the trace; whatever is wrong with it is a bug of this repository, and panics.
    pub(crate) fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/superpowers.trace.jsonl");
        let text = fs::read_to_string(path).expect("the trace is in tests/data");
        let steps: Vec<Step> = text.lines().map(|line| serde_json::from_str(line).expect("a step")).collect();
        for (n, step) in steps.iter().enumerate() {
            assert_eq!(step.number, n + 1, "steps are numbered from 1");
        }
        let items = steps.iter().flat_map(|step| &step.resources);
        let bodies = items.map(|item| (item.content_hash, item)).collect::<BTreeMap<_, _>>();
        let bodies = bodies.into_iter().map(|(hash, item)| (hash, item.generate())).collect();
        Self { steps, bodies }
    }

    /// The numbers of its steps.
    pub(crate) fn steps(&self) -> impl Iterator<Item = usize> + use<> {
        1..=self.steps.len()
    }

    /// The resources of step `step`, with the generated bodies, in (kind, source) order: what a scan must find.
    pub(crate) fn resources(&self, step: usize) -> Vec<Resource> {
        let resource = |item: &Item| Resource::ok(item.kind, &item.source, &item.source_path, self.body(item).to_vec());
        let mut resources: Vec<Resource> = self.items(step).iter().map(resource).collect();
        resources.sort_by(|a, b| a.meta.key().cmp(&b.meta.key()));
        resources
    }

    /// The context hash of step `step`, over the generated bodies.
    pub(crate) fn hash(&self, step: usize) -> ContextHash {
        let metas: Vec<ResourceMeta> = self.resources(step).into_iter().map(|resource| resource.meta).collect();
        ContextHash::of(&metas)
    }

    /// How many different contexts there are, by the trace's own hashes.
    pub(crate) fn distinct(&self) -> usize {
        let state = |step: &Step| -> BTreeSet<(ResourceKind, String, ContentHash)> {
            step.resources.iter().map(|item| (item.kind, item.source.clone(), item.content_hash)).collect()
        };
        self.steps.iter().map(state).collect::<BTreeSet<_>>().len()
    }

    /// Makes the workspace `dir` that of step `step`: removes what other steps put there, writes what differs, and touches
    /// neither files that are right already nor files that no step knows. A file is renamed into place, so that whoever
    /// watches never reads half of one; a step is not one instant.
    pub(crate) fn lay_out(&self, step: usize, dir: &Path) {
        let items = self.items(step);
        let wanted: BTreeSet<&str> = items.iter().map(|item| item.source_path.as_str()).collect();
        let known: BTreeSet<&str> =
            self.steps.iter().flat_map(|step| &step.resources).map(|item| item.source_path.as_str()).collect();
        for path in known.difference(&wanted) {
            remove(dir, Path::new(path));
        }
        for item in items {
            let (path, body) = (dir.join(&item.source_path), self.body(item));
            if fs::read(&path).is_ok_and(|found| found == body) {
                continue;
            }
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let new = path.with_extension("new");
            fs::write(&new, body).unwrap();
            fs::rename(&new, &path).unwrap();
        }
    }

    fn body(&self, item: &Item) -> &[u8] {
        &self.bodies[&item.content_hash]
    }

    fn items(&self, step: usize) -> &[Item] {
        &step.checked_sub(1).and_then(|n| self.steps.get(n)).expect("steps are numbered from 1 to the last").resources
    }
}

/// Removes a file, and the folders between it and `dir` that it leaves empty.
fn remove(dir: &Path, path: &Path) {
    match fs::remove_file(dir.join(path)) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => panic!("{}: {error}", path.display()),
    }
    let folders: Vec<PathBuf> = path.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty()).map(|p| dir.join(p)).collect();
    for folder in folders {
        if fs::remove_dir(folder).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moorline::workspace::scan::scan;

    #[test]
    fn every_step_laid_out_and_scanned_is_exactly_that_step() {
        let trace = Trace::read();
        let dir = tempfile::tempdir().unwrap();
        for step in trace.steps() {
            trace.lay_out(step, dir.path());
            let scan = scan(dir.path()).unwrap();
            assert_eq!(scan.error, "", "step {step}");
            let found: Vec<_> = scan
                .resources
                .iter()
                .map(|Resource { meta, body }| {
                    let ResourceMeta { kind, source, source_path, content_hash, size_bytes, status, error } = meta;
                    assert_eq!((*status, error.as_str()), (ResourceStatus::Ok, ""), "step {step}: {source}");
                    assert_eq!(*content_hash, body.as_deref().map(ContentHash::of), "step {step}: {source}");
                    (*kind, source.as_str(), source_path.as_str(), usize::try_from(*size_bytes).unwrap(), body.clone().unwrap())
                })
                .collect();
            let listed: Vec<_> = trace
                .items(step)
                .iter()
                .map(|item| {
                    (item.kind, item.source.as_str(), item.source_path.as_str(), item.size_bytes, trace.body(item).to_vec())
                })
                .collect();
            assert_eq!(found.len(), listed.len(), "step {step}");
            for resource in listed {
                assert!(found.contains(&resource), "step {step}: {} as the trace lists it", resource.1);
            }
            assert_eq!(scan.resources, trace.resources(step), "step {step}");
        }
    }

    #[test]
    fn steps_may_be_laid_out_in_any_order_and_again() {
        let trace = Trace::read();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("README.md"), "mine").unwrap();
        for step in [148, 1, 12, 70, 12, 148, 148] {
            trace.lay_out(step, dir.path());
            assert_eq!(scan(dir.path()).unwrap().resources, trace.resources(step), "step {step}");
        }
        assert_eq!(fs::read(dir.path().join("README.md")).unwrap(), b"mine", "what no step knows is left alone");
        trace.lay_out(12, dir.path());
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["README.md"], "step 12 is empty, and nothing of the others stays behind");
    }

    #[test]
    fn there_are_148_steps_and_146_states_by_the_traces_hashes_and_by_ours() {
        let trace = Trace::read();
        assert_eq!((trace.steps().count(), trace.distinct()), (148, 146));
        let ours: BTreeSet<ContextHash> = trace.steps().map(|step| trace.hash(step)).collect();
        assert_eq!(ours.len(), 146);
        assert_eq!((trace.hash(64), trace.hash(65)), (trace.hash(66), trace.hash(67)), "the two that come back");
        assert_ne!(trace.hash(64), trace.hash(65));
    }

    #[test]
    fn bodies_are_equal_exactly_when_hashes_are_and_exactly_as_large_as_the_trace_says() {
        let trace = Trace::read();
        let mut smallest = usize::MAX;
        for item in trace.steps.iter().flat_map(|step| &step.resources) {
            assert_eq!(trace.body(item).len(), item.size_bytes, "{}", item.source);
            assert_eq!(trace.body(item), item.generate(), "{}: whoever has this hash", item.source);
            smallest = smallest.min(item.size_bytes);
        }
        let distinct: BTreeSet<&Vec<u8>> = trace.bodies.values().collect();
        assert_eq!((trace.bodies.len(), distinct.len(), smallest), (234, 234, 2_171));
    }
}
