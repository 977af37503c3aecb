//! A PostgreSQL as others run it: on TCP, with passwords, and with TLS by a certificate of a private authority.

use super::{
    certificates::{Authority, Pair},
    ports,
    supervised::Supervised,
    until::until,
};
use moorline::{
    clock,
    embedded::{self, Options},
};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, postgres::PgConnectOptions};
use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

/// The database, and the role that owns it.
pub const NAME: &str = "moorline";
/// The role's password at first.
pub const PASSWORD: &str = "first-s3cret";
/// Who may come in how. The first line that fits decides. `certified` comes with a certificate of that name.
const RULES: &str = "local all all trust
hostnossl plain all 127.0.0.1/32 scram-sha-256
hostssl all certified 127.0.0.1/32 cert
hostssl all all 127.0.0.1/32 scram-sha-256
";

/// A running server. It ends with this.
pub struct Secure {
    _process: Supervised,
    /// On TCP.
    pub port: u16,
    /// For the superuser, by the socket.
    admin: PgConnectOptions,
    /// Who signs for it, and for its clients.
    pub authority: Authority,
    home: PathBuf,
}

impl Secure {
    /// Starts one whose certificate is for `localhost`, and not for the address.
    pub async fn start() -> Self {
        let home = std::env::temp_dir().join(format!("ml-tls-{}", &clock::system().new_id().simple().to_string()[20..]));
        let options = |ephemeral| Options { data_dir: home.clone(), pg_bin: None, ephemeral, settings: Vec::new() };
        let first = embedded::start(options(false)).await.unwrap();
        let bin = first.bin_dir().to_owned();
        first.stop().await.unwrap();
        let data = home.join("data");
        let authority = Authority::new("an authority for databases");
        let Pair { certificate, key } = authority.server(&["localhost"]);
        let owner = fs::metadata(&data).unwrap();
        for (name, text) in
            [("server.crt", &certificate), ("server.key", &key), ("ca.crt", &authority.pem), ("pg_hba.conf", &RULES.to_owned())]
        {
            give(&data.join(name), text, &owner);
        }
        let sockets = home.join("s");
        fs::create_dir(&sockets).unwrap();
        chown(&sockets, Some(owner.uid()), Some(owner.gid())).unwrap();
        let port = ports::free();
        let settings = [
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={port}"),
            format!("unix_socket_directories={}", sockets.display()),
            "fsync=off".to_owned(),
            "password_encryption=scram-sha-256".to_owned(),
            "ssl=on".to_owned(),
            "ssl_ca_file=ca.crt".to_owned(),
        ];
        let settings = settings.iter().flat_map(|setting| ["-c".to_owned(), setting.clone()]);
        let postgres = bin.join("postgres");
        let run = ["-D".to_owned(), data.display().to_string()].into_iter().chain(settings);
        let log = home.with_extension("log");
        let process = if owner.uid() == rustix::process::getuid().as_raw() {
            Supervised::start(&postgres, &run.collect::<Vec<_>>(), &home, &log)
        } else {
            let (user, group) = (format!("--reuid={}", owner.uid()), format!("--regid={}", owner.gid()));
            let as_owner = [user, group, "--clear-groups".to_owned(), postgres.display().to_string()];
            let run: Vec<String> = as_owner.into_iter().chain(run).collect();
            Supervised::start(Path::new("setpriv"), &run, &home, &log)
        };
        let admin = PgConnectOptions::new_without_pgpass().socket(&sockets).port(port).username("postgres").database("postgres");
        until("the server answers", || async { admin.connect().await.ok()?.close().await.ok() }).await;
        fs::remove_file(&log).ok();
        let secure = Self { _process: process, port, admin, authority, home };
        secure.execute(&format!("CREATE ROLE {NAME} LOGIN PASSWORD '{PASSWORD}'")).await;
        secure.execute(&format!("CREATE ROLE certified LOGIN IN ROLE {NAME}")).await;
        for database in [NAME, "plain"] {
            secure.execute(&format!("CREATE DATABASE {database} OWNER {NAME}")).await;
        }
        secure
    }

    /// Runs a statement as the superuser, in `postgres`.
    pub async fn execute(&self, statement: &str) {
        let mut connection = self.admin.connect().await.unwrap();
        sqlx::query(AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    /// A number that the superuser finds.
    pub async fn count(&self, query: &str) -> i64 {
        let mut connection = self.admin.connect().await.unwrap();
        let count = sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        count
    }

    /// A URL: `who` is `user` or `user:password`, `more` begins after the `?`.
    pub fn url(&self, who: &str, host: &str, database: &str, more: &str) -> String {
        format!("postgres://{who}@{host}:{}/{database}?{more}", self.port)
    }

    /// Writes a file that clients read, and says where.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.home.join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }
}

/// A file that only the owner of the server reads.
fn give(path: &Path, text: &str, owner: &fs::Metadata) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    chown(path, Some(owner.uid()), Some(owner.gid())).unwrap();
}
