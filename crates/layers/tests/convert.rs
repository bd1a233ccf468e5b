//! Layers made by GNU tar and by hand, converted, checked by e2fsck, and rebuilt byte for byte.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where it stopped; helpers are part of it"
)]

mod support;

use std::io::{Read, Write};
use std::path::Path;

use layers::convert::{
    Compression, ConvertError, ConvertedLayer, Expectations, Limits, convert, convert_above,
};
use layers::io::Stream;
use layers::recipe::Rebuild;
use layers::spool::Spool;
use layers::{Digest, ReadAt};
use support::run;

fn spool() -> (tempfile::TempDir, Spool) {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::new(folder.path(), 1 << 30).unwrap();
    (folder, spool)
}

fn converted(stream: &[u8]) -> Result<ConvertedLayer, ConvertError> {
    let (_folder, spool) = spool();
    let result = convert(
        stream,
        &Expectations::default(),
        &spool,
        &Limits::default(),
        |_| {},
    );
    if result.is_err() {
        assert_eq!(
            spool.used(),
            0,
            "a refused layer leaves something in the spool"
        );
    }
    result
}

fn rebuilt(layer: &ConvertedLayer) -> Vec<u8> {
    let mut tar = Vec::new();
    let recipe = Stream::new(layer.recipe.clone()).unwrap();
    Rebuild::new(recipe, layer.image.clone(), 1 << 30)
        .unwrap()
        .read_to_end(&mut tar)
        .unwrap();
    tar
}

/// Writes the partition to a file and has e2fsck look at it.
fn checked(layer: &ConvertedLayer, file: &Path) {
    let mut to = std::fs::File::create(file).unwrap();
    std::io::copy(&mut Stream::new(layer.image.clone()).unwrap(), &mut to).unwrap();
    run("e2fsck", &["-fn", file.to_str().unwrap()]);
}

fn debugfs(file: &Path, request: &str) -> String {
    run("debugfs", &["-R", request, file.to_str().unwrap()])
}

/// Makes a tar by hand.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn header(mut self, kind: u8, name: &[u8], link: &[u8], size: usize) -> Self {
        let mut block = [0; 512];
        block[..name.len()].copy_from_slice(name);
        block[100..107].copy_from_slice(b"0000755");
        block[108..115].copy_from_slice(b"0000000");
        block[116..123].copy_from_slice(b"0000000");
        block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
        block[136..147].copy_from_slice(b"00000000001");
        block[156] = kind;
        block[157..157 + link.len()].copy_from_slice(link);
        block[257..265].copy_from_slice(b"ustar\x0000");
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend(block);
        self
    }

    fn data(mut self, data: &[u8]) -> Self {
        self.0.extend(data);
        let len = self.0.len().next_multiple_of(512);
        self.0.resize(len, 0);
        self
    }

    fn file(self, name: &str, data: &[u8]) -> Self {
        self.header(b'0', name.as_bytes(), b"", data.len())
            .data(data)
    }

    fn dir(self, name: &str) -> Self {
        self.header(b'5', name.as_bytes(), b"", 0)
    }

    fn link(self, kind: u8, name: &str, target: &str) -> Self {
        self.header(kind, name.as_bytes(), target.as_bytes(), 0)
    }

    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut bytes = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (rest..)
                .find(|length| *length == rest + length.to_string().len())
                .unwrap();
            bytes.extend([format!("{length} {key}=").as_bytes(), value, b"\n"].concat());
        }
        self.header(b'x', b"pax", b"", bytes.len()).data(&bytes)
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn every_kind_of_tar_comes_back_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    std::fs::create_dir(&root).unwrap();
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
    std::fs::create_dir(root.join("d".repeat(200))).unwrap();
    std::fs::write(root.join(&long), vec![7; 100_000]).unwrap();
    std::fs::write(root.join("empty"), b"").unwrap();
    std::fs::write(root.join("small"), b"x").unwrap();
    std::fs::hard_link(root.join("small"), root.join("hard")).unwrap();
    std::os::unix::fs::symlink("l".repeat(300), root.join("soft")).unwrap();
    run("mkfifo", &[root.join("fifo").to_str().unwrap()]);
    let sparse = std::fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(10 << 20).unwrap();
    for piece in 0..60u64 {
        std::os::unix::fs::FileExt::write_all_at(&sparse, b"data", piece * 130_000 + 777).unwrap();
    }
    drop(sparse);
    let formats: &[&[&str]] = &[
        &["--format=gnu"],
        &["--format=gnu", "--sparse"],
        &["--format=posix"],
        &["--format=posix", "--sparse", "--sparse-version=0.0"],
        &["--format=posix", "--sparse", "--sparse-version=0.1"],
        &["--format=posix", "--sparse", "--sparse-version=1.0"],
    ];
    for format in formats {
        let tar = folder.path().join("layer.tar");
        let mut args = vec!["-C", root.to_str().unwrap(), "-cf", tar.to_str().unwrap()];
        args.extend(*format);
        args.push(".");
        run("tar", &args);
        let tar = std::fs::read(tar).unwrap();
        let plain = converted(&tar).unwrap_or_else(|error| panic!("{format:?}: {error}"));
        assert_eq!(plain.diff_id, Digest::of(&tar));
        assert!(rebuilt(&plain) == tar, "{format:?}");
        assert!(
            ReadAt::size(&plain.recipe).unwrap() < 20_000,
            "{format:?}: the recipe holds data"
        );
        let image = folder.path().join("image");
        checked(&plain, &image);
        assert!(
            debugfs(&image, "stat /sparse").contains("Size: 10485760"),
            "{format:?}"
        );
        let back = folder.path().join("back");
        debugfs(&image, &format!("dump /sparse {}", back.display()));
        assert!(
            std::fs::read(&back).unwrap() == std::fs::read(root.join("sparse")).unwrap(),
            "{format:?}"
        );
        debugfs(&image, &format!("dump /{long} {}", back.display()));
        assert!(std::fs::read(&back).unwrap() == vec![7; 100_000]);
        for (packed, compression) in [
            (gzip(&tar), Compression::Gzip),
            (zstd::encode_all(&tar[..], 1).unwrap(), Compression::Zstd),
        ] {
            let layer = converted(&packed).unwrap();
            assert_eq!(
                (layer.compression, layer.diff_id, layer.digest),
                (compression, plain.diff_id, Digest::of(&packed))
            );
        }
    }
}

#[test]
fn several_gzip_members_are_one_layer() {
    let tar = Tar::default().file("a", b"hello").end();
    let packed = [gzip(&tar[..600]), gzip(&tar[600..])].concat();
    assert_eq!(converted(&packed).unwrap().diff_id, Digest::of(&tar));
}

#[test]
fn a_path_out_of_the_image_is_refused() {
    for name in ["../etc/passwd", "/../x", "a/../../x"] {
        assert!(
            matches!(
                converted(&Tar::default().file(name, b"x").end()),
                Err(ConvertError::Path(_))
            ),
            "{name}"
        );
        assert!(
            converted(&Tar::default().file("a", b"x").link(b'1', "b", name).end()).is_err(),
            "{name}"
        );
    }
    assert!(
        converted(
            &Tar::default()
                .pax(&[("path", b"a\0b")])
                .file("x", b"")
                .end()
        )
        .is_err()
    );
}

#[test]
fn a_symlinked_parent_is_not_followed() {
    let tar = Tar::default()
        .link(b'2', "etc", "/tmp")
        .file("etc/passwd", b"x")
        .end();
    assert!(matches!(converted(&tar), Err(ConvertError::Ext4(_))));
    let tar = Tar::default()
        .link(b'2', "etc", "/tmp")
        .file("etc/.wh.passwd", b"")
        .end();
    assert!(converted(&tar).is_err());
}

#[test]
fn a_truncated_stream_is_refused() {
    let tar = Tar::default().file("a", &[1; 2000]).file("b", b"x").end();
    let packed = gzip(&tar);
    for end in (1..packed.len()).step_by(7) {
        assert!(converted(&packed[..end]).is_err(), "{end}");
    }
    let zstd = zstd::encode_all(&tar[..], 1).unwrap();
    for end in 6..zstd.len() {
        assert!(converted(&zstd[..end]).is_err(), "{end}");
    }
    for end in [1, 511, 513, 600, 2559, 3000] {
        assert!(converted(&tar[..end]).is_err(), "{end}");
    }
    assert!(converted(&[&packed[..], b"garbage"].concat()).is_err());
    assert!(converted(&[&zstd[..], b"garbage"].concat()).is_err());
}

#[test]
fn a_layer_that_is_not_what_was_promised_is_refused() {
    let (_folder, spool) = spool();
    let tar = Tar::default().file("a", b"x").end();
    let packed = gzip(&tar);
    let right = Expectations {
        digest: Some(Digest::of(&packed)),
        size: Some(packed.len() as u64),
        diff_id: Some(Digest::of(&tar)),
    };
    let try_with = |expected: &Expectations| {
        convert(&packed[..], expected, &spool, &Limits::default(), |_| {})
    };
    assert!(try_with(&right).is_ok());
    let other = Some(Digest::of(b"other"));
    assert!(matches!(
        try_with(&Expectations {
            digest: other,
            ..right
        }),
        Err(ConvertError::WrongDigest { .. })
    ));
    assert!(matches!(
        try_with(&Expectations {
            diff_id: other,
            ..right
        }),
        Err(ConvertError::WrongDiffId { .. })
    ));
    for size in [packed.len() as u64 - 1, packed.len() as u64 + 1] {
        assert!(matches!(
            try_with(&Expectations {
                size: Some(size),
                ..right
            }),
            Err(ConvertError::WrongSize { .. })
        ));
    }
    assert_eq!(spool.used(), 0);
}

#[test]
fn what_would_swell_the_recipe_is_refused() {
    // 1 MiB that zstd cannot pack, again and again: with a window that is large enough each time takes a few bytes.
    let mut state = 1u64;
    let junk: Vec<u8> = (0..1 << 20)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        })
        .collect();
    let end = Tar::default().file("a", b"x").end();
    let mut packed = zstd::Encoder::new(Vec::new(), 1).unwrap();
    packed.window_log(22).unwrap();
    packed.long_distance_matching(true).unwrap();
    packed.write_all(&end).unwrap();
    for _ in 0..65 {
        packed.write_all(&junk).unwrap();
    }
    let packed = packed.finish().unwrap();
    assert!(packed.len() < 2 << 20, "{} bytes", packed.len());
    let refused = converted(&packed).unwrap_err();
    assert!(
        refused.to_string().contains("outside of files and headers"),
        "{refused}"
    );
    // Zeros are padding, of which some tools make much; and something else may follow, in moderation.
    let padded = [&end[..], &vec![0; 70 << 20], &junk].concat();
    let layer = converted(&padded).unwrap();
    assert_eq!(rebuilt(&layer), padded);
    assert!(layer.recipe.size().unwrap() < 2 << 20);
}

#[test]
fn the_folders_of_all_layers_together_are_bounded() {
    let (_folder, spool) = spool();
    let limits = Limits {
        folders: 1 << 20,
        ..Limits::default()
    };
    let mut below = None;
    let mut taken = 0;
    let refused = loop {
        let mut tar = Tar::default();
        for number in 0..100 {
            tar = tar.dir(&format!("{taken}-{number}"));
        }
        let lower = below.take().unwrap_or_default();
        let expected = Expectations::default();
        match convert_above(
            &tar.end()[..],
            &expected,
            &spool,
            &limits,
            || Ok(lower),
            |_| {},
        ) {
            Ok(layer) => below = Some(layer.folders),
            Err(error) => break error,
        }
        taken += 1;
    };
    assert!((20..60).contains(&taken), "{taken} layers");
    assert!(
        refused.to_string().contains("bytes of folders"),
        "{refused}"
    );
}

#[test]
fn a_decompression_bomb_is_refused() {
    let tar = Tar::default().file("zeros", &vec![0; 80 << 20]).end();
    assert!(matches!(
        converted(&gzip(&tar)),
        Err(ConvertError::Bomb { .. })
    ));
    let (_folder, spool) = spool();
    let limits = Limits {
        uncompressed: 1 << 20,
        ..Limits::default()
    };
    let refused = convert(
        &gzip(&tar)[..],
        &Expectations::default(),
        &spool,
        &limits,
        |_| {},
    );
    assert!(matches!(refused, Err(ConvertError::Limit { .. })));
    let limits = Limits {
        entries: 2,
        ..Limits::default()
    };
    let tar = Tar::default()
        .file("a", b"")
        .file("b", b"")
        .file("c", b"")
        .end();
    let refused = convert(&tar[..], &Expectations::default(), &spool, &limits, |_| {});
    assert!(matches!(refused, Err(ConvertError::Limit { .. })));
}

#[test]
fn hard_links_before_their_target_are_made_and_ones_to_nowhere_refused() {
    let folder = tempfile::tempdir().unwrap();
    let tar = Tar::default()
        .link(b'1', "z", "y")
        .link(b'1', "y", "d/x")
        .file("d/x", b"data")
        .end();
    let layer = converted(&tar).unwrap();
    let image = folder.path().join("image");
    checked(&layer, &image);
    assert!(debugfs(&image, "stat /z").contains("Links: 3"));
    assert!(rebuilt(&layer) == tar);
    for bad in [
        Tar::default().link(b'1', "a", "missing"),
        Tar::default().dir("d").link(b'1', "a", "d"),
        Tar::default().file(".wh.x", b"").link(b'1', "a", ".wh.x"),
        Tar::default().file(".wh.x", b"").link(b'1', "a", "x"),
        Tar::default().link(b'1', "a", "b").link(b'1', "b", "a"),
    ] {
        assert!(matches!(
            converted(&bad.end()),
            Err(ConvertError::Link { .. })
        ));
    }
}

#[test]
fn whiteouts_are_about_lower_layers_only() {
    let folder = tempfile::tempdir().unwrap();
    let tar = Tar::default()
        .file("late/.wh.gone", b"")
        .dir("late/")
        .file(".wh.dir", b"")
        .file("dir/kept", b"x")
        .file("file", b"y")
        .file(".wh.file", b"")
        .dir("opq/")
        .file("opq/.wh..wh..opq", b"")
        .file(".wh..wh.plnk/9.9", b"dropped")
        .pax(&[
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.user.kept", b"a\nb\0"),
        ])
        .file("forged", b"")
        .end();
    let layer = converted(&tar).unwrap();
    assert!(rebuilt(&layer) == tar);
    assert!(!layer.hides_lower_layers);
    let image = folder.path().join("image");
    checked(&layer, &image);
    assert!(debugfs(&image, "stat /late/gone").contains("character special"));
    assert!(debugfs(&image, "ea_list /dir").contains("trusted.overlay.opaque"));
    assert!(debugfs(&image, "stat /dir/kept").contains("Type: regular"));
    assert!(debugfs(&image, "stat /file").contains("Type: regular"));
    assert!(debugfs(&image, "ea_list /opq").contains("trusted.overlay.opaque"));
    assert!(!debugfs(&image, "ea_list /late").contains("opaque"));
    let forged = debugfs(&image, "ea_list /forged");
    assert!(
        forged.contains("user.kept") && !forged.contains("overlay"),
        "{forged}"
    );
    assert!(!debugfs(&image, "ls /").contains("plnk"));
    assert!(
        converted(&Tar::default().file(".wh..wh..opq", b"").end())
            .unwrap()
            .hides_lower_layers
    );
}

#[test]
fn a_hundred_thousand_files_are_converted() {
    let mut tar = Tar::default();
    for number in 0..100_000 {
        tar = tar.file(&format!("d{}/f{number}", number % 7), b"x");
    }
    let tar = tar.end();
    let layer = converted(&gzip(&tar)).unwrap();
    assert_eq!((layer.entries, layer.diff_id), (100_000, Digest::of(&tar)));
    assert!(rebuilt(&layer) == tar);
}

/// What comes out of an archive with these bytes changed is an error or a layer that rebuilds it; nothing panics.
fn survives(tar: &[u8]) {
    if let Ok(layer) = converted(tar) {
        assert!(rebuilt(&layer) == tar);
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(300))]

    #[test]
    fn changed_archives_never_panic(changes in proptest::collection::vec((0usize..6000, proptest::prelude::any::<u8>()), 1..4), kind in proptest::prelude::any::<u8>()) {
        let mut tar = Tar::default()
            .pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"9000"), ("mtime", b"1.5")])
            .file("sparse", &[b"2\n0\n3\n700\n5\n".to_vec(), vec![0; 498], b"abcdefgh".to_vec()].concat())
            .header(kind, b"any", b"sparse", 0)
            .file("f", b"data")
            .end();
        for (at, byte) in changes {
            let at = at % tar.len();
            tar[at] = byte;
            // The header's checksum is made right again, so that the change gets past it.
            let block = &mut tar[at / 512 * 512..][..512];
            if &block[257..262] == b"ustar" {
                block[148..156].fill(b' ');
                let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
                block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
        survives(&tar);
    }

    #[test]
    fn damaged_vmdks_never_panic(changes in proptest::collection::vec((0usize..70_000, proptest::prelude::any::<u8>()), 1..8)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.vmdk");
        let identity = layers::vmdk::Identity { name: "a.vmdk".into(), capacity: 64 << 20, cid: 1, parent: None };
        layers::vmdk::create_child(&path, &identity).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        for (at, byte) in changes {
            let at = if at % 2 == 0 { at % 100 } else { at % bytes.len() };
            bytes[at] = byte;
        }
        let chain = layers::vmdk::SparseFile::open(bytes).and_then(|file| layers::vmdk::Chain::new(vec![file]));
        if let Ok(chain) = chain {
            let mut buf = vec![0; 4 << 20];
            let _ = chain.read_exact_at(0, &mut buf);
        }
    }
}
