//! The part of the vSphere Web Services API (SOAP 1.1, `urn:vim25`) that Mooring uses: types and
//! codec for both ends, and an asynchronous [`client`].
//!
//! What is not modelled survives decoding where the API is open (`anyType`, unknown devices and
//! events are kept as [`xml::Element`]) and is skipped elsewhere, so a newer server is no error.
//! More of the API joins by a few lines of [`data_object!`], [`string_enum!`] or `methods!`.
//!
//! Source of names and order of elements: vSphere Web Services API reference, 8.0 (vim25).
#![forbid(unsafe_code)]

#[macro_use]
mod macros;
pub mod client;
pub mod datastore;
pub mod fault;
pub mod method;
pub mod soap;
pub mod tls;
pub mod types;
pub mod value;
pub mod xml;

pub use client::{Client, ClientConfig, Error, Trust};
pub use datastore::DatastorePath;
pub use fault::{Fault, FaultKind};
pub use tls::Thumbprint;
pub use types::ManagedObjectReference;
pub use value::{Any, DateTime, DecodeError};
