//! `registry serve`

use super::Common;
use crate::registry::Registry;
use crate::server::Server;
use crate::server::log::Tee;
use anyhow::{Context, Result};
use clap::Args;
use tracing_subscriber::EnvFilter;

/// Serves a registry until SIGTERM or SIGINT; SIGHUP reads the certificates again.
#[derive(Args)]
pub(crate) struct Serve {
    /// What to log, as tracing's filter
    #[arg(
        long,
        env = "REGISTRY_LOG",
        default_value = "info",
        value_name = "FILTER"
    )]
    log: String,
    /// Address and port to serve on, in place of what the settings say
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
}

pub(crate) fn run(common: &Common, serve: &Serve) -> Result<()> {
    let filter = EnvFilter::try_new(&serve.log).context("--log")?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Tee::default)
        .with_ansi(false)
        .init();
    raise_open_files();
    let registry = Registry::open_at(&common.data, serve.listen.as_deref())?;
    let tls = registry.settings.tls.is_some();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let done = runtime.block_on(async {
        let server = Server::start(registry).await?;
        let scheme = if tls { "https" } else { "http" };
        // For whoever started it: the port may have been left to the system.
        println!("ready: {scheme}://{}", server.address());
        server.run().await
    });
    // What is still on its way was told to end; a thread that waits for a disk must not hold the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    Ok(done?)
}

/// As many open files as the system allows: a connection is one, and a blob that is sent another.
fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(e) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!("the limit of open files stays as it is: {e}");
    }
}
