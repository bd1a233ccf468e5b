//! What must hold of each parser of foreign bytes, whatever they are. `hostsim/fuzz` drives these
//! with libFuzzer, the property tests below with what is nearly right.

use crate::datastore::{Datastore, range};
use crate::server::unescape;
use crate::vm::apply::apply;
use crate::vm::{VmConfig, vmx_file};
use http::HeaderValue;
use vim::method::*;
use vim::types::VirtualMachineConfigSpec;
use vim::value::Value;
use vim::xml::{Element, Limits};
use vim::{DatastorePath, soap};

/// A SOAP call as any method, and what a specification in it makes of a VM.
pub fn call(bytes: &[u8]) {
    let Ok(element) = soap::decode_request(bytes) else {
        return;
    };
    macro_rules! each {
        ($($method:ident)*) => { $(twice::<$method>(&element);)* };
    }
    each! {
        Login AcquireGenericServiceTicket Fetch QueryOptions QueryEvents RetrieveProperties
        RetrievePropertiesEx ContinueRetrievePropertiesEx CreateFilter WaitForUpdatesEx
        CheckForUpdates CreateContainerView CreateListView ModifyListView FindByInventoryPath
        FindChild FindByUuid FindByDatastorePath CreateVm RegisterVm ReconfigVm Rename
        MakeDirectory DeleteDatastoreFile MoveDatastoreFile SearchDatastore
        SearchDatastoreSubFolders CreateVirtualDisk DeleteVirtualDisk CopyVirtualDisk
        QueryVirtualDiskUuid
    }
    if let Ok(make) = CreateVm::from_element(&element) {
        applied(&make.config);
    }
    if let Ok(change) = ReconfigVm::from_element(&element) {
        applied(&change.spec);
    }
}

/// A guest's vsock packets.
pub fn vsock(bytes: &[u8]) {
    crate::vmx::hostile_guest(bytes);
}

/// What was read is written as it is read again.
fn twice<M: Value + PartialEq + std::fmt::Debug>(element: &Element) {
    let Ok(read) = M::from_element(element) else {
        return;
    };
    let mut text = String::new();
    read.to_element("it").write(&mut text);
    let text = format!("<a xmlns:xsi=\"x\" xmlns:xsd=\"y\">{text}</a>");
    let root = Element::parse(text.as_bytes(), Limits::REQUEST).expect("our own XML");
    assert_eq!(M::from_element(&root.children[0]).ok(), Some(read));
}

/// A configuration that was accepted comes back from its .vmx.
fn applied(spec: &VirtualMachineConfigSpec) {
    let mut config = VmConfig {
        cpus: 1,
        cores_per_socket: 1,
        memory_mb: 128,
        ..VmConfig::default()
    };
    if apply(&mut config, spec).is_ok() {
        written(&config);
    }
}

fn written(config: &VmConfig) {
    let folder = DatastorePath::new("ds", "vm");
    let text = vmx_file::encode(config, &folder);
    // A name that no file can have is refused here.
    let Ok(canonical) = vmx_file::decode(&text, &folder) else {
        return;
    };
    let text = vmx_file::encode(&canonical, &folder);
    assert_eq!(vmx_file::decode(&text, &folder).ok(), Some(canonical));
}

/// A .vmx file. What is read of it is written as it is read again.
pub fn vmx(text: &str) {
    if let Ok(config) = vmx_file::decode(text, &DatastorePath::new("ds", "vm")) {
        written(&config);
        let _ = config.check();
    }
}

/// A path under `/folder`, and a `Range` (the line after it).
pub fn folder(text: &str) {
    static STORE: std::sync::LazyLock<Datastore> = std::sync::LazyLock::new(|| {
        let root = std::env::temp_dir().join(format!("hostsim-fuzz-{}", std::process::id()));
        Datastore::open("ds", &root, None).expect("a temporary folder")
    });
    let (path, header) = text.split_once('\n').unwrap_or((text, ""));
    if let Some(path) = unescape(path) {
        // The file that it names may not exist; its folder is the datastore's own then.
        if let Ok(file) = STORE.resolve(&DatastorePath::new("ds", path)) {
            assert!(file.starts_with(STORE.root()));
            assert!(
                !file
                    .components()
                    .any(|c| c == std::path::Component::ParentDir)
            );
        }
    }
    if let Ok(path) = STORE.parse(text) {
        assert_eq!(STORE.parse(&path.to_string()).ok(), Some(path));
    }
    let header = HeaderValue::from_str(header).ok();
    for size in [0, 1, 10, u64::MAX] {
        if let Ok(Some((first, count))) = range(header.as_ref(), size) {
            assert!(count > 0 && first.checked_add(count).is_some_and(|end| end <= size));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Text that is nearly one of these.
    fn nearly(samples: &[&str]) -> impl Strategy<Value = String> {
        let samples: Vec<String> = samples.iter().map(|s| (*s).to_owned()).collect();
        let part = prop::sample::select(vec![
            "", "..", "/", "%2e", "\"", "=", "-1", "0", "\n", "\0", "<", "&", "|22", "ü",
        ]);
        let changes = prop::collection::vec((any::<prop::sample::Index>(), part), 0..4);
        (prop::sample::select(samples), changes).prop_map(|(text, changes)| {
            let mut text: Vec<char> = text.chars().collect();
            for (at, part) in changes {
                let at = at.index(text.len() + 1);
                text.splice(at..(at + part.len()).min(text.len()), part.chars());
            }
            text.into_iter().collect()
        })
    }

    const CALL: &str = r#"<?xml version="1.0"?><e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsd="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><e:Body><ReconfigVM_Task xmlns="urn:vim25"><_this type="VirtualMachine">1</_this><spec><name>v</name><numCPUs>2</numCPUs><memoryMB>64</memoryMB><deviceChange><operation>add</operation><fileOperation>create</fileOperation><device xsi:type="VirtualDisk"><key>-1</key><backing xsi:type="VirtualDiskFlatVer2BackingInfo"><fileName>[ds] vm/a.vmdk</fileName><diskMode>persistent</diskMode></backing><capacityInKB>4</capacityInKB></device></deviceChange><extraConfig><key>a</key><value xsi:type="xsd:string">b</value></extraConfig></spec></ReconfigVM_Task></e:Body></e:Envelope>"#;
    const VMX: &str = ".encoding = \"UTF-8\"\nconfig.version = \"8\"\nvirtualHW.version = \"20\"\ndisplayName = \"v|22\"\nmemSize = \"64\"\nnumvcpus = \"1\"\nscsi0.present = \"TRUE\"\nscsi0.virtualDev = \"pvscsi\"\nscsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"a.vmdk\"\nethernet0.present = \"TRUE\"\nethernet0.networkName = \"n\"\nserial0.present = \"TRUE\"\nserial0.fileType = \"network\"\nserial0.fileName = \"a\"\nmooring.id = \"x\"\n";

    proptest! {
        #[test]
        fn any_call_is_read_or_refused(text in nearly(&[CALL])) {
            call(text.as_bytes());
        }

        #[test]
        fn any_vmx_file_is_read_or_refused(text in nearly(&[VMX])) {
            vmx(&text);
        }

        #[test]
        fn any_path_stays_in_the_datastore(text in nearly(&[
            "/a/b.vmdk\nbytes=0-3", "[ds] a/b.vmdk", "/%2e%2e/x\nbytes=-4", "a\nbytes=8-", "",
        ])) {
            folder(&text);
        }

        #[test]
        fn any_packets_of_a_guest_stay_within_bounds(
            bytes in prop::collection::vec(0u8..8, 0..4000)
        ) {
            vsock(&bytes);
        }
    }
}
