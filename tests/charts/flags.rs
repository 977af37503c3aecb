//! What containers are told is what this binary understands: every flag, and every value.

use super::matrix;
use crate::support::helm::{Helm, of_kind};
use serde_json::Value;
use std::collections::BTreeSet;

/// Whether the command line can be read: help is given instead of doing it, unless something before is not understood.
async fn understood(args: &[&str]) -> Result<(), String> {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_moorline"));
    let output = command.env_clear().args(args).arg("--help").output().await.unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8(output.stderr).unwrap()) }
}

#[tokio::test]
async fn every_container_is_told_what_this_binary_understands() {
    let helm = Helm::alone();
    let mut lines = BTreeSet::new();
    for (name, values) in matrix::all() {
        let objects = helm.objects(name, &values).await;
        for workload in of_kind(&objects, "Deployment").chain(of_kind(&objects, "Job")) {
            let pod = &workload["spec"]["template"]["spec"];
            let containers =
                ["containers", "initContainers"].into_iter().flat_map(|key| pod[key].as_array().into_iter().flatten());
            for container in containers {
                let args = container["args"].as_array().unwrap();
                lines.insert(args.iter().map(|arg| arg.as_str().unwrap().to_owned()).collect::<Vec<_>>());
                mounted(pod, container);
            }
        }
    }
    assert!(lines.len() > 10, "{lines:#?}");
    let mut commands = BTreeSet::new();
    for line in &lines {
        let args: Vec<&str> = line.iter().map(String::as_str).collect();
        commands.insert(args[0]);
        understood(&args).await.unwrap_or_else(|error| panic!("{args:?}: {error}"));
    }
    assert_eq!(commands.into_iter().collect::<Vec<_>>(), ["migrate", "serve"]);
    understood(&["serve", "--no-such-flag=1"]).await.unwrap_err();
}

/// A file that a flag names is one that is mounted.
fn mounted(pod: &Value, container: &Value) {
    for arg in container["args"].as_array().unwrap() {
        let Some((flag, file)) = arg.as_str().unwrap().split_once("-file=") else { continue };
        let (folder, name) = file.rsplit_once('/').unwrap();
        let mount = container["volumeMounts"].as_array().unwrap().iter().find(|mount| mount["mountPath"] == folder);
        let mount = mount.unwrap_or_else(|| panic!("{flag}: nothing is mounted at {folder}"));
        let volume = pod["volumes"].as_array().unwrap().iter().find(|volume| volume["name"] == mount["name"]).unwrap();
        // Without a list of keys a Secret of type kubernetes.io/tls has tls.crt and tls.key.
        let has = volume["secret"]["items"]
            .as_array()
            .map_or(name.starts_with("tls."), |items| items.iter().any(|item| item["path"] == name));
        assert!(has && mount["readOnly"] == true, "{flag}: {name} is not in {volume}");
    }
}
