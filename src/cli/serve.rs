//! `moorline serve`: the API and the loop, on a database that is already migrated.

use crate::{
    clock, config,
    http::auth::{
        Authentication,
        cluster::{Reviews, Times},
    },
    kubernetes,
    server::Server,
    trace,
};
use clap::Args;
use std::{process::ExitCode, sync::Arc};
use tokio_util::sync::CancellationToken;

/// Serve the API and run the loop.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  moorline serve --database-url postgres://moorline@db/moorline
  moorline serve --database-url postgres://moorline@db/moorline --auth token --token-auth-file tokens.csv --listen 0.0.0.0:8460
  moorline serve --database-url postgres://moorline@db/moorline --kubernetes on --mirror all
  moorline serve --database-url postgres://moorline@db/moorline --auth kubernetes --listen 0.0.0.0:8460
  moorline serve --database-url-file /etc/moorline/uri --tls-cert-file tls.crt --tls-key-file tls.key
  moorline serve --database-url postgres://moorline@db/moorline --role controller --health-listen 0.0.0.0:8461")]
pub struct ServeArgs {
    #[command(flatten)]
    database: config::Database,
    #[command(flatten)]
    server: config::Server,
    #[command(flatten)]
    front: kubernetes::FrontOptions,
}

/// Runs it until `shutdown`.
pub async fn run(args: ServeArgs, shutdown: CancellationToken) -> anyhow::Result<ExitCode> {
    args.front.lease.check()?;
    let traces = trace::start()?;
    let cluster = kubernetes::connect::connect(&args.front.connect).await?;
    let role = args.server.serving.role;
    let (database, clock) = (args.database.access()?, clock::system());
    let server = match args.server.auth {
        config::Auth::None | config::Auth::Token => Server::bind(args.server, database, clock).await?,
        config::Auth::Kubernetes => {
            // Also where there is no front: who calls is another question than whose manifests are taken over.
            let asked = match &cluster {
                Some(cluster) => cluster.client.clone(),
                None => kubernetes::connect::connect_to(&args.front.connect.place).await?.client,
            };
            let config::Access { auth_audience, auth_token_ttl, auth_allow_ttl, auth_deny_ttl, .. } = args.server.access.clone();
            let times = Times { token: auth_token_ttl, allow: auth_allow_ttl, deny: auth_deny_ttl };
            let reviews = Reviews::new(asked, clock.clone(), auth_audience, times);
            Server::bind_for(args.server, Authentication::Cluster(Arc::new(reviews)), database, clock).await?
        }
    };
    let server = match cluster {
        Some(cluster) => server.in_cluster(args.front, cluster),
        None => server,
    };
    let tls = server.speaks_tls();
    match role {
        config::Role::All => {
            tracing::info!(address = %server.address(), tls, "serving the API; the loop starts when the database answers");
        }
        config::Role::Api => tracing::info!(address = %server.address(), tls, "serving the API; other replicas run the loop"),
        config::Role::Controller => {
            tracing::info!(address = %server.address(), tls, "serving probes and metrics; the loop starts when the database answers");
        }
    }
    let ended = server.run(shutdown).await;
    traces.end().await;
    ended?;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}
