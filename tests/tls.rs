//! The API over TLS: with certificates of a private authority that are replaced while it serves.

use crate::support::{
    api::{Api, Caller, settings},
    certificates::{Authority, Pair},
    moorline::Shell,
    ports,
    postgres::database,
    serve::Replica,
    stream::Watch,
    until::until,
};
use moorline::config::{self, Serving};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use serde_json::json;
use std::{fs, path::PathBuf, sync::Arc};
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use tokio_rustls::TlsConnector;

/// A folder as the kubelet makes one of a TLS Secret: files behind a link that is swapped.
struct Mounted(TempDir);

impl Mounted {
    fn new(pair: &Pair) -> Self {
        let mounted = Self(tempfile::tempdir().unwrap());
        mounted.swap("0", pair);
        for file in ["tls.crt", "tls.key"] {
            std::os::unix::fs::symlink(format!("..data/{file}"), mounted.0.path().join(file)).unwrap();
        }
        mounted
    }

    fn swap(&self, version: &str, pair: &Pair) {
        let at = |name: &str| self.0.path().join(name);
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("tls.crt"), &pair.certificate).unwrap();
        fs::write(at(version).join("tls.key"), &pair.key).unwrap();
        std::os::unix::fs::symlink(version, at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
    }

    fn serving(&self) -> Serving {
        let file = |name: &str| Some(self.0.path().join(name));
        Serving { tls_cert_file: file("tls.crt"), tls_key_file: file("tls.key"), ..Serving::default() }
    }
}

fn der(pair: &Pair) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()
}

/// The certificate that whoever connects now is shown.
async fn shown(address: &str, authority: &Authority) -> CertificateDer<'static> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

/// How many new certificates this process has refused.
async fn refused(probes: &Caller) -> u64 {
    let text = probes.get("/metrics").await.text;
    let line = "moorline_reloads_total{what=\"tls_certificate\",result=\"refused\"} ";
    text.lines().find_map(|found| found.strip_prefix(line)?.parse().ok()).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_replaced_while_watches_go_on_and_a_broken_one_is_not_taken() {
    let db = database().await;
    let authority = Authority::new("an authority for servers");
    let (first, second) = (authority.server(&["localhost", "127.0.0.1"]), authority.server(&["localhost", "127.0.0.1"]));
    let mounted = Mounted::new(&first);
    let health = ports::address();
    let serving = Serving { health_listen: Some(health), ..mounted.serving() };
    let server = Api::run(config::Server { serving, ..settings() }, db.options.clone(), None).await;
    let probes = Caller::new(&format!("http://{health}"));
    until("it is ready", || async { (probes.get("/readyz").await.status == 200).then_some(()) }).await;
    let api = Caller::trusting(&format!("https://{}", server.address), &authority.pem);
    assert_eq!(shown(&server.address, &authority).await, der(&first));
    let mut watch = Watch::open(&api, "chats", "").await;
    api.create_chat("one", json!({})).await;
    assert_eq!(watch.told().await, "ADDED one");

    // Each half of it is good.
    let before = refused(&probes).await;
    mounted.swap("1", &Pair { certificate: second.certificate.clone(), key: first.key.clone() });
    until("the broken pair is noticed", || async { (refused(&probes).await > before).then_some(()) }).await;
    assert_eq!(shown(&server.address, &authority).await, der(&first));
    let before = refused(&probes).await;
    mounted.swap("2", &Pair { certificate: second.certificate.clone(), key: "no key".into() });
    until("the broken key is noticed", || async { (refused(&probes).await > before).then_some(()) }).await;
    assert_eq!(shown(&server.address, &authority).await, der(&first));

    mounted.swap("3", &second);
    until("the new one is shown", || async { (shown(&server.address, &authority).await == der(&second)).then_some(()) }).await;
    let newcomer = Caller::trusting(&format!("https://{}", server.address), &authority.pem);
    newcomer.create_chat("two", json!({})).await;
    loop {
        let told = watch.told().await;
        if told == "ADDED two" {
            break;
        }
        assert!(told.starts_with("MODIFIED"), "{told}");
    }
    assert_eq!(newcomer.get("/livez").await.status, 200, "probes are answered there too");
}

/// A gauge of this process; none while it is not exposed.
async fn gauge(probes: &Caller, name: &str) -> Option<i64> {
    let text = probes.get("/metrics").await.text;
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// A real process, for what is measured is of a process.
#[tokio::test]
async fn when_the_certificate_expires_is_measured_and_that_it_has_is_an_error_in_the_log() {
    let (db, authority) = (database().await, Authority::new("an authority for servers"));
    let until_2035 = authority.server_until(&["localhost"], 2035);
    let mounted = Mounted::new(&until_2035);
    let (crt, key) = (mounted.0.path().join("tls.crt"), mounted.0.path().join("tls.key"));
    let health = ports::address().to_string();
    let log = tempfile::NamedTempFile::new().unwrap();
    let flags = [
        "--log-format=json",
        "--health-listen",
        &health,
        "--tls-cert-file",
        crt.to_str().unwrap(),
        "--tls-key-file",
        key.to_str().unwrap(),
    ];
    let replica = Replica::telling(&db.url, &flags, log.reopen().unwrap().into()).await;
    let probes = Caller::new(&format!("http://{health}"));
    let at = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_second();
    let expiry = "moorline_tls_certificate_expiry_timestamp_seconds ";
    assert_eq!(gauge(&probes, expiry).await, Some(at("2035-01-01T00:00:00Z")));
    assert_eq!(gauge(&probes, "moorline_tls_certificate_not_before_timestamp_seconds ").await, Some(at("2020-01-01T00:00:00Z")));
    let refused = "moorline_file_refused{what=\"tls_certificate\"} ";
    assert_eq!(gauge(&probes, refused).await, None);

    // What is refused is said for as long as it is so, and not only when it is noticed.
    mounted.swap("1", &Pair { key: "no key".into(), ..until_2035.clone() });
    until("a broken one is refused", || async { (gauge(&probes, refused).await == Some(1)).then_some(()) }).await;
    assert_eq!(gauge(&probes, expiry).await, Some(at("2035-01-01T00:00:00Z")), "of the one that is shown");
    // One that is over is better than none.
    mounted.swap("2", &authority.server_until(&["localhost"], 2021));
    until("it is shown", || async { (gauge(&probes, expiry).await == Some(at("2021-01-01T00:00:00Z"))).then_some(()) }).await;
    assert_eq!(gauge(&probes, refused).await, Some(0));
    let told = fs::read_to_string(log.path()).unwrap();
    let line = told.lines().find(|line| line.contains("has expired")).unwrap_or_else(|| panic!("{told}"));
    assert!(line.contains("\"level\":\"ERROR\"") && line.contains("\"until\":\"2021-01-01T00:00:00Z\""), "{line}");
    assert_eq!(replica.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_come_by_tls_with_the_right_authority_and_not_otherwise() {
    let db = database().await;
    let (authority, other) = (Authority::new("an authority for servers"), Authority::new("another authority"));
    let mounted = Mounted::new(&authority.server(&["localhost"]));
    let server = Api::run(config::Server { serving: mounted.serving(), ..settings() }, db.options.clone(), None).await;
    let port = server.address.rsplit(':').next().unwrap();
    let shell = Shell::bare();
    let (good, bad) = (shell.write("ca.crt", &authority.pem), shell.write("other.crt", &other.pem));
    let url = format!("https://localhost:{port}");
    // Nobody needs to wait for it: what it says is that it does not know the database yet, or what there is.
    let api = Caller::trusting(&url, &authority.pem);
    until("it is ready", || async { (api.get("/readyz").await.status == 200).then_some(()) }).await;
    let list = |server: String, authority: &str| {
        let authority = authority.to_owned();
        async move { Shell::bare().run(&["get", "chats", "--server", &server, "--certificate-authority", &authority]).await }
    };
    let found = list(url.clone(), &good).await;
    assert_eq!(found.code, Some(0), "{}", found.err);
    let refused = list(url.clone(), &bad).await;
    assert!(refused.code == Some(1) && refused.err.contains("UnknownIssuer"), "{}", refused.err);
    let refused = list(format!("https://127.0.0.1:{port}"), &good).await;
    assert!(refused.code == Some(1) && refused.err.contains("not valid for name"), "{}", refused.err);
    let refused = list(format!("http://localhost:{port}"), &good).await;
    assert_eq!(refused.code, Some(1), "{}", refused.out);

    // An agent too.
    let workspace = PathBuf::from(shell.write("ws/AGENTS.md", "one")).parent().unwrap().display().to_string();
    let agent = ["agent", &workspace, "--name", "ws", "--server", &url, "--once", "--give-up-after", "1"];
    let pushed = shell.run(&[&agent[..], &["--certificate-authority", &good]].concat()).await;
    assert_eq!(pushed.code, Some(0), "{}", pushed.err);
    let refused = shell.run(&[&agent[..], &["--certificate-authority", &bad]].concat()).await;
    assert_eq!(refused.code, Some(1), "{}", refused.out);
    let refused = shell.run(&[&agent[..], &["--certificate-authority", &workspace]].concat()).await;
    assert!(refused.err.contains("--certificate-authority"), "{}", refused.err);

    // Whoever begins a handshake and says nothing more holds nobody up.
    let mut silent = TcpStream::connect(&server.address).await.unwrap();
    silent.write_all(&[22, 3, 1]).await.unwrap();
    assert_eq!(api.get("/livez").await.status, 200);
    drop(silent);
}

#[tokio::test]
async fn a_server_does_not_start_with_a_broken_certificate_or_half_of_one() {
    let shell = Shell::bare();
    let authority = Authority::new("an authority for servers");
    let (one, two) = (authority.server(&["localhost"]), authority.server(&["localhost"]));
    let (crt, key) = (shell.write("tls.crt", &one.certificate), shell.write("tls.key", &one.key));
    let (other, empty) = (shell.write("other.key", &two.key), shell.write("empty", ""));
    for (files, said) in [
        ([Some(&crt), None], "--tls-key-file"),
        ([None, Some(&key)], "--tls-cert-file"),
        ([Some(&crt), Some(&other)], "cannot be used together"),
        ([Some(&crt), Some(&crt)], "holds no private key"),
        ([Some(&empty), Some(&key)], "holds no certificate"),
        ([Some(&crt), Some(&"/nowhere/tls.key".to_owned())], "reading /nowhere/tls.key"),
    ] {
        let flags = ["--tls-cert-file", "--tls-key-file"].into_iter().zip(files);
        let flags: Vec<&str> = flags.filter_map(|(flag, file)| Some([flag, file?.as_str()])).flatten().collect();
        let args = [&["serve", "--database-url", "postgres://127.0.0.1:1/x", "--listen", "127.0.0.1:0"], &flags[..]].concat();
        let refused = shell.run(&args).await;
        assert_ne!(refused.code, Some(0), "{files:?}");
        assert!(refused.err.contains(said), "{files:?}: {}", refused.err);
    }
    // TLS says who the server is, not who its clients are.
    let open = ["serve", "--database-url", "postgres://127.0.0.1:1/x", "--listen", "0.0.0.0:0", "--tls-cert-file", &crt];
    let refused = shell.run(&[&open[..], &["--tls-key-file", &key]].concat()).await;
    assert!(refused.err.contains("loopback"), "{}", refused.err);
}
