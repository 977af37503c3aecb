//! A real Kubernetes control plane for a test: etcd and kube-apiserver on loopback, with our custom resource definitions.
//!
//! The programs are in the folder that `MOORLINE_TEST_ENVTEST` names; `scripts/ensure-envtest` builds them and says where.
//! They run as whoever runs the tests, keep everything below a temporary folder, and end with the test. There is no
//! controller, kubelet or scheduler: objects stay as they were written.

use super::{supervised::Supervised, until::until_within};
use serde_json::{Value, json};
use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;

/// How long the two may take until they serve: a second and a half when nothing else runs.
const START: Duration = Duration::from_mins(2);
/// Whom the apiserver takes for `system:masters`.
const TOKEN: &str = "the-token-of-the-tests";

/// A running control plane.
pub struct ControlPlane {
    /// `https://127.0.0.1:…`.
    pub url: String,
    http: reqwest::Client,
    home: TempDir,
    // The apiserver goes before its etcd, and both before the folder.
    _apiserver: Supervised,
    _etcd: Supervised,
}

/// Where the programs are.
pub fn programs() -> PathBuf {
    let named = std::env::var_os("MOORLINE_TEST_ENVTEST").map(PathBuf::from);
    let built = || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/envtest/bin");
    let folder = named.unwrap_or_else(built);
    for name in ["etcd", "kube-apiserver", "kubectl", "informers"] {
        let program = folder.join(name);
        assert!(program.exists(), "there is no {}: run scripts/ensure-envtest, which builds it", program.display());
    }
    folder
}

fn free_ports<const N: usize>() -> [u16; N] {
    // All are held until all are known, so that no two are the same.
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

fn args(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

impl ControlPlane {
    /// Starts one, and waits until it serves our kinds.
    pub async fn start() -> Self {
        let programs = programs();
        let home = tempfile::tempdir().unwrap();
        let folder = |name: &str| {
            let path = home.path().join(name);
            fs::create_dir(&path).unwrap();
            path
        };
        let (data, certs) = (folder("etcd"), folder("apiserver"));
        let log = |name: &str| home.path().join(format!("{name}.log"));
        let [client, secure] = free_ports();

        let flags = format!(
            "--data-dir {} --listen-client-urls http://127.0.0.1:{client} --advertise-client-urls http://127.0.0.1:{client} \
             --listen-peer-urls http://127.0.0.1:0 --unsafe-no-fsync",
            data.display()
        );
        let mut etcd = Supervised::start(&programs.join("etcd"), &args(&flags), &data, &log("etcd"));

        let key = certs.join("sa.key");
        let made = Command::new("openssl").args(["genrsa", "-out"]).arg(&key).arg("2048").stderr(Stdio::null()).status();
        assert!(made.unwrap().success(), "openssl genrsa");
        fs::write(certs.join("tokens.csv"), format!("{TOKEN},admin,admin-uid,system:masters\n")).unwrap();
        let flags = format!(
            "--etcd-servers http://127.0.0.1:{client} --cert-dir {certs} --secure-port {secure} --bind-address 127.0.0.1 \
             --service-cluster-ip-range 10.0.0.0/24 --service-account-issuer https://127.0.0.1:{secure}/ \
             --service-account-key-file {key} --service-account-signing-key-file {key} --token-auth-file {certs}/tokens.csv \
             --authorization-mode RBAC --allow-privileged=true",
            certs = certs.display(),
            key = key.display()
        );
        let mut apiserver = Supervised::start(&programs.join("kube-apiserver"), &args(&flags), &certs, &log("apiserver"));

        rustls::crypto::ring::default_provider().install_default().ok();
        let url = format!("https://127.0.0.1:{secure}");
        let http = until_within(START, "the apiserver is ready", || {
            for (name, process) in [("etcd", &mut etcd), ("apiserver", &mut apiserver)] {
                let ended = process.ended().unwrap();
                assert!(ended.is_none(), "{name} ended: {ended:?}\n{}", fs::read_to_string(log(name)).unwrap_or_default());
            }
            ready(&certs, &url)
        })
        .await;
        let control_plane = Self { url, http, home, _apiserver: apiserver, _etcd: etcd };
        control_plane.install_our_kinds().await;
        control_plane
    }

    /// A kubeconfig for it, whose namespace is this one.
    pub fn kubeconfig(&self, namespace: &str) -> String {
        // Written before the certificate is looked at by anybody, so it is there.
        let certificate = self.home.path().join("apiserver/apiserver.crt");
        let cluster = json!({"server": self.url, "certificate-authority": certificate});
        kubeconfig(&cluster, &json!({"token": TOKEN}), namespace)
    }

    /// Sends a request, which must succeed or find nothing.
    pub async fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Option<Value> {
        let request = self.http.request(method.parse().unwrap(), format!("{}{path}", self.url));
        let request = match body {
            Some(body) => request.header("content-type", "application/json").body(body.to_string()),
            None => request,
        };
        let answer = request.send().await.unwrap();
        if answer.status() == 404 {
            return None;
        }
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{method} {path}: {text}");
        Some(serde_json::from_str(&text).unwrap())
    }

    /// Makes a namespace.
    pub async fn namespace(&self, name: &str) {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        self.send("POST", "/api/v1/namespaces", Some(&namespace)).await;
    }

    async fn install_our_kinds(&self) {
        let config = self.home.path().join("kubeconfig");
        fs::write(&config, self.kubeconfig("default")).unwrap();
        let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
        for arguments in [["apply", "-f", "."], ["wait", "--for=condition=Established", "--filename=."]] {
            let mut kubectl = tokio::process::Command::new(programs().join("kubectl"));
            let kubectl = kubectl.args(arguments).current_dir(&crds).env("KUBECONFIG", &config).env("HOME", self.home.path());
            let output = kubectl.kill_on_drop(true).output().await.unwrap();
            assert!(output.status.success(), "kubectl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

/// A client, once the apiserver has written its certificate and says that it is ready.
async fn ready(certs: &Path, url: &str) -> Option<reqwest::Client> {
    let bundle = fs::read(certs.join("apiserver.crt")).ok()?;
    let trusted = reqwest::Certificate::from_pem_bundle(&bundle).ok()?;
    let mut headers = reqwest::header::HeaderMap::new();
    headers.insert("authorization", format!("Bearer {TOKEN}").parse().unwrap());
    let client = reqwest::Client::builder().no_proxy().tls_certs_only(trusted).default_headers(headers).build().ok()?;
    let answer = client.get(format!("{url}/readyz")).send().await.ok()?;
    answer.status().is_success().then_some(client)
}

/// A kubeconfig (JSON is YAML) of one cluster, one user and one namespace.
pub fn kubeconfig(cluster: &Value, user: &Value, namespace: &str) -> String {
    let context = json!({"cluster": "it", "user": "us", "namespace": namespace});
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "clusters": [{"name": "it", "cluster": cluster}],
        "users": [{"name": "us", "user": user}],
        "contexts": [{"name": "here", "context": context}],
    })
    .to_string()
}
