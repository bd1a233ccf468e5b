//! Network-backed serial ports, with a guest at one end and a small concentrator at the other.

use crate::guest::{Folder, LONG, boot, console, power_on, spec};
use hostsim::vmx::{SerialDirection, SerialFaults, SerialSpec, SerialUri, VmxSpec};
use rustls::pki_types::PrivatePkcs8KeyDer;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use wire::vspc::{Server, ServerEvent};

const URI: &str = "mooring:vch-1:0123456789ab";
/// Bytes that the guest sends.
const SENT: usize = 256 * 1024;

async fn with_port(
    folder: &Folder,
    proxy_uri: String,
    test: &str,
    faults: SerialFaults,
) -> Option<VmxSpec> {
    let mut spec = spec(folder.path(), &boot()?, test).await;
    spec.serials.push(SerialSpec::Uri(SerialUri {
        service_uri: URI.into(),
        proxy_uri,
        direction: SerialDirection::Client,
        faults,
    }));
    Some(spec)
}

/// What the guest's pattern looks like (`serial` in init.c).
fn pattern() -> Vec<u8> {
    let byte = |i: usize| {
        if i.is_multiple_of(4096) {
            255
        } else {
            (i % 251 + 5) as u8
        }
    };
    (0..SENT).map(byte).collect()
}

fn tls() -> (TlsAcceptor, String) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let print = Sha256::digest(made.cert.der());
    let print: Vec<String> = print.iter().map(|b| format!("{b:02X}")).collect();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), print.join(":"))
}

/// One port's connection to the concentrator.
struct Port<S> {
    stream: S,
    server: Server,
    data: Vec<u8>,
    told: Vec<ServerEvent>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Port<S> {
    fn new(stream: S) -> Self {
        Port {
            stream,
            server: Server::new(),
            data: Vec::new(),
            told: Vec::new(),
        }
    }

    /// Exchange until `enough`; false where the port closed the connection before.
    async fn until(&mut self, accept: bool, enough: impl Fn(&Self) -> bool) -> bool {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let out = self.server.take_output();
            self.stream.write_all(&out).await.unwrap();
            self.stream.flush().await.unwrap();
            if enough(self) {
                return true;
            }
            let Ok(n @ 1..) = self.stream.read(&mut buffer).await else {
                return false;
            };
            self.server.receive(&buffer[..n], &mut self.data).unwrap();
            while let Some(event) = self.server.next_event() {
                if let ServerEvent::Proxy { uri, .. } = &event {
                    assert_eq!(uri, URI);
                    self.server.answer_proxy(accept);
                }
                self.told.push(event);
            }
        }
    }
}

#[tokio::test]
async fn a_port_speaks_over_tls_to_the_pinned_proxy_once_it_is_taken() {
    let (acceptor, print) = tls();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let dir = Folder::new();
    let proxy = format!("telnets://127.0.0.1:{port}#thumbprint={print}");
    let test = format!("serial send={SENT} receive=4096");
    let Some(spec) = with_port(&dir, proxy, &test, SerialFaults::default()).await else {
        return;
    };
    let vm = power_on(dir.path(), &spec).await;
    let concentrator = async {
        // Refused, and cut before a word was said: the port comes again, and has lost nothing.
        let (stream, _) = listener.accept().await.unwrap();
        let mut refused = Port::new(acceptor.accept(stream).await.unwrap());
        assert!(!refused.until(false, |_| false).await);
        assert!(refused.data.is_empty());
        drop(listener.accept().await.unwrap());

        let (stream, _) = listener.accept().await.unwrap();
        let mut port = Port::new(acceptor.accept(stream).await.unwrap());
        assert!(port.until(true, |port| port.data.len() >= SENT).await);
        assert!(port.data == pattern(), "what arrived is not what was sent");
        let name = ServerEvent::VmName(spec.name.clone());
        assert!(port.told.contains(&name), "{:?}", port.told);
        // And back: every value of a byte, the telnet escape many times over.
        port.data.clear();
        let reply: Vec<u8> = (0..4096)
            .map(|i| if i % 3 == 0 { 255 } else { i as u8 })
            .collect();
        port.server.send(&reply);
        assert!(port.until(true, |port| port.data.len() >= 4096).await);
        assert!(port.data == reply, "what came back is not what was sent");
        assert!(
            !port.until(true, |_| false).await,
            "the port ends with the VM"
        );
    };
    timeout(LONG, concentrator).await.unwrap();
    timeout(LONG, vm.exited()).await.unwrap().unwrap();
    println!("{}", console(dir.path()));
}

#[tokio::test]
async fn a_proxy_with_another_certificate_gets_nothing() {
    let (acceptor, _) = tls();
    let (_, other) = tls();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let dir = Folder::new();
    let proxy = format!("telnets://127.0.0.1:{port}#thumbprint={other}");
    let Some(spec) = with_port(&dir, proxy, "wait", SerialFaults::default()).await else {
        return;
    };
    let vm = power_on(dir.path(), &spec).await;
    for _ in 0..2 {
        let (stream, _) = timeout(LONG, listener.accept()).await.unwrap().unwrap();
        assert!(acceptor.accept(stream).await.is_err());
    }
    timeout(LONG, vm.power_off()).await.unwrap().unwrap();
}

#[tokio::test]
async fn faults_on_the_line_are_as_many_as_asked_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let dir = Folder::new();
    let faults = SerialFaults {
        corrupt: 1000,
        drop: 1000,
        seed: 1,
    };
    let test = format!("serial send={SENT} receive=0");
    let proxy = format!("telnet://127.0.0.1:{port}");
    let Some(spec) = with_port(&dir, proxy, &test, faults).await else {
        return;
    };
    let vm = power_on(dir.path(), &spec).await;
    let (stream, _) = timeout(LONG, listener.accept()).await.unwrap().unwrap();
    let mut port = Port::new(stream);
    assert!(!timeout(LONG, port.until(true, |_| false)).await.unwrap());
    timeout(LONG, vm.exited()).await.unwrap().unwrap();
    let lost = SENT - port.data.len();
    assert!((150..400).contains(&lost), "{lost} bytes dropped of {SENT}");
    println!("{}", console(dir.path()));
}
