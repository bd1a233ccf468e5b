//! The power button: ACPI's events by generic netlink (`acpi_event`), so that no input device is needed.

use super::netlink::{Message, REQUEST, Socket, attributes, open, split};
use crate::io::fd::AsyncFile;
use nix::sys::socket::SockProtocol;
use std::io;

const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const CTRL_ATTR_MCAST_GROUPS: u16 = 7;
const CTRL_ATTR_MCAST_GRP_ID: u16 = 2;
/// `struct acpi_genl_event` begins with `char device_class[20]`.
const ACPI_GENL_ATTR_EVENT: u16 = 1;

/// Listens for the power button.
///
/// # Errors
/// `ENOENT` where the kernel has no ACPI events; those of the sockets.
pub fn listen() -> io::Result<AsyncFile> {
    let mut control = Socket::open(SockProtocol::NetlinkGeneric)?;
    let ask = Message::new(GENL_ID_CTRL, REQUEST, &[CTRL_CMD_GETFAMILY, 1, 0, 0])
        .with(CTRL_ATTR_FAMILY_NAME, b"acpi_event\0");
    let answers = control.request(ask)?;
    let group = answers
        .iter()
        .filter_map(|body| body.get(4..))
        .flat_map(attributes)
        .filter(|(kind, _)| *kind == CTRL_ATTR_MCAST_GROUPS)
        .flat_map(|(_, groups)| attributes(groups))
        .flat_map(|(_, group)| attributes(group))
        .find(|(kind, _)| *kind == CTRL_ATTR_MCAST_GRP_ID)
        .and_then(|(_, id)| id.first_chunk::<4>().map(|b| u32::from_ne_bytes(*b)))
        .filter(|id| (1..=32).contains(id))
        .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))?;
    AsyncFile::new(open(SockProtocol::NetlinkGeneric, 1 << (group - 1), true)?)
}

/// Waits until the power button is pressed.
///
/// # Errors
/// Those of the socket.
pub async fn pressed(events: &AsyncFile) -> io::Result<()> {
    let mut buf = [0u8; 4096];
    loop {
        let got = events.read_chunk(&mut buf).await?;
        if split(&buf[..got]).any(|(_, body)| is_button(body)) {
            return Ok(());
        }
    }
}

fn is_button(body: &[u8]) -> bool {
    body.get(4..).is_some_and(|rest| {
        attributes(rest)
            .any(|(kind, event)| kind == ACPI_GENL_ATTR_EVENT && event.starts_with(b"button/power"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_power_button_counts() {
        let event = |class: &[u8]| {
            let mut body = vec![1, 1, 0, 0, 48, 0, 1, 0];
            body.extend(class);
            body.resize(8 + 44, 0);
            body
        };
        assert!(is_button(&event(b"button/power")));
        assert!(!is_button(&event(b"ac_adapter")));
        assert!(!is_button(&[1]));
    }
}
