//! The command line, the real program against a real `moorline serve`: what each command prints, where, and how it exits.

use crate::support::{
    moorline::{Harbour, Shell},
    stream::all_readable,
};
use serde_json::{Value, json};

/// Everything that is not the same each time, made the same.
fn plain(text: &str) -> String {
    let word = |word: &str| {
        let bare = word.trim_matches(|letter: char| ",.()".contains(letter));
        let is_time = bare.len() > 19 && bare.as_bytes()[4] == b'-' && bare.contains('T') && bare.ends_with('Z');
        let is_hash = bare.starts_with("sha256:");
        let replaced = match bare.rsplit_once('-') {
            Some((agent, hash)) if hash.len() == 12 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                format!("{agent}-HASH")
            }
            _ if is_time => "TIME".to_owned(),
            _ if is_hash => "HASH".to_owned(),
            _ => return word.to_owned(),
        };
        word.replace(bare, &replaced)
    };
    text.split_inclusive(' ').map(|part| part.split_inclusive('\n').map(word_of(&word)).collect::<String>()).collect()
}

fn word_of(word: &impl Fn(&str) -> String) -> impl Fn(&str) -> String {
    move |part| {
        let bare = part.trim_end_matches([' ', '\n']);
        format!("{}{}", word(bare), &part[bare.len()..])
    }
}

fn columns(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn get_shows_tables_and_whole_objects_as_kubectl_does() {
    let harbour = Harbour::new().await;
    let shell = &harbour.shell;
    let table = shell.run(&["get", "chats"]).await.out();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(columns(lines[0])[0], "NAME");
    assert!(lines[0].ends_with("AGE") && lines.len() == 2, "{table}");
    assert_eq!(columns(lines[1])[0], "fix");
    let wide = shell.run(&["get", "mchat", "fix", "-o", "wide"]).await.out();
    assert!(columns(wide.lines().next().unwrap()).len() > columns(lines[0]).len(), "{wide}");
    let everywhere = shell.run(&["get", "chat", "-A"]).await.out();
    assert!(everywhere.starts_with("NAMESPACE   NAME ") && everywhere.contains("\nteam-a      fix "), "{everywhere}");

    assert_eq!(shell.run(&["get", "chats,agents", "-o", "name"]).await.err(1).lines().count(), 1);
    assert_eq!(shell.run(&["get", "chat/fix", "-o", "name"]).await.out(), "chat.moorline.dev/fix\n");
    let one = shell.run(&["get", "chat", "fix", "-o", "json"]).await.json();
    assert_eq!((&one["kind"], &one["spec"]["title"]), (&json!("Chat"), &json!("Mend it")));
    let all = shell.run(&["get", "agents", "-o", "json"]).await.json();
    assert_eq!((&all["kind"], &all["items"][0]["metadata"]["name"]), (&json!("AgentList"), &json!("ws")));
    let yaml = shell.run(&["get", "agentsnapshots", "-o", "yaml"]).await.out();
    assert!(yaml.contains("kind: AgentSnapshotList\n") && yaml.contains("items:\n"), "{yaml}");

    // Nothing there is said where it does not get into a pipe.
    let none = shell.run(&["get", "chats", "-l", "team=web"]).await;
    assert_eq!((none.code, none.out.as_str(), none.err.as_str()), (Some(0), "", "No chats found in team-a namespace.\n"));
    let found = shell.run(&["get", "chats", "--field-selector", "spec.owner=alice", "-o", "name"]).await;
    assert_eq!(found.out(), "chat.moorline.dev/fix\n");

    let missing = shell.run(&["get", "chat", "nobody"]).await.err(4);
    assert_eq!(missing, "moorline: chats.moorline.dev \"nobody\" not found (NotFound)\n");
    let some = shell.run(&["get", "chat", "fix", "nobody", "-o", "name"]).await;
    assert_eq!((some.code, some.out.as_str()), (Some(1), "chat.moorline.dev/fix\n"));
    assert!(some.err.contains("\"nobody\" not found"), "{}", some.err);
    let unknown = shell.run(&["get", "pods"]).await.err(1);
    assert!(unknown.starts_with("moorline: unknown kind \"pods\"; there are chats (chat, mchat), agents"), "{unknown}");
    let bad = shell.run(&["get", "chats", "--field-selector", "spec.nonsense=1"]).await.err(1);
    assert!(bad.contains("field label not supported: spec.nonsense") && bad.contains("(BadRequest)"), "{bad}");
    let usage = shell.run(&["get", "chats", "--nonsense"]).await.err(2);
    assert!(usage.contains("--nonsense") && usage.contains("Usage: moorline get"), "{usage}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn get_of_many_objects_reads_every_page_and_each_once() {
    let harbour = Harbour::new().await;
    let made = "INSERT INTO chats (namespace, id, name, root_id, owner, title, rv, created_by, created_at, updated_at)
                SELECT namespace, new, 'c' || to_char(n, 'FM0000'), new, owner, title, rv, created_by, created_at, updated_at
                FROM chats, LATERAL (SELECT n, gen_random_uuid() new FROM generate_series(1, 1100) n) made WHERE name = 'fix'";
    sqlx::query(made).execute(&harbour.db.pool).await.unwrap();
    let names = harbour.shell.run(&["get", "chats", "-o", "name"]).await.out();
    let names: Vec<&str> = names.lines().collect();
    let unique: std::collections::BTreeSet<&&str> = names.iter().collect();
    assert_eq!((names.len(), unique.len()), (1101, 1101));
    assert_eq!(harbour.shell.run(&["get", "chats"]).await.out().lines().count(), 1102, "the heading is there once");
    let list = harbour.shell.run(&["get", "chats", "-o", "json"]).await.json();
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1101));
    assert_eq!(list["metadata"].get("continue"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn get_goes_on_with_w_until_it_is_interrupted() {
    let harbour = Harbour::new().await;
    let mut watching = harbour.shell.begin(&["get", "chats", "-w", "-o", "name"]);
    assert_eq!(watching.line().await, "chat.moorline.dev/fix");
    harbour.api.create_chat("second", json!({})).await;
    assert_eq!(watching.line().await, "chat.moorline.dev/second");
    assert_eq!(watching.stop().await, Some(130));
    // Each version of each object is shown once.
    let mut whole = harbour.shell.begin(&["get", "chats", "-w", "-o", "json"]);
    let listed = [whole.json().await, whole.json().await].map(|chat| chat["metadata"]["name"].as_str().unwrap().to_owned());
    assert_eq!(listed, ["fix", "second"]);
    harbour.drifts(2, "one\ntwo\n").await;
    harbour.api.create_chat("last", json!({})).await;
    let mut versions = std::collections::BTreeSet::new();
    loop {
        let object = whole.json().await;
        let of = |field: &str| object["metadata"][field].as_str().unwrap().to_owned();
        assert!(versions.insert((of("name"), of("resourceVersion"))), "{object} is shown twice");
        if of("name") == "last" {
            break;
        }
    }
    whole.stop().await;
    let mut table = harbour.shell.begin(&["get", "chat", "fix", "-w"]);
    assert_eq!(columns(&table.line().await)[0], "NAME");
    assert_eq!(columns(&table.line().await)[0], "fix");
    harbour.api.patch("chats/second", &json!({"spec": {"title": "Other"}})).await.expect(200);
    harbour.shell.run(&["refresh", "fix"]).await.out();
    assert_eq!(columns(&table.line().await)[0], "fix", "only the one that was asked for, and no heading again");
    table.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn context_shows_what_a_chat_is_moored_to() {
    let harbour = Harbour::new().await;
    let shell = &harbour.shell;
    let shown = plain(&shell.run(&["context", "fix"]).await.out());
    let wanted = "fix is pinned to ws-HASH (HASH) from ws: Hydrated at TIME\n\nInstructionFile AGENTS.md (Ok, 4 bytes)\none\n";
    assert_eq!(shown, wanted);
    let listed = plain(&shell.run(&["context", "fix", "--bodies=false"]).await.out());
    let lines: Vec<Vec<&str>> = listed.lines().skip(1).map(columns).collect();
    assert_eq!(
        lines,
        [vec!["KIND", "SOURCE", "STATUS", "SIZE", "CONTENT"], vec!["InstructionFile", "AGENTS.md", "Ok", "4", "HASH"]]
    );
    let prompt = shell.run(&["context", "fix", "--format", "prompt"]).await.out();
    assert!(prompt.contains("AGENTS.md") && prompt.contains("one\n"), "{prompt}");
    let whole = shell.run(&["context", "fix", "-o", "json"]).await.json();
    assert_eq!(whole["resources"][0]["body"], "one\n");
    harbour.api.create_chat("loose", json!({})).await;
    let unpinned = shell.run(&["context", "loose"]).await.err(4);
    assert!(unpinned.starts_with("moorline: ") && unpinned.contains("loose"), "{unpinned}");
    shell.run(&["context", "nobody"]).await.err(4);
    // Into a file goes what is there, escapes and all.
    harbour.drifts(2, "\u{1b}[31mred\r\n").await;
    shell.run(&["refresh", "fix"]).await.out();
    assert!(shell.run(&["context", "fix"]).await.out().ends_with("\n\u{1b}[31mred\r\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn diff_shows_what_would_change_and_exits_as_diff_does_when_asked() {
    let harbour = Harbour::new().await;
    let shell = &harbour.shell;
    assert_eq!(shell.run(&["diff", "fix"]).await.out(), "");
    assert_eq!(shell.run(&["diff", "fix", "--exit-code"]).await.code, Some(0));
    harbour.drifts(2, "one\ntwo\n").await;
    let shown = plain(&shell.run(&["diff", "fix"]).await.out());
    let body = "--- a/AGENTS.md\n+++ b/AGENTS.md\n@@ -1 +1,2 @@\n one\n+two\n";
    assert_eq!(
        shown,
        format!("pinned ws-HASH (HASH) of ws\nlatest ws-HASH (HASH) of ws\n! InstructionFile AGENTS.md: changed\n{body}")
    );
    let told = shell.run(&["diff", "fix", "--exit-code", "-o", "json"]).await;
    assert_eq!((told.code, told.err.as_str()), (Some(1), ""));
    assert_eq!(serde_json::from_str::<Value>(&told.out).unwrap()["changed"][0]["source"], "AGENTS.md");
    shell.run(&["diff", "nobody"]).await.err(4);
    shell.run(&["diff", "nobody", "--exit-code"]).await.err(4);
    shell.run(&["diff", "fix", "--exit-code", "--server", "http://127.0.0.1:1"]).await.err(2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refresh_moves_one_chat_an_agents_chats_or_all_that_drifted() {
    let harbour = Harbour::new().await;
    let shell = &harbour.shell;
    harbour.drifts(2, "two\n").await;
    let said = plain(&shell.run(&["refresh", "fix"]).await.out());
    assert_eq!(said, "fix refreshed: ws-HASH\n");
    assert_eq!(harbour.api.chat("fix").await["status"]["dirty"], false);

    harbour.drifts(3, "three\n").await;
    assert_eq!(shell.run(&["refresh", "--agent", "ws", "--wait", "20s"]).await.out(), "the chats of ws were refreshed\n");
    harbour.chat_says("fix", "it has moved", |chat| chat["status"]["dirty"] == false).await;

    harbour.drifts(4, "four\n").await;
    let said = plain(&shell.run(&["refresh", "--all"]).await.out());
    assert_eq!(said, "fix refreshed: ws-HASH\n1 chat refreshed\n");
    assert_eq!(shell.run(&["refresh", "--all", "-A"]).await.out(), "0 chats refreshed\n", "there is nothing left to do");

    let some = shell.run(&["refresh", "fix", "nobody"]).await;
    assert_eq!(some.code, Some(1));
    assert!(some.out.ends_with("1 chat refreshed, 1 failed\n"), "{}", some.out);
    assert_eq!(some.err, "moorline: nobody: chats.moorline.dev \"nobody\" not found (NotFound)\n");
    shell.run(&["refresh", "nobody"]).await.err(4);
    shell.run(&["refresh", "--agent", "nobody"]).await.err(4);
    harbour.api.patch("chats/fix", &json!({"spec": {"archived": true}})).await.expect(200);
    let refused = shell.run(&["refresh", "fix"]).await.err(1);
    assert!(refused.contains("archived") && refused.contains("(Conflict)"), "{refused}");

    // What waits says for what; whoever insists is told that it did not come.
    harbour.api.create_chat("still", json!({"agentRef": {"name": "absent"}})).await;
    let waits = shell.run(&["refresh", "still", "--no-wait"]).await.out();
    assert!(waits.starts_with("still asked, and not refreshed yet (") && waits.contains("AgentNotFound"), "{waits}");
    let insists = shell.run(&["refresh", "still", "--wait", "1s"]).await.err(1);
    assert!(insists.starts_with("moorline: still: not refreshed in time (") && insists.contains("AgentNotFound"), "{insists}");
    for wrong in
        [&["refresh"][..], &["refresh", "fix", "--all"], &["refresh", "fix", "-A"], &["refresh", "fix", "--wait", "1.5s"]]
    {
        shell.run(wrong).await.err(2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_says_the_rule_what_it_saw_and_what_to_type() {
    let harbour = Harbour::new().await;
    let shell = &harbour.shell;
    let calm = shell.run(&["why", "fix"]).await.out();
    assert!(calm.starts_with("fix ") && calm.contains("rule 4") && !calm.contains("To move it"), "{calm}");
    harbour.drifts(2, "two\n").await;
    let drifted = shell.run(&["why", "fix"]).await.out();
    assert!(drifted.contains("rule 7") && drifted.ends_with(" To move it: moorline refresh fix -n team-a\n"), "{drifted}");
    let whole = shell.run(&["why", "fix", "-o", "json"]).await.json();
    assert_eq!((&whole["kind"], &whole["rule"], &whole["action"]), (&json!("ChatWhy"), &json!(7), &json!("MarkDirty")));
    shell.run(&["why", "nobody"]).await.err(4);
    // What it says to type can be typed.
    let typed: Vec<&str> = drifted.trim().rsplit_once("moorline ").unwrap().1.split(' ').collect();
    shell.run(&typed).await.out();
    assert_eq!(harbour.api.chat("fix").await["status"]["dirty"], false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_told_once_each_and_followed_from_where_they_were() {
    let harbour = Harbour::new().await;
    let shell = &harbour.shell;
    all_readable(&harbour.db).await;
    let told = shell.run(&["events", "--chat", "fix"]).await.out();
    let lines: Vec<Vec<&str>> = told.lines().map(columns).collect();
    assert_eq!(lines[0], ["TIME", "TYPE", "CHAT", "AGENT", "MESSAGE"]);
    assert_eq!(lines[1..].iter().map(|line| line[1]).collect::<Vec<_>>(), ["ChatCreated", "ContextHydrated"]);
    let list = shell.run(&["events", "-o", "json", "--chat", "fix"]).await.json();
    let cursor = list["items"][1]["metadata"]["name"].as_str().unwrap();
    let after = shell.run(&["events", "--chat", "fix", "--cursor", cursor, "-o", "json"]).await.json();
    assert_eq!(after["items"], json!([]));

    let mut following = shell.begin(&["events", "-w", "--chat", "fix", "--cursor", cursor]);
    harbour.drifts(2, "two\n").await;
    assert!(following.line().await.starts_with("TIME "), "the heading is there when the first event is");
    let line = following.line().await;
    assert_eq!(columns(&line)[1..4], ["ContextDrifted", "fix", "ws"]);
    shell.run(&["refresh", "fix"]).await.out();
    harbour.drifts(3, "three\n").await;
    for kind in ["ContextRefreshed", "ContextDrifted"] {
        assert_eq!(columns(&following.line().await)[1], kind, "once each");
    }
    assert_eq!(following.stop().await, Some(130));
    shell.run(&["events", "--cursor", "nonsense"]).await.err(1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn version_and_openapi_say_what_program_and_server_are() {
    let harbour = Harbour::new().await;
    let shell = &harbour.shell;
    let ours = env!("CARGO_PKG_VERSION");
    let both = shell.run(&["version"]).await.out();
    let server = harbour.api.get("/version").await.expect(200);
    let version = server["gitVersion"].as_str().unwrap();
    let place = format!("{} (--server or MOORLINE_SERVER)", harbour.replica.url);
    assert_eq!(both, format!("moorline {ours}\nserver   {version} at {place}\n"));
    let whole = shell.run(&["version", "-o", "json"]).await.json();
    assert_eq!((&whole["clientVersion"], &whole["serverVersion"]), (&json!(ours), &server));
    let nobody = Shell::at("http://127.0.0.1:1");
    assert_eq!(nobody.run(&["version", "--client"]).await.out(), format!("moorline {ours}\n"));
    let half = nobody.run(&["version"]).await;
    assert_eq!((half.code, half.out.as_str()), (Some(1), format!("moorline {ours}\n").as_str()));
    assert!(half.err.contains("http://127.0.0.1:1"), "{}", half.err);

    let described = nobody.run(&["openapi"]).await.json();
    assert_eq!(described["openapi"], "3.0.0");
    let group = harbour.api.get("/openapi/v3/apis/moorline.dev/v1alpha1").await.expect(200);
    assert_eq!(described, group, "a server serves what the program prints");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn colours_are_on_a_terminal_only_and_never_under_no_color() {
    let harbour = Harbour::new().await;
    let shell = &harbour.shell;
    harbour.drifts(2, "one\ntwo\n").await;
    let green = "\u{1b}[32m+two\u{1b}[0m";
    let diff: &[&str] = &["diff", "fix"];
    let (code, seen) = shell.on_terminal(diff, &[]).await;
    assert!(code == Some(0) && seen.contains(green), "{seen:?}");
    for (args, environment) in [
        (diff, &[("NO_COLOR", "1")][..]),
        (&["diff", "fix", "--color", "never"], &[]),
        (diff, &[("TERM", "dumb")]),
        (diff, &[("MOORLINE_COLOR", "never")]),
    ] {
        let (_, seen) = shell.on_terminal(args, environment).await;
        assert!(seen.contains("+two") && !seen.contains('\u{1b}'), "{args:?} {environment:?}: {seen:?}");
    }
    assert!(!shell.run(diff).await.out().contains('\u{1b}'), "a pipe gets none");
    assert!(shell.run(&["--color", "always", "diff", "fix"]).await.out().contains(green), "but when it asks");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refreshing_all_draws_a_bar_on_a_terminal_only() {
    let harbour = Harbour::new().await;
    harbour.drifts(2, "two\n").await;
    let (code, seen) = harbour.shell.on_terminal(&["refresh", "--all"], &[]).await;
    assert!(code == Some(0) && seen.contains("/1 chats"), "{seen:?}");
    assert!(seen.trim_end().ends_with("1 chat refreshed"), "{seen:?}");
    harbour.drifts(3, "three\n").await;
    let piped = harbour.shell.run(&["refresh", "--all"]).await.out();
    assert!(!piped.contains('\u{1b}') && !piped.contains("/1 chats"), "{piped:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_gets_no_orders_from_what_others_wrote() {
    let harbour = Harbour::new().await;
    harbour.drifts(2, "one\n\u{1b}]0;owned\u{7}two\n").await;
    let (_, seen) = harbour.shell.on_terminal(&["diff", "fix"], &[("NO_COLOR", "1")]).await;
    assert!(seen.contains("^[]0;owned\\u{7}two") && !seen.contains('\u{1b}'), "{seen:?}");
    let piped = harbour.shell.run(&["diff", "fix"]).await.out();
    assert!(piped.contains("+\u{1b}]0;owned\u{7}two\n"), "a file gets what is there: {piped:?}");
}
