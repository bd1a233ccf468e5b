//! Images on a datastore in memory: what interruptions, and others at the same moment, leave of them.

use super::*;
use crate::records::RECORD_MAX;
use crate::vsphere::fake::Fake;
use futures_util::FutureExt as _;
use http::Method;
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
    let change = images.changing().await;
    images.put_image(&change, image, of(names)).await.unwrap();
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
        let change = images.changing().await;
        images.put_image(&change, image, of(&[])).await.unwrap();
    }
    images.sweep().await.unwrap();
    assert_eq!(bench.fake.names(LAYERS).len(), files.len() / 3 * 2);
    assert_eq!(bench.open().await.all().len(), 2);
    assert!(images.resolve("b:1").is_some() && images.resolve("c:1").is_some());
}

#[tokio::test]
async fn a_pull_that_is_given_up_while_an_old_record_goes_leaves_the_new_one() {
    for held in ["tags.1.json", "image-"] {
        let bench = Bench::new().await;
        let images = bench.open().await;
        place(&bench, &images, "a", &["a:1"]).await;
        let mut hold = if held == "image-" {
            // The record is written, the answer not yet there.
            bench.fake.hold(Method::PUT, held)
        } else {
            bench.fake.hold(Method::DELETE, held)
        };
        let (pulled, image) = (images.clone(), stored(&bench, "b"));
        let id = image.id.to_string();
        let pull = tokio::spawn(async move {
            let change = pulled.changing().await;
            let unfinished = sweep::Unfinished::new(&pulled);
            pulled
                .put_image(&change, image, of(&["b:1"]))
                .await
                .unwrap();
            unfinished.finished();
        });
        hold.came().await;
        pull.abort();
        assert!(pull.await.unwrap_err().is_cancelled());
        hold.go();
        // Whoever changes something next finds all of that done.
        images.tag("b:1", "b:2").await.unwrap();
        images.clone().sweep_until_done().await;
        assert_eq!(shown(&images, &id).as_deref(), Some("b:1 b:2"), "{held}");
        let again = bench.open().await;
        assert_eq!(shown(&again, &id).as_deref(), Some("b:1 b:2"), "{held}");
        assert!(again.resolve("a:1").is_some(), "{held}");
        assert_eq!(bench.fake.names(LAYERS).len(), 8, "{held}");
    }
}

#[tokio::test]
async fn a_push_that_is_given_up_while_an_old_record_goes_leaves_the_names() {
    let bench = Bench::new().await;
    let images = bench.open().await;
    let id = place(&bench, &images, "a", &["a:1"]).await;
    let mut hold = bench.fake.hold(Method::DELETE, "tags.1.json");
    let (pushed, digest) = (images.clone(), parse_id(&id).unwrap());
    let push = tokio::spawn(async move { pushed.give_names(&of(&["a@d"]), digest).await });
    hold.came().await;
    push.abort();
    assert!(push.await.unwrap_err().is_cancelled());
    hold.go();
    images.clone().sweep_until_done().await;
    assert_eq!(
        bench
            .records()
            .iter()
            .filter(|n| n.starts_with("tags"))
            .count(),
        1
    );
    assert_eq!(shown(&images, &id).as_deref(), Some("a:1 a@d"));
    let again = bench.open().await;
    assert_eq!(shown(&again, &id).as_deref(), Some("a:1 a@d"));
}

#[tokio::test]
async fn an_image_stays_while_a_container_of_it_is_being_made() {
    let bench = Bench::new().await;
    let images = bench.open().await;
    let id = place(&bench, &images, "a", &["a:1"]).await;
    let claims = [images.claim("a:1").unwrap(), images.claim(&id).unwrap()];
    for claim in claims {
        for name in ["a:1", id.as_str()] {
            let refused = images.remove(name, false, nobody).await.unwrap_err();
            assert_eq!(refused.kind, Kind::Conflict, "{refused}");
            assert!(refused.message.contains("is being created"), "{refused}");
        }
        let pruned = images.prune(true, |_| true, nobody).await.unwrap();
        assert_eq!(pruned, Removed::default());
        drop(claim);
    }
    // With force its name goes and its disks stay.
    let claim = images.claim("a:1").unwrap();
    let removed = images.remove("a:1", true, nobody).await.unwrap();
    assert_eq!((removed.untagged.len(), removed.deleted.len()), (1, 0));
    assert_eq!(bench.fake.names(LAYERS).len(), 4);
    drop(claim);
    let pruned = images.prune(true, |_| true, nobody).await.unwrap();
    assert_eq!(pruned.deleted, [id]);
    assert_eq!(bench.fake.names(LAYERS).len(), 0);
}

#[tokio::test]
async fn no_container_is_made_of_an_image_that_goes() {
    let bench = Bench::new().await;
    let images = bench.open().await;
    let id = place(&bench, &images, "a", &["a:1"]).await;
    let mut hold = bench.fake.hold(Method::PUT, "tags.");
    let removing = images.clone();
    let removal = tokio::spawn(async move { removing.remove("a:1", false, nobody).await });
    hold.came().await;
    assert_eq!(images.claim(&id).unwrap_err(), Error::no_such_image(&id));
    hold.go();
    assert_eq!(
        removal.await.unwrap().unwrap().deleted,
        std::slice::from_ref(&id)
    );
    assert_eq!(images.claim(&id).unwrap_err(), Error::no_such_image(&id));
}

#[tokio::test]
async fn an_image_goes_with_its_last_name_and_with_none_before() {
    let bench = Bench::new().await;
    let images = bench.open().await;
    let digest = format!("redis@{}", Digest::of(b"manifest"));
    let id = place(&bench, &images, "a", &["tmp:1", &digest]).await;
    let refused = images.remove(&id, false, nobody).await.unwrap_err();
    assert!(refused.message.contains("(must be forced)"), "{refused}");
    let removed = images.remove("tmp:1", false, nobody).await.unwrap();
    assert_eq!(
        (removed.untagged, removed.deleted),
        (vec!["tmp:1".to_owned()], vec![])
    );
    assert_eq!(shown(&images, &id), Some(digest.clone()));
    let removed = images.remove(&digest, false, nobody).await.unwrap();
    assert_eq!(
        (removed.untagged, removed.deleted),
        (vec![digest.clone()], vec![id])
    );

    let digest = digest.replace("redis", "a");
    let id = place(&bench, &images, "b", &["a:1", "b:1", &digest]).await;
    let removed = images.remove("a:1", false, nobody).await.unwrap();
    assert_eq!(
        (removed.untagged, removed.deleted),
        (vec!["a:1".to_owned(), digest], vec![])
    );
    assert_eq!(shown(&images, &id).as_deref(), Some("b:1"));
    assert_eq!(
        images.remove(&id, true, nobody).await.unwrap().deleted,
        [id]
    );
}

#[tokio::test]
async fn an_image_that_goes_meanwhile_gets_no_name() {
    let bench = Bench::new().await;
    let images = bench.open().await;
    place(&bench, &images, "a", &["a:1"]).await;
    let mut hold = bench.fake.hold(Method::PUT, "tags.");
    let removing = images.clone();
    let removal = tokio::spawn(async move { removing.remove("a:1", false, nobody).await });
    hold.came().await;
    let tag = images.tag("a:1", "b:1");
    tokio::pin!(tag);
    // It waits for the removal.
    assert!((&mut tag).now_or_never().is_none());
    hold.go();
    removal.await.unwrap().unwrap();
    assert_eq!(tag.await.unwrap_err(), Error::no_such_image("a:1"));
    assert!(images.resolve("b:1").is_none());
}
