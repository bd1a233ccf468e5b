//! Images on a datastore in memory: what interruptions, and others at the same moment, leave of them.

use super::*;
use crate::records::RECORD_MAX;
use crate::vsphere::fake::Fake;
use serde_json::json;

const LAYERS: &str = "mooring/vch/layers/";
const RECORDS: &str = "mooring/vch/images/";

struct Bench {
    fake: Fake,
    vsphere: Arc<Vsphere>,
    spool: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        let _set_already = rustls::crypto::ring::default_provider().install_default();
        let (fake, vsphere) = Fake::start().await;
        let spool = tempfile::tempdir().unwrap();
        Bench {
            fake,
            vsphere,
            spool,
        }
    }

    /// The images, as an endpoint finds them at its start.
    async fn open(&self) -> Arc<Images> {
        let registries = RegistrySettings::default();
        let (vsphere, events) = (self.vsphere.clone(), Events::new());
        let images = Images::open(vsphere, "vch", self.spool.path(), registries, events);
        Arc::new(images.await.unwrap())
    }

    fn records(&self) -> Vec<String> {
        self.fake.names(RECORDS)
    }
}

/// An image of one layer, whose files are on the datastore then.
fn stored(bench: &Bench, name: &str) -> StoredImage {
    let digest = Digest::of(name.as_bytes());
    let config = format!("{{\"config\":{{}},\"comment\":\"{name}\"}}");
    let image = StoredImage {
        id: Digest::of(config.as_bytes()),
        config,
        chain: Chain {
            seal: format!("[ds] {LAYERS}{name}-seal.vmdk"),
            guid: String::new(),
            capacity: 1,
            layers: vec![1],
            ephemeral: 2,
            journal: 3,
        },
        vmdks: vec![format!("{name}.vmdk"), format!("{name}-seal.vmdk")],
        layers: vec![StoredLayer {
            chain_id: digest,
            diff_id: digest,
            digest,
            compressed: 1,
            hides_lower_layers: false,
            partition: 1 << 20,
            unpacked: 1,
            content: None,
            vmdk: format!("{name}.vmdk"),
        }],
        manifest: None,
    };
    for file in image.files() {
        bench.fake.put(&format!("{LAYERS}{file}"), "");
    }
    image
}

/// Places an image with these names; its ID.
async fn place(bench: &Bench, images: &Arc<Images>, name: &str, names: &[&str]) -> String {
    let image = stored(bench, name);
    let id = image.id.to_string();
    images.put_image(image, &of(names)).await.unwrap();
    id
}

fn of(names: &[&str]) -> Names {
    let (digests, tags) = names
        .iter()
        .map(|n| (*n).to_owned())
        .partition(|n: &String| n.contains('@'));
    Names { tags, digests }
}

fn nobody(_: &str) -> Vec<User> {
    Vec::new()
}

/// The names of an image, in one line.
fn shown(images: &Images, id: &str) -> Option<String> {
    let all = images.all();
    let image = all.iter().find(|image| image.id == id)?;
    let names: Vec<&str> = image.names().map(String::as_str).collect();
    Some(names.join(" "))
}

#[tokio::test]
async fn an_image_that_could_not_be_read_back_is_refused_and_nothing_is_written() {
    let bench = Bench::new().await;
    let images = bench.open().await;
    place(&bench, &images, "a", &["a:1"]).await;
    let before = bench.records();
    // A quote in it is eight bytes in the file.
    let config = format!("{{\"x\":\"{}\"}}", "\\\"".repeat(RECORD_MAX / 8));
    let layer = images.read(|s| s.images.values().next().unwrap().1.layers[0].clone());
    let work = place::Work {
        diff_ids: vec![layer.diff_id],
        layers: vec![place::LayerSource::Known(layer)],
    };
    let image = Incoming {
        id: Digest::of(config.as_bytes()),
        config,
        manifest: None,
        names: of(&["large:1"]),
    };
    let (id, (progress, _nobody_listens)) = (image.id, progress::Progress::new());
    let refused = images
        .commit(image, &work, BTreeMap::new(), &progress)
        .await
        .unwrap_err();
    assert_eq!(refused.kind, Kind::BadParameter, "{refused}");
    let start = format!("image {id} cannot be kept");
    assert!(refused.message.starts_with(&start), "{refused}");
    assert_eq!(bench.records(), before);
    assert_eq!(bench.open().await.all().len(), 1);
}

#[tokio::test]
async fn an_image_s_record_that_cannot_be_read_costs_that_image_alone() {
    let bench = Bench::new().await;
    let images = bench.open().await;
    let whole = place(&bench, &images, "a", &["a:1"]).await;
    place(&bench, &images, "b", &["b:1"]).await;
    place(&bench, &images, "c", &["c:1"]).await;
    drop(images);
    let (b, c) = (stored(&bench, "b"), stored(&bench, "c"));
    let record = |image: &StoredImage, generation| {
        let name = crate::records::file_name(&image_record(&image.id), generation);
        format!("{RECORDS}{name}")
    };
    // One is larger than is read; one is of another version's.
    bench.fake.put(&record(&b, 1), vec![b' '; RECORD_MAX + 1]);
    let payload = "{\"id\":3}";
    let envelope = json!({
        "generation": 1, "checksum": Digest::of(payload.as_bytes()), "payload": payload,
    });
    bench.fake.put(&record(&c, 1), envelope.to_string());
    let (records, files) = (bench.records(), bench.fake.names(LAYERS));

    let images = bench.open().await;
    assert_eq!(images.all().len(), 1);
    assert_eq!(
        (bench.records(), bench.fake.names(LAYERS)),
        (records, files.clone())
    );
    // Nor by the removal of another one: it may be of the same layers.
    images.remove("a:1", false, nobody).await.unwrap();
    assert_eq!(shown(&images, &whole), None);
    assert_eq!(bench.fake.names(LAYERS), files);

    // What comes again is as new, with the names that it had; what nobody has goes then.
    for image in [b, c] {
        images.put_image(image, &of(&[])).await.unwrap();
    }
    images.sweep().await.unwrap();
    assert_eq!(bench.fake.names(LAYERS).len(), files.len() / 3 * 2);
    assert_eq!(bench.open().await.all().len(), 2);
    assert!(images.resolve("b:1").is_some() && images.resolve("c:1").is_some());
}
