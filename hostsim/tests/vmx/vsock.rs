//! The shim's vsock device, with a guest at one end and unix sockets at the other.

use crate::guest::{Folder, LONG, boot, console, power_on, spec};
use hostsim::vmx::{VmxSpec, VsockSpec};
use std::path::Path;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::time::timeout;

async fn with_vsock(
    folder: &Path,
    boot: &(std::path::PathBuf, std::path::PathBuf),
    test: &str,
) -> VmxSpec {
    let mut spec = spec(folder, boot, test).await;
    std::fs::create_dir(folder.join("uds")).unwrap();
    spec.vsock = Some(VsockSpec::Uds {
        folder: folder.join("uds"),
    });
    spec
}

fn listen(folder: &Path, port: u32) -> UnixListener {
    UnixListener::bind(folder.join(format!("uds/port-{port}"))).unwrap()
}

/// Give every connection its bytes back, and its end.
async fn echo(listener: UnixListener) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let (mut reader, mut writer) = stream.split();
            tokio::io::copy(&mut reader, &mut writer).await.unwrap();
            writer.shutdown().await.unwrap();
        });
    }
}

#[tokio::test]
async fn a_hundred_megabytes_come_back_unchanged() {
    let Some(boot) = boot() else { return };
    let dir = Folder::new();
    let spec = with_vsock(dir.path(), &boot, "echo port=7 bytes=104857600").await;
    let server = tokio::spawn(echo(listen(dir.path(), 7)));
    let vm = power_on(dir.path(), &spec).await;
    timeout(LONG, vm.exited()).await.unwrap().unwrap();
    server.abort();
    assert!(
        console(dir.path()).contains("echoed 104857600"),
        "{}",
        console(dir.path())
    );
}

#[tokio::test]
async fn many_connections_at_once_do_not_mix() {
    let Some(boot) = boot() else { return };
    let dir = Folder::new();
    let spec = with_vsock(
        dir.path(),
        &boot,
        "many port=7 bytes=1048576 connections=32",
    )
    .await;
    let server = tokio::spawn(echo(listen(dir.path(), 7)));
    let vm = power_on(dir.path(), &spec).await;
    timeout(LONG, vm.exited()).await.unwrap().unwrap();
    server.abort();
    assert_eq!(
        console(dir.path()).matches("echoed 1048576").count(),
        32,
        "{}",
        console(dir.path())
    );
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_refused_at_once() {
    let Some(boot) = boot() else { return };
    let dir = Folder::new();
    let vm = power_on(dir.path(), &with_vsock(dir.path(), &boot, "refused").await).await;
    timeout(LONG, vm.exited()).await.unwrap().unwrap();
    let console = console(dir.path());
    assert!(
        console.contains("dial: Connection reset by peer"),
        "{console}"
    );
}

#[tokio::test]
async fn what_the_guest_sent_before_it_powered_off_arrives() {
    let Some(boot) = boot() else { return };
    let dir = Folder::new();
    let spec = with_vsock(dir.path(), &boot, "burst port=7").await;
    let listener = listen(dir.path(), 7);
    let vm = power_on(dir.path(), &spec).await;
    let (mut stream, _) = timeout(LONG, listener.accept()).await.unwrap().unwrap();
    timeout(LONG, vm.exited()).await.unwrap().unwrap();
    let mut bytes = Vec::new();
    timeout(LONG, stream.read_to_end(&mut bytes))
        .await
        .unwrap()
        .unwrap();
    assert!(
        bytes.len() == 65536 && bytes.iter().all(|b| *b == b'x'),
        "{} bytes",
        bytes.len()
    );
}

/// Prints figures; asserts that every byte arrives.
#[tokio::test]
async fn bulk_transfer_each_way() {
    const BYTES: usize = 256 * 1024 * 1024;
    let Some(boot) = boot() else { return };
    let dir = Folder::new();
    let spec = with_vsock(dir.path(), &boot, &format!("speed port=7 bytes={BYTES}")).await;
    let (out, back) = (listen(dir.path(), 7), listen(dir.path(), 8));
    let server = tokio::spawn(async move {
        let (mut stream, _) = out.accept().await.unwrap();
        let mut buffer = vec![0; 256 * 1024];
        let mut received = 0;
        while let Ok(n @ 1..) = stream.read(&mut buffer).await {
            received += n;
        }
        drop(stream);
        let (mut stream, _) = back.accept().await.unwrap();
        for _ in 0..BYTES / buffer.len() {
            stream.write_all(&buffer).await.unwrap();
        }
        received
    });
    let vm = power_on(dir.path(), &spec).await;
    timeout(LONG, vm.exited()).await.unwrap().unwrap();
    assert_eq!(server.await.unwrap(), BYTES);
    let console = console(dir.path());
    assert!(console.contains(&format!("in {BYTES} bytes")), "{console}");
    println!("{console}");
}
