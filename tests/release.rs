//! What is released beside the program: manual pages, completions, the manifest of the kubectl plugin; and one version for all.

use crate::support::moorline::Shell;
use clap::CommandFactory as _;
use moorline::cli::Cli;
use std::{collections::BTreeSet, fs, path::Path};

const HERE: &str = env!("CARGO_MANIFEST_DIR");

#[tokio::test]
async fn there_is_a_manual_page_of_every_command_and_the_first_names_them_all() {
    let shell = Shell::bare();
    shell.run(&["man", "--dir", "pages"]).await.out();
    let pages =
        fs::read_dir(shell.home.path().join("pages")).unwrap().map(|page| page.unwrap().file_name().into_string().unwrap());
    let pages: BTreeSet<String> = pages.collect();
    let commands = Cli::command();
    let names: Vec<&str> = commands.get_subcommands().map(clap::Command::get_name).collect();
    let expected: BTreeSet<String> =
        names.iter().map(|name| format!("moorline-{name}.1")).chain(["moorline.1".to_owned()]).collect();
    assert_eq!(pages, expected);
    let first = shell.run(&["man"]).await.out();
    let read = |page: &str| fs::read_to_string(shell.home.path().join("pages").join(page)).unwrap();
    assert_eq!(first, read("moorline.1"));
    for name in names {
        assert!(first.contains(&format!("moorline\\-{name}(1)")), "{name}");
        let page = read(&format!("moorline-{name}.1"));
        let command = commands.find_subcommand(name).unwrap();
        for option in command.get_arguments().filter_map(|option| option.get_long()) {
            assert!(page.contains(&format!("\\-\\-{}", option.replace('-', "\\-"))), "{name}: --{option}");
        }
    }
}

#[tokio::test]
async fn every_shell_is_completed() {
    let shell = Shell::bare();
    for name in ["bash", "zsh", "fish"] {
        let script = shell.run(&["completion", name]).await.out();
        for command in Cli::command().get_subcommands() {
            assert!(script.contains(command.get_name()), "{name}: {}", command.get_name());
        }
    }
}

/// The manifest of the plugin is a template that `scripts/release` fills: what it has to fill in, and nothing of one release.
#[test]
fn the_plugins_manifest_has_an_archive_for_each_platform_that_is_released() {
    let manifest = fs::read_to_string(Path::new(HERE).join("deploy/krew/moorline.yaml")).unwrap();
    let filled = manifest.replace("{{VERSION}}", "1.2.3").replace("{{BASE_URL}}", "https://example.test/v1.2.3");
    let read: serde_json::Value = serde_saphyr::from_str(&filled).unwrap();
    assert_eq!((&read["apiVersion"], &read["kind"]), (&"krew.googlecontainertools.github.com/v1alpha2".into(), &"Plugin".into()));
    assert_eq!((&read["metadata"]["name"], &read["spec"]["version"]), (&"moorline".into(), &"v1.2.3".into()));
    let platforms = read["spec"]["platforms"].as_array().unwrap();
    let mut seen = BTreeSet::new();
    for platform in platforms {
        let labels = &platform["selector"]["matchLabels"];
        let (os, arch) = (labels["os"].as_str().unwrap(), labels["arch"].as_str().unwrap());
        assert!(seen.insert((os, arch)), "{os}/{arch} twice");
        let archive = format!("moorline-1.2.3-{os}-{arch}.tar.gz");
        assert_eq!(platform["uri"], format!("https://example.test/v1.2.3/{archive}"));
        // The checksum of an archive that was not built stays to be seen.
        assert_eq!(platform["sha256"], format!("{{{{SHA256_{os}_{arch}}}}}"));
        assert_eq!(platform["bin"], "kubectl-moorline");
        let files: Vec<&str> = platform["files"].as_array().unwrap().iter().map(|file| file["from"].as_str().unwrap()).collect();
        assert_eq!(files, [format!("moorline-1.2.3-{os}-{arch}/moorline"), format!("moorline-1.2.3-{os}-{arch}/LICENSE")]);
    }
    assert_eq!(seen, BTreeSet::from([("darwin", "amd64"), ("darwin", "arm64"), ("linux", "amd64"), ("linux", "arm64")]));
}

/// The program as a script of one line, so that an archive is small.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn packing_the_same_program_twice_makes_the_same_archive_with_all_that_belongs_to_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let shell = Shell::bare();
    let program = shell.write("program", &format!("#!/bin/sh\nexec '{}' \"$@\"\n", env!("CARGO_BIN_EXE_moorline")));
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let pack = async |into: &str, mask: &str| {
        let mut command = shell.program("sh");
        let script = format!("umask {mask}; exec scripts/release pack {program}");
        command.args(["-c", &script]).current_dir(HERE).env("PATH", std::env::var_os("PATH").unwrap());
        command.env("MOORLINE_DIST", shell.home.path().join(into)).env("SOURCE_DATE_EPOCH", "1700000000");
        command.env("MOORLINE_RELEASE_URL", "https://example.test/releases");
        let said = crate::support::moorline::ended(command.spawn().unwrap()).await;
        assert_eq!(said.code, Some(0), "{}", said.err);
    };
    pack("one", "022").await;
    pack("two", "077").await;
    let version = env!("CARGO_PKG_VERSION");
    let read = |path: &str| fs::read(shell.home.path().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let text = |path: &str| String::from_utf8(read(path)).unwrap();
    let mut entries =
        fs::read_dir(shell.home.path().join("one")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let archive = entries.find(|name| name.ends_with(".tar.gz")).expect("an archive");
    assert_eq!(read(&format!("one/{archive}")), read(&format!("two/{archive}")), "the same bytes");
    assert_eq!(text("one/SHA256SUMS"), text("two/SHA256SUMS"));

    let name = archive.strip_suffix(".tar.gz").unwrap();
    assert!(name.starts_with(&format!("moorline-{version}-linux-")), "{name}");
    let listed = shell.program("tar").args(["-tzf", &format!("one/{archive}")]).output().await.unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let needed = ["moorline", "LICENSE", "man/moorline.1", "man/moorline-get.1", "completions/moorline.bash", "crds/chats.yaml"];
    for file in needed {
        assert!(listed.lines().any(|line| line == format!("{name}/{file}")), "{file}: {listed}");
    }

    // Every file but the sums is in the sums, and they are right.
    let sums = text("one/SHA256SUMS");
    for file in [
        archive.as_str(),
        &format!("moorline-{version}-crds.yaml"),
        &format!("moorline-{version}-openapi.json"),
        &format!("moorline-{version}.tgz"),
        &format!("moorline-crds-{version}.tgz"),
        "krew/moorline.yaml",
    ] {
        assert!(sums.lines().any(|line| line.ends_with(&format!("  {file}"))), "{file}: {sums}");
    }
    let mut checking = shell.program("sha256sum");
    checking.args(["--check", "--strict", "SHA256SUMS"]).current_dir(shell.home.path().join("one"));
    assert!(checking.output().await.unwrap().status.success());

    // The plugin's manifest knows this archive, and says of the others that they are missing.
    let manifest = text("one/krew/moorline.yaml");
    let sum = sums.lines().find(|line| line.ends_with(&archive)).unwrap().split(' ').next().unwrap();
    assert!(
        manifest.contains(&format!("uri: \"https://example.test/releases/{archive}\"\n      sha256: \"{sum}\"")),
        "{manifest}"
    );
    assert!(manifest.contains("{{SHA256_darwin_arm64}}") && !manifest.contains("{{VERSION}}"), "{manifest}");
}
