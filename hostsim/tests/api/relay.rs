//! A relay before the host, on which connections fall silent without a word, or are cut.

use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The relay; ends with its drop.
pub(super) struct Relay {
    pub(super) address: SocketAddr,
    state: Arc<State>,
    accepting: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct State {
    /// Connections that were made.
    connections: watch::Sender<usize>,
    /// How many of the first connections bring no answers.
    silent: watch::Sender<usize>,
    /// Connections on which the host has said something that is held back.
    held: watch::Sender<usize>,
    /// Whether it is away: connections end at once.
    away: watch::Sender<bool>,
    /// Connections that were turned away.
    turned_away: watch::Sender<usize>,
}

impl Relay {
    pub(super) async fn to(host: SocketAddr) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::<State>::default();
        let accepting = tokio::spawn(accept(listener, host, state.clone()));
        Relay {
            address,
            state,
            accepting,
        }
    }

    /// From now on no answer comes on the connections that there are. They stay open.
    pub(super) fn silence(&self) {
        let all = *self.state.connections.borrow();
        self.state.silent.send_replace(all);
    }

    /// Cuts the connections that there are, and turns away those that come.
    pub(super) fn leave(&self) {
        self.state.away.send_replace(true);
    }

    /// Waits until so many have been turned away.
    pub(super) async fn turned_away(&self, connections: usize) {
        let mut turned_away = self.state.turned_away.subscribe();
        turned_away.wait_for(|&n| n >= connections).await.unwrap();
    }

    /// Lets connections through again.
    pub(super) fn come_back(&self) {
        self.state.away.send_replace(false);
    }

    /// Waits until an answer is held back.
    pub(super) async fn held(&self) {
        let mut held = self.state.held.subscribe();
        held.wait_for(|&n| n > 0).await.unwrap();
    }

    /// Lets go of what was held back.
    pub(super) fn release(&self) {
        self.state.silent.send_replace(0);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, host: SocketAddr, state: Arc<State>) {
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let number = *state.connections.borrow();
        state.connections.send_replace(number + 1);
        if *state.away.borrow() {
            state.turned_away.send_modify(|n| *n += 1);
            continue;
        }
        let state = state.clone();
        tokio::spawn(async move {
            let mut away = state.away.subscribe();
            tokio::select! {
                _ = away.wait_for(|&away| away) => {}
                _ = relay(client, host, number, state.clone()) => {}
            }
        });
    }
}

async fn relay(
    client: TcpStream,
    host: SocketAddr,
    number: usize,
    state: Arc<State>,
) -> std::io::Result<()> {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_host, mut to_host) = TcpStream::connect(host).await?.into_split();
    let calls = async {
        tokio::io::copy(&mut from_client, &mut to_host).await?;
        to_host.shutdown().await
    };
    let answers = async {
        let mut silent = state.silent.subscribe();
        let mut buffer = vec![0; 1 << 16];
        loop {
            let n = from_host.read(&mut buffer).await?;
            if n == 0 {
                return to_client.shutdown().await;
            }
            if number < *silent.borrow_and_update() {
                state.held.send_modify(|held| *held += 1);
                let _ = silent.wait_for(|&silent| number >= silent).await;
                state.held.send_modify(|held| *held -= 1);
            }
            to_client.write_all(&buffer[..n]).await?;
        }
    };
    tokio::try_join!(calls, answers).map(drop)
}
