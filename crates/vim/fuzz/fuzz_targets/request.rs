//! What a server does with a client's bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vim::method::{CreateFilter, CreateVm, ReconfigVm, RetrievePropertiesEx};
use vim::value::Value;

fuzz_target!(|data: &[u8]| {
    if let Ok(element) = vim::soap::decode_request(data) {
        let _ = CreateVm::from_element(&element);
        let _ = ReconfigVm::from_element(&element);
        let _ = RetrievePropertiesEx::from_element(&element);
        let _ = CreateFilter::from_element(&element);
    }
});
