//! P13: from the start of the program until it is ready: `serve` on a migrated database of 1,000,000 chats, and `dev` in a directory that
//! it has never seen, where it makes a PostgreSQL of its own.
//!
//! Ready is what `/readyz` says. It is asked every two milliseconds.

use super::{
    place::Process,
    plot::Bars,
    report::Report,
    setting::{MILLION, Setting},
};
use anyhow::ensure;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    net::SocketAddr,
    process::Command,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_mins(1);

/// Measures.
pub async fn run(setting: &Setting) -> anyhow::Result<Report> {
    let rounds = setting.of(9, 5, 1);
    let mut report = Report::default();
    setting.million().await?.close().await;
    let url = setting.server.url(MILLION);
    let [mut serves, mut devs] = [const { Vec::new() }; 2];
    for round in 0..rounds {
        let took = ready(|address| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_moorline"));
            command.args(["serve", "--listen", &address.to_string(), "--database-url", &url]);
            command
        });
        serves.push(took.await?);
        let (workspace, data) = (setting.file(&format!("workspace-{round}")), setting.file(&format!("dev-{round}")));
        std::fs::create_dir(&workspace)?;
        std::fs::write(workspace.join("AGENTS.md"), "Write the test first.\n")?;
        let took = ready(|address| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_moorline"));
            command.arg("dev").arg(&workspace).args(["--listen", &address.to_string(), "--data-dir"]).arg(&data);
            command
        });
        devs.push(took.await?);
    }
    report.fact("chats", setting.million_chats());
    report.at_most("serve", "s", &serves, 1.0);
    report.at_most("dev", "s", &devs, 3.0);
    report.plots.push(Bars {
        file: "p13-start",
        title: "From the start of the program until it is ready".to_owned(),
        unit: "seconds",
        rows: vec![("serve".to_owned(), serves), ("dev, a new directory".to_owned(), devs)],
    });
    Ok(report)
}

/// Starts it, and says how long it took until it was ready, in seconds; then stops it as a person would.
async fn ready(command: impl FnOnce(SocketAddr) -> Command) -> anyhow::Result<f64> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let mut began = Instant::now();
    let process = Process::start(|address| {
        let mut command = command(address);
        command.env("RUST_LOG", "warn");
        began = Instant::now();
        Ok(command)
    })?;
    let url = format!("http://{}/readyz", process.address);
    loop {
        if client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
            break;
        }
        ensure!(began.elapsed() < PATIENCE, "it does not become ready");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let took = began.elapsed().as_secs_f64();
    let pid = Pid::from_raw(i32::try_from(process.id())?).ok_or_else(|| anyhow::anyhow!("a process without a number"))?;
    kill_process(pid, Signal::INT)?;
    process.ended(PATIENCE).await?;
    Ok(took)
}
