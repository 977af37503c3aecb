//! The API is what its OpenAPI says that it is: schemathesis makes requests of every operation from the served documents, some to
//! be taken and some to be refused, and holds every answer against them.
//!
//! What a request must be that OpenAPI has no words for, tests/schemathesis/hooks.py says, each with its reason.

use crate::support::{
    api::{Api, file},
    postgres::database,
};
use serde_json::json;
use std::path::{Path, PathBuf};

const TOKENS: &str = "t-admin,admin,1,\"system:masters\"\n";
/// The documents that are served, by their names in the index.
const DOCUMENTS: [&str; 6] = ["apis/moorline.dev/v1alpha1", "apis/moorline.dev", "apis", "api/v1", "api", "version"];

fn program() -> PathBuf {
    let named = std::env::var_os("MOORLINE_TEST_SCHEMATHESIS").map(PathBuf::from);
    let program =
        named.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/schemathesis/bin/schemathesis"));
    assert!(program.exists(), "there is no {}: run scripts/ensure-schemathesis, which installs it", program.display());
    program
}

/// A number that somebody who runs this by hand may choose.
fn chosen(variable: &str, otherwise: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| otherwise.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_one_that_the_api_says_it_gives() {
    let db = database().await;
    let api = Api::with_tokens(&db, TOKENS).await;
    let admin = api.as_token("t-admin");
    let run = admin.running_agent("ws").await;
    admin.pushed(&run, 1, json!([file("AGENTS.md", "one")])).await;
    admin.create_chat("fix", json!({"agentRef": {"name": "ws"}, "title": "Fix", "owner": "alice"})).await;
    admin.pushed(&run, 2, json!([file("AGENTS.md", "two")])).await;

    let home = tempfile::tempdir().unwrap();
    for document in DOCUMENTS {
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemathesis");
        let mut command = tokio::process::Command::new(program());
        command.arg("--config-file").arg(config.join("schemathesis.toml")).arg("run");
        command.arg(format!("{}/openapi/v3/{document}", api.url)).args(["--url", &api.url, "--checks", "all", "--no-color"]);
        command.args(["--header", "Authorization: Bearer t-admin", "--output-truncate", "false"]);
        command.args(["--max-examples", &chosen("MOORLINE_TEST_EXAMPLES", "2"), "--seed", &chosen("MOORLINE_TEST_SEED", "1")]);
        command.env("SCHEMATHESIS_HOOKS", config.join("hooks.py"));
        let said = command.current_dir(home.path()).kill_on_drop(true).output().await.unwrap();
        let text = String::from_utf8_lossy(&said.stdout);
        let counted = text.lines().find(|line| line.contains(" generated")).unwrap_or("nothing").trim();
        println!("{document}: {counted}");
        assert!(said.status.success(), "{document}: {text}{}", String::from_utf8_lossy(&said.stderr));
    }
}
