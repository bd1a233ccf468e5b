//! What takes a boot of its own: many layers, a network, a read-only root and `--init`; a terminal that is closed for a
//! moment, and a grandchild that never stops writing.

use anyhow::Result;
use tests::guest::build::Guest;
use tests::guest::disk::{Disk, Layer, busybox};
use tests::guest::peer::{Keys, Output, Peer};
use tests::guest::vm::{Vm, config, process};
use wire::config::Interface;
use wire::message::SessionId;

#[tokio::test]
async fn many_layers_a_network_a_read_only_root_and_an_init() -> Result<()> {
    let Some(guest) = Guest::fast()? else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let mut layers = vec![busybox(&folder.path().join("layer"))?];
    for number in 2..=127 {
        let layer = folder.path().join(format!("layer{number}"));
        std::fs::create_dir_all(layer.join("etc"))?;
        std::fs::write(layer.join("etc/top"), format!("{number}\n"))?;
        std::fs::write(layer.join(format!("etc/layer{number}")), "")?;
        layers.push(Layer {
            folder: layer,
            mib: 1,
        });
    }
    let disk = Disk::make(&folder.path().join("disk"), &layers, 64, 16)?;
    // The orphan outlives its parent; once it has ended, the init has reaped it.
    let script = "cat /etc/top; ls /etc/layer* | wc -l; ip -4 addr show eth0 | grep -o 'inet [0-9./]*'; ip route | head -1; \
        touch /x 2>&1 | grep -o 'Read-only'; head -c 17 /proc/1/cmdline; echo; (sleep 0.2 & echo $! > /dev/shm/orphan); sleep 1; \
        [ -e /proc/$(cat /dev/shm/orphan) ] || echo reaped; exit 4";
    let mut config = config(&disk, process(&["sh", "-c", script]));
    config.disk.read_only = true;
    config.init = true;
    config.networks = vec![Interface {
        mac: "52:54:00:12:34:56".into(),
        name: "eth0".into(),
        addresses: vec!["10.0.2.15/24".into()],
        gateways: vec!["10.0.2.2".into()],
        mtu: 1400,
    }];
    let nic = [
        "-netdev",
        "user,id=n0,restrict=on",
        "-device",
        "vmxnet3,netdev=n0,mac=52:54:00:12:34:56",
    ];
    let mut vm = Vm::boot(folder.path(), &guest, &disk, &config, &nic)?;
    let mut peer = Peer::accept(vm.connection().await?, &Keys::fresh()?).await?;
    let attached = peer.attach(SessionId::CONTAINER, false).await?;
    let reply = peer.start().await?;
    let output = attached.collect().await?;
    let expected = "127\n126\ninet 10.0.2.15/24\ndefault via 10.0.2.2 dev eth0\nRead-only\n/sbin/docker-init\nreaped\n";
    assert_eq!(
        output.text().replace(" \n", "\n"),
        expected,
        "{reply:?} {}",
        vm.console()
    );
    assert_eq!(peer.exit(SessionId::CONTAINER).await?.code, 4);
    peer.goodbye().await?;
    vm.off().await
}

#[tokio::test]
async fn neither_a_closed_terminal_nor_a_busy_grandchild_ends_or_holds_an_output() -> Result<()> {
    let Some(guest) = Guest::fast()? else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let layers = [busybox(&folder.path().join("layer"))?];
    let disk = Disk::make(&folder.path().join("disk"), &layers, 64, 16)?;
    // As an init does it; then more than the terminal holds where nobody reads it.
    let script = "echo one; exec </dev/null >/dev/null 2>&1; sleep 1; exec >/dev/console 2>&1; \
        echo two; seq 1 20000; echo three; read line </dev/console; echo got $line; exit 3";
    let mut config = config(&disk, process(&["sh", "-c", script]));
    config.process.tty = true;
    config.process.stdin = true;
    let mut vm = Vm::boot(folder.path(), &guest, &disk, &config, &[])?;
    let mut peer = Peer::accept(vm.connection().await?, &Keys::fresh()?).await?;
    let mut attached = peer.attach(SessionId::CONTAINER, true).await?;
    peer.start().await?;
    let mut output = Output::default();
    attached.wait_for(&mut output, "three\r\n").await?;
    let numbers: String = (1..=20_000).map(|n| format!("{n}\r\n")).collect();
    assert!(output.text() == format!("one\r\ntwo\r\n{numbers}three\r\n"));

    // The shell's end is the exec's, whatever goes on to write.
    let (output, code) = peer
        .run(process(&["sh", "-c", "yes & echo quick; exit 5"]))
        .await?;
    assert_eq!(code, 5, "{}", vm.console());
    assert!(output.text().contains("quick\n"));

    attached.write(b"go\n").await?;
    let mut output = Output::default();
    attached.wait_for(&mut output, "got go\r\n").await?;
    assert_eq!(peer.exit(SessionId::CONTAINER).await?.code, 3);
    peer.goodbye().await?;
    vm.off().await
}
