//! The rules that `deploy/Dockerfile` keeps. `make lint-image` asks hadolint too.

use std::{fs, path::Path, process::Command};

const MANIFEST: &str = include_str!("../../Cargo.toml");
const HERE: &str = env!("CARGO_MANIFEST_DIR");

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(HERE).join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Its instructions, each on one line, without comments.
fn instructions() -> Vec<(String, String)> {
    let dockerfile = read("deploy/Dockerfile");
    let lines = dockerfile.lines().filter(|line| !line.trim_start().starts_with('#') && !line.trim().is_empty());
    let whole = lines.collect::<Vec<_>>().join("\n").replace("\\\n", "");
    let split = |line: &str| line.split_once(' ').map(|(word, rest)| (word.to_owned(), rest.trim().to_owned()));
    whole.lines().map(|line| split(line).unwrap_or_else(|| panic!("{line}"))).collect()
}

/// What the last stage says with a word.
fn of_the_image(word: &str) -> Vec<String> {
    let all = instructions();
    let last = all.iter().rposition(|(word, _)| word == "FROM").unwrap();
    all[last..].iter().filter(|(said, _)| said == word).map(|(_, rest)| rest.clone()).collect()
}

/// The default of an argument before the first stage.
fn base(name: &str) -> String {
    let all = instructions();
    let argument = all.iter().filter(|(word, _)| word == "ARG").find_map(|(_, rest)| rest.strip_prefix(&format!("{name}=")));
    argument.unwrap_or_else(|| panic!("no default of {name}")).to_owned()
}

#[test]
fn it_runs_one_program_without_a_shell_as_nobody() {
    assert_eq!(of_the_image("USER"), ["65532:65532"], "numbers: a kubelet cannot look a name up");
    assert_eq!(of_the_image("ENTRYPOINT"), [r#"["/usr/local/bin/moorline"]"#]);
    assert_eq!(of_the_image("CMD"), [r#"["serve"]"#]);
    assert_eq!(of_the_image("RUN"), Vec::<String>::new(), "there is no shell to run it");
    assert_eq!(of_the_image("COPY"), ["--from=build /out/moorline /usr/local/bin/moorline"]);
    assert!(instructions().iter().all(|(word, _)| word != "ADD"), "ADD fetches and unpacks unasked");
}

#[test]
fn its_bases_are_arguments_with_a_tag_that_fit_each_other() {
    let stages = instructions().into_iter().filter(|(word, _)| word == "FROM").map(|(_, rest)| rest).collect::<Vec<_>>();
    assert_eq!(stages, ["--platform=$BUILDPLATFORM ${BUILD_IMAGE} AS build", "${RUNTIME_IMAGE}"]);
    let (build, runtime) = (base("BUILD_IMAGE"), base("RUNTIME_IMAGE"));
    for image in [&build, &runtime] {
        let tag = image.rsplit('/').next().unwrap().split_once(':').unwrap_or_else(|| panic!("{image} has no tag")).1;
        assert!(!tag.contains("latest"), "{image}");
    }
    let rust = MANIFEST.lines().find_map(|line| line.strip_prefix("rust-version = \"")?.strip_suffix('"')).unwrap();
    assert!(build.ends_with(&format!("/rust:{rust}-bookworm")), "{build}: Rust {rust} on Debian 12");
    assert!(runtime.ends_with("/distroless/cc-debian12:nonroot"), "{runtime}: the C library of Debian 12");
}

#[test]
fn it_says_what_it_is() {
    let labels = of_the_image("LABEL").join(" ");
    for label in ["title", "description", "licenses", "version", "revision", "created", "source"] {
        assert!(labels.contains(&format!("org.opencontainers.image.{label}=")), "{label}");
    }
    for (field, label) in [("description", "description"), ("license", "licenses")] {
        let said = MANIFEST.lines().find_map(|line| line.strip_prefix(&format!("{field} = \""))?.strip_suffix('"')).unwrap();
        assert!(labels.contains(&format!("org.opencontainers.image.{label}=\"{said}\"")), "{field} of Cargo.toml: {said}");
    }
}

#[test]
fn what_dockerignore_lets_in_is_a_package_that_can_be_built() {
    let context = tempfile::tempdir().unwrap();
    let ignored = read(".dockerignore");
    let mut lines = ignored.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    assert_eq!(lines.next(), Some("*"), "nothing gets in that is not named");
    for line in lines {
        let name = line.strip_prefix('!').unwrap_or_else(|| panic!("{line}: only names that are let in"));
        copy(&Path::new(HERE).join(name), &context.path().join(name));
    }
    // `cargo metadata` is content without files that a build then asks for. A program that does not exist is looked for only when
    // the manifest is taken with all its targets, and before anything is compiled.
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["check", "--bin", "nonesuch", "--offline", "--locked"]).current_dir(context.path());
    let told = String::from_utf8(cargo.output().unwrap().stderr).unwrap();
    assert!(told.contains("no bin target named `nonesuch`"), "{told}");
    for needed in ["Cargo.lock", "src/main.rs", "migrations/0001_log_state.sql"] {
        assert!(context.path().join(needed).is_file(), "{needed}");
    }
    assert!(fs::read_dir(context.path().join(".sqlx")).unwrap().count() > 0, "queries are compiled without a database");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    if from.is_dir() {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        fs::copy(from, to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    }
}
