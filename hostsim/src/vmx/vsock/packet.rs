//! The header of a vsock packet (virtio 1.2, 5.10.6 "Device Operation").

/// Bytes of a header.
pub(super) const HEADER_LEN: usize = 44;
/// The only context ID a guest may talk to: the host.
pub(super) const HOST_CID: u64 = 2;
/// Bytes of payload in one packet at most (Linux's VIRTIO_VSOCK_MAX_PKT_BUF_SIZE).
pub(super) const PAYLOAD_MAX: usize = 64 * 1024;
/// `type`: a stream.
pub(super) const TYPE_STREAM: u16 = 1;
/// `flags` of a shutdown: the sender will receive no more.
pub(super) const SHUTDOWN_RECEIVE: u32 = 1;
/// `flags` of a shutdown: the sender will send no more.
pub(super) const SHUTDOWN_SEND: u32 = 2;

/// `op`: what a packet is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Request,
    Response,
    Reset,
    Shutdown,
    Data,
    CreditUpdate,
    CreditRequest,
    /// None that the standard knows.
    Unknown(u16),
}

impl Op {
    fn from_wire(op: u16) -> Op {
        match op {
            1 => Op::Request,
            2 => Op::Response,
            3 => Op::Reset,
            4 => Op::Shutdown,
            5 => Op::Data,
            6 => Op::CreditUpdate,
            7 => Op::CreditRequest,
            other => Op::Unknown(other),
        }
    }

    fn to_wire(self) -> u16 {
        match self {
            Op::Request => 1,
            Op::Response => 2,
            Op::Reset => 3,
            Op::Shutdown => 4,
            Op::Data => 5,
            Op::CreditUpdate => 6,
            Op::CreditRequest => 7,
            Op::Unknown(other) => other,
        }
    }
}

/// A header; all fields as the sender means them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) src_cid: u64,
    pub(super) dst_cid: u64,
    pub(super) src_port: u32,
    pub(super) dst_port: u32,
    pub(super) len: u32,
    pub(super) kind: u16,
    pub(super) op: Op,
    pub(super) flags: u32,
    pub(super) buf_alloc: u32,
    pub(super) fwd_cnt: u32,
}

impl Header {
    /// Read a header; every combination of bytes is one.
    pub(super) fn decode(bytes: &[u8; HEADER_LEN]) -> Header {
        let mut rest = bytes.as_slice();
        Header {
            src_cid: u64::from_le_bytes(take(&mut rest)),
            dst_cid: u64::from_le_bytes(take(&mut rest)),
            src_port: u32::from_le_bytes(take(&mut rest)),
            dst_port: u32::from_le_bytes(take(&mut rest)),
            len: u32::from_le_bytes(take(&mut rest)),
            kind: u16::from_le_bytes(take(&mut rest)),
            op: Op::from_wire(u16::from_le_bytes(take(&mut rest))),
            flags: u32::from_le_bytes(take(&mut rest)),
            buf_alloc: u32::from_le_bytes(take(&mut rest)),
            fwd_cnt: u32::from_le_bytes(take(&mut rest)),
        }
    }

    /// Write a header.
    pub(super) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let mut rest = bytes.as_mut_slice();
        put(&mut rest, &self.src_cid.to_le_bytes());
        put(&mut rest, &self.dst_cid.to_le_bytes());
        put(&mut rest, &self.src_port.to_le_bytes());
        put(&mut rest, &self.dst_port.to_le_bytes());
        put(&mut rest, &self.len.to_le_bytes());
        put(&mut rest, &self.kind.to_le_bytes());
        put(&mut rest, &self.op.to_wire().to_le_bytes());
        put(&mut rest, &self.flags.to_le_bytes());
        put(&mut rest, &self.buf_alloc.to_le_bytes());
        put(&mut rest, &self.fwd_cnt.to_le_bytes());
        bytes
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let mut field = [0; N];
    if let Some((head, tail)) = rest.split_at_checked(N) {
        field.copy_from_slice(head);
        *rest = tail;
    }
    field
}

fn put(rest: &mut &mut [u8], field: &[u8]) {
    if let Some((head, tail)) = std::mem::take(rest).split_at_mut_checked(field.len()) {
        head.copy_from_slice(field);
        *rest = tail;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_laid_out_as_in_the_standard() {
        let header = Header {
            src_cid: 3,
            dst_cid: 2,
            src_port: 0x0102_0304,
            dst_port: 5,
            len: 6,
            kind: TYPE_STREAM,
            op: Op::Data,
            flags: 7,
            buf_alloc: 8,
            fwd_cnt: 9,
        };
        let bytes = header.encode();
        assert_eq!(
            hex::encode(bytes),
            "0300000000000000020000000000000004030201050000000600000001000500070000000800000009000000"
        );
        assert_eq!(Header::decode(&bytes), header);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_header_and_back(bytes: [u8; 32], rest: [u8; 12]) {
            let mut all = [0; HEADER_LEN];
            all[..32].copy_from_slice(&bytes);
            all[32..].copy_from_slice(&rest);
            proptest::prop_assert_eq!(Header::decode(&all).encode(), all);
        }
    }
}
