//! The text inside a sparse VMDK that names its parent and its content ID.

use super::{Identity, VmdkError};

/// Bytes kept for the descriptor, from the second sector on: 20 sectors, as QEMU reads and rewrites them.
pub(super) const SIZE: usize = 20 * 512;

/// Content ID that stands for "no parent".
const NO_PARENT: u32 = 0xFFFF_FFFF;

/// The VMDK below one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// Its path, absolute or relative to the child's folder (`parentFileNameHint`).
    pub hint: String,
    /// Its content ID.
    pub cid: u32,
}

/// What is read out of a descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub cid: u32,
    pub parent: Option<Parent>,
}

impl Identity {
    /// The descriptor, padded with zeros to its area. Fails if the names are too long for it.
    pub(super) fn descriptor(&self) -> Result<Vec<u8>, VmdkError> {
        let parent_cid = self.parent.as_ref().map_or(NO_PARENT, |parent| parent.cid);
        let hint = self.parent.as_ref().map_or(String::new(), |parent| {
            format!("parentFileNameHint=\"{}\"\n", parent.hint)
        });
        let cylinders = (self.capacity / 512 / (63 * 16)).clamp(1, 16383);
        let text = format!(
            "# Disk DescriptorFile\nversion=1\nCID={cid:08x}\nparentCID={parent_cid:08x}\ncreateType=\"monolithicSparse\"\n{hint}\
             \n# Extent description\nRW {sectors} SPARSE \"{name}\"\n\
             \n# The Disk Data Base\n#DDB\n\nddb.virtualHWVersion = \"4\"\nddb.geometry.cylinders = \"{cylinders}\"\n\
             ddb.geometry.heads = \"16\"\nddb.geometry.sectors = \"63\"\nddb.adapterType = \"lsilogic\"\n",
            cid = self.cid,
            sectors = self.capacity / 512,
            name = self.name,
        );
        let mut bytes = text.into_bytes();
        // At least one zero must follow: readers take the text as a string.
        if bytes.len() >= SIZE {
            return Err(VmdkError::Unwritable {
                name: self.name.clone(),
                reason: "its names are too long for the descriptor".into(),
            });
        }
        bytes.resize(SIZE, 0);
        Ok(bytes)
    }
}

/// Reads the lines of a descriptor that matter.
pub(super) fn parse(bytes: &[u8]) -> Result<Descriptor, VmdkError> {
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len());
    let text = String::from_utf8_lossy(&bytes[..end]);
    let value = |key: &str| {
        text.lines().find_map(|line| {
            let (name, value) = line.split_once('=')?;
            (name.trim().eq_ignore_ascii_case(key))
                .then(|| value.trim().trim_matches('"').to_owned())
        })
    };
    let id = |key: &str| match value(key) {
        Some(digits) => u32::from_str_radix(&digits, 16).map(Some).map_err(|_| {
            VmdkError::Invalid(format!(
                "its descriptor's {key} is {digits:?}, not a hexadecimal number of 32 bits"
            ))
        }),
        None => Ok(None),
    };
    let cid = id("CID")?.ok_or_else(|| VmdkError::Invalid("its descriptor has no CID".into()))?;
    match value("createType").as_deref() {
        Some("monolithicSparse") => {}
        other => {
            return Err(VmdkError::Invalid(format!(
                "its descriptor's createType is {other:?}, only monolithicSparse is read"
            )));
        }
    }
    let parent = match id("parentCID")? {
        None | Some(NO_PARENT) => None,
        Some(cid) => {
            let hint = value("parentFileNameHint").filter(|hint| !hint.is_empty());
            Some(Parent {
                cid,
                hint: hint.ok_or_else(|| {
                    VmdkError::Invalid(
                        "its descriptor has a parentCID, but no parentFileNameHint".into(),
                    )
                })?,
            })
        }
    };
    Ok(Descriptor { cid, parent })
}
