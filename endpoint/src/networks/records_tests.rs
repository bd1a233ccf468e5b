//! Networks' records, where answers of the datastore are lost.

use super::*;
use crate::vsphere::fake::{Failure, Fake};
use http::Method;
use std::time::Duration;

const RECORDS: &str = "mooring/vch/networks/";

async fn start() -> (Fake, Arc<Vsphere>) {
    let _set_already = rustls::crypto::ring::default_provider().install_default();
    Fake::start().await
}

/// The networks, as an endpoint with two free port groups finds them at its start.
async fn open(vsphere: &Arc<Vsphere>) -> Networks {
    let setup = NetworkSetup {
        bridge: "default".to_owned(),
        pool: vec!["one".to_owned(), "two".to_owned()],
        vlans: BTreeMap::from([("one".to_owned(), 1), ("two".to_owned(), 2)]),
        address_pools: choose::DEFAULT_POOLS.map(|p| p.parse().unwrap()).into(),
        ..NetworkSetup::default()
    };
    let opened = Networks::open(vsphere.clone(), "vch", setup, Events::new());
    opened.await.unwrap()
}

async fn make(networks: &Networks, name: &str) -> Result<Arc<Network>> {
    let request = NetworkRequest {
        name: name.to_owned(),
        ..NetworkRequest::default()
    };
    networks.make(request).await
}

/// Makes a network once its name is free: nothing tells of that.
async fn make_at_last(networks: &Networks, name: &str) -> Arc<Network> {
    let made = async {
        loop {
            match make(networks, name).await {
                Ok(network) => break network,
                Err(error) => assert_eq!(error.kind, Kind::Conflict, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), made)
        .await
        .expect("the name is free once the record is gone")
}

fn names(networks: &Networks) -> Vec<String> {
    let all = networks.all().into_iter();
    all.map(|network| network.record.name.clone()).collect()
}

#[tokio::test]
async fn a_network_of_whose_making_no_answer_tells_is_not_there_twice() {
    let (fake, vsphere) = start().await;
    let networks = open(&vsphere).await;
    fake.fail(Method::PUT, "network-", Failure::Lost);
    let mut going = fake.hold(Method::DELETE, "network-");
    make(&networks, "net").await.unwrap_err();
    going.came().await;
    assert_eq!(fake.names(RECORDS).len(), 1);
    // As long as its record is there, name and port group are taken.
    let refused = make(&networks, "net").await.unwrap_err();
    assert_eq!(refused.kind, Kind::Conflict, "{refused}");
    let other = make(&networks, "other").await.unwrap();
    assert_eq!(other.record.port_group, "two");
    going.go();
    let again = make_at_last(&networks, "net").await;
    assert_eq!(again.record.port_group, "one");
    assert_eq!(fake.names(RECORDS).len(), 2);
    assert_eq!(names(&open(&vsphere).await), ["bridge", "other", "net"]);
}

#[tokio::test]
async fn a_network_of_whose_removal_no_answer_tells_is_none_any_more_and_nobody_gets_its_port_group()
 {
    let (fake, vsphere) = start().await;
    let networks = open(&vsphere).await;
    let network = make(&networks, "net").await.unwrap();
    // Refused: all is as it was.
    fake.fail(Method::DELETE, "network-", Failure::Refused);
    networks.remove(&network, Vec::new).await.unwrap_err();
    networks.find("net").unwrap();
    fake.fail(Method::DELETE, "network-", Failure::Lost);
    let mut again = fake.hold(Method::DELETE, "network-");
    let error = networks.remove(&network, Vec::new).await.unwrap_err();
    assert!(error.message.contains("goes on by itself"), "{error}");
    assert!(networks.find("net").is_err());
    again.came().await;
    let other = make(&networks, "other").await.unwrap();
    assert_eq!(other.record.port_group, "two");
    again.go();
    let next = make_at_last(&networks, "net").await;
    assert_eq!(next.record.port_group, "one");
}

#[tokio::test]
async fn a_network_that_was_never_known_does_not_keep_the_endpoint_from_its_start() {
    let (fake, vsphere) = start().await;
    let networks = open(&vsphere).await;
    let known = make(&networks, "net").await.unwrap();
    // What earlier endpoints left: of the same name; and of another one, in its port group.
    let mut ghosts = Vec::new();
    for (id, name, port_group) in [("aa", "net", "two"), ("bb", "other", "one")] {
        let network = NetworkRecord {
            id: id.repeat(32),
            name: name.to_owned(),
            port_group: port_group.to_owned(),
            created: known.record.created - 1,
            ..known.record.clone()
        };
        let stored = Stored {
            network,
            named_subnet: false,
        };
        let record = format!("{NETWORK}{}", stored.network.id);
        networks.records.save(&record, 0, &stored).await.unwrap();
        ghosts.push(stored.network);
    }
    let mut going: Vec<_> = ghosts
        .iter()
        .map(|ghost| fake.hold(Method::DELETE, &ghost.id))
        .collect();
    let networks = open(&vsphere).await;
    assert_eq!(names(&networks), ["bridge", "net"]);
    assert_eq!(networks.find("net").unwrap().record, known.record);
    for hold in &mut going {
        hold.came().await;
        hold.go();
    }
    make_at_last(&networks, "other").await;
    let left = fake.names(RECORDS);
    let ghost = |file: &String| ghosts.iter().any(|ghost| file.contains(&ghost.id));
    assert_eq!((left.len(), left.iter().any(ghost)), (2, false), "{left:?}");
}
