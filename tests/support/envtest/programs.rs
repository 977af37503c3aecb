//! The programs of a control plane: where they are, what they are told, and the folder that they share.

use crate::support::{ports, supervised::Supervised};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use tempfile::TempDir;

/// Whom the apiserver takes for `system:masters`: the tests themselves.
pub const ADMIN: &str = "the-token-of-the-tests";
/// Somebody else whom it takes for `system:masters`, named `moorline`: its token is good also when all data are lost.
pub const MOORLINE: &str = "the-token-of-moorline";

/// Everything that is written is counted, and how it ended. Of a write, also that it has begun: so nobody has to guess
/// whether all that began is in the log.
const WRITES: [&str; 5] = ["create", "update", "patch", "delete", "deletecollection"];

/// The folder with the programs. Those that every control plane needs are in it.
pub fn programs() -> PathBuf {
    for name in ["etcd", "kube-apiserver", "kubectl", "informers"] {
        program(name);
    }
    folder()
}

fn folder() -> PathBuf {
    let named = std::env::var_os("MOORLINE_TEST_ENVTEST").map(PathBuf::from);
    named.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/envtest/bin"))
}

/// One of them.
pub fn program(name: &str) -> PathBuf {
    let program = folder().join(name);
    assert!(program.exists(), "there is no {}: run scripts/ensure-envtest, which builds it", program.display());
    program
}

/// Where the programs of one control plane keep what they have, and how each is started, again and again, with the same.
pub struct Layout {
    home: TempDir,
    etcd: u16,
    apiserver: u16,
}

impl Layout {
    /// A fresh one, with a key for tokens.
    pub fn new() -> Self {
        let it = Self { home: tempfile::tempdir().unwrap(), etcd: ports::free(), apiserver: ports::free() };
        fs::create_dir(it.data()).unwrap();
        fs::create_dir(it.certs()).unwrap();
        let made =
            Command::new("openssl").args(["genrsa", "-out"]).arg(it.token_key()).arg("2048").stderr(Stdio::null()).status();
        assert!(made.unwrap().success(), "openssl genrsa");
        let tokens = [("admin", ADMIN), ("moorline", MOORLINE)];
        let lines = tokens.map(|(name, token)| format!("{token},{name},{name}-uid,system:masters\n"));
        fs::write(it.certs().join("tokens.csv"), lines.concat()).unwrap();
        let read = json!({"level": "Metadata", "omitStages": ["RequestReceived"], "verbs": ["get", "list", "watch"]});
        let policy = json!({
            "apiVersion": "audit.k8s.io/v1", "kind": "Policy",
            "rules": [read, {"level": "Metadata", "verbs": WRITES}, {"level": "None"}],
        });
        fs::write(it.certs().join("audit.json"), policy.to_string()).unwrap();
        it
    }

    /// `https://127.0.0.1:…`.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.apiserver)
    }

    /// Where etcd listens.
    pub fn etcd_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.etcd)
    }

    /// All that there is lies below this.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// What etcd has written.
    pub fn data(&self) -> PathBuf {
        self.home().join("etcd")
    }

    fn certs(&self) -> PathBuf {
        self.home().join("apiserver")
    }

    /// The certificate of the apiserver, and who vouches for it. It writes it when it first starts.
    pub fn certificate(&self) -> PathBuf {
        self.certs().join("apiserver.crt")
    }

    /// Its key.
    pub fn key(&self) -> PathBuf {
        self.certs().join("apiserver.key")
    }

    /// What the apiserver signs the tokens of service accounts with.
    pub fn token_key(&self) -> PathBuf {
        self.certs().join("sa.key")
    }

    /// What the apiserver was asked and did.
    pub fn audit(&self) -> PathBuf {
        self.home().join("audit.log")
    }

    /// What a program has said.
    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.log_file(name)).unwrap_or_default()
    }

    fn log_file(&self, name: &str) -> PathBuf {
        self.home().join(format!("{name}.log"))
    }

    fn start(&self, name: &str, flags: &str) -> Supervised {
        let args: Vec<String> = flags.split_whitespace().map(str::to_owned).collect();
        Supervised::start(&program(name), &args, self.home(), &self.log_file(name))
    }

    /// Starts etcd on the data that there are.
    pub fn start_etcd(&self) -> Supervised {
        let (data, url) = (self.data(), self.etcd_url());
        let flags = format!(
            "--data-dir {} --listen-client-urls {url} --advertise-client-urls {url} --listen-peer-urls http://127.0.0.1:0 \
             --unsafe-no-fsync",
            data.display()
        );
        self.start("etcd", &flags)
    }

    /// Starts the apiserver.
    pub fn start_apiserver(&self) -> Supervised {
        // The audit log blocks, which is the default: what has begun is in it. Without a size it would be split at 100 MB.
        let flags = format!(
            "--etcd-servers {etcd} --cert-dir {certs} --secure-port {secure} --bind-address 127.0.0.1 \
             --service-cluster-ip-range 10.0.0.0/24 --service-account-issuer https://127.0.0.1:{secure}/ \
             --service-account-key-file {certs}/sa.key --service-account-signing-key-file {certs}/sa.key \
             --token-auth-file {certs}/tokens.csv --authorization-mode RBAC --allow-privileged=true \
             --audit-policy-file {certs}/audit.json --audit-log-path {audit} --audit-log-maxsize 1000000",
            etcd = self.etcd_url(),
            certs = self.certs().display(),
            secure = self.apiserver,
            audit = self.audit().display(),
        );
        self.start("kube-apiserver", &flags)
    }

    /// Starts the controllers that need no machines, as `kubeconfig`.
    pub fn start_controller_manager(&self, kubeconfig: &str) -> Supervised {
        let config = self.home().join("controller-manager.json");
        fs::write(&config, kubeconfig).unwrap();
        let controllers = [
            "namespace-controller",
            "garbage-collector-controller",
            "serviceaccount-controller",
            "serviceaccount-token-controller",
            "root-ca-certificate-publisher-controller",
        ];
        let flags = format!(
            "--kubeconfig {} --controllers {} --leader-elect=false --secure-port 0 --service-account-private-key-file {key}/sa.key \
             --root-ca-file {}",
            config.display(),
            controllers.join(","),
            self.certificate().display(),
            key = self.certs().display(),
        );
        self.start("kube-controller-manager", &flags)
    }
}

/// Whether a verb of the audit log is one that writes.
pub fn writes(verb: &str) -> bool {
    WRITES.contains(&verb)
}

/// How the apiserver at `server` is reached by whom it knows by `token`.
pub fn kubeconfig(layout: &Layout, server: &str, token: &str, namespace: &str) -> String {
    let cluster: Value = json!({"server": server, "certificate-authority": layout.certificate()});
    crate::support::kubectl::kubeconfig(&cluster, &json!({"token": token}), namespace)
}
