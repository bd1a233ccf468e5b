//! Connections that are lost without a word, and answers that come late.

use super::relay::Relay;
use super::*;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use std::time::Duration;
use vim::client::WatchEvent;

/// Ends a broken run.
const LIMIT: Duration = Duration::from_secs(60);

/// A client with short limits behind a relay.
async fn behind(relay: &Relay, serving: &Serving) -> Client {
    let mut config = config(serving);
    config.url = format!("https://{}", relay.address);
    config.poll_wait = Duration::from_secs(1);
    config.poll_grace = Duration::from_secs(3);
    Client::connect(config).await.unwrap()
}

#[tokio::test]
async fn a_watch_ends_when_its_connection_falls_silent() {
    let rig = Rig::new().await;
    let relay = Relay::to(rig.serving.address).await;
    let client = behind(&relay, &rig.serving).await;
    let vm = rig.create(named("a")).await.unwrap();
    let spec = PropertyFilterSpec::object(&vm, &["name"]);
    let mut watch = client.watch(spec.clone()).await.unwrap();
    assert!(matches!(
        watch.next().await.unwrap(),
        WatchEvent::Updates(_)
    ));
    // Some at once: connections that are kept beside the one of the watch.
    let several = (0..4).map(|_| read_name(&client));
    futures_util::future::try_join_all(several).await.unwrap();
    relay.silence();
    rig.client.rename(&vm, "b").await.unwrap();
    let next = tokio::time::timeout(LIMIT, watch.next()).await.unwrap();
    let wrong = next.unwrap_err();
    assert!(matches!(wrong, vim::Error::Timeout { .. }), "{wrong}");
    // A new one does not run into the old connections.
    let mut watch = client.watch(spec).await.unwrap();
    let WatchEvent::Updates(updates) = watch.next().await.unwrap() else {
        panic!("a new watch begins with what there is")
    };
    assert_eq!(
        updates[0].get::<String>("name").unwrap().as_deref(),
        Some("b")
    );
}

#[tokio::test]
async fn a_task_s_end_is_seen_though_the_connection_fell_silent() {
    let rig = Rig::new().await;
    let relay = Relay::to(rig.serving.address).await;
    task_to_its_end(&rig, &relay, async || relay.silence()).await;
}

#[tokio::test]
async fn a_task_s_end_is_seen_though_the_server_was_away_for_some_attempts() {
    let rig = Rig::new().await;
    let relay = Relay::to(rig.serving.address).await;
    let some_time = async || {
        relay.leave();
        relay.turned_away(6).await;
        relay.come_back();
    };
    task_to_its_end(&rig, &relay, some_time).await;
}

/// Creates a VM; what happens meanwhile must not keep the task's end from being seen.
async fn task_to_its_end(rig: &Rig, relay: &Relay, meanwhile: impl AsyncFnOnce()) {
    let client = behind(relay, &rig.serving).await;
    let hold = rig.serving.host.store.root().join("hold");
    nix::unistd::mkfifo(&hold, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let spec = VirtualMachineConfigSpec {
        extra_config: vec![OptionValue::text(
            "hostsim.create.hold",
            "[datastore1] hold",
        )],
        ..named("a")
    };
    let create = vim::method::CreateVm {
        this: hostsim::inventory::vm_folder(),
        config: spec,
        pool: hostsim::inventory::resource_pool(),
        host: None,
    };
    let task = client.call(&create).await.unwrap();
    let mut handle = client.watch_task(&task).await.unwrap();
    let first = handle.changed().await.unwrap();
    assert!(!first.state.is_final(), "{first:?}");
    tokio::time::timeout(LIMIT, meanwhile()).await.unwrap();
    // Waits until the creation has the pipe open for reading.
    let open = move || std::fs::OpenOptions::new().write(true).open(hold);
    let go = tokio::task::spawn_blocking(open);
    drop(tokio::time::timeout(LIMIT, go).await.unwrap().unwrap());
    let end = tokio::time::timeout(LIMIT, handle.end()).await.unwrap();
    assert_eq!(end.unwrap().state, TaskInfoState::Success);
}

#[tokio::test]
async fn a_late_answer_to_an_old_session_does_not_end_the_new_one() {
    let rig = Rig::new().await;
    let relay = Relay::to(rig.serving.address).await;
    let client = behind(&relay, &rig.serving).await;
    rig.serving.host.sessions.expire_all();
    relay.silence();
    let late = tokio::spawn({
        let client = client.clone();
        async move { read_name(&client).await }
    });
    // The first call has its fault underway; the second finds the session gone, and logs in.
    tokio::time::timeout(LIMIT, relay.held()).await.unwrap();
    read_name(&client).await.unwrap();
    relay.release();
    let late = tokio::time::timeout(LIMIT, late).await.unwrap().unwrap();
    assert_eq!(late.unwrap().as_deref(), Some("vm"));
}

async fn read_name(client: &Client) -> Result<Option<String>, vim::Error> {
    client
        .property(&hostsim::inventory::vm_folder(), "name")
        .await
}

#[tokio::test]
async fn a_call_without_a_session_is_given_an_anonymous_cookie_each_time() {
    let rig = Rig::new().await;
    let read = vim::method::RetrieveProperties {
        this: hostsim::inventory::property_collector(),
        spec_set: vec![],
    };
    let (refused, first) = post(&rig.serving, &read, None).await;
    let wrong = refused.unwrap_err();
    assert!(
        matches!(&wrong, vim::soap::SoapError::Fault(f) if f.is_not_authenticated()),
        "{wrong}"
    );
    let first = first.unwrap();
    // It is good for nothing.
    let (refused, second) = post(&rig.serving, &read, Some(&first)).await;
    assert!(refused.is_err());
    assert_ne!(second.unwrap(), first);
    let content = vim::method::RetrieveServiceContent {
        this: ManagedObjectReference::service_instance(),
    };
    let (answered, anonymous) = post(&rig.serving, &content, None).await;
    assert!(answered.is_ok() && anonymous.is_some());
    // A session's calls are answered without one.
    let credentials = &rig.serving.credentials;
    let login = vim::method::Login {
        this: answered.unwrap().session_manager.unwrap(),
        user_name: credentials.user.clone(),
        password: credentials.password.clone(),
        locale: None,
    };
    let (answered, session) = post(&rig.serving, &login, anonymous.as_deref()).await;
    assert!(answered.is_ok());
    let (answered, none) = post(&rig.serving, &read, session.as_deref()).await;
    assert!(answered.is_ok());
    assert_eq!(none, None);
}

/// One call on a connection of its own; also the cookie that comes with its answer.
async fn post<M: vim::method::Method>(
    serving: &Serving,
    call: &M,
    cookie: Option<&str>,
) -> (Result<M::Output, vim::soap::SoapError>, Option<String>) {
    let tls = vim::tls::pinned(serving.thumbprint).unwrap();
    let tcp = tokio::net::TcpStream::connect(serving.address)
        .await
        .unwrap();
    let tls = tokio_rustls::TlsConnector::from(std::sync::Arc::new(tls))
        .connect("localhost".try_into().unwrap(), tcp)
        .await
        .unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls))
        .await
        .unwrap();
    tokio::spawn(connection);
    let mut request = http::Request::post("/sdk").header("Host", "localhost");
    if let Some(cookie) = cookie {
        request = request.header("Cookie", cookie);
    }
    let body = Full::new(bytes::Bytes::from(vim::soap::encode_request(call)));
    let answer = sender
        .send_request(request.body(body).unwrap())
        .await
        .unwrap();
    let given = answer.headers().get("Set-Cookie").map(|value| {
        let pair = value.to_str().unwrap().split(';').next().unwrap();
        assert!(pair.starts_with("vmware_soap_session="), "{pair}");
        pair.to_owned()
    });
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (vim::soap::decode_response::<M>(&body), given)
}
