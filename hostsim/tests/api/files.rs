//! The datastore's files.

use super::*;
use vim::FaultKind;

const DC: &str = "ha-datacenter";

#[tokio::test]
async fn files_go_up_and_down_whole_and_in_part() {
    let rig = Rig::new().await;
    let c = &rig.client;
    c.make_directory(None, &path("a b/ü"), true).await.unwrap();
    let file = path("a b/ü/x+y%.bin");
    let content: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    c.file_put_stream(
        DC,
        &file,
        std::io::Cursor::new(content.clone()),
        Some(content.len() as u64),
    )
    .await
    .unwrap();
    assert_eq!(c.file_head(DC, &file).await.unwrap().size, 3_000_000);
    assert_eq!(
        c.file_get(DC, &file, None)
            .await
            .unwrap()
            .bytes(usize::MAX)
            .await
            .unwrap(),
        content
    );
    let part = c
        .file_get(DC, &file, Some(1_000_000..1_000_010))
        .await
        .unwrap();
    assert_eq!(part.length, Some(10));
    assert_eq!(
        part.bytes(100).await.unwrap(),
        content[1_000_000..1_000_010]
    );
    assert!(matches!(
        c.file_get(DC, &file, Some(3_000_000..3_000_001)).await,
        Err(vim::Error::Status { status: 416, .. })
    ));
    // Chunked, and in place of what was there.
    c.file_put_stream(DC, &file, std::io::Cursor::new(b"short".to_vec()), None)
        .await
        .unwrap();
    assert_eq!(
        c.file_get(DC, &file, None)
            .await
            .unwrap()
            .bytes(100)
            .await
            .unwrap(),
        b"short"
    );
    c.file_delete(DC, &file).await.unwrap();
    assert!(c.file_head(DC, &file).await.unwrap_err().is_not_found());
    assert!(
        c.file_put(DC, &path("none/x"), "x")
            .await
            .unwrap_err()
            .is_not_found()
    );
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing() {
    struct Broken(usize);
    impl tokio::io::AsyncRead for Broken {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            buf: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            if self.0 == 0 {
                return std::task::Poll::Ready(Err(std::io::Error::other("broken")));
            }
            self.0 -= 1;
            buf.put_slice(&[1; 64]);
            std::task::Poll::Ready(Ok(()))
        }
    }
    let rig = Rig::new().await;
    let c = &rig.client;
    assert!(
        c.file_put_stream(DC, &path("x"), Broken(100), Some(1 << 20))
            .await
            .is_err()
    );
    assert!(
        c.file_head(DC, &path("x"))
            .await
            .unwrap_err()
            .is_not_found()
    );
}

#[tokio::test]
async fn no_path_leads_out_of_the_datastore() {
    let rig = Rig::new().await;
    let c = &rig.client;
    let root = rig.serving.host.store.root().to_owned();
    std::os::unix::fs::symlink("/etc", root.join("out")).unwrap();
    for bad in ["../lock", "a/../../lock", "out/passwd", "out", "./x"] {
        let bad = DatastorePath {
            datastore: "datastore1".into(),
            path: bad.into(),
        };
        assert!(c.file_get(DC, &bad, None).await.is_err(), "{bad}");
        assert!(c.file_put(DC, &bad, "x").await.is_err(), "{bad}");
        assert!(c.delete_file(None, &bad).await.is_err(), "{bad}");
        assert!(c.make_directory(None, &bad, true).await.is_err(), "{bad}");
    }
    assert!(std::path::Path::new("/etc/passwd").exists());
    let wrong = c
        .make_directory(None, &DatastorePath::new("other", "x"), false)
        .await
        .unwrap_err();
    assert!(
        matches!(wrong.kind(), Some(FaultKind::InvalidDatastorePath { .. })),
        "{wrong}"
    );
}

#[tokio::test]
async fn folders_and_disks_are_made_listed_moved_copied_and_deleted() {
    let rig = Rig::new().await;
    let c = &rig.client;
    let folder = path("images");
    c.make_directory(None, &folder, false).await.unwrap();
    let wrong = c.make_directory(None, &folder, false).await.unwrap_err();
    assert!(
        matches!(wrong.kind(), Some(FaultKind::FileAlreadyExists { .. })),
        "{wrong}"
    );
    c.make_directory(None, &folder, true).await.unwrap();
    let disk = folder.join("a.vmdk");
    c.create_virtual_disk(None, &disk, 2048).await.unwrap();
    let wrong = c.create_virtual_disk(None, &disk, 2048).await.unwrap_err();
    assert!(
        matches!(wrong.kind(), Some(FaultKind::FileAlreadyExists { .. })),
        "{wrong}"
    );
    c.copy_virtual_disk(None, &disk, &folder.join("b.vmdk"))
        .await
        .unwrap();
    c.move_file(None, &folder.join("b.vmdk"), &folder.join("c.vmdk"), false)
        .await
        .unwrap();
    let wrong = c
        .move_file(None, &folder.join("c.vmdk"), &disk, false)
        .await
        .unwrap_err();
    assert!(
        matches!(wrong.kind(), Some(FaultKind::FileAlreadyExists { .. })),
        "{wrong}"
    );
    c.file_put(DC, &folder.join("note.txt"), "hello")
        .await
        .unwrap();
    let browser = hostsim::inventory::datastore_browser();
    let spec = DatastoreSearchSpec {
        match_pattern: vec!["*.vmdk".into()],
        details: Some(FileDetails {
            file_type: true,
            file_size: true,
            modification: true,
            file_owner: None,
        }),
        ..Default::default()
    };
    let found = c.search_datastore(&browser, &folder, spec).await.unwrap();
    assert_eq!(found.folder_path.as_deref(), Some("[datastore1] images/"));
    let names: Vec<(&str, &str)> = found
        .file
        .iter()
        .map(|f| (f.path.as_str(), f.kind.as_str()))
        .collect();
    assert_eq!(
        names,
        [("a.vmdk", "VmDiskFileInfo"), ("c.vmdk", "VmDiskFileInfo")]
    );
    let all = c
        .search_datastore_sub_folders(&browser, &path(""), Default::default())
        .await
        .unwrap();
    assert_eq!(all.len(), 2);
    let manager = c.content().virtual_disk_manager.clone().unwrap();
    let query = vim::method::QueryVirtualDiskUuid {
        this: manager,
        name: disk.to_string(),
        datacenter: None,
    };
    assert!(c.call(&query).await.unwrap().starts_with("60 00 c2 9"));
    c.delete_virtual_disk(None, &disk).await.unwrap();
    c.delete_file(None, &folder).await.unwrap();
    let wrong = c
        .search_datastore(&browser, &folder, Default::default())
        .await
        .unwrap_err();
    assert!(
        matches!(wrong.kind(), Some(FaultKind::FileNotFound { .. })),
        "{wrong}"
    );
    assert!(
        c.delete_file(None, &folder)
            .await
            .unwrap_err()
            .is_not_found()
    );
}

#[tokio::test]
async fn a_folder_that_exists_is_a_fault_that_the_client_passes_over_with_parents() {
    let rig = Rig::new().await;
    let c = &rig.client;
    let make = |folder: &str, parents| vim::method::MakeDirectory {
        this: c.content().file_manager.clone().unwrap(),
        name: path(folder).to_string(),
        datacenter: None,
        create_parent_directories: Some(parents),
    };
    c.call(&make("a/b", true)).await.unwrap();
    for (folder, parents) in [("a/b", true), ("a/b", false), ("a", true), ("", true)] {
        let wrong = c.call(&make(folder, parents)).await.unwrap_err();
        assert!(
            matches!(wrong.kind(), Some(FaultKind::FileAlreadyExists { .. })),
            "{folder} {parents}: {wrong}"
        );
    }
    c.make_directory(None, &path("a/b"), true).await.unwrap();
    c.call(&make("a/c", true)).await.unwrap();
    let wrong = c.make_directory(None, &path("a/b"), false).await;
    assert!(wrong.is_err());
    // Below a file there is no folder, and no fault of one that exists.
    c.file_put(DC, &path("a/file"), "x").await.unwrap();
    let wrong = c
        .make_directory(None, &path("a/file/d"), true)
        .await
        .unwrap_err();
    assert!(
        matches!(wrong.kind(), Some(FaultKind::FileFault { .. })),
        "{wrong}"
    );
}

#[tokio::test]
async fn a_vm_s_files_and_a_parent_s_folder_cannot_be_taken_away() {
    let rig = Rig::new().await;
    let c = &rig.client;
    c.make_directory(None, &path("image"), false).await.unwrap();
    c.create_virtual_disk(None, &path("image/base.vmdk"), 1024)
        .await
        .unwrap();
    rig.create(container("web", Some("[datastore1] image/base.vmdk")))
        .await
        .unwrap();
    for taken in [
        "web",
        "web/web.vmx",
        "web/web.vmdk",
        "image",
        "image/base.vmdk",
    ] {
        let wrong = c.delete_file(None, &path(taken)).await.unwrap_err();
        assert!(
            matches!(wrong.kind(), Some(FaultKind::FileLocked { .. })),
            "{taken}: {wrong}"
        );
        let wrong = c
            .move_file(None, &path(taken), &path("elsewhere"), false)
            .await
            .unwrap_err();
        assert!(
            matches!(wrong.kind(), Some(FaultKind::FileLocked { .. })),
            "{taken}: {wrong}"
        );
    }
    for taken in ["web/web.vmx", "web/web.vmdk", "image/base.vmdk"] {
        assert!(
            matches!(
                c.file_put(DC, &path(taken), "x").await,
                Err(vim::Error::Status { status: 409, .. })
            ),
            "{taken}"
        );
    }
}
