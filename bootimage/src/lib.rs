//! bootimage
