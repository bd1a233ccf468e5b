//! Listeners, TLS, health, metrics, and an end that lets transfers finish.

mod connections;
pub mod log;
pub mod metrics;
mod routes;
pub mod tls;

pub use routes::router;

use crate::access::Principal;
use crate::access::tokens::TokenError;
use crate::gc;
use crate::registry::Registry;
use crate::webhooks;
use connections::Connections;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;
use tls::{Certificates, TlsError};
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;

/// Why a registry could not be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address or socket cannot be had.
    #[error("listen on {address}: {source}")]
    Listen {
        /// Address or path.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The registry cannot be given its name.
    #[error(transparent)]
    Tokens(#[from] TokenError),
    /// Signals cannot be waited for.
    #[error("wait for signals: {0}")]
    Signals(io::Error),
}

/// A registry that serves.
#[derive(Debug)]
pub struct Server {
    registry: Arc<Registry>,
    address: SocketAddr,
    certificates: Option<Arc<Certificates>>,
    connections: Connections,
    stop: CancellationToken,
}

impl Server {
    /// Listens on the addresses of its settings; returns when connections are taken.
    ///
    /// # Errors
    /// See [`ServeError`].
    pub async fn start(registry: Arc<Registry>) -> Result<Self, ServeError> {
        let certificates = match &registry.settings.tls {
            Some(tls) => Some(Arc::new(Certificates::load(&tls.certificate, &tls.key)?)),
            None => None,
        };
        registry.tokens.name_service().await?;
        let stop = CancellationToken::new();
        let connections = Connections::new(stop.clone());
        let listener = tcp(&registry.settings.listen).await?;
        let address = listener.local_addr().map_err(|source| ServeError::Listen {
            address: registry.settings.listen.clone(),
            source,
        })?;
        connections.serve_tcp(
            listener,
            certificates.clone(),
            routes::router(registry.clone()),
        );
        if let Some(metrics) = &registry.settings.metrics {
            let listener = tcp(metrics).await?;
            connections.serve_tcp(listener, None, routes::operations(registry.clone()));
        }
        let control = control(&registry)?;
        let router = routes::router(registry.clone()).layer(axum::Extension(Principal::Console));
        connections.serve_unix(control, router);
        connections.spawn(gc::schedule(registry.clone(), stop.clone()));
        let (deliveries, end) = (webhooks::deliver(registry.clone()), stop.clone());
        connections.spawn(async move {
            // One that is cut off is made again by the next start.
            tokio::select! {
                () = end.cancelled() => {}
                () = deliveries => {}
            }
        });
        Ok(Server {
            registry,
            address,
            certificates,
            connections,
            stop,
        })
    }

    /// The address that was got, with its port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Reads the certificates again; the old ones stay if the new ones are no good.
    ///
    /// # Errors
    /// When they cannot be read or do not fit together.
    pub fn reload(&self) -> Result<(), TlsError> {
        match &self.certificates {
            Some(certificates) => certificates.reload(),
            None => Ok(()),
        }
    }

    /// Serves until SIGTERM or SIGINT, then lets what is on its way finish; a second signal, or the settings' time, ends
    /// it at once. SIGHUP reads the certificates again.
    ///
    /// # Errors
    /// When signals cannot be waited for.
    pub async fn run(self) -> Result<(), ServeError> {
        use tokio::signal::unix::{SignalKind, signal};
        let on = |kind| signal(kind).map_err(ServeError::Signals);
        let mut hangup = on(SignalKind::hangup())?;
        let mut terminate = on(SignalKind::terminate())?;
        let mut interrupt = on(SignalKind::interrupt())?;
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => match self.reload() {
                    Ok(()) => tracing::info!("certificates were read again"),
                    Err(e) => tracing::error!("the certificates stay as they were: {e}"),
                },
            }
        }
        tracing::info!("shutting down: waiting for transfers");
        let most = Duration::from_secs(self.registry.settings.shutdown_seconds.into());
        tokio::select! {
            () = self.shutdown() => {}
            _ = terminate.recv() => tracing::warn!("ended by a second signal"),
            _ = interrupt.recv() => tracing::warn!("ended by a second signal"),
            () = tokio::time::sleep(most) => tracing::warn!("transfers took too long; they are cut off"),
        }
        Ok(())
    }

    /// Takes no more connections and requests, and waits for those that are on their way.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.connections.finished().await;
        // Those whose clients hung up have no connection any more.
        self.registry.work.close();
        self.registry.work.wait().await;
        self.registry.audit.flush();
        let _ = std::fs::remove_file(Registry::control_socket(&self.registry.folder));
    }
}

async fn tcp(address: &str) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ServeError::Listen {
            address: address.to_owned(),
            source,
        })
}

/// The private socket; whoever can open it is the administrator. A left-over one is replaced: the folder is locked, so
/// nobody serves it.
fn control(registry: &Registry) -> Result<UnixListener, ServeError> {
    let path = Registry::control_socket(&registry.folder);
    let listen = || {
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        // Bound under another name, so that nobody can connect before the mode is right.
        let fresh = path.with_extension("new");
        let _ = std::fs::remove_file(&fresh);
        let listener = UnixListener::bind(&fresh)?;
        std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&fresh, &path)?;
        Ok(listener)
    };
    listen().map_err(|source| ServeError::Listen {
        address: path.display().to_string(),
        source,
    })
}
