//! OCI layer → ext4 partition image → VMDK chain. Mounts nothing, unpacks nothing, needs no root.
#![forbid(unsafe_code)]
pub mod ext4;
