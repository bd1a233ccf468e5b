//! Images' VMDKs against QEMU's and e2fsprogs' programs, and read back by our own reader.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where it stopped; helpers are part of it"
)]

mod support;

use std::collections::HashMap;
use std::future::Future;
use std::path::Path;
use std::task::{Context, Poll, Waker};

use layers::chain::{self, FolderSink, ImagePlan, Kind, LayerInput, Params, PlanError};
use layers::gpt::Table;
use layers::io::Window;
use layers::spool::{GrainImage, ImageWriter};
use layers::vmdk::{Chain, Identity, Parent, SparseFile, create_child};
use layers::{Digest, ReadAt};
use support::run;

const MIB: u64 = 1 << 20;

/// Drives a future of [`FolderSink`], which blocks and so never waits.
fn now<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    match future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a folder does not wait"),
    }
}

/// A "layer" with a recognisable pattern and zeros in it.
fn image(number: u8, size: u64) -> GrainImage {
    let mut image = ImageWriter::in_memory();
    image.write_at(0, &[number; 5000]).unwrap();
    image.write_at(size - 3000, &[number; 3000]).unwrap();
    image.finish(size).unwrap()
}

fn inputs(images: &[GrainImage]) -> Vec<LayerInput> {
    (0u64..)
        .zip(images)
        .map(|(number, image)| LayerInput {
            diff_id: Digest::of(&number.to_le_bytes()),
            size: image.size().unwrap(),
        })
        .collect()
}

fn params() -> Params {
    Params {
        capacity: 1024 * MIB,
        journal: 64 * MIB,
    }
}

fn leaf(folder: &Path, plan: &ImagePlan) -> String {
    let seal = &plan.seal().identity;
    let parent = Parent {
        hint: seal.name.clone(),
        cid: seal.cid,
    };
    let identity = Identity {
        name: "leaf.vmdk".into(),
        capacity: seal.capacity,
        cid: 77,
        parent: Some(parent),
    };
    create_child(&folder.join("leaf.vmdk"), &identity).unwrap();
    folder.join("leaf.vmdk").to_str().unwrap().to_owned()
}

#[test]
fn qemu_reads_the_same_disk_as_we_do() {
    let folder = tempfile::tempdir().unwrap();
    let images: Vec<_> = (1..=3)
        .map(|number| image(number, u64::from(number) * MIB + 70_000))
        .collect();
    let plan = chain::plan(&inputs(&images), &params()).unwrap();
    let placed = now(chain::place(
        &plan,
        &FolderSink::new(folder.path()),
        |index| images.get(index).cloned(),
    ))
    .unwrap();
    assert_eq!(placed.put.len(), 8, "three layers, a seal and their guards");
    let leaf = leaf(folder.path(), &plan);
    for vmdk in &plan.vmdks {
        run(
            "qemu-img",
            &[
                "check",
                "-f",
                "vmdk",
                folder.path().join(&vmdk.identity.name).to_str().unwrap(),
            ],
        );
    }
    run("qemu-img", &["check", "-f", "vmdk", &leaf]);

    let flat = folder.path().join("flat");
    run(
        "qemu-img",
        &[
            "convert",
            "-f",
            "vmdk",
            "-O",
            "raw",
            &leaf,
            flat.to_str().unwrap(),
        ],
    );
    let flat = std::fs::File::open(flat).unwrap();
    let ours = Chain::open_files(folder.path(), Path::new("leaf.vmdk")).unwrap();
    assert_eq!(ours.depth(), 5);
    assert_eq!(
        (ReadAt::size(&ours).unwrap(), ReadAt::size(&flat).unwrap()),
        (1024 * MIB, 1024 * MIB)
    );
    let (mut a, mut b) = (vec![0; 4 << 20], vec![0; 4 << 20]);
    for at in (0..1024 * MIB).step_by(a.len()) {
        ours.read_exact_at(at, &mut a).unwrap();
        flat.read_exact_at(at, &mut b).unwrap();
        assert!(a == b, "at {at}");
    }

    let table = Table::read(&ours).unwrap();
    assert_eq!(table, plan.table);
    for (index, image) in images.iter().enumerate() {
        let size = image.size().unwrap();
        let partition = Window::new(&ours, table.partitions[index].start, size).unwrap();
        let (mut a, mut b) = (vec![0; size as usize], vec![0; size as usize]);
        partition.read_exact_at(0, &mut a).unwrap();
        image.read_exact_at(0, &mut b).unwrap();
        assert!(a == b, "layer {index}");
    }

    // The ephemeral partition is an ext4 that e2fsck has nothing to say about.
    let ephemeral = table.partition(plan.ephemeral).unwrap();
    let file = folder.path().join("ephemeral");
    let mut to = std::fs::File::create(&file).unwrap();
    let from = Window::new(&flat, ephemeral.start, ephemeral.size).unwrap();
    std::io::copy(&mut layers::io::Stream::new(from).unwrap(), &mut to).unwrap();
    run("e2fsck", &["-fn", file.to_str().unwrap()]);
}

#[test]
fn qemu_writes_to_a_leaf_and_to_children_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let images = [image(9, 2 * MIB)];
    let plan = chain::plan(&inputs(&images), &params()).unwrap();
    now(chain::place(
        &plan,
        &FolderSink::new(folder.path()),
        |index| images.get(index).cloned(),
    ))
    .unwrap();
    let path = leaf(folder.path(), &plan);
    run(
        "qemu-io",
        &[
            "-f",
            "vmdk",
            "-c",
            "write -P 0xab 700M 1M",
            "-c",
            "write -P 0xcd 1M 4k",
            "-c",
            "write -P 0xee 1000k 512",
            &path,
        ],
    );
    run("qemu-img", &["check", "-f", "vmdk", &path]);
    run(
        "qemu-io",
        &[
            "-f",
            "vmdk",
            "-c",
            "read -P 0xab 700M 1M",
            "-c",
            "read -P 0xcd 1M 4k",
            "-c",
            "read -P 9 1052672 904",
            &path,
        ],
    );
    let ours = Chain::open_files(folder.path(), Path::new("leaf.vmdk")).unwrap();
    let mut bytes = vec![0; 6000];
    ours.read_exact_at(MIB, &mut bytes).unwrap();
    assert!(bytes[..4096].iter().all(|byte| *byte == 0xcd));
    assert!(
        bytes[4096..5000].iter().all(|byte| *byte == 9),
        "the rest of the grain is the layer's"
    );
    assert!(bytes[5000..].iter().all(|byte| *byte == 0));

    // A child that QEMU made of our seal is read by us.
    let seal = folder.path().join(&plan.seal().identity.name);
    let theirs = folder.path().join("theirs.vmdk");
    run(
        "qemu-img",
        &[
            "create",
            "-q",
            "-f",
            "vmdk",
            "-b",
            seal.to_str().unwrap(),
            "-F",
            "vmdk",
            theirs.to_str().unwrap(),
        ],
    );
    run(
        "qemu-io",
        &[
            "-f",
            "vmdk",
            "-c",
            "write -P 0x11 900M 3M",
            theirs.to_str().unwrap(),
        ],
    );
    let chain = Chain::open_files(folder.path(), Path::new("theirs.vmdk")).unwrap();
    let mut bytes = vec![0; 3 << 20];
    chain.read_exact_at(900 * MIB, &mut bytes).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 0x11));
}

#[test]
fn images_share_their_common_layers_and_a_second_placing_puts_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let sink = FolderSink::new(folder.path());
    let images: Vec<_> = (1..=3).map(|number| image(number, MIB)).collect();
    let all = inputs(&images);
    let one = chain::plan(&all[..2], &params()).unwrap();
    let two = chain::plan(&all, &params()).unwrap();
    let layer = |index: usize| images.get(index).cloned();
    assert_eq!(now(chain::place(&one, &sink, layer)).unwrap().put.len(), 6);
    // Shared layers need not be converted again.
    let placed = now(chain::place(&two, &sink, |index| {
        (index == 2).then(|| images[2].clone())
    }))
    .unwrap();
    assert_eq!((placed.shared.len(), placed.put.len()), (4, 4));
    assert!(
        now(chain::place(&two, &sink, |_| None))
            .unwrap()
            .put
            .is_empty()
    );
    assert_ne!(one.table.disk_guid, two.table.disk_guid);
}

#[test]
fn a_failed_placing_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let images = [image(1, MIB)];
    let mut all = inputs(&images);
    all.push(LayerInput {
        diff_id: Digest::of(b"missing"),
        size: MIB,
    });
    let plan = chain::plan(&all, &params()).unwrap();
    assert!(
        now(chain::place(
            &plan,
            &FolderSink::new(folder.path()),
            |index| images.get(index).cloned()
        ))
        .is_err()
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn many_layers_stay_within_the_depth_and_too_many_are_refused() {
    let layers = |count: u64| {
        (0..count)
            .map(|k| LayerInput {
                diff_id: Digest::of(&k.to_le_bytes()),
                size: MIB,
            })
            .collect::<Vec<_>>()
    };
    let plan = chain::plan(&layers(127), &Params::default()).unwrap();
    let kinds: HashMap<String, usize> =
        plan.vmdks.iter().fold(HashMap::new(), |mut kinds, vmdk| {
            *kinds.entry(format!("{:?}", vmdk.kind)).or_default() += 1;
            kinds
        });
    assert_eq!(
        (
            kinds["Layer"],
            kinds["Group"],
            kinds["Seal"],
            kinds["Guard"]
        ),
        (20, 1, 1, 22)
    );
    let group = plan
        .vmdks
        .iter()
        .find(|vmdk| vmdk.kind == Kind::Group)
        .unwrap();
    assert_eq!(group.layers.len(), 107);
    assert_eq!(plan.table.partitions.len(), 129);
    assert_eq!((plan.ephemeral, plan.journal), (128, 129));
    assert!(chain::plan(&layers(254), &Params::default()).is_ok());
    assert!(matches!(
        chain::plan(&layers(255), &Params::default()),
        Err(PlanError::TooManyLayers(255))
    ));
    assert!(matches!(
        chain::plan(
            &layers(100),
            &Params {
                capacity: 150 * MIB,
                journal: MIB
            }
        ),
        Err(PlanError::TooLarge { .. })
    ));
    assert!(matches!(
        chain::plan(
            &[],
            &Params {
                capacity: MIB + 1,
                journal: 0
            }
        ),
        Err(PlanError::Unaligned { .. })
    ));
    let scratch = chain::plan(&[], &params()).unwrap();
    assert_eq!((scratch.vmdks.len(), scratch.ephemeral), (2, 1));
}

#[test]
fn a_parent_outside_of_the_folder_is_not_opened() {
    let outer = tempfile::tempdir().unwrap();
    let inner = outer.path().join("in");
    std::fs::create_dir(&inner).unwrap();
    let base = Identity {
        name: "base.vmdk".into(),
        capacity: MIB,
        cid: 5,
        parent: None,
    };
    create_child(&outer.path().join("base.vmdk"), &base).unwrap();
    std::os::unix::fs::symlink("../base.vmdk", inner.join("link.vmdk")).unwrap();
    for hint in [
        "../base.vmdk".to_owned(),
        "link.vmdk".into(),
        outer.path().join("base.vmdk").to_str().unwrap().to_owned(),
    ] {
        let name = "leaf.vmdk".to_owned();
        let leaf = Identity {
            name,
            capacity: MIB,
            cid: 6,
            parent: Some(Parent { hint, cid: 5 }),
        };
        create_child(&inner.join("leaf.vmdk"), &leaf).unwrap();
        assert!(Chain::open_files(&inner, Path::new("leaf.vmdk")).is_err());
        assert!(Chain::open_files(outer.path(), Path::new("in/leaf.vmdk")).is_ok());
        std::fs::remove_file(inner.join("leaf.vmdk")).unwrap();
    }
}

#[test]
fn a_circle_or_a_changed_parent_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let make = |name: &str, cid: u32, parent: Option<(&str, u32)>| {
        let parent = parent.map(|(hint, cid)| Parent {
            hint: hint.into(),
            cid,
        });
        create_child(
            &folder.path().join(name),
            &Identity {
                name: name.into(),
                capacity: MIB,
                cid,
                parent,
            },
        )
        .unwrap();
    };
    make("a.vmdk", 1, Some(("b.vmdk", 2)));
    make("b.vmdk", 2, Some(("a.vmdk", 1)));
    assert!(
        Chain::open_files(folder.path(), Path::new("a.vmdk"))
            .unwrap_err()
            .to_string()
            .contains("circle")
    );
    make("base.vmdk", 3, None);
    make("stale.vmdk", 4, Some(("base.vmdk", 99)));
    assert!(Chain::open_files(folder.path(), Path::new("stale.vmdk")).is_err());
    assert!(SparseFile::open(vec![0u8; 512]).is_err());
}
