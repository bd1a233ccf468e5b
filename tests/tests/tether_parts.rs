//! Many layers, a network, a read-only root and `--init`, in one boot.

use anyhow::Result;
use tests::guest::build::Guest;
use tests::guest::disk::{Disk, Layer, busybox};
use tests::guest::peer::{Keys, Peer};
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
