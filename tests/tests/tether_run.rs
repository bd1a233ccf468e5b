//! A tether VM, driven as the endpoint drives it.

use anyhow::{Context, Result};
use link::serial::{Side, reliable};
use tests::guest::build;
use tests::guest::disk::{Disk, busybox};
use tests::guest::peer::{Keys, Peer};
use tests::guest::vm::{Vm, config, process};
use wire::message::{Reply, SessionId};

#[tokio::test]
async fn output_exit_code_and_power_off() -> Result<()> {
    let Some(kernel) = build::kernel() else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let layer = busybox(&folder.path().join("layer"))?;
    let disk = Disk::make(&folder.path().join("disk"), &[layer], 64, 16)?;
    let config = config(
        &disk,
        process(&["sh", "-c", "echo hello; echo error >&2; exit 7"]),
    );
    let mut vm = Vm::boot(folder.path(), &kernel, &disk, &config, &[]).await?;
    let (stream, _pipe) = reliable(vm.serial.take().context("the serial port")?, Side::Listener);
    let mut peer = Peer::accept(stream, &Keys::fresh()?).await?;
    let attached = peer.attach(SessionId::CONTAINER, false).await?;
    let reply = peer.start().await?;
    assert!(matches!(reply, Reply::Started { pid: 1, .. }), "{reply:?}");
    let output = attached.collect().await?;
    assert_eq!(
        (
            output.text().as_str(),
            output.stderr.as_slice(),
            output.left
        ),
        ("hello\n", &b"error\n"[..], 0)
    );
    assert_eq!(peer.exit(SessionId::CONTAINER).await?.code, 7);
    peer.goodbye().await?;
    vm.off().await
}
