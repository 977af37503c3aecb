//! `docs/cli.md` and the command line say the same: every command, every option, every exit code, and no more.

use clap::CommandFactory as _;
use moorline::cli::{Cli, exit};
use std::collections::BTreeSet;

const PAGE: &str = include_str!("../docs/cli.md");

/// The text below a heading, up to the next one of its level.
fn section(heading: &str) -> &'static str {
    let begin = PAGE.find(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("docs/cli.md has no section {heading:?}"));
    let rest = &PAGE[begin + 1..];
    let end = rest[3..].find("\n## ").map_or(rest.len(), |end| end + 3);
    &rest[..end]
}

/// The options that a text names.
fn named(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("--") {
        let before = text[..at].chars().next_back();
        let name: String = text[at + 2..].chars().take_while(|letter| letter.is_ascii_lowercase() || *letter == '-').collect();
        if matches!(before, Some(' ' | '`' | '|' | '\n')) && name.starts_with(|letter: char| letter.is_ascii_lowercase()) {
            found.insert(name);
        }
    }
    found
}

/// The options of a command, those of a heading of help or those of none.
fn options(command: &clap::Command, heading: Option<&str>) -> BTreeSet<String> {
    let own = command.get_arguments().filter(|option| option.get_help_heading() == heading && !option.is_global_set());
    own.filter_map(|option| option.get_long().map(str::to_owned)).collect()
}

#[test]
fn every_command_and_each_of_its_options_is_described() {
    let whole = Cli::command();
    let everywhere: BTreeSet<String> = whole.get_arguments().filter_map(|option| option.get_long().map(str::to_owned)).collect();
    let server = options(whole.find_subcommand("get").unwrap(), Some("Server"));
    assert_eq!(server.difference(&named(section("Which server"))).collect::<Vec<_>>(), Vec::<&String>::new());
    assert_eq!(everywhere.difference(&named(section("Everywhere"))).collect::<Vec<_>>(), Vec::<&String>::new());
    let known: BTreeSet<String> = whole.get_subcommands().flat_map(|command| options(command, None)).collect();
    let known: BTreeSet<&String> = known.iter().chain(&server).chain(&everywhere).collect();
    for command in whole.get_subcommands() {
        let text = section(&format!("`{}`", command.get_name()));
        let (own, said) = (options(command, None), named(text));
        // `serve` and `migrate` have a page of their own, `agent` too: docs/serve.md, docs/agent.md.
        if !text.contains("](serve.md)") && !text.contains("](agent.md)") && !text.contains("](dev.md)") {
            assert_eq!(
                own.difference(&said).collect::<Vec<_>>(),
                Vec::<&String>::new(),
                "not in docs/cli.md: {}",
                command.get_name()
            );
            let own_or_common =
                |option: &&String| own.contains(*option) || server.contains(*option) || everywhere.contains(*option);
            let strange: Vec<&String> = said.iter().filter(|option| !own_or_common(option)).collect();
            assert_eq!(strange, Vec::<&String>::new(), "{} has no such options", command.get_name());
        }
        for option in &said {
            assert!(known.contains(option), "no command has --{option}");
        }
    }
    let headings = PAGE.lines().filter_map(|line| line.strip_prefix("## `")?.strip_suffix('`'));
    let names: BTreeSet<&str> = whole.get_subcommands().map(clap::Command::get_name).collect();
    assert_eq!(headings.collect::<BTreeSet<_>>(), names);
}

#[test]
fn every_option_of_a_server_is_on_a_page() {
    let page = named(concat!(include_str!("../docs/serve.md"), include_str!("../docs/kubernetes.md")));
    let whole = Cli::command();
    for command in ["serve", "migrate"] {
        let own = options(whole.find_subcommand(command).unwrap(), None);
        assert_eq!(
            own.difference(&page).collect::<Vec<_>>(),
            Vec::<&String>::new(),
            "neither in docs/serve.md nor in docs/kubernetes.md: {command}"
        );
    }
}

#[test]
fn every_exit_code_is_in_the_table() {
    let rows: Vec<&str> = section("Exit codes").lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    let told: Vec<String> = exit::HELP
        .lines()
        .filter_map(|line| line.strip_prefix("  "))
        .map(|line| line.split_once(' ').unwrap())
        .map(|(code, meaning)| format!("| {code} | {} |", meaning.trim_start()))
        .collect();
    assert_eq!(rows, told);
    for code in [exit::FAILED, exit::USAGE, exit::SUPERSEDED, exit::NOT_FOUND, exit::INTERRUPTED] {
        assert!(rows.iter().any(|row| row.starts_with(&format!("| {code} |"))), "{code}");
    }
}

#[test]
fn every_environment_variable_is_named() {
    let whole = Cli::command();
    for command in std::iter::once(&whole).chain(whole.find_subcommand("get")) {
        for variable in command.get_arguments().filter_map(|option| option.get_env()) {
            let name = variable.to_str().unwrap();
            assert!(PAGE.contains(&format!("`{name}`")), "{name}");
        }
    }
}
