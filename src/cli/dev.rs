//! `moorline dev DIR`: everything in one process: a private PostgreSQL, the API, the loop, the agent side for DIR, and a chat to
//! watch. For looking at it and for working on it; not for serving others.

mod story;

use crate::{
    clock::{self, Clock},
    config::{self, Auth},
    embedded::{self, Embedded},
    model::{
        access::Reach,
        agent::AgentSpec as ModelAgentSpec,
        chat::{ChatSpec, Reference, RefreshPolicy},
        object::{DeletionPolicy, Key, Source, TextMap},
    },
    server::Server,
    store::{self, transact},
    wake::{ListenNotify, Wake},
    workspace::{self, AgentSpec, push::ApiClient, watch},
    writes::{WriteError, agents::CreateAgent, chats::CreateChat},
};
use anyhow::{Context as _, bail};
use clap::Args;
use sqlx::PgPool;
use std::{net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};
use story::Story;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// The database of the embedded server.
const DATABASE: &str = "moorline";
/// The chat to watch.
const CHAT: &str = "demo";
/// How long a Ctrl-C may take.
const GRACE: Duration = Duration::from_secs(4);

/// Run everything on a private PostgreSQL, for the workspace DIR.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  moorline dev .")]
pub struct DevArgs {
    /// The workspace whose context the chat `demo` is moored to.
    dir: PathBuf,
    /// The address of the API; loopback only.
    #[arg(long, env = "MOORLINE_LISTEN", default_value = "127.0.0.1:8460", value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// Where the database lives. Default: a directory of its own for each workspace, under the user's state directory.
    #[arg(long, env = "MOORLINE_DATA_DIR", value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
    /// Where PostgreSQL's programs are, when they are not found by themselves.
    #[arg(long, env = "MOORLINE_PG_BIN", value_name = "DIRECTORY")]
    pg_bin: Option<PathBuf>,
    /// Namespace of the agent and of the chat.
    #[arg(long, env = "MOORLINE_NAMESPACE", default_value = "default")]
    namespace: String,
}

/// Runs it until `shutdown`.
pub async fn run(args: DevArgs, shutdown: CancellationToken) -> anyhow::Result<ExitCode> {
    let dir = args.dir.canonicalize().with_context(|| format!("the workspace {}", args.dir.display()))?;
    if !dir.is_dir() {
        bail!("the workspace {} is not a directory", dir.display());
    }
    let name = agent_name(&dir);
    let data_dir = args.data_dir.clone().unwrap_or_else(|| embedded::default_data_dir(&dir));
    println!("starting PostgreSQL in {}", data_dir.display());
    let options = embedded::Options { data_dir, pg_bin: args.pg_bin.clone(), ephemeral: false, settings: Vec::new() };
    let postgres = tokio::select! {
        () = shutdown.cancelled() => return Ok(ExitCode::SUCCESS),
        started = embedded::start(options) => started?,
    };
    let result = on_database(&args, &dir, &name, &postgres, shutdown).await;
    postgres.stop().await?;
    println!("stopped; start it again to go on where it was");
    result.map(|()| ExitCode::SUCCESS)
}

async fn on_database(
    args: &DevArgs,
    dir: &std::path::Path,
    name: &str,
    postgres: &Embedded,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    postgres.ensure_database(DATABASE).await?;
    let options = postgres.connect_options(DATABASE);
    let migrating = store::pool(options.clone(), 2);
    store::schema::migrate(&migrating, false).await?;
    migrating.close().await;
    let config = config::Server {
        listen: args.listen,
        auth: Auth::None,
        token_auth_file: None,
        listen_notify: ListenNotify::On,
        poll_ms: 2_000,
        database_connections: 12,
        retention_interval: config::RETENTION_INTERVAL,
        event_retention: config::EVENT_RETENTION,
        access: config::Access::default(),
        serving: config::Serving::default(),
    };
    let clock = clock::system();
    let server = Server::bind(config, options, clock.clone()).await?;
    let (address, wake, pool) = (server.address(), server.wake(), server.pool());
    // Whichever of the parts ends first, or a Ctrl-C, ends the others.
    let stop = shutdown.child_token();
    let story = Story::from_now(&pool, &args.namespace).await?;
    let serving = tokio::spawn({
        let stop = stop.clone();
        async move {
            let result = server.run(stop.clone()).await;
            stop.cancel();
            result
        }
    });
    let result = work(args, dir, name, (address, &wake, &pool, &clock), story, stop.clone()).await;
    stop.cancel();
    if let Ok(ended) = tokio::time::timeout(GRACE, serving).await {
        ended.context("the server")??;
    } else {
        tracing::warn!("shutdown took too long; what was left is dropped, and stays due");
    }
    result
}

type Parts<'a> = (SocketAddr, &'a Wake, &'a PgPool, &'a Clock);

async fn work(
    args: &DevArgs,
    dir: &std::path::Path,
    name: &str,
    (address, wake, pool, clock): Parts<'_>,
    story: Story,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let agent = Key::new(&args.namespace, name);
    create_agent(pool, clock, &agent).await?;
    create_chat(pool, clock, &agent).await?;
    wake.work();
    let server = format!("http://{address}");
    println!("ready: {server}   try: kubectl --server {server} get chats   kubectl --server {server} get chat {CHAT} -o yaml");
    // What there is to tell comes after where to look.
    let telling = AbortOnDropHandle::new(tokio::spawn(story.tell(pool.clone(), wake.clone(), stop.clone())));
    let client = ApiClient::new(&server, &args.namespace, name, None)?;
    let options = workspace::Options {
        root: dir.to_owned(),
        client,
        create: Some(AgentSpec::default()),
        once: None,
        watch: watch::Settings::default(),
    };
    workspace::run(options, clock.clone(), stop).await?;
    drop(telling);
    Ok(())
}

async fn create_agent(pool: &PgPool, clock: &Clock, key: &Key) -> anyhow::Result<()> {
    let spec = ModelAgentSpec {
        workspace: None,
        build: None,
        service_account: None,
        suspend: false,
        revision_history_limit: 10,
        deletion_policy: DeletionPolicy::Delete,
    };
    let none = TextMap::new();
    let create = CreateAgent {
        clock,
        key,
        spec: &spec,
        labels: &none,
        annotations: &none,
        reach: &Reach::Everything,
        source: Source::Api,
    };
    match transact(pool, clock, &create).await {
        Ok(_) | Err(WriteError::AlreadyExists) => Ok(()),
        Err(error) => Err(error).context("creating the agent"),
    }
}

async fn create_chat(pool: &PgPool, clock: &Clock, agent: &Key) -> anyhow::Result<()> {
    let spec = ChatSpec {
        owner: "dev".into(),
        title: "A chat to watch".into(),
        reference: Reference::Agent(agent.name.clone()),
        parent: None,
        refresh_policy: RefreshPolicy::Manual,
        suspend: false,
        archived: false,
        deletion_policy: DeletionPolicy::Delete,
    };
    let none = TextMap::new();
    let create = CreateChat {
        clock,
        key: &Key::new(&agent.namespace, CHAT),
        spec: &spec,
        labels: &none,
        annotations: &none,
        created_by: "dev",
        reach: &Reach::Everything,
        source: Source::Api,
    };
    match transact(pool, clock, &create).await {
        Ok(_) | Err(WriteError::AlreadyExists) => Ok(()),
        Err(error) => Err(error).context("creating the chat"),
    }
}

/// The agent's name, from the directory's: a DNS label.
fn agent_name(dir: &std::path::Path) -> String {
    let base = dir.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let label: String = base.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(40).collect();
    let label = label.trim_matches('-');
    if label.is_empty() { "workspace".to_owned() } else { label.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn any_directory_gives_a_name_that_an_agent_may_have() {
        for (dir, name) in
            [("/a/My Project", "my-project"), ("/", "workspace"), ("/x/..--..", "workspace"), ("/ws_42.d", "ws-42-d")]
        {
            assert_eq!(agent_name(Path::new(dir)), name);
            assert_eq!(crate::model::name::dns_label("metadata.name", name), None);
        }
    }
}
