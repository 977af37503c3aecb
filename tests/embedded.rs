//! The private server: it is nobody else's, it outlives nobody, and it loses nothing.

use moorline::{
    clock,
    embedded::{self, Embedded, EmbeddedError, Options},
};
use rustix::process::{Pid, Signal, getpgid, kill_process};
use sqlx::{ConnectOptions as _, PgConnection, postgres::PgConnectOptions};
use std::{
    fs::{self, File, Permissions},
    io::{BufRead as _, BufReader, Read as _},
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// Set for the process that starts a server and waits to be killed: the data directory.
const PARENT_OF: &str = "MOORLINE_TEST_PARENT_OF";
/// Set as well when that server is to be ephemeral.
const EPHEMERAL: &str = "MOORLINE_TEST_EPHEMERAL";

/// A directory that the server's user may pass through, removed in the end.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("moorline-place-{}", clock::system().new_id().simple()));
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        Self(path.canonicalize().unwrap())
    }

    fn world(&self) -> PathBuf {
        self.0.join("world")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn options(world: &Path) -> Options {
    Options { data_dir: world.to_owned(), pg_bin: None, ephemeral: false, settings: Vec::new() }
}

async fn start(world: &Path) -> Embedded {
    embedded::start(options(world)).await.unwrap()
}

async fn refusal(options: Options) -> String {
    embedded::start(options).await.unwrap_err().to_string()
}

async fn connect(server: &Embedded) -> PgConnection {
    server.connect_options("postgres").connect().await.unwrap()
}

async fn write_mark(connection: &mut PgConnection) {
    sqlx::raw_sql("CREATE TABLE marks (mark text); INSERT INTO marks VALUES ('kept')").execute(connection).await.unwrap();
}

async fn read_mark(connection: &mut PgConnection) -> String {
    sqlx::query_scalar("SELECT mark FROM marks").fetch_one(connection).await.unwrap()
}

async fn show(connection: &mut PgConnection, setting: &str) -> String {
    sqlx::query_scalar("SELECT current_setting($1)").bind(setting).fetch_one(connection).await.unwrap()
}

fn postmaster(world: &Path) -> Pid {
    let text = fs::read_to_string(world.join("data/postmaster.pid")).unwrap();
    Pid::from_raw(text.lines().next().unwrap().trim().parse().unwrap()).unwrap()
}

/// Whether a process runs: one that has ended and was not collected by its parent does not.
fn alive(pid: Pid) -> bool {
    let output = Command::new("ps").args(["-o", "stat=", "-p", &pid.as_raw_pid().to_string()]).output().unwrap();
    let state = String::from_utf8(output.stdout).unwrap();
    !state.trim().is_empty() && !state.starts_with('Z')
}

/// The children of a process, as (pid, name).
fn children(parent: Pid) -> Vec<(Pid, String)> {
    let output = Command::new("ps").args(["-e", "-o", "pid=,ppid=,comm="]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut found = Vec::new();
    for line in text.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        if words[1] == parent.as_raw_pid().to_string() {
            found.push((Pid::from_raw(words[0].parse().unwrap()).unwrap(), words[2].to_owned()));
        }
    }
    found
}

/// A process of its own that runs a server.
struct Parent {
    process: Child,
    url: String,
}

impl Parent {
    fn of(world: &Path, ephemeral: bool) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "embedded::a_parent_that_waits_to_be_killed", "--nocapture", "--test-threads=1"]);
        command.env(PARENT_OF, world).env_remove(EPHEMERAL);
        if ephemeral {
            command.env(EPHEMERAL, "yes");
        }
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let url = lines.map(Result::unwrap).find_map(|line| Some(line.split_once("url=")?.1.to_owned())).unwrap();
        Self { process, url }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.process)
    }

    /// The guard: the one child that it has.
    fn guard(&self) -> Pid {
        let children = children(self.pid());
        assert_eq!(children.len(), 1, "{children:?}");
        children[0].0
    }

    async fn connect(&self) -> PgConnection {
        self.url.parse::<PgConnectOptions>().unwrap().connect().await.unwrap()
    }

    /// kill -9: nothing of it runs any more.
    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// Not a promise: what [`Parent`] runs. Without its environment there is nothing for it to do.
#[tokio::test]
async fn a_parent_that_waits_to_be_killed() {
    let Some(world) = std::env::var_os(PARENT_OF) else { return };
    let ephemeral = std::env::var_os(EPHEMERAL).is_some();
    let server = embedded::start(Options { ephemeral, ..options(Path::new(&world)) }).await.unwrap();
    println!("url={}", server.url("postgres"));
    // Until it is killed, or whoever started it is gone.
    let _ = std::io::stdin().read(&mut [0]);
}

/// Waits until the owner of a data directory and its guard are gone.
async fn released(lock: File) {
    tokio::task::spawn_blocking(move || lock.lock()).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_server_is_private_and_durable_and_not_roots() {
    let place = Place::new();
    let server = start(&place.world()).await;
    let mut connection = connect(&server).await;
    for (setting, value) in [
        ("listen_addresses", ""),
        ("fsync", "on"),
        ("max_prepared_transactions", "0"),
        ("server_encoding", "UTF8"),
        ("unix_socket_permissions", "0700"),
    ] {
        assert_eq!(show(&mut connection, setting).await, value, "{setting}");
    }
    let collation: String = sqlx::query_scalar("SELECT datcollate::text FROM pg_database WHERE datname = 'postgres'")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(collation, "C");
    let world = fs::metadata(place.world()).unwrap();
    let sockets = fs::metadata(place.world().join("run")).unwrap();
    for directory in [&world, &sockets] {
        assert_eq!(directory.mode() & 0o777, 0o700);
        assert_ne!(directory.uid(), 0, "it belongs to root, who may not run the server");
    }
    let us = rustix::process::geteuid().as_raw();
    assert!(us == 0 || us == world.uid(), "it was given to somebody else");
    // What a terminal sends to our process group does not reach it.
    assert_ne!(getpgid(Some(postmaster(&place.world()))).unwrap(), getpgid(None).unwrap());
    server.stop().await.unwrap();
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart_and_a_large_log_is_put_aside() {
    let place = Place::new();
    let server = start(&place.world()).await;
    server.ensure_database("it's \"ours\"").await.unwrap();
    server.ensure_database("it's \"ours\"").await.unwrap();
    let url = server.url("it's \"ours\"");
    let mut connection = url.parse::<PgConnectOptions>().unwrap().connect().await.unwrap();
    write_mark(&mut connection).await;
    let before = postmaster(&place.world());
    server.stop().await.unwrap();
    assert!(!alive(before), "it was said to have stopped");

    let log = place.world().join("postgres.log");
    File::options().write(true).open(&log).unwrap().set_len(17 << 20).unwrap();
    let server = start(&place.world()).await;
    let mut connection = url.parse::<PgConnectOptions>().unwrap().connect().await.unwrap();
    assert_eq!(read_mark(&mut connection).await, "kept");
    assert!(fs::metadata(&log).unwrap().len() < 1 << 20);
    assert_eq!(fs::metadata(place.world().join("postgres.log.1")).unwrap().len(), 17 << 20);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_second_owner_is_refused_and_told_who_the_first_is() {
    let place = Place::new();
    let parent = Parent::of(&place.world(), false);
    let refused = refusal(options(&place.world())).await;
    assert!(refused.contains(&format!("in use by pid {} (started 2", parent.pid().as_raw_pid())), "{refused}");
    assert!(refused.contains(place.world().to_str().unwrap()) && refused.contains("another --data-dir"), "{refused}");
    // An ephemeral one must not remove what is the other's.
    refusal(Options { ephemeral: true, ..options(&place.world()) }).await;
    assert_eq!(show(&mut parent.connect().await, "fsync").await, "on");
    parent.kill();
}

#[tokio::test]
async fn a_killed_parent_takes_its_server_with_it() {
    let place = Place::new();
    let parent = Parent::of(&place.world(), false);
    let server = postmaster(&place.world());
    write_mark(&mut parent.connect().await).await;
    let lock = File::open(place.world().join("lock")).unwrap();
    parent.kill();
    released(lock).await;
    assert!(!alive(server), "the server outlived its parent");
    assert!(!place.world().join("data/postmaster.pid").exists(), "it was not stopped, it died");
    let server = start(&place.world()).await;
    assert_eq!(read_mark(&mut connect(&server).await).await, "kept");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_start_waits_for_what_a_killed_parent_left_behind() {
    let place = Place::new();
    let parent = Parent::of(&place.world(), false);
    let before = postmaster(&place.world());
    write_mark(&mut parent.connect().await).await;
    parent.kill();
    let server = start(&place.world()).await;
    assert!(!alive(before));
    assert_eq!(read_mark(&mut connect(&server).await).await, "kept");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn an_ephemeral_server_leaves_nothing_behind() {
    let place = Place::new();
    let server = embedded::start(Options { ephemeral: true, ..options(&place.world()) }).await.unwrap();
    server.stop().await.unwrap();
    assert!(!place.world().exists(), "stopped");

    let parent = Parent::of(&place.world(), true);
    let lock = File::open(place.world().join("lock")).unwrap();
    parent.kill();
    released(lock).await;
    // The directory above may be one that the server's user may not write in: then the directory stays, empty.
    let left = fs::read_dir(place.world()).map_or(0, Iterator::count);
    assert_eq!(left, 0, "killed");
}

#[tokio::test]
async fn a_server_whose_guard_was_killed_too_is_stopped_by_the_next_start() {
    let place = Place::new();
    let parent = Parent::of(&place.world(), false);
    let orphan = postmaster(&place.world());
    write_mark(&mut parent.connect().await).await;
    let guard = parent.guard();
    let readers: Vec<_> = children(guard).into_iter().map(|(pid, _)| pid).filter(|pid| *pid != orphan).collect();
    assert_eq!(readers.len(), 1);
    for pid in [readers[0], guard] {
        kill_process(pid, Signal::KILL).unwrap();
    }
    // It is our grandchild: it goes on, with nobody left to stop it.
    parent.kill();
    assert!(alive(orphan));

    let server = start(&place.world()).await;
    assert!(!alive(orphan));
    assert_ne!(postmaster(&place.world()), orphan);
    assert_eq!(read_mark(&mut connect(&server).await).await, "kept");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_whose_guard_has_lost_its_reader_is_stopped_by_the_next_start() {
    let place = Place::new();
    let parent = Parent::of(&place.world(), false);
    let orphan = postmaster(&place.world());
    for (pid, _) in children(parent.guard()).into_iter().filter(|(pid, _)| *pid != orphan) {
        kill_process(pid, Signal::KILL).unwrap();
    }
    parent.kill();
    let server = start(&place.world()).await;
    assert!(!alive(orphan));
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_pid_file_that_names_another_process_is_not_believed() {
    let place = Place::new();
    start(&place.world()).await.stop().await.unwrap();
    let data = place.world().join("data");
    // Of the server's user: it takes no notice of others' processes.
    let user = fs::metadata(&data).unwrap();
    let mut bystander = Command::new("cat");
    if rustix::process::geteuid().is_root() {
        bystander.uid(user.uid()).gid(user.gid());
    }
    let mut bystander = bystander.stdin(Stdio::piped()).spawn().unwrap();
    fs::write(data.join("postmaster.pid"), format!("{}\n{}\n", bystander.id(), data.display())).unwrap();
    start(&place.world()).await.stop().await.unwrap();
    assert!(bystander.try_wait().unwrap().is_none(), "it was stopped in the server's place");
    drop(bystander.stdin.take());
    bystander.wait().unwrap();
}

/// A directory of programs: a server that says that it is new enough, and an `initdb` that does `what`.
fn programs(place: &Place, initdb: &str) -> PathBuf {
    let bin = place.0.join("bin");
    fs::create_dir_all(&bin).unwrap();
    for (name, script) in [("postgres", "echo 'postgres (PostgreSQL) 15.1'"), ("initdb", initdb)] {
        fs::write(bin.join(name), format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(bin.join(name), Permissions::from_mode(0o755)).unwrap();
    }
    bin
}

#[tokio::test]
async fn a_cluster_that_was_only_half_made_is_made_again() {
    let place = Place::new();
    let half = "mkdir \"$2/base\"; echo 15 >\"$2/PG_VERSION\"; echo 'no space left' >&2; exit 1";
    let bin = programs(&place, half);
    let refused = refusal(Options { pg_bin: Some(bin), ..options(&place.world()) }).await;
    assert!(refused.contains("initdb") && refused.contains("no space left"), "{refused}");
    assert!(place.world().join("data.new/PG_VERSION").exists(), "this is to be half a cluster");
    assert!(!place.world().join("data").exists());
    start(&place.world()).await.stop().await.unwrap();
    assert!(!place.world().join("data.new").exists());
}

#[tokio::test]
async fn a_path_that_is_too_long_for_a_socket_gets_a_short_one() {
    let place = Place::new();
    let world = place.0.join("w".repeat(120));
    let server = start(&world).await;
    let sockets: String = show(&mut connect(&server).await, "unix_socket_directories").await;
    let sockets = PathBuf::from(sockets.trim_matches('"'));
    assert!(sockets.file_name().unwrap().to_str().unwrap().starts_with("moorline-"), "{}", sockets.display());
    assert_eq!(fs::metadata(&sockets).unwrap().mode() & 0o777, 0o700);
    server.stop().await.unwrap();
    assert!(!sockets.exists(), "left behind");
}

#[tokio::test]
async fn a_system_without_a_server_is_told_what_to_install() {
    let place = Place::new();
    let nothing = place.0.join("nothing");
    fs::create_dir(&nothing).unwrap();
    let refused = refusal(Options { pg_bin: Some(nothing.clone()), ..options(&place.world()) }).await;
    assert!(refused.contains("no PostgreSQL server found") && refused.contains(nothing.to_str().unwrap()), "{refused}");
    assert!(refused.contains("nstall"), "{refused}");
}

#[tokio::test]
async fn a_directory_that_the_servers_user_cannot_reach_is_named() {
    if !rustix::process::geteuid().is_root() {
        // Only root runs the server as somebody else.
        return;
    }
    let place = Place::new();
    let closed = place.0.join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
    let refused = refusal(options(&closed.join("below/world"))).await;
    assert!(refused.contains(&format!("{} has mode 0700 and belongs to uid 0", closed.display())), "{refused}");
    assert!(refused.contains("another --data-dir"), "{refused}");
    assert!(fs::read_dir(&closed).unwrap().next().is_none(), "it was refused, and something was made all the same");
}

#[tokio::test]
async fn a_directory_with_something_else_in_it_is_left_alone() {
    let place = Place::new();
    fs::create_dir(place.world()).unwrap();
    fs::write(place.world().join("thesis.txt"), "years").unwrap();
    let before = fs::metadata(place.world()).unwrap();
    let error = embedded::start(Options { ephemeral: true, ..options(&place.world()) }).await.unwrap_err();
    assert!(matches!(error, EmbeddedError::NotOurs { .. }), "{error}");
    assert_eq!(fs::read_to_string(place.world().join("thesis.txt")).unwrap(), "years");
    let after = fs::metadata(place.world()).unwrap();
    assert_eq!((after.uid(), after.mode()), (before.uid(), before.mode()));
}

#[tokio::test]
async fn a_server_that_does_not_start_says_why() {
    let place = Place::new();
    let settings = vec![("shared_buffers".to_owned(), "plenty".to_owned())];
    let refused = refusal(Options { ephemeral: true, settings, ..options(&place.world()) }).await;
    assert!(refused.contains("ended while starting") && refused.contains("\"shared_buffers\": \"plenty\""), "{refused}");
    // And it can be started once that is put right.
    start(&place.world()).await.stop().await.unwrap();
}

#[test]
fn each_directory_has_a_world_of_its_own() {
    let place = Place::new();
    let (one, other) = (place.0.join("a/my work"), place.0.join("b/my work"));
    for directory in [&one, &other] {
        fs::create_dir_all(directory).unwrap();
    }
    let world = embedded::default_data_dir(&one);
    assert_ne!(world, embedded::default_data_dir(&other));
    assert_eq!(world, embedded::default_data_dir(&one.join("../my work")), "two names of one directory");
    let name = world.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("my-work-") && name.len() == "my-work-".len() + 8, "{name}");
    assert!(world.parent().unwrap().ends_with("moorline"), "{}", world.display());
}
