//! What a client does with a server's bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vim::method::{RetrievePropertiesEx, RetrieveServiceContent, WaitForUpdatesEx};
use vim::types::{TaskInfo, VirtualDevice, VirtualMachineConfigInfo};

fuzz_target!(|data: &[u8]| {
    let _ = vim::soap::decode_response::<RetrieveServiceContent>(data);
    if let Ok(Some(set)) = vim::soap::decode_response::<WaitForUpdatesEx>(data) {
        for update in set.filter_set.iter().flat_map(|f| &f.object_set) {
            let _ = update.get::<TaskInfo>("info");
        }
    }
    if let Ok(Some(result)) = vim::soap::decode_response::<RetrievePropertiesEx>(data) {
        for object in &result.objects {
            let _ = object.get::<VirtualMachineConfigInfo>("config");
            let _ = object.items::<VirtualDevice>("config.hardware.device");
        }
    }
});
