//! A real Kubernetes control plane for a test: etcd and kube-apiserver on loopback, with our custom resource definitions, and
//! on request the kube-controller-manager.
//!
//! The programs are in the folder that `MOORLINE_TEST_ENVTEST` names; `scripts/ensure-envtest` builds them and says where.
//! They run as whoever runs the tests, keep everything below a temporary folder, and end with the test. There is no kubelet
//! or scheduler, and without the controller manager no controller at all: objects stay as they were written, and a namespace
//! that is deleted stays in its deletion.
//!
//! [`ControlPlane::shared`] is for tests that keep to a namespace of their own. What does harm to all (`envtest::faults`) or
//! counts all is for one that [`ControlPlane::start`] gives.

pub mod access;
pub mod audit;
mod faults;
mod programs;
mod users;

pub use audit::{Audit, counted};
pub use programs::{ADMIN, MOORLINE, programs};
pub use users::User;

use super::{
    kubectl::{Kubectl, Said},
    supervised::Supervised,
    until::until_within,
};
use moorline::clock;
use programs::{Layout, program};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use serde_json::{Value, json};
use std::{fs, path::Path, sync::LazyLock, time::Duration};
use tokio::sync::Mutex;

/// How long a program may take until it serves: a second and a half when nothing else runs.
const START: Duration = Duration::from_mins(2);

/// A running control plane.
pub struct ControlPlane {
    /// `https://127.0.0.1:…`.
    pub url: String,
    http: reqwest::Client,
    kubectl: Kubectl,
    shared: bool,
    /// Whether there are controllers. Held while they start.
    controlled: Mutex<bool>,
    processes: Mutex<Processes>,
    layout: Layout,
}

/// What runs. Whoever needs another ends before it.
#[derive(Default)]
struct Processes {
    controller_manager: Option<Supervised>,
    apiserver: Option<Supervised>,
    etcd: Option<Supervised>,
}

/// Never dropped: the end of this process ends it.
static SHARED: LazyLock<ControlPlane> = LazyLock::new(|| {
    // A thread, because a runtime cannot be started inside of a test's.
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    std::thread::spawn(move || runtime().block_on(ControlPlane::begin(true))).join().unwrap()
});

impl ControlPlane {
    /// Starts one for a single test, and waits until it serves our kinds.
    pub async fn start() -> Self {
        Self::begin(false).await
    }

    /// The one of all tests of this process, which the first that asks starts.
    pub async fn shared() -> &'static Self {
        tokio::task::spawn_blocking(|| &*SHARED).await.unwrap()
    }

    async fn begin(shared: bool) -> Self {
        rustls::crypto::ring::default_provider().install_default().ok();
        let layout = Layout::new();
        let mut processes = Processes { etcd: Some(layout.start_etcd()), ..Processes::default() };
        processes.apiserver = Some(layout.start_apiserver());
        let certificate = until_within(START, "the apiserver has written its certificate", || {
            processes.assert_running(&layout);
            let bundle = fs::read(layout.certificate()).ok();
            async move { reqwest::Certificate::from_pem_bundle(&bundle?).ok().filter(|all| !all.is_empty()) }
        })
        .await;
        let bearer = HeaderMap::from_iter([(AUTHORIZATION, format!("Bearer {ADMIN}").parse().unwrap())]);
        let client = reqwest::Client::builder().no_proxy().tls_certs_only(certificate).default_headers(bearer);
        // A connection belongs to the runtime that made it, and every test has its own.
        let client = if shared { client.pool_max_idle_per_host(0) } else { client };
        let url = layout.url();
        let kubeconfig = programs::kubeconfig(&layout, &url, ADMIN, "default");
        let kubectl = Kubectl::new(program("kubectl"), &kubeconfig, layout.home());
        let (controlled, processes) = (Mutex::new(false), Mutex::new(processes));
        let it = Self { url, http: client.build().unwrap(), kubectl, shared, controlled, processes, layout };
        it.until_ready().await;
        it.install_our_kinds().await;
        it
    }

    /// Runs the controllers that need no machines, if they do not run yet: namespaces and what is in them are deleted,
    /// objects whose owners are gone are collected, namespaces have their service account. Waits until they do all that.
    pub async fn with_controller_manager(&self) -> &Self {
        let mut controlled = self.controlled.lock().await;
        if !*controlled {
            self.start_controller_manager().await;
            *controlled = true;
        }
        self
    }

    async fn start_controller_manager(&self) {
        let started = self.layout.start_controller_manager(&self.kubeconfig("default"));
        self.processes.lock().await.controller_manager = Some(started);
        self.until_controlled().await;
    }

    /// A namespace that no other test has.
    pub async fn namespace_of_its_own(&self) -> String {
        let name = format!("test-{}", clock::system().new_id().simple());
        self.namespace(&name).await;
        name
    }

    /// Makes a namespace.
    pub async fn namespace(&self, name: &str) {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        self.send("POST", "/api/v1/namespaces", Some(&namespace)).await;
    }

    /// Runs kubectl to its end, as `system:masters` in a namespace.
    pub async fn kubectl(&self, namespace: &str, args: &[&str], input: &str) -> Said {
        self.kubectl.fed(&[&["--namespace", namespace], args].concat(), input).await
    }

    /// Sends a request, which must succeed or find nothing.
    pub async fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Option<Value> {
        let (status, answer) = self.answer(method, path, body).await.unwrap();
        if status == 404 {
            return None;
        }
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        Some(answer)
    }

    /// Sends a request, and gives the status and what came with it. A patch is a merge patch.
    pub async fn answer(&self, method: &str, path: &str, body: Option<&Value>) -> reqwest::Result<(u16, Value)> {
        let mut request = self.http.request(method.parse().unwrap(), format!("{}{path}", self.url));
        if let Some(body) = body {
            let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
            request = request.header(CONTENT_TYPE, kind).body(body.to_string());
        }
        let answer = request.send().await?;
        let (status, text) = (answer.status().as_u16(), answer.text().await?);
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    async fn until_ready(&self) {
        self.until_serves("/readyz").await;
    }

    /// They are refused with 429 for a while after the apiserver says that it is ready, and after they are installed; watches of them, whose
    /// cache may not be there yet, for longer than lists.
    async fn until_our_kinds_serve(&self) {
        for kind in ["agents", "agentsnapshots", "chats"] {
            for query in ["limit=1", "watch=true&timeoutSeconds=5"] {
                self.until_serves(&format!("/apis/moorline.dev/v1alpha1/{kind}?{query}")).await;
            }
        }
    }

    async fn until_serves(&self, path: &str) {
        until_within(START, &format!("the apiserver serves {path}"), || async {
            self.processes.lock().await.assert_running(&self.layout);
            // What comes after the status is not waited for: a watch says nothing for long.
            let answer = self.http.get(format!("{}{path}", self.url)).send().await;
            answer.is_ok_and(|answer| answer.status() == 200).then_some(())
        })
        .await;
    }

    async fn install_our_kinds(&self) {
        let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
        let crds = crds.to_str().unwrap();
        for args in [&["apply", "-f", crds][..], &["wait", "--for=condition=Established", "-f", crds]] {
            self.kubectl("default", args, "").await.out();
        }
        self.until_our_kinds_serve().await;
    }

    /// Waits until each controller has done its work once.
    async fn until_controlled(&self) {
        let namespace = self.namespace_of_its_own().await;
        let path = |rest: &str| format!("/api/v1/namespaces/{namespace}{rest}");
        let looked = async |what: &str, path: String, there: bool| {
            until_within(START, what, || async {
                let mut processes = self.processes.lock().await;
                processes.assert_running(&self.layout);
                (self.send("GET", &path, None).await.is_some() == there).then_some(())
            })
            .await;
        };
        looked("a namespace gets its service account", path("/serviceaccounts/default"), true).await;
        let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owner"}});
        let owner = self.send("POST", &path("/configmaps"), Some(&owner)).await.unwrap();
        let owned_by = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}]);
        let dependent = json!({"metadata": {"name": "owned", "ownerReferences": owned_by}});
        self.send("POST", &path("/configmaps"), Some(&dependent)).await;
        self.send("DELETE", &path("/configmaps/owner"), None).await;
        looked("what has lost its owner is collected", path("/configmaps/owned"), false).await;
        self.send("DELETE", &path(""), None).await;
        looked("a deleted namespace goes", path(""), false).await;
    }
}

impl Processes {
    fn assert_running(&mut self, layout: &Layout) {
        let all = [
            ("etcd", &mut self.etcd),
            ("kube-apiserver", &mut self.apiserver),
            ("kube-controller-manager", &mut self.controller_manager),
        ];
        for (name, process) in all {
            let ended = process.as_mut().and_then(|process| process.ended().unwrap());
            assert!(ended.is_none(), "{name} ended: {ended:?}\n{}", layout.log(name));
        }
    }
}
