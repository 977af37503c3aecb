//! Which server is asked, and as whom: flags, variables, kubeconfigs; completion by a real bash; the plugin by a real kubectl.

use crate::support::{
    api::Caller,
    moorline::{Harbour, Said, Shell, ended},
    postgres::database,
    serve::Replica,
};
use serde_json::json;
use std::{os::unix::fs::symlink, path::Path};

fn kubeconfig(server: &str, current: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: {current}\n\
         clusters: [{{name: ours, cluster: {{server: '{server}'}}}}, {{name: dead, cluster: {{server: 'http://127.0.0.1:1'}}}}]\n\
         users: [{{name: alice, user: {{token: t-alice}}}}]\n\
         contexts: [{{name: ours, context: {{cluster: ours, user: alice, namespace: team-a}}}}, \
         {{name: dead, context: {{cluster: dead, user: alice}}}}, {{name: broken, context: {{cluster: absent, user: alice}}}}]\n"
    )
}

async fn with_kubeconfig(shell: &Shell, path: &str, args: &[&str]) -> Said {
    ended(shell.command(args).env("KUBECONFIG", path).spawn().unwrap()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kubeconfig_says_the_server_unless_a_flag_does() {
    let harbour = Harbour::new().await;
    let url = harbour.replica.url.as_str();
    let shell = Shell::bare();
    let ours = shell.write("ours", &kubeconfig(url, "ours"));
    let named = "chat.moorline.dev/fix\n";
    assert_eq!(with_kubeconfig(&shell, &ours, &["get", "chats", "-o", "name"]).await.out(), named);
    assert_eq!(shell.run(&["get", "chats", "-o", "name", "--kubeconfig", &ours]).await.out(), named);
    assert_eq!(shell.run(&["get", "chats", "-o", "name", "-s", url, "-n", "team-a"]).await.out(), named);
    // Of several files the first that says a thing wins, as with kubectl.
    let current = shell.write("current", "apiVersion: v1\nkind: Config\ncurrent-context: ours\n");
    let several = format!("{current}:{}", shell.write("dead", &kubeconfig(url, "dead")));
    assert_eq!(with_kubeconfig(&shell, &several, &["get", "chats", "-o", "name"]).await.out(), named);
    // The one at home.
    shell.write(".kube/config", &kubeconfig(url, "ours"));
    assert_eq!(shell.run(&["get", "chats", "-o", "name"]).await.out(), named);
    let dead = shell.run(&["get", "chats", "--context", "dead"]).await.err(1);
    assert!(dead.starts_with("moorline: no answer from http://127.0.0.1:1 (context dead of "), "{dead}");
    assert!(dead.contains("refused") && dead.contains("--server"), "{dead}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kubeconfig_that_does_not_say_which_is_not_guessed_at() {
    let shell = Shell::bare();
    let none = shell.write("none", &kubeconfig("http://127.0.0.1:1", "\"\""));
    for args in [&["get", "chats"][..], &["apply", "-f", "-"], &["refresh", "--all"]] {
        let said = with_kubeconfig(&shell, &none, args).await.err(1);
        assert!(
            said.contains("it has no current context") && said.contains("--context (ours, dead, broken)"),
            "{args:?}: {said}"
        );
    }
    let unknown = with_kubeconfig(&shell, &none, &["get", "chats", "--context", "nowhere"]).await.err(1);
    assert!(unknown.contains("nowhere"), "{unknown}");
    let broken = with_kubeconfig(&shell, &none, &["get", "chats", "--context", "broken"]).await.err(1);
    assert!(broken.contains("absent"), "{broken}");
    let garbage = shell.write("garbage", "clusters: [");
    assert!(with_kubeconfig(&shell, &garbage, &["get", "chats"]).await.err(1).contains("garbage cannot be used"));
    // Nothing at all means this machine.
    let version = shell.run(&["get", "chats", "--request-timeout", "5s"]).await;
    assert!(version.code == Some(0) || version.err.contains("http://127.0.0.1:8460 (the default)"), "{}", version.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_say_who_asks_and_a_wrong_one_is_told() {
    let db = database().await;
    let shell = Shell::bare();
    let tokens = shell.write("tokens.csv", "t-alice,alice,1\nt-bob,bob,2\n");
    let replica = Replica::start(&db, &["--auth", "token", "--token-auth-file", &tokens]).await;
    let alice = Caller::new(&replica.url).as_token("t-alice");
    alice.create_chat("hers", json!({})).await;
    let shell = Shell { home: shell.home, ..Shell::at(&replica.url) };
    let token = shell.write("token", "t-alice\n");
    assert_eq!(shell.run(&["get", "chats", "-o", "name", "--token-file", &token]).await.out(), "chat.moorline.dev/hers\n");
    assert_eq!(shell.run(&["get", "chats", "-o", "name", "--token", "t-alice"]).await.out(), "chat.moorline.dev/hers\n");
    let config = shell.write("config", &kubeconfig(&replica.url, "ours"));
    let bare = Shell::bare();
    assert_eq!(with_kubeconfig(&bare, &config, &["get", "chats", "-o", "name"]).await.out(), "chat.moorline.dev/hers\n");
    // A server that a flag names is not given the credentials of a kubeconfig that lies about.
    let alone = with_kubeconfig(&bare, &config, &["get", "chats", "--server", &replica.url]).await.err(1);
    assert!(alone.contains("(Unauthorized)"), "{alone}");
    for args in [&["get", "chats"][..], &["get", "chats", "--token", "wrong"], &["context", "hers", "--token", "wrong"]] {
        let said = shell.run(args).await.err(1);
        assert!(said.contains("(Unauthorized)") && !said.contains("wrong"), "{args:?}: {said}");
    }
    let his = shell.run(&["context", "hers", "--token", "t-bob"]).await.err(1);
    assert!(his.contains("(Forbidden)") && his.contains("bob"), "{his}");
    let missing = shell.run(&["get", "chats", "--token-file", "nowhere"]).await.err(1);
    assert!(missing.contains("--token-file nowhere: No such file"), "{missing}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_that_asks_a_server_says_where_it_looked_when_there_is_none() {
    let shell = Shell::at("http://127.0.0.1:1");
    let manifest = shell.write("chat.yaml", "apiVersion: moorline.dev/v1alpha1\nkind: Chat\nmetadata: {name: x}\n");
    for args in [
        &["get", "chats"][..],
        &["get", "chats", "-w"],
        &["context", "fix"],
        &["diff", "fix"],
        &["refresh", "fix"],
        &["refresh", "--agent", "ws"],
        &["refresh", "--all"],
        &["why", "fix"],
        &["events"],
        &["apply", "-f", &manifest],
    ] {
        let said = shell.run(args).await.err(1);
        assert!(said.contains("no answer from http://127.0.0.1:1 (--server or MOORLINE_SERVER)"), "{args:?}: {said}");
        assert!(said.contains("`moorline dev`"), "{args:?}: {said}");
    }
    for bad in ["localhost:8460", "ftp://127.0.0.1"] {
        let said = shell.run(&["get", "chats", "--server", bad]).await.err(1);
        assert!(said.contains("must be an address like http://127.0.0.1:8460"), "{said}");
    }
    // Somebody answers there, but not this API.
    let other = axum::Router::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, other).await });
    let said = shell.run(&["get", "chats", "--server", &url]).await.err(1);
    assert!(said.contains(&url) && said.contains("(HTTP 404) is not that of a Moorline server"), "{said}");
}

#[tokio::test]
async fn a_real_bash_completes_what_the_script_says() {
    let shell = Shell::bare();
    shell.write("moorline.bash", &shell.run(&["completion", "bash"]).await.out());
    let complete = async |words: &[&str]| {
        let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
        let last = words.len() - 1;
        let script = format!(
            "set -eu; source moorline.bash; complete -p moorline >/dev/null\nCOMP_WORDS=({}) COMP_CWORD={last} COMP_LINE='{}' COMP_POINT=99\n\
             _moorline moorline '{}' '{}' || true\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"",
            quoted.join(" "),
            words.join(" "),
            words[last],
            words[last - 1]
        );
        let mut bash = shell.program("bash");
        bash.env("PATH", std::env::var_os("PATH").unwrap()).args(["--norc", "--noprofile", "-c", &script]);
        ended(bash.spawn().unwrap()).await.out()
    };
    let commands = complete(&["moorline", ""]).await;
    for command in ["context", "diff", "refresh", "events", "why", "get", "apply", "openapi", "completion", "version"] {
        assert!(commands.lines().any(|line| line == command), "{command}: {commands}");
    }
    assert_eq!(complete(&["moorline", "ref"]).await, "refresh\n");
    assert_eq!(complete(&["moorline", "refresh", "--age"]).await, "--agent\n");
    assert_eq!(complete(&["moorline", "get", "--output", "wi"]).await, "wide\n");
    for other in ["zsh", "fish", "powershell", "elvish"] {
        assert!(shell.run(&["completion", other]).await.out().contains("moorline"), "{other}");
    }
    shell.run(&["completion", "sh"]).await.err(2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_kubectl_finds_the_program_as_a_plugin_with_its_kubeconfig() {
    let harbour = Harbour::new().await;
    let shell = Shell::bare();
    let bin = shell.home.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    symlink(Path::new(env!("CARGO_BIN_EXE_moorline")), bin.join("kubectl-moorline")).unwrap();
    let config = shell.write("config", &kubeconfig(&harbour.replica.url, "ours"));
    let kubectl = async |args: &[&str]| {
        let mut command = shell.program(std::env::var_os("MOORLINE_TEST_KUBECTL").unwrap_or_else(|| "kubectl".into()));
        let path =
            std::env::join_paths(std::iter::once(bin.clone()).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())));
        command.env("PATH", path.unwrap()).env("KUBECONFIG", &config).args(args);
        ended(command.spawn().unwrap()).await
    };
    assert!(kubectl(&["plugin", "list"]).await.out.contains("kubectl-moorline"));
    let got = kubectl(&["moorline", "get", "chats", "-o", "name"]).await.out();
    assert_eq!(got, harbour.shell.run(&["get", "chats", "-o", "name"]).await.out()); // a table would say how old they are
    assert!(got.contains("fix"), "{got}");
    assert!(kubectl(&["moorline", "why", "fix"]).await.out().starts_with("fix "));
    let missing = kubectl(&["moorline", "context", "nobody"]).await;
    assert_eq!(missing.code, Some(4), "{missing:?}");
    let help = kubectl(&["moorline", "get", "--help"]).await.out();
    assert!(help.contains("Usage: kubectl moorline get "), "{help}");
}
