//! The disk of a new volume: an empty ext4 over all of it, in a VMDK that a hypervisor can write to.

use crate::errors::{Error, Result};
use layers::{
    ext4::{EmptyOptions, Time, format_empty},
    spool::ImageWriter,
    vmdk::{BodyReader, Identity, Piece, VmdkBody, content_id, writable_body},
};
use std::{
    io::Read,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, ReadBuf};

/// Name of a volume's disk in its folder.
pub(super) const FILE: &str = "volume.vmdk";

/// Renders the disk. All of it is in memory: some 3 MiB for 16 GiB.
pub(super) fn render(uuid: [u8; 16], capacity: u64, created: u64) -> Result<VmdkBody> {
    let failed =
        |e: &dyn std::fmt::Display| Error::internal(format!("cannot format a volume: {e}"));
    let mut image = ImageWriter::in_memory();
    let options = EmptyOptions {
        label: "volume".to_owned(),
        time: Time {
            secs: i64::try_from(created / 1_000_000_000).unwrap_or(0),
            ..Time::default()
        },
        ..EmptyOptions::new(uuid)
    };
    format_empty(&mut image, capacity, &options).map_err(|e| failed(&e))?;
    let image = image.finish(capacity).map_err(|e| failed(&e))?;
    let identity = Identity {
        name: FILE.to_owned(),
        capacity,
        cid: content_id(&uuid),
        parent: None,
    };
    writable_body(&identity, &[Piece { start: 0, image }]).map_err(|e| failed(&e))
}

/// A body in memory, read without waiting.
pub(super) struct InMemory(pub BodyReader);

impl AsyncRead for InMemory {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let count = self.0.read(buf.initialize_unfilled())?;
        buf.advance(count);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use layers::ReadAt;
    use layers::vmdk::{Chain, SparseFile};

    #[test]
    fn a_new_volume_is_an_ext4_with_its_uuid() {
        let body = render([7; 16], 32 << 20, 0).unwrap();
        let file = SparseFile::open(body).unwrap();
        let disk = Chain::open_with(file, |_, _| unreachable!("it has no parent")).unwrap();
        assert_eq!(disk.size().unwrap(), 32 << 20);
        let mut superblock = [0; 0x78];
        disk.read_exact_at(1024, &mut superblock).unwrap();
        assert_eq!(superblock[0x38..0x3a], [0x53, 0xef]);
        assert_eq!(superblock[0x68..0x78], [7; 16]);
    }
}
