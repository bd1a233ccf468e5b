//! Making a session: the handshake over a connected stream, on both sides.

use crate::driver;
use crate::{GuestLink, HostLink, KeyStore, LinkError, Options};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use wire::frame::{Frame, decode};
use wire::handshake::{Credentials, HandshakeError, Listener, NONCE, refused};
use wire::keys::Identity;
use wire::mux::Role;

/// Dials: the tether's handshake over a connected stream. `credentials` remember what later
/// sessions need, also where this one fails.
pub async fn dial<T>(
    mut io: T,
    credentials: &mut Credentials,
    options: Options,
) -> Result<GuestLink, LinkError>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut buffer = BytesMut::new();
    let handshake = async {
        let (dialer, hello) = credentials.dial(nonce()?).map_err(handshake_error)?;
        send(&mut io, hello).await?;
        let challenge = receive(&mut io, &mut buffer).await?;
        let (dialer, proof) = dialer
            .challenge(&challenge, credentials)
            .map_err(handshake_error)?;
        send(&mut io, proof).await?;
        let confirm = receive(&mut io, &mut buffer).await?;
        dialer
            .confirm(&confirm, credentials)
            .map_err(handshake_error)
    };
    within(&options, handshake).await?;
    Ok(driver::start(io, buffer, Role::Guest, &options))
}

/// Accepts: the endpoint's handshake over a connected stream. `wanted` is the container that the
/// transport vouches for, if it does (the serial port's URI names it): any other is refused.
pub async fn accept<T, K>(
    mut io: T,
    keys: &K,
    wanted: Option<[u8; 32]>,
    options: Options,
) -> Result<(Identity, HostLink), LinkError>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    K: KeyStore,
{
    let mut buffer = BytesMut::new();
    let result = within(&options, listen(&mut io, &mut buffer, keys, wanted)).await;
    match result {
        Ok(identity) => Ok((identity, driver::start(io, buffer, Role::Host, &options))),
        Err(error) => {
            // The same answer to everything; whether it still arrives does not matter.
            let farewell = async {
                send(&mut io, refused()).await?;
                io.shutdown()
                    .await
                    .map_err(|e| LinkError::Io(e.to_string()))
            };
            let _ = within(&options, farewell).await;
            Err(error)
        }
    }
}

async fn listen<T, K>(
    io: &mut T,
    buffer: &mut BytesMut,
    keys: &K,
    wanted: Option<[u8; 32]>,
) -> Result<Identity, LinkError>
where
    T: AsyncRead + AsyncWrite + Unpin,
    K: KeyStore,
{
    let listener = Listener::new(nonce()?);
    let hello = receive(io, buffer).await?;
    let (listener, challenge) = listener.hello(&hello).map_err(handshake_error)?;
    send(io, challenge).await?;
    let proof = receive(io, buffer).await?;
    let listener = listener.proof(&proof).map_err(handshake_error)?;
    let identity = listener.identity();
    let known = match wanted {
        Some(container) if container != identity.container => None,
        _ => keys.lookup(identity).await.map_err(LinkError::Keys)?,
    };
    let proved = listener.verify(known.as_ref()).map_err(handshake_error)?;
    if !keys
        .store(proved.session().clone())
        .await
        .map_err(LinkError::Keys)?
    {
        return Err(LinkError::Handshake(format!(
            "session {} of {identity:?} refused: another one was made meanwhile",
            proved.session().session
        )));
    }
    let (_, confirm) = proved.confirm();
    send(io, confirm).await?;
    Ok(identity)
}

async fn within<T>(
    options: &Options,
    what: impl Future<Output = Result<T, LinkError>>,
) -> Result<T, LinkError> {
    match tokio::time::timeout(options.handshake_timeout, what).await {
        Ok(result) => result,
        Err(_) => Err(LinkError::Handshake(format!(
            "the peer did not answer within {} s",
            options.handshake_timeout.as_secs()
        ))),
    }
}

async fn send<T: AsyncWrite + Unpin>(io: &mut T, message: Vec<u8>) -> Result<(), LinkError> {
    let mut out = BytesMut::new();
    Frame::Handshake(message.into()).encode(&mut out);
    io.write_all(&out)
        .await
        .map_err(|e| LinkError::Io(e.to_string()))?;
    io.flush().await.map_err(|e| LinkError::Io(e.to_string()))
}

async fn receive<T: AsyncRead + Unpin>(
    io: &mut T,
    buffer: &mut BytesMut,
) -> Result<Bytes, LinkError> {
    loop {
        match decode(buffer) {
            Ok(Some(Frame::Handshake(message))) => return Ok(message),
            Ok(Some(_)) => {
                return Err(LinkError::Protocol(
                    "a frame of a session before its handshake".into(),
                ));
            }
            Ok(None) => {}
            Err(e) => return Err(LinkError::Protocol(e.to_string())),
        }
        buffer.reserve(256);
        match io.read_buf(buffer).await {
            Ok(0) => {
                return Err(LinkError::Io(
                    "the peer closed it during the handshake".into(),
                ));
            }
            Ok(_) => {}
            Err(e) => return Err(LinkError::Io(e.to_string())),
        }
    }
}

fn nonce() -> Result<[u8; NONCE], LinkError> {
    let mut nonce = [0; NONCE];
    getrandom::fill(&mut nonce).map_err(|e| LinkError::Io(format!("no random bytes: {e}")))?;
    Ok(nonce)
}

fn handshake_error(error: HandshakeError) -> LinkError {
    LinkError::Handshake(error.to_string())
}
