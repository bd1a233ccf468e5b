use super::*;
use crate::records::RECORD_MAX;
use crate::vsphere::fake::{Failure, Fake};
use http::Method;
use serde_json::json;
use std::time::Duration;

const FOLDER: &str = "mooring/vch/volumes/";
const RECORDS: &str = "mooring/vch/volume-records/";

async fn start() -> (Fake, Arc<Vsphere>) {
    let _set_already = rustls::crypto::ring::default_provider().install_default();
    Fake::start().await
}

/// The volumes, as an endpoint finds them at its start.
async fn open(vsphere: &Arc<Vsphere>) -> Arc<Volumes> {
    let stores = BTreeMap::new();
    let opened = Volumes::open(vsphere.clone(), "vch", 1 << 30, &stores, Events::new());
    opened.await.unwrap()
}

fn record(name: &str, container: Option<&str>) -> VolumeRecord {
    VolumeRecord {
        name: name.to_owned(),
        created: 1,
        uuid: "00".repeat(16),
        capacity: 1,
        labels: BTreeMap::new(),
        options: BTreeMap::new(),
        placed: None,
        container: container.map(str::to_owned),
    }
}

fn anonymous_mount(name: &str) -> MountPoint {
    serde_json::from_value(json!({
        "volume": name, "uuid": "", "capacity": 1, "target": "/data", "anonymous": true,
    }))
    .unwrap()
}

/// Puts a volume onto the datastore, as it is before the start.
async fn stored(fake: &Fake, vsphere: &Arc<Vsphere>, record: &VolumeRecord) {
    let records = open(vsphere).await.records.clone();
    let name = format!("{VOLUME}{}", record.name);
    records.save(&name, 0, record).await.unwrap();
    fake.put(&format!("{FOLDER}{}/{}", record.name, disk::FILE), "");
}

#[tokio::test]
async fn a_volume_of_whose_removal_no_answer_tells_is_no_volume_any_more() {
    let (fake, vsphere) = start().await;
    stored(&fake, &vsphere, &record("data", None)).await;
    let volumes = open(&vsphere).await;
    fake.fail(Method::DELETE, "volume-data.1.json", Failure::Lost);
    let mut again = fake.hold(Method::DELETE, "volume-data.1.json");

    let error = volumes.remove("data").await.unwrap_err();
    assert!(error.message.contains("goes on by itself"), "{error}");
    assert!(volumes.find("data").is_err());
    again.came().await;
    // Nobody gets a volume that the next start would delete.
    let wanted = || VolumeRequest::read(&json!({ "Name": "data" })).unwrap();
    let refused = volumes.create(wanted()).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Conflict, "{refused}");
    again.go();
    // Nothing tells of its end: whoever wants the name asks.
    let gone = async {
        while volumes.create(wanted()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone)
        .await
        .expect("the name is free once all is deleted");
    assert_eq!(fake.names(RECORDS), ["volume-data.1.json"]);
}

#[tokio::test]
async fn a_volume_whose_removal_was_refused_is_as_it_was() {
    let (fake, vsphere) = start().await;
    stored(&fake, &vsphere, &record("data", None)).await;
    let volumes = open(&vsphere).await;
    let before = fake.names("");
    fake.fail(Method::DELETE, "volume-data.1.json", Failure::Refused);
    volumes.remove("data").await.unwrap_err();
    volumes.find("data").unwrap();
    assert_eq!(fake.names(""), before);
    volumes.remove("data").await.unwrap();
    assert!(fake.names("").is_empty());
}

#[tokio::test]
async fn a_record_that_was_not_heard_to_be_written_goes_with_its_volume() {
    let (fake, vsphere) = start().await;
    stored(&fake, &vsphere, &record("data", Some("container"))).await;
    let volumes = open(&vsphere).await;
    fake.fail(Method::PUT, "volume-data.2.json", Failure::Lost);
    volumes.keep(&[anonymous_mount("data")]).await.unwrap_err();
    assert_eq!(
        fake.names(RECORDS),
        ["volume-data.1.json", "volume-data.2.json"]
    );
    // Refused of one of them: all is as it was.
    fake.fail(Method::DELETE, "volume-data.2.json", Failure::Refused);
    volumes.remove("data").await.unwrap_err();
    volumes.find("data").unwrap();
    volumes.remove("data").await.unwrap();
    assert!(fake.names("").is_empty(), "{:?}", fake.names(""));
}

#[tokio::test]
async fn a_volume_s_record_that_cannot_be_read_costs_that_volume_alone_and_not_its_disk() {
    let (fake, vsphere) = start().await;
    let record = record("whole", None);
    let records = open(&vsphere).await.records.clone();
    records.save("volume-whole", 0, &record).await.unwrap();
    records
        .save("volume-other", 0, &json!({"name": 3}))
        .await
        .unwrap();
    fake.put(
        "mooring/vch/volume-records/volume-large.1.json",
        vec![b' '; RECORD_MAX + 1],
    );
    for name in ["whole", "other", "large"] {
        fake.put(&format!("mooring/vch/volumes/{name}/{}", disk::FILE), "");
    }
    let before = fake.names("");

    let volumes = open(&vsphere).await;
    assert_eq!(fake.names(""), before);
    assert_eq!(volumes.all().len(), 1);
    assert_eq!(*volumes.find("whole").unwrap(), record);
    for name in ["other", "large"] {
        let wanted = VolumeRequest::read(&json!({ "Name": name })).unwrap();
        let refused = volumes.create(wanted).await.unwrap_err();
        assert_eq!(refused.kind, Kind::Conflict, "{refused}");
    }
    assert_eq!(fake.names(""), before);
}
