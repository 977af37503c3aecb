//! A real Prometheus, which scrapes what a test names, and promtool.

use super::{
    ports,
    supervised::Supervised,
    until::{until, until_within},
};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};
use tempfile::TempDir;

/// A program of Prometheus.
fn program(name: &str) -> PathBuf {
    let named = std::env::var_os("MOORLINE_TEST_PROMETHEUS").map(PathBuf::from);
    let folder = named.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/prometheus/bin"));
    let program = folder.join(name);
    assert!(program.exists(), "there is no {}: run scripts/ensure-prometheus, which builds it", program.display());
    program
}

/// What promtool says.
pub async fn promtool(args: &[&str], folder: &Path) -> Output {
    tokio::process::Command::new(program("promtool")).args(args).current_dir(folder).output().await.unwrap()
}

/// A Prometheus that scrapes every second.
pub struct Prometheus {
    url: String,
    http: reqwest::Client,
    _process: Supervised,
    _home: TempDir,
}

impl Prometheus {
    /// Starts one with a file of rules, and waits until it has scraped this address twice.
    pub async fn scraping(address: &str, rules: &Path) -> Self {
        rustls::crypto::ring::default_provider().install_default().ok();
        let home = tempfile::tempdir().unwrap();
        let port = ports::free();
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{}]\nscrape_configs:\n  \
             - job_name: moorline\n    static_configs: [{{targets: [\"{address}\"]}}]\n",
            rules.display()
        );
        let file = home.path().join("prometheus.yml");
        fs::write(&file, config).unwrap();
        let args = [
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", home.path().join("data").display()),
            format!("--web.listen-address=127.0.0.1:{port}"),
        ];
        let process = Supervised::start(&program("prometheus"), &args, home.path(), &home.path().join("log"));
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let it = Self { url: format!("http://127.0.0.1:{port}"), http, _process: process, _home: home };
        until_within(Duration::from_mins(1), "it has scraped twice", || async {
            let counted = it.query("count_over_time(up{job=\"moorline\"}[1m]) >= 2 and up == 1").await.ok()?;
            (!counted.is_empty()).then_some(())
        })
        .await;
        it
    }

    /// What is asked of its API.
    async fn ask(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, String> {
        let answer = self.http.get(format!("{}/api/v1/{path}", self.url)).query(query).send().await;
        let answer = answer.map_err(|error| error.to_string())?;
        let said: Value = answer.json().await.map_err(|error| error.to_string())?;
        if said["status"] == "success" { Ok(said["data"].clone()) } else { Err(said["error"].to_string()) }
    }

    /// The samples that a query has now.
    pub async fn query(&self, query: &str) -> Result<Vec<Value>, String> {
        let data = self.ask("query", &[("query", query)]).await?;
        Ok(data["result"].as_array().cloned().unwrap_or_default())
    }

    /// The rules, each evaluated at least once.
    pub async fn rules(&self) -> Vec<Value> {
        until("every rule has been evaluated", || async {
            let data = self.ask("rules", &[]).await.ok()?;
            let rules: Vec<Value> = data["groups"]
                .as_array()?
                .iter()
                .flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default())
                .collect();
            let evaluated = !rules.is_empty() && rules.iter().all(|rule| rule["health"] != "unknown");
            evaluated.then_some(rules)
        })
        .await
    }
}
