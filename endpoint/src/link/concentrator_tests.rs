//! Whom the concentrator takes: ports at its socket, over TLS, in the words of the protocol; and containers that a vSphere
//! tells of.

use super::*;
use crate::{
    cli::{Cli, Command},
    containers::{Setup, changes::KeptChanges, keys},
    events::Events,
    link::{LinkSetup, service_uri},
    networks::{NetworkSetup, Networks},
    volumes::Volumes,
    vsphere::{Boot, VmRef, Vsphere, fake::Fake},
};
use clap::Parser as _;
use http_body_util::{BodyExt as _, Full};
use serde_json::json;
use std::collections::BTreeMap;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use vim::{
    Any, soap,
    types::{
        DynamicProperty, ObjectContent, OptionValue, PowerState, PropertyFilterSpec,
        RetrieveResult, ServiceContent, UserSession,
    },
    value::Value as _,
};
use wire::vspc::{Client, ClientEvent, PortIdentity};

/// What comes at all comes within this on any machine.
const LIMIT: Duration = Duration::from_secs(30);
const VCH: &str = "own";

/// The containers: one that runs, and one whose VM is off.
fn running() -> String {
    "a1".repeat(32)
}

fn off() -> String {
    "b2".repeat(32)
}

fn object(kind: &'static str, id: &str, properties: &[(&str, Any)]) -> ObjectContent {
    let property = |(name, val): &(&str, Any)| DynamicProperty {
        name: (*name).to_owned(),
        val: val.clone(),
    };
    ObjectContent {
        obj: VmRef::new(kind, id),
        prop_set: properties.iter().map(property).collect(),
        missing_set: Vec::new(),
    }
}

/// A container's VM.
fn vm(id: &str, on: bool) -> ObjectContent {
    // A boot that goes on, or one whose end is known.
    let record = match on {
        true => json!({"boots": 1, "started": 1}),
        false => json!({"boots": 1, "started": 1, "ended": 1}),
    };
    let spec = json!({
        "version": 2, "id": id, "created": 1, "image": "i", "architecture": "amd64", "config": {}, "host": {},
        "options": {}, "networks": [], "memory_mib": 64, "cpus": 1,
        "disk": {"seal": "s", "guid": "g", "layers": [], "ephemeral": 1, "journal": 2},
    });
    let mut vm_keys = BTreeMap::from(
        [
            (keys::VCH, VCH.to_owned()),
            (keys::ID, id.to_owned()),
            (keys::STATE, record.to_string()),
        ]
        .map(|(key, value)| (key.to_owned(), value)),
    );
    keys::put_spec(&mut vm_keys, &spec).unwrap();
    let vm_keys: Vec<OptionValue> = vm_keys
        .iter()
        .map(|(key, value)| OptionValue::text(key, value))
        .collect();
    let state = match on {
        true => PowerState::PoweredOn,
        false => PowerState::PoweredOff,
    };
    object(
        "VirtualMachine",
        id,
        &[
            ("name", Any::of(&id.to_owned())),
            ("runtime.powerState", Any::of(&state)),
            ("config.extraConfig", Any::list(&vm_keys)),
        ],
    )
}

/// All that there is on the vSphere.
fn inventory() -> Vec<ObjectContent> {
    let text = |text: &str| Any::of(&text.to_owned());
    let reference = |kind, id| Any::of(&VmRef::new(kind, id));
    let datacenter = [
        ("name", text("dc")),
        ("parent", reference("Folder", "root")),
        ("vmFolder", reference("Folder", "vms")),
    ];
    let datastore = [
        ("name", text("ds")),
        ("browser", reference("HostDatastoreBrowser", "b")),
    ];
    vec![
        object("Datacenter", "dc", &datacenter),
        object("ResourcePool", "pool", &[]),
        object("Datastore", "ds", &datastore),
        object("Network", "net", &[("name", text("VM Network"))]),
        vm(&running(), true),
        vm(&off(), false),
    ]
}

/// The answer to a call; `None` for what waits for a change: there is none.
fn answer(message: &[u8]) -> Option<String> {
    let call = soap::decode_request(message).unwrap();
    let name = call.name.to_string();
    let manager = |kind: &'static str| VmRef::new(kind, kind);
    Some(match name.as_str() {
        "RetrieveServiceContent" => soap::encode_response(
            &name,
            &ServiceContent {
                root_folder: VmRef::new("Folder", "root"),
                property_collector: manager("PropertyCollector"),
                view_manager: Some(manager("ViewManager")),
                session_manager: Some(manager("SessionManager")),
                file_manager: Some(manager("FileManager")),
                ..ServiceContent::default()
            },
        ),
        "Login" => soap::encode_response(&name, &UserSession::default()),
        // A view is called by the kind of what it shows.
        "CreateContainerView" => {
            let kind = &call.child("type").unwrap().text;
            soap::encode_response(&name, &VmRef::new("ContainerView", kind.as_str()))
        }
        "RetrievePropertiesEx" => {
            let spec = PropertyFilterSpec::from_element(call.child("specSet").unwrap()).unwrap();
            let of = &spec.object_set[0].obj;
            let mut objects = inventory();
            objects.retain(|object| match &*of.kind {
                "ContainerView" => object.obj.kind == of.id,
                _ => object.obj == *of,
            });
            let token = None;
            soap::encode_response(&name, &Some(RetrieveResult { token, objects }))
        }
        "CreatePropertyCollector" => soap::encode_response(&name, &manager("PropertyCollector")),
        "CreateFilter" => soap::encode_response(&name, &manager("PropertyFilter")),
        "DestroyView" | "MakeDirectory" => soap::encode_response(&name, &()),
        "WaitForUpdatesEx" => return None,
        other => unreachable!("{other} is not asked for in tests"),
    })
}

/// A vSphere with the containers' VMs, as the endpoint finds it.
async fn vsphere(folder: &Path) -> Vsphere {
    let certificate = Certificate::load_or_make(folder).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let acceptor = TlsAcceptor::from(certificate.config);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let stream = acceptor.accept(stream).await.unwrap();
                let service = |request: http::Request<hyper::body::Incoming>| async {
                    let message = request.into_body().collect().await?.to_bytes();
                    match answer(&message) {
                        Some(text) => Ok(http::Response::new(Full::<bytes::Bytes>::from(text))),
                        None => std::future::pending::<hyper::Result<_>>().await,
                    }
                };
                let _broken = hyper::server::conn::http1::Builder::new()
                    .serve_connection(
                        hyper_util::rt::TokioIo::new(stream),
                        hyper::service::service_fn(service),
                    )
                    .await;
            });
        }
    });
    let print = certificate.thumbprint.as_str();
    let settings = Cli::try_parse_from([
        "endpoint",
        "serve",
        "--vsphere",
        &url,
        "--thumbprint",
        print,
        "--vch-id",
        VCH,
        "--credentials",
        "c",
        "--run-dir",
        "r",
        "--docker",
        "unix://d",
        "--boot-iso",
        "[ds] i",
    ]);
    let Command::Serve(settings) = settings.unwrap().command;
    Vsphere::connect(&settings, "u", "p").await.unwrap()
}

/// The containers, read from vSphere. What they need of its files there is another one for, which has such.
async fn containers(folder: &Path, proxy: String) -> Arc<Containers> {
    let (_files, files) = Fake::start().await;
    let setup = NetworkSetup::default();
    let networks = Networks::open(files.clone(), VCH, setup, Events::new());
    let stores = BTreeMap::new();
    let volumes = Volumes::open(files.clone(), VCH, 1, &stores, Events::new());
    let changes = KeptChanges::open(files.clone(), VCH);
    let setup = Setup {
        vch: VCH.to_owned(),
        boot: Boot::Iso("[ds] i".to_owned()),
        boot_keys: BTreeMap::new(),
        link: LinkSetup::Serial { proxy },
        memory_mib: 64,
        cpus: 1,
        dns: None,
    };
    let containers = Arc::new(Containers::new(
        Arc::new(vsphere(folder).await),
        Events::new(),
        setup,
        Arc::new(networks.await.unwrap()),
        volumes.await.unwrap(),
        Arc::new(changes.await.unwrap()),
    ));
    let (first, read) = tokio::sync::oneshot::channel();
    tokio::spawn(containers.clone().follow(first));
    read.await.unwrap().unwrap();
    containers
}

/// A concentrator that serves, and its proxy URI.
async fn start(folder: &Path) -> String {
    let _set_already = rustls::crypto::ring::default_provider().install_default();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let concentrator = Concentrator::bind(any, folder, VCH).await.unwrap();
    let proxy = concentrator.proxy_uri(None).unwrap();
    let containers = containers(folder, proxy.clone()).await;
    let on = |id: &str| containers.by_id(id).unwrap().status().on;
    assert!(on(&running()) && !on(&off()), "what the tests build on");
    tokio::spawn(concentrator.serve(containers));
    proxy
}

/// A VM's serial port, connected to its proxy, whose certificate it knows by the thumbprint.
struct Port {
    stream: TlsStream<TcpStream>,
    client: Client,
}

impl Port {
    async fn dial(proxy: &str, direction: Direction, uri: &str) -> Port {
        let (address, print) = proxy
            .strip_prefix("telnets://")
            .unwrap()
            .split_once("#thumbprint=")
            .unwrap();
        let config = vim::tls::pinned(print.parse().unwrap()).unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let name = "127.0.0.1".try_into().unwrap();
        let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
        let client = Client::new(PortIdentity {
            direction,
            uri: uri.to_owned(),
            vc_uuid: "vc".to_owned(),
            name: "name".to_owned(),
            bios_uuid: "bios".to_owned(),
            location_uuid: "location".to_owned(),
        });
        Port {
            stream: connecting.await.unwrap(),
            client,
        }
    }

    async fn send(&mut self) {
        let output = self.client.take_output();
        self.stream.write_all(&output).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// What the concentrator says next.
    async fn told(&mut self) -> ClientEvent {
        let mut buffer = vec![0; 4096];
        let exchange = async {
            loop {
                if let Some(event) = self.client.next_event() {
                    return event;
                }
                self.send().await;
                let length = self.stream.read(&mut buffer).await.unwrap();
                assert_ne!(length, 0, "the connection ends without an answer");
                let mut data = Vec::new();
                self.client.receive(&buffer[..length], &mut data).unwrap();
            }
        };
        tokio::time::timeout(LIMIT, exchange).await.unwrap()
    }

    /// The concentrator ends the connection.
    async fn ends(mut self) {
        self.stream.flush().await.unwrap();
        let mut byte = [0];
        let ended = async { while self.stream.read(&mut byte).await.is_ok_and(|n| n > 0) {} };
        tokio::time::timeout(LIMIT, ended).await.unwrap();
    }
}

/// What is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn take(&self) -> String {
        let bytes = std::mem::take(&mut *self.0.lock().unwrap());
        String::from_utf8(bytes).unwrap()
    }

    /// Keeps what this thread logs, as long as the guard lives. Each test that has a port refused needs one: a place that logs
    /// asks the subscriber of the thread that comes by first whether anybody wants to know, and remembers that for all.
    fn listen(&self) -> tracing::subscriber::DefaultGuard {
        let log = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || log.clone())
            .finish();
        tracing::subscriber::set_default(subscriber)
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::Write::write(&mut *self.0.lock().unwrap(), bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const REFUSAL: &str = "asked for a service that is none of this host's running VMs";

#[tokio::test]
async fn the_port_of_a_running_vm_is_taken_and_no_other_one() {
    use Direction::{Client, Server};
    let log = Log::default();
    let _listening = log.listen();
    let folder = tempfile::tempdir().unwrap();
    let proxy = start(folder.path()).await;
    let (running, off) = (running(), off());
    let own = |id: &str| service_uri(VCH, id);
    for (direction, uri, why) in [
        (Client, service_uri("other", &running), "of another host"),
        (Client, service_uri("", &running), "of no host"),
        (Client, service_uri("own:own", &running), "of a longer host"),
        (Client, own(&"c3".repeat(32)), "an unknown container"),
        (Client, own(&running[..12]), "a container's short ID"),
        (Client, own(&running.to_uppercase()), "an ID in capitals"),
        (Client, own(""), "no container"),
        (Client, own(&off), "a container whose VM is off"),
        (Server, own(&running), "the wrong direction"),
        (Client, format!("{VCH}:{running}"), "no scheme"),
        (Client, format!("mooring:{running}"), "no host at all"),
        (Client, format!("other:{VCH}:{running}"), "another scheme"),
        (Client, String::new(), "nothing"),
        (Client, "a\n\x1b[2J".to_owned(), "what a terminal acts upon"),
    ] {
        let mut port = Port::dial(&proxy, direction, &uri).await;
        assert_eq!(port.told().await, ClientEvent::Refused, "{why}: {uri}");
        let logged = log.take();
        assert!(
            logged.contains("WARN") && logged.contains(REFUSAL),
            "{why}: {logged}"
        );
        // With what a terminal would act upon made visible.
        assert!(logged.contains(&format!("uri={uri:?}")), "{why}: {logged}");
    }
    let mut port = Port::dial(&proxy, Client, &own(&running)).await;
    assert_eq!(port.told().await, ClientEvent::Accepted);
    assert!(!log.take().contains(REFUSAL));
}

#[tokio::test]
async fn a_port_that_was_refused_gets_no_place_at_a_link() {
    let _listening = Log::default().listen();
    let folder = tempfile::tempdir().unwrap();
    let proxy = start(folder.path()).await;
    let uri = service_uri(VCH, &running());
    let mut taken = Port::dial(&proxy, Direction::Client, &uri).await;
    assert_eq!(taken.told().await, ClientEvent::Accepted);
    // A link has one place: whoever comes to it sends the former one away.
    for (direction, uri) in [
        (Direction::Server, uri.clone()),
        (Direction::Client, service_uri("other", &running())),
    ] {
        let mut stranger = Port::dial(&proxy, direction, &uri).await;
        assert_eq!(stranger.told().await, ClientEvent::Refused);
        stranger.client.vmotion_begin(b"1");
        assert_eq!(stranger.told().await, ClientEvent::NotNow);
    }
    // That one is still connected, and has what the strangers have not.
    taken.client.vmotion_begin(b"1");
    assert!(matches!(taken.told().await, ClientEvent::GoAhead(_)));
    taken.client.vmotion_abort(b"1");
    taken.send().await;
    // The rightful next one does.
    let mut next = Port::dial(&proxy, Direction::Client, &uri).await;
    assert_eq!(next.told().await, ClientEvent::Accepted);
    taken.ends().await;
}

#[tokio::test]
async fn a_port_that_has_its_service_gets_no_other_one() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = start(folder.path()).await;
    let uri = service_uri(VCH, &running());
    for (other, goes_on) in [(uri.clone(), true), (service_uri(VCH, &off()), false)] {
        let mut port = Port::dial(&proxy, Direction::Client, &uri).await;
        assert_eq!(port.told().await, ClientEvent::Accepted);
        // IAC SB VMWARE-EXT DO-PROXY direction URI IAC SE, once more.
        let again = [&[255, 250, 232, 70, b'C'], other.as_bytes(), &[255, 240]].concat();
        port.stream.write_all(&again).await.unwrap();
        if goes_on {
            assert_eq!(port.told().await, ClientEvent::Accepted, "{other}");
        } else {
            port.ends().await;
        }
    }
}
