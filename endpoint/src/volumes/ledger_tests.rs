use super::*;
use crate::volumes::server::fake::Fake;
use crate::volumes::stores::Store;
use std::time::Duration;

/// A store of version 4 in the folder `/vols` of a server.
fn store(server: &Fake, name: &str, options: &str) -> Placed {
    let text = format!("nfs://{}/vols?vers=4{options}:{name}", server.at);
    text.parse::<Store>().unwrap().of("vch")
}

fn record(name: &str, placed: Option<Placed>) -> (String, Entry) {
    let record = VolumeRecord {
        name: name.to_owned(),
        created: 1,
        uuid: String::new(),
        capacity: 0,
        labels: BTreeMap::new(),
        options: BTreeMap::new(),
        placed,
        container: None,
    };
    let entry = Entry {
        record: Arc::new(record),
        generation: 1,
        users: BTreeSet::new(),
    };
    (name.to_owned(), entry)
}

#[test]
fn a_name_is_free_once_it_is_gone_everywhere() {
    let mut leaving = Leaving::default();
    leaving.begin("one");
    leaving.begin("one");
    leaving.end("one");
    assert!(leaving.contains("one"));
    leaving.end("one");
    assert!(!leaving.contains("one"));
    leaving.end("one");
    assert!(!leaving.contains("one"));
}

#[tokio::test]
async fn what_an_interruption_left_in_a_store_is_deleted_and_nothing_else() {
    // Its first connection comes to nothing: it is asked again.
    let server = Fake::start("127.0.0.1", 1).await;
    for path in [
        "vols/vch/kept/data",
        "vols/vch/elsewhere/data",
        "vols/vch/half/deep/deeper",
        "vols/vch/disk",
        "vols/vch/.snapshot",
        "vols/another/half",
        "half",
    ] {
        server.folder(path, 0, 0o755);
    }
    for name in ["a", "b", "c", "d", "e", "f", "g"] {
        server.file("vols/vch/half", name);
        server.file("vols/vch/half/deep", name);
    }
    server.file("vols/vch", "file");
    let (own, other) = (store(&server, "nas", ""), store(&server, "other", ""));
    let ledger = Ledger::new(BTreeMap::from([
        record("kept", Some(own.clone())),
        // Whose store has another name by now, or is the same folder by another.
        record("elsewhere", Some(other)),
        // A disk on the datastore: the folder of that name is nobody's.
        record("disk", None),
    ]));
    ledger.clone().sweep(own).await;
    let left = |path: &str| server.has(&format!("vols/vch/{path}"));
    assert!(!left("half") && !left("disk"));
    for kept in ["kept/data", "elsewhere/data", ".snapshot", "file"] {
        assert!(left(kept), "{kept}");
    }
    assert!(server.has("vols/another/half") && server.has("half"));
    assert!(!ledger.state().leaving.contains("half"));
    assert!(ledger.state().volumes.contains_key("disk"));
}

#[tokio::test]
async fn what_two_stores_have_of_one_name_is_deleted_in_both() {
    let servers = [
        Fake::start("127.0.0.1", 0).await,
        Fake::start("127.0.0.1", 0).await,
    ];
    let ledger = Ledger::new(BTreeMap::new());
    for server in &servers {
        server.folder("vols/vch/half/deep", 0, 0o755);
    }
    let [one, two] = &servers;
    let (one, two) = (store(one, "one", ""), store(two, "two", ""));
    tokio::join!(ledger.clone().sweep(one), ledger.clone().sweep(two));
    assert!(!servers.iter().any(|server| server.has("vols/vch/half")));
    assert!(!ledger.state().leaving.contains("half"));
}

#[tokio::test]
async fn what_cannot_be_deleted_keeps_its_name_and_holds_up_nothing() {
    let server = Fake::start("127.0.0.1", 0).await;
    server.folder("vols/vch/first/deep", 0, 0o755);
    server.folder("vols/vch/last", 1000, 0o755);
    server.folder("vols/vch", 1000, 0o755);
    let ledger = Ledger::new(BTreeMap::new());
    let own = store(&server, "nas", "&uid=1000");
    ledger.clone().sweep(own).await;
    assert!(server.has("vols/vch/first/deep") && !server.has("vols/vch/last"));
    assert!(ledger.state().leaving.contains("first"));
    // Its owner changes, and the next attempt is due within half a second.
    server.folder("vols/vch/first", 1000, 0o755);
    // Nothing tells of it: whoever wants the name asks.
    let gone = async {
        while ledger.state().leaving.contains("first") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone)
        .await
        .expect("the name is free once all is deleted");
    assert!(!server.has("vols/vch/first"));
}

#[tokio::test]
async fn a_server_that_squashes_root_takes_one_who_may_write_there() {
    let server = Fake::start("127.0.0.1", 0).await;
    server.folder("vols", 1000, 0o755);
    server.squash();
    let error = store(&server, "nas", "").make("data").await.unwrap_err();
    let place = format!("{}:/vols", server.at.ip());
    let want = format!(
        "cannot make vch/data in the volume store \"nas\" at {place}: permission denied to user 0 and group 0: \
         a server that squashes root takes one who may write there (add ?uid=N&gid=N to the store)"
    );
    assert_eq!(error.message, want);
    assert!(!server.has("vols/vch"));
    let own = store(&server, "nas", "&uid=1000&gid=1000");
    own.make("data").await.unwrap();
    assert_eq!(server.owner("vols/vch/data"), 1000);
    assert_eq!(own.names().await.unwrap(), ["data"]);
    own.delete("data").await.unwrap();
    assert!(!server.has("vols/vch/data"));
    // Where anyone may write, root's folders are nobody's, and nobody deletes them.
    server.folder("vols", 0, 0o777);
    let roots = "nfs://{}/vols?vers=4:nas".replace("{}", &server.at.to_string());
    let roots = roots.parse::<Store>().unwrap().of("second");
    roots.make("data").await.unwrap();
    assert_eq!(server.owner("vols/second/data"), 65_534);
    roots.delete("data").await.unwrap();
    assert!(!server.has("vols/second/data"));
}

#[tokio::test]
async fn a_server_is_reached_over_ipv6() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        println!("skipped: this machine has no IPv6");
        return;
    }
    let server = Fake::start("::1", 0).await;
    server.folder("vols", 0, 0o755);
    assert!(server.at.is_ipv6());
    let six = store(&server, "six", "");
    six.make("data").await.unwrap();
    assert_eq!(six.names().await.unwrap(), ["data"]);
    assert_eq!(six.source("data").place(), "[::1]:/vols/vch/data");
    six.delete("data").await.unwrap();
    assert!(six.names().await.unwrap().is_empty());
    // Who asks for version 3 has to say where it is.
    let three: Store = "nfs://[::1]/vols?vers=3:three".parse().unwrap();
    let error = three.of("vch").make("data").await.unwrap_err();
    assert!(
        error.message.contains("give port and mountport"),
        "{}",
        error.message
    );
}
