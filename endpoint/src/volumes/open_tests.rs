use super::*;
use crate::records::RECORD_MAX;
use crate::vsphere::fake::Fake;
use serde_json::json;

#[tokio::test]
async fn a_volume_s_record_that_cannot_be_read_costs_that_volume_alone_and_not_its_disk() {
    let _set_already = rustls::crypto::ring::default_provider().install_default();
    let (fake, vsphere) = Fake::start().await;
    let open = async || {
        let stores = BTreeMap::new();
        let opened = Volumes::open(vsphere.clone(), "vch", 1 << 30, &stores, Events::new());
        opened.await.unwrap()
    };
    let record = VolumeRecord {
        name: "whole".to_owned(),
        created: 1,
        uuid: "00".repeat(16),
        capacity: 1,
        labels: BTreeMap::new(),
        options: BTreeMap::new(),
        placed: None,
        container: None,
    };
    let records = open().await.records.clone();
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

    let volumes = open().await;
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
