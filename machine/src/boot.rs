//! The boot files that a virtual container host needs, and their way onto the datastore.

use crate::Error;
use std::path::{Path, PathBuf};

/// The files that `bootimage build` makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootFiles {
    /// Uncompressed kernel with a PVH entry where there is one, else the packaged bzImage.
    pub kernel: PathBuf,
    /// Initramfs with the tether.
    pub initrd: PathBuf,
    /// The ISO with both.
    pub iso: PathBuf,
}

impl BootFiles {
    /// Finds them in a folder.
    ///
    /// # Errors
    /// [`Error::NoBoot`] names the first one that is missing.
    pub fn find(folder: &Path) -> Result<Self, Error> {
        let need = |name: &'static str| {
            let path = folder.join(name);
            if path.is_file() {
                Ok(path)
            } else {
                Err(Error::NoBoot {
                    folder: folder.to_owned(),
                    missing: name,
                })
            }
        };
        // Written last: without it another build of them was cut short, and they may not belong together.
        need("manifest.json")?;
        let kernel = need("vmlinux").or_else(|_| need("vmlinuz"))?;
        Ok(BootFiles {
            kernel,
            // Uncompressed, where there is one: nobody has to carry it anywhere.
            initrd: need("initrd.cpio").or_else(|_| need("initrd.img"))?,
            iso: need("boot.iso")?,
        })
    }

    /// Kernel, initramfs, ISO.
    pub fn all(&self) -> [&Path; 3] {
        [&self.kernel, &self.initrd, &self.iso]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_missing_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let missing = |name: &str| {
            let error = BootFiles::find(dir.path()).unwrap_err().to_string();
            assert!(error.contains(&format!("{name} is missing")), "{error}");
        };
        missing("manifest.json");
        std::fs::write(dir.path().join("manifest.json"), b"{}").unwrap();
        missing("vmlinuz");
        std::fs::write(dir.path().join("vmlinuz"), b"k").unwrap();
        missing("initrd.img");
        std::fs::write(dir.path().join("initrd.img"), b"i").unwrap();
        std::fs::write(dir.path().join("boot.iso"), b"i").unwrap();
        assert!(
            BootFiles::find(dir.path())
                .unwrap()
                .kernel
                .ends_with("vmlinuz")
        );
        std::fs::write(dir.path().join("vmlinux"), b"k").unwrap();
        assert!(
            BootFiles::find(dir.path())
                .unwrap()
                .kernel
                .ends_with("vmlinux")
        );
    }
}
