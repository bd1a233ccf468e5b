use super::*;
use filetree::Output;
use layers::ext4::{Builder, Metadata, Options, Time, read::Filesystem};
use layers::overlay::{Branch, Overlay};

/// `/d/f`, `/d/sub`, `/file`, and links: `/to-d`, `/abs` (to `/`), `/up`, `/far`, `/round`, `/broken`, `/beside` (a file's
/// inside), `/in-vol`, `/d/near`.
fn overlay() -> Overlay<'static> {
    let image = tempfile::tempfile().unwrap();
    let mut made = Builder::new(image.try_clone().unwrap(), Options::new([7; 16]));
    let meta = Metadata::new(0o644, Time::from_secs(1));
    for folder in ["d", "d/sub", "vol", "vol/x"] {
        made.directory(folder.as_bytes(), &meta).unwrap();
    }
    for file in ["d/f", "file"] {
        made.file(file.as_bytes(), &meta).unwrap().finish().unwrap();
    }
    let long = "../".repeat(30) + "d";
    for (link, to) in [
        ("to-d", "/d"),
        ("abs", "/"),
        ("up", "../../../.."),
        ("far", &long),
        ("round", "round"),
        ("broken", "nowhere/at/all"),
        ("beside", "file/x"),
        ("in-vol", "/vol/x"),
        ("d/near", "./sub/../f"),
    ] {
        made.symlink(link.as_bytes(), to.as_bytes(), &meta).unwrap();
    }
    let whole = made.finish().unwrap().bytes;
    image.set_len(whole).unwrap();
    let branch = Branch::whole(Filesystem::open(image).unwrap()).unwrap();
    Overlay::new(vec![Box::new(branch)]).unwrap()
}

/// Where a path leads, and what is there leads to if it is a link; or the failure.
fn gone(path: &str, targets: &[&str]) -> Result<(String, String), String> {
    let (overlay, cut) = (overlay(), CancellationToken::new());
    let mut disk = Disk::new(View::new(&overlay), &cut);
    for target in targets {
        disk.mount(target, None).map_err(|f| f.message)?;
    }
    match disk.go(path.as_bytes()) {
        Ok((found, target)) => {
            assert_eq!(found.is_link(), !target.is_empty());
            assert!(disk.unread.is_none());
            Ok((text(&disk.place), String::from_utf8(target).unwrap()))
        }
        Err(failure) => Err(match disk.unread {
            Some(_) => "elsewhere".to_owned(),
            None => format!("{:?}: {}", failure.kind, failure.message),
        }),
    }
}

#[test]
fn paths_lead_where_they_do_for_lstat() {
    for (path, place, target) in [
        ("/", "/", ""),
        ("/.", "/", ""),
        ("/d/", "/d", ""),
        ("/d/../file", "/file", ""),
        ("/../../file", "/file", ""),
        ("/to-d", "/to-d", "/d"),
        ("/to-d/", "/d", ""),
        ("/to-d/.", "/d", ""),
        ("/to-d/near", "/d/near", "/d/f"),
        ("/abs/d/f", "/d/f", ""),
        ("/up/file", "/file", ""),
        ("/far", "/far", "/d"),
        ("/far/sub", "/d/sub", ""),
        ("/broken", "/broken", "/nowhere/at/all"),
    ] {
        assert_eq!(
            gone(path, &[]),
            Ok((place.to_owned(), target.to_owned())),
            "{path}"
        );
    }
}

#[test]
fn what_is_not_there_is_told_in_the_system_s_words() {
    let long = format!("/{}", "n".repeat(256));
    for (path, told) in [
        ("/nope", "NotFound: lstat /nope: no such file or directory"),
        (
            "/nope/x",
            "NotFound: lstat /nope/x: no such file or directory",
        ),
        (
            "/broken/",
            "NotFound: lstat /broken/: no such file or directory",
        ),
        ("/file/", "System: lstat /file/: not a directory"),
        ("/file/.", "System: lstat /file/.: not a directory"),
        ("/file/..", "System: lstat /file/..: not a directory"),
        ("/d/near/", "System: lstat /d/near/: not a directory"),
        (
            "/round",
            "System: lstat /round: too many levels of symbolic links",
        ),
        (
            "/round/",
            "System: lstat /round/: too many levels of symbolic links",
        ),
        ("/beside", "System: lstat /beside: not a directory"),
        (&long, &format!("System: lstat {long}: file name too long")),
    ] {
        assert_eq!(gone(path, &[]), Err(told.to_owned()), "{path}");
    }
}

#[test]
fn what_is_in_a_mount_is_not_told_from_the_disk_below_it() {
    let mounts = ["/vol", "/to-d/sub", "/fresh/there"];
    for path in [
        "/vol",
        "/vol/x",
        "/vol/nope",
        "/in-vol",
        "/in-vol/",
        "/d/sub",
        "/far/sub/y",
        "/fresh",
    ] {
        assert_eq!(gone(path, &mounts), Err("elsewhere".to_owned()), "{path}");
    }
    for path in ["/d/f", "/file", "/", "/d"] {
        assert!(gone(path, &mounts).is_ok(), "{path}");
    }
    // A whole folder is with what is mounted in it.
    let (overlay, cut) = (overlay(), CancellationToken::new());
    let mut disk = Disk::new(View::new(&overlay), &cut);
    for mount in mounts {
        disk.mount(mount, None).unwrap();
    }
    assert!(disk.go_whole(b"/d/f").is_ok());
    for path in ["/", "/d"] {
        assert!(disk.go_whole(path.as_bytes()).is_err(), "{path}");
    }
    // Where a mount within a mount is, that one's own links decide.
    assert!(disk.mount("/vol/x", None).is_err());
}

/// Names in a folder that a path leads to.
fn listed(disk: &mut Disk<'_>, path: &str) -> Vec<String> {
    disk.go_whole(path.as_bytes()).unwrap();
    let names = disk.names(b"").unwrap();
    names
        .into_iter()
        .map(|name| String::from_utf8(name).unwrap())
        .collect()
}

#[test]
fn what_is_on_another_disk_is_where_it_is_mounted() {
    let (root, volume, cut) = (overlay(), overlay(), CancellationToken::new());
    let part = |path| {
        let mut whole = Disk::new(View::new(&volume), &cut);
        whole.part(path).map(|place| View::at(&volume, place))
    };
    assert!(part("/nope").is_err());
    let mut disk = Disk::new(View::new(&root), &cut);
    disk.mount("/to-d/sub", Some((View::new(&volume), 1)))
        .unwrap();
    assert_eq!(listed(&mut disk, "/d/sub/vol"), ["x"]);
    // The links of the root and of the volume lead there.
    for (target, path) in [("/d/sub/to-d", "/to-d/near/.."), ("/file", "/to-d/near")] {
        disk.mount(target, Some((part(path).unwrap(), 1))).unwrap();
    }
    disk.mount("/fresh", Some((View::new(&volume), 1))).unwrap();
    // `/d/sub/to-d` is a link to `/d`, which the second mount lies over, with the first one in it.
    assert_eq!(listed(&mut disk, "/d"), ["f", "near", "sub"]);
    assert_eq!(
        disk.go_whole(b"/d/sub/vol").unwrap_err().kind,
        FailureKind::NotFound
    );
    assert_eq!(disk.go(b"/file").unwrap().0.id.0 >> 32, 1);
    assert!(disk.unread.is_none());
    assert!(disk.go(b"/fresh").is_err() && disk.unread.is_some());
}

#[test]
fn nobody_who_is_cut_off_reads_on() {
    let (overlay, cut) = (overlay(), CancellationToken::new());
    let mut disk = Disk::new(View::new(&overlay), &cut);
    assert!(disk.names(b"").is_ok());
    cut.cancel();
    assert!(disk.names(b"d").is_err() && disk.look(b"d/f").is_err());
    assert!(disk.unread.is_none());
}

#[test]
fn folders_as_deep_as_paths_can_name_must_not_end_the_endpoint() {
    let image = tempfile::tempfile().unwrap();
    let mut made = Builder::new(image.try_clone().unwrap(), Options::new([7; 16]));
    let meta = Metadata::new(0o755, Time::from_secs(1));
    let deepest = vec!["d"; 2040].join("/");
    made.directory(deepest.as_bytes(), &meta).unwrap();
    image.set_len(made.finish().unwrap().bytes).unwrap();
    let job = super::super::on_own_stack(move || {
        let branch = Branch::whole(Filesystem::open(image).unwrap()).unwrap();
        let (tree, cut) = (Overlay::plain(Box::new(branch)), CancellationToken::new());
        let none = &mut |_: &[u8]| Ok(None);
        let told = [
            filetree::export(
                &mut Disk::new(View::new(&tree), &cut),
                &mut Output::new(Vec::new()),
            ),
            filetree::list(
                &mut Disk::new(View::new(&tree), &cut),
                none,
                &mut Output::new(Vec::new()),
            ),
            filetree::layer(
                &mut Disk::new(View::new(&tree), &cut),
                none,
                &mut Output::new(Vec::new()),
            ),
        ];
        assert_eq!(told, [Ok(()), Ok(()), Ok(())]);
    });
    job.unwrap().join().unwrap();
}
