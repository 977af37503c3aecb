//! What may befall a control plane, done to one that a test has for itself.

use super::{ControlPlane, START, programs::Layout};
use crate::support::{supervised::Supervised, until::until_within};
use serde_json::{Value, json};
use std::fs;

impl ControlPlane {
    /// Kills the apiserver as `kill -9` does. Its address refuses until it is started.
    pub async fn kill_apiserver(&self) {
        self.assert_private();
        self.processes.lock().await.apiserver.take().expect("an apiserver that runs").kill();
    }

    /// Starts it again at the same address, on what etcd has, and waits until it is ready.
    pub async fn start_apiserver(&self) {
        self.assert_private();
        self.begin_apiserver().await;
        self.until_our_kinds_serve().await;
    }

    async fn begin_apiserver(&self) {
        self.processes.lock().await.apiserver = Some(self.layout.start_apiserver());
        self.until_ready().await;
    }

    /// Both.
    pub async fn restart_apiserver(&self) {
        self.kill_apiserver().await;
        self.start_apiserver().await;
    }

    /// Kills etcd as `kill -9` does: the apiserver goes on, and fails to read and write.
    pub async fn kill_etcd(&self) {
        self.assert_private();
        self.processes.lock().await.etcd.take().expect("an etcd that runs").kill();
    }

    /// Starts it again on its data, and waits until the apiserver is ready, if one runs.
    pub async fn start_etcd(&self) {
        self.assert_private();
        let mut processes = self.processes.lock().await;
        processes.etcd = Some(self.layout.start_etcd());
        let apiserver = processes.apiserver.is_some();
        drop(processes);
        self.until_etcd_serves().await;
        if apiserver {
            self.until_ready().await;
            self.until_our_kinds_serve().await;
        }
    }

    /// Loses all data: etcd and the apiserver start from nothing, and our kinds are installed anew. The controllers run
    /// again if they ran. Users are lost, [`super::MOORLINE`] and [`super::ADMIN`] are not; versions count from the start.
    pub async fn lose_all_data(&self) {
        self.assert_private();
        let mut controlled = self.controlled.lock().await;
        let mut processes = self.processes.lock().await;
        let all = [processes.controller_manager.take(), processes.apiserver.take(), processes.etcd.take()];
        all.into_iter().flatten().for_each(Supervised::kill);
        fs::remove_dir_all(self.layout.data()).unwrap();
        fs::create_dir(self.layout.data()).unwrap();
        drop(processes);
        self.start_etcd().await;
        self.begin_apiserver().await;
        self.install_our_kinds().await;
        if std::mem::take(&mut *controlled) {
            self.start_controller_manager().await;
            *controlled = true;
        }
    }

    /// Has etcd forget all but the newest version of everything. The apiserver still has what it has in its cache: a watch
    /// from an old version goes on, a list that was begun does not.
    pub async fn compact(&self) {
        self.assert_private();
        let newest = etcd(&self.layout, "range", &json!({"key": "AA=="})).await.unwrap();
        let revision = &newest["header"]["revision"];
        etcd(&self.layout, "compaction", &json!({"revision": revision, "physical": true})).await.unwrap();
    }

    /// Has every version that anybody remembers forgotten, by etcd and by the cache of the apiserver, which is started anew
    /// for it: whoever watches from what they have seen is told `410 Expired`.
    pub async fn expire_watches(&self) {
        self.kill_apiserver().await;
        // A cache begins with the newest version, so one newer than all that was seen has to be there first.
        let touched = json!({"key": "bW9vcmxpbmU=", "value": "AA=="});
        etcd(&self.layout, "put", &touched).await.unwrap();
        self.compact().await;
        self.start_apiserver().await;
    }

    async fn until_etcd_serves(&self) {
        until_within(START, "etcd serves", || async {
            self.processes.lock().await.assert_running(&self.layout);
            etcd(&self.layout, "range", &json!({"key": "AA=="})).await
        })
        .await;
    }

    fn assert_private(&self) {
        assert!(!self.shared, "other tests use the shared control plane: a test that does harm starts its own");
    }
}

/// Asks the JSON gateway of etcd.
async fn etcd(layout: &Layout, what: &str, body: &Value) -> Option<Value> {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = client.post(format!("{}/v3/kv/{what}", layout.etcd_url())).json(body).send().await.ok()?;
    answer.status().is_success().then_some(())?;
    answer.json().await.ok()
}
