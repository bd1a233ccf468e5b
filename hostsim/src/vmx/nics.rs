//! The vNICs of a running VM: made with it, plugged in, moved and taken out.

use super::argv::{NIC_BUS, netdev_id, nic_addr, nic_id};
use super::machine::Done;
use super::qmp::{Event, Qmp, QmpError};
use super::spec::{NicBackend, NicSpec};
use super::switch::{Port, Switch};
use serde_json::json;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;
use tokio::time::Instant;

/// How long a guest may take to let a vNIC go.
const UNPLUG_PATIENCE: Duration = Duration::from_secs(30);

/// The vNICs, by their slots.
#[derive(Debug, Default)]
pub(super) struct Nics {
    cards: BTreeMap<u8, Card>,
    leaving: Option<Leaving>,
}

#[derive(Debug)]
struct Card {
    spec: NicSpec,
    /// Index of its tap in the switch's namespace, where it is on the switch.
    port: Option<u32>,
}

/// A vNIC that the guest was asked to let go.
#[derive(Debug)]
struct Leaving {
    slot: u8,
    until: Instant,
    done: Done,
}

impl Nics {
    /// Makes the ports of those that are on the switch; their taps are for QEMU.
    ///
    /// # Errors
    /// A sentence that says what failed.
    pub(super) async fn open(specs: &[NicSpec]) -> Result<(Nics, BTreeMap<u8, OwnedFd>), String> {
        let (mut nics, mut taps) = (Nics::default(), BTreeMap::new());
        for spec in specs {
            let port = open_port(spec).await?;
            let index = port.map(|port| {
                taps.insert(spec.slot, port.tap);
                port.index
            });
            nics.insert(spec.clone(), index);
        }
        Ok((nics, taps))
    }

    fn insert(&mut self, spec: NicSpec, port: Option<u32>) {
        self.cards.insert(spec.slot, Card { spec, port });
    }

    /// As the QEMU after a reset is to have them. One that the guest was asked to let go it has let go now.
    pub(super) fn after_reset(&mut self) -> Vec<NicSpec> {
        if let Some(leaving) = self.leaving.take() {
            self.cards.remove(&leaving.slot);
            let _ = leaving.done.send(Ok(()));
        }
        self.cards.values().map(|card| card.spec.clone()).collect()
    }

    /// Plugs one in. What was made before something failed is undone.
    pub(super) async fn plug(&mut self, nic: NicSpec, qmp: &mut Qmp) -> Result<(), String> {
        nic.validate()?;
        let slot = nic.slot;
        match self.cards.get(&slot) {
            // Plugged in for a hostsim that was killed before it could note that.
            Some(card) if card.spec.mac == nic.mac => return self.set(nic).await,
            Some(_) => return Err(format!("slot {slot} has a vNIC already")),
            None => {}
        }
        let port = open_port(&nic).await?;
        let netdev = add_netdev(&nic, port.as_ref(), qmp)
            .await
            .map_err(|e| e.to_string())?;
        let mut device = json!({
            "driver": "vmxnet3",
            "id": nic_id(slot),
            "mac": nic.mac,
            "romfile": "",
            "bus": NIC_BUS,
            "addr": nic_addr(slot),
        });
        if netdev {
            device["netdev"] = netdev_id(slot).into();
        }
        if let Err(e) = qmp.execute("device_add", device).await {
            if netdev {
                remove_netdev(slot, qmp).await;
            }
            return Err(e.to_string());
        }
        self.insert(nic, port.map(|port| port.index));
        Ok(())
    }

    /// Changes a vNIC's VLAN or connection. Nothing of that reaches the guest: QEMU's set_link would, and its vmxnet3
    /// writes the event to guest address 0 while no driver is up.
    pub(super) async fn set(&mut self, nic: NicSpec) -> Result<(), String> {
        nic.validate()?;
        let card = self
            .cards
            .get_mut(&nic.slot)
            .ok_or_else(|| format!("slot {} has no vNIC", nic.slot))?;
        if card.spec.mac != nic.mac {
            return Err("a vNIC's MAC address cannot change while the VM runs".into());
        }
        let same = card.spec.backend == nic.backend && card.spec.connected == nic.connected;
        if !same {
            let Some(index) = card.port else {
                return Err("a vNIC on a user-mode network cannot change while the VM runs; take it out and plug another one in".into());
            };
            move_port(&nic, index, nic.connected).await?;
        }
        card.spec = nic;
        Ok(())
    }

    /// Asks the guest to let a vNIC go; `done` is told once it has, or has not in time. It is cut off at once.
    pub(super) async fn unplug(&mut self, slot: u8, qmp: &mut Qmp, done: Done) {
        let Some(card) = self.cards.get(&slot) else {
            let _ = done.send(Ok(()));
            return;
        };
        if let Some(other) = &self.leaving {
            let message = format!("the vNIC in slot {} is being taken out", other.slot);
            let _ = done.send(Err(message));
            return;
        }
        let cut = match card.port {
            Some(index) => move_port(&card.spec, index, false).await,
            None => Ok(()),
        };
        let asked = qmp
            .execute("device_del", json!({ "id": nic_id(slot) }))
            .await;
        let refused = match (cut, asked) {
            (Err(message), _) => Some(message),
            // Asked before, in vain so far: wait on.
            (_, Err(QmpError::Refused { message, .. }))
                if message.contains("process of unplug") =>
            {
                None
            }
            (_, Err(e)) => Some(e.to_string()),
            (_, Ok(_)) => None,
        };
        match refused {
            Some(message) => {
                self.join_again(slot).await;
                let _ = done.send(Err(message));
            }
            None => {
                let until = Instant::now() + UNPLUG_PATIENCE;
                self.leaving = Some(Leaving { slot, until, done });
            }
        }
    }

    /// Until when the guest may take.
    pub(super) fn patience(&self) -> Option<Instant> {
        self.leaving.as_ref().map(|leaving| leaving.until)
    }

    /// The guest has let a vNIC go.
    pub(super) async fn gone(&mut self, slot: u8, qmp: &mut Qmp) {
        if self.cards.remove(&slot).is_some() {
            remove_netdev(slot, qmp).await;
        }
        if let Some(leaving) = self.leaving.take_if(|leaving| leaving.slot == slot) {
            let _ = leaving.done.send(Ok(()));
        }
    }

    /// The guest has not let a vNIC go in time: it stays.
    pub(super) async fn give_up(&mut self) {
        let Some(leaving) = self.leaving.take() else {
            return;
        };
        self.join_again(leaving.slot).await;
        let seconds = UNPLUG_PATIENCE.as_secs();
        let message = format!(
            "the guest has not let the vNIC in slot {} go within {seconds} s; it stays",
            leaving.slot
        );
        let _ = leaving.done.send(Err(message));
    }

    async fn join_again(&self, slot: u8) {
        let Some(card) = self.cards.get(&slot) else {
            return;
        };
        if let Some(index) = card.port
            && let Err(e) = move_port(&card.spec, index, card.spec.connected).await
        {
            eprintln!("vmx: vNIC in slot {slot}: {e}");
        }
    }
}

/// The slot of the vNIC that an event says is gone.
pub(super) fn deleted(event: &Event) -> Option<u8> {
    if event.name != "DEVICE_DELETED" {
        return None;
    }
    event.data["device"]
        .as_str()?
        .strip_prefix("nic")?
        .parse()
        .ok()
}

/// A port of the switch for a vNIC that is on it.
async fn open_port(nic: &NicSpec) -> Result<Option<Port>, String> {
    let NicBackend::Port(place) = &nic.backend else {
        return Ok(None);
    };
    let (switch, vlan) = (Switch::new(&place.netns), place.vlan);
    let vlan = nic.connected.then_some(vlan);
    blocking(move || switch.open_port(vlan))
        .await
        .map(Some)
        .map_err(|e| format!("vNIC on {:?}: {e}", nic.port_group))
}

async fn move_port(nic: &NicSpec, index: u32, connected: bool) -> Result<(), String> {
    let NicBackend::Port(place) = &nic.backend else {
        return Err(format!(
            "a vNIC on the switch cannot move to {:?}, which is a user-mode network",
            nic.port_group
        ));
    };
    let (switch, vlan) = (Switch::new(&place.netns), place.vlan);
    blocking(move || switch.move_port(index, connected.then_some(vlan)))
        .await
        .map_err(|e| format!("vNIC on {:?}: {e}", nic.port_group))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, super::switch::SwitchError> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(e) => Err(e.to_string()),
    }
}

/// Gives QEMU the other end of a vNIC's cable; whether it has one.
async fn add_netdev(nic: &NicSpec, port: Option<&Port>, qmp: &mut Qmp) -> Result<bool, QmpError> {
    let id = netdev_id(nic.slot);
    let netdev = match (&nic.backend, port) {
        (NicBackend::Port(_), Some(port)) => {
            qmp.give(&id, port.tap.as_fd()).await?;
            json!({ "type": "tap", "id": id, "fd": id, "vhost": false })
        }
        (NicBackend::User(net), _) if nic.connected => json!({
            "type": "user",
            "id": id,
            "net": format!("{}/{}", net.network, net.prefix),
            "host": net.gateway.to_string(),
            "dns": net.dns.to_string(),
            "ipv6": false,
        }),
        _ => return Ok(false),
    };
    if let Err(e) = qmp.execute("netdev_add", netdev).await {
        if port.is_some() {
            // Else QEMU would keep the tap. It has not taken it, or has closed it already.
            let _ = qmp.execute("closefd", json!({ "fdname": id })).await;
        }
        return Err(e);
    }
    Ok(true)
}

async fn remove_netdev(slot: u8, qmp: &mut Qmp) {
    // A vNIC without a cable has none.
    let _ = qmp
        .execute("netdev_del", json!({ "id": netdev_id(slot) }))
        .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_a_vnic_is_taken_for_one() {
        let event = |name: &str, data| Event {
            name: name.to_owned(),
            data,
        };
        let gone = |data| deleted(&event("DEVICE_DELETED", data));
        assert_eq!(gone(json!({ "device": "nic7", "path": "/x" })), Some(7));
        assert_eq!(gone(json!({ "device": "scsi0" })), None);
        assert_eq!(gone(json!({ "path": "/x" })), None);
        assert_eq!(
            deleted(&event(
                "DEVICE_UNPLUG_GUEST_ERROR",
                json!({ "device": "nic7" })
            )),
            None
        );
    }
}
