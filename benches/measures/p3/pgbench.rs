//! The least that recording a changed push takes, run by pgbench over the same tables: the agent is locked and read, the new body
//! kept, the snapshot made, the agent moved to it and two events written, in one transaction. It knows beforehand that the content
//! is new, which body of it is, and that the agent's run is the right one.

use super::{RESOURCE_SIZE, RESOURCES, Setting, noise};
use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use std::{path::PathBuf, process::Command};

/// pgbench, ready.
pub struct Pgbench {
    program: PathBuf,
    url: String,
    script: PathBuf,
}

impl Pgbench {
    /// Writes what it runs. The agents that it pushes as are those of the namespace `pgbench`, one a client.
    pub fn prepare(setting: &Setting, database: &str) -> anyhow::Result<Self> {
        let manifest: Vec<Value> = (0..RESOURCES)
            .map(|at| {
                let source = format!("skills/skill-{at:02}");
                json!({"kind": "Skill", "source": source, "sourcePath": format!("{source}/SKILL.md"), "status": "Ok",
                       "sizeBytes": RESOURCE_SIZE, "contentHash": format!("sha256:{}", hex::encode(noise(32, at as u64)))})
            })
            .collect();
        let body = hex::encode(hex::encode(noise(RESOURCE_SIZE / 2, 1)));
        let script = setting.file("push.pgbench");
        std::fs::write(&script, statements(&Value::Array(manifest).to_string(), &body).replace("sha256:", "sha256\\u003a"))?;
        Ok(Self { program: setting.server.bin_dir().join("pgbench"), url: setting.server.url(database), script })
    }

    /// Transactions a second of so many clients at once.
    pub fn rate(&self, clients: usize, seconds: u64) -> anyhow::Result<f64> {
        let clients = clients.to_string();
        let mut command = Command::new(&self.program);
        command.args([
            "--no-vacuum",
            "--protocol",
            "prepared",
            "--jobs",
            "1",
            "--client",
            &clients,
            "--time",
            &seconds.to_string(),
        ]);
        command.arg("--file").arg(&self.script).arg(&self.url);
        let output = tokio::task::block_in_place(|| command.output()).with_context(|| format!("{}", self.program.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "pgbench: {text}{}", String::from_utf8_lossy(&output.stderr));
        let rate = text.lines().find_map(|line| line.strip_prefix("tps = ")).context("pgbench says no tps")?;
        Ok(rate.split(' ').next().context("a rate")?.parse()?)
    }
}

fn statements(manifest: &str, body: &str) -> String {
    // A colon and a letter are a variable to pgbench, wherever they stand; JSON has another way to say a colon.
    let lines = [
        "BEGIN;".to_owned(),
        "SELECT id AS agent, md5(clock_timestamp()::text || :client_id) AS digits FROM agents WHERE namespace = 'pgbench' AND \
         name = 'agent-' || :client_id FOR NO KEY UPDATE \\gset"
            .to_owned(),
        "SELECT a.epoch, a.seq, a.push_digest, a.snapshot_revision + 1 AS revision, s.context_hash FROM agents a LEFT JOIN snapshots s ON s.namespace = a.namespace AND \
         s.id = a.latest_snapshot_id WHERE a.namespace = 'pgbench' AND a.name = 'agent-' || :client_id \\gset"
            .to_owned(),
        "SELECT log_rv() AS rv \\gset".to_owned(),
        format!(
            "WITH kept AS (INSERT INTO blobs (namespace, agent_id, hash, bytes) VALUES ('pgbench', :agent::text::uuid, \
             decode(:digits::text || :digits::text, 'hex'), decode('{body}', 'hex'))) \
             INSERT INTO snapshots (namespace, agent_id, agent_name, name, revision, context_hash, manifest, error, resource_count, \
             degraded_count, size_bytes, created_at, rv) VALUES ('pgbench', :agent::text::uuid, 'agent-' || :client_id, 'agent-' || \
             :client_id || '-' || :digits::text, :revision::bigint, decode(:digits::text || :digits::text, 'hex'), '{manifest}', '', {RESOURCES}, 0, \
             204800, now(), :rv::bigint) RETURNING id AS snapshot \\gset"
        ),
        "WITH told AS (INSERT INTO events (namespace, rv, seq, kind, subject, name, agent_id, payload) VALUES \
         ('pgbench', :rv::bigint, 1, 'SnapshotAccepted', NULL, 'agent-' || :client_id || '-' || :digits::text, :agent::text::uuid, \
         '{\"agent\": \"agent-0\", \"hash\": \"sha256:abababababababababababababababababababababababababababababababab\", \
         \"revision\": 1, \"resources\": 50}'), \
         ('pgbench', :rv::bigint, 2, 'AgentUpdated', :agent::text::uuid, 'agent-' || :client_id, :agent::text::uuid, \
         '{\"from\": \"sha256:abababababababababababababababababababababababababababababababab\", \
         \"to\": \"sha256:cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd\", \"phase\": \"Complete\"}')) \
         UPDATE agents SET seq = seq + 1, push_digest = decode(:digits::text || :digits::text, 'hex'), push_changed = true, \
         received_at = now(), phase = 'Complete', latest_snapshot_id = :snapshot::bigint, snapshot_revision = snapshot_revision + 1, rv = :rv::bigint \
         WHERE namespace = 'pgbench' AND id = :agent::text::uuid;"
            .to_owned(),
        "COMMIT;".to_owned(),
    ];
    lines.join("\n") + "\n"
}
