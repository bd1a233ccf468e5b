//! Extended attributes.

use super::Filesystem;
use super::error::ReadError;
use super::inode::Inode;
use crate::ReadAt;

/// Full names and values of an inode's attributes.
pub(super) fn attributes<S: ReadAt>(
    _fs: &Filesystem<S>,
    _inode: &Inode,
) -> Result<Vec<(Vec<u8>, Vec<u8>)>, ReadError> {
    Err(super::error::unsupported("attributes"))
}
