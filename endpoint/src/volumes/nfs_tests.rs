use super::*;

fn read(kind: &str, o: &str, device: &str) -> Result<Source> {
    let options = [("type", kind), ("o", o), ("device", device)];
    let options = options.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Source::read(&BTreeMap::from(options)).map(Option::unwrap)
}

#[test]
fn dockers_options_become_what_the_kernel_takes() {
    let four = read(
        "nfs",
        "addr=192.0.2.7,rw,nfsvers=4,noatime,soft,timeo=30",
        ":/srv",
    );
    let four = four.unwrap();
    assert_eq!(four.place(), "192.0.2.7:/srv");
    let guest = four.for_guest("ab", four.server.parse().ok());
    assert_eq!(
        (guest.source.as_str(), guest.flags),
        ("192.0.2.7:/srv", 1024)
    );
    assert_eq!(
        guest.data[0],
        "vers=4.2,addr=192.0.2.7,proto=tcp,soft,timeo=30"
    );
    assert_eq!(guest.data.len(), 3);
    let three = read("nfs", "vers=3,ro,mountport=20048", "nas:/a b/c").unwrap();
    assert_eq!(three.server, "nas");
    let guest = three.for_guest("ab", Some("192.0.2.8".parse().unwrap()));
    assert_eq!(guest.source, "192.0.2.8:/a b/c");
    assert_eq!(
        guest.data,
        ["vers=3,addr=192.0.2.8,nolock,mountproto=tcp,proto=tcp,mountport=20048"]
    );
    assert_eq!(guest.flags, 1);
    // As mount.nfs: the newest that the server has.
    assert_eq!(
        read("nfs", "addr=nas", ":/x").unwrap().versions,
        ["4.2", "4.1", "4.0", "3"]
    );
    assert_eq!(
        read("nfs4", "addr=nas,minorversion=1", ":/x")
            .unwrap()
            .versions,
        ["4.1"]
    );
    let six = read("nfs4", "addr=[2001:db8::1],vers=4.1", ":/x").unwrap();
    assert_eq!(six.place(), "[2001:db8::1]:/x");
    let guest = six.for_guest("ab", six.server.parse().ok());
    assert_eq!(guest.source, "[2001:db8::1]:/x");
    assert_eq!(guest.data, ["vers=4.1,addr=2001:db8::1,proto=tcp6"]);
    assert_eq!(
        read("nfs", "vers=4.2", "[2001:db8::1]:/x").unwrap().server,
        "2001:db8::1"
    );
}

#[test]
fn what_cannot_be_mounted_is_refused_by_its_name() {
    for (kind, o, device, part) in [
        ("cifs", "addr=nas", "//nas/x", "\"cifs\" cannot be mounted"),
        ("tmpfs", "size=1m", "tmpfs", "--tmpfs"),
        ("none", "bind", "/srv", "--share"),
        ("nfs", "", ":/x", "addr=SERVER"),
        ("nfs", "addr=a b", ":/x", "addr=a b"),
        ("nfs", "addr=nas", "/x", "SERVER:/path"),
        ("nfs", "addr=nas", ":/x\ny", "no text"),
        ("nfs", "addr=nas,vers=2", ":/x", "vers=2"),
        (
            "nfs",
            "addr=nas,minorversion=1,vers=3",
            ":/x",
            "goes with vers=4",
        ),
        ("nfs4", "addr=nas,vers=3", ":/x", "nfs4"),
        ("nfs", "addr=nas,vers=3,lock", ":/x", "lock daemon"),
        ("nfs", "addr=nas,sec=krb5", ":/x", "Kerberos"),
        ("nfs", "addr=nas,proto=udp", ":/x", "TCP"),
        ("nfs", "addr=nas,rsize=+8", ":/x", "rsize"),
        ("nfs", "addr=nas,rsize=", ":/x", "rsize"),
        ("nfs", "addr=nas,soft=1", ":/x", "soft=1"),
        ("nfs", "addr=nas,clientaddr=x", ":/x", "clientaddr"),
        ("nfs", "addr=nas,what", ":/x", "what"),
    ] {
        let error = read(kind, o, device).unwrap_err();
        assert!(error.message.contains(part), "{o}: {}", error.message);
    }
    let long = format!("addr={}", "a".repeat(2000));
    assert!(read("nfs", &long, ":/x").is_err());
    for (given, missing) in [
        (&[("type", "nfs")][..], "device"),
        (&[("device", ":/x")], "type"),
        (&[("o", "addr=nas")], "type"),
    ] {
        let options = given
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        let error = Source::read(&options.collect()).unwrap_err();
        assert_eq!(
            error.message,
            format!("missing required option: {missing:?}")
        );
    }
    assert_eq!(Source::read(&BTreeMap::new()).unwrap(), None);
}

proptest::proptest! {
    #[test]
    fn whatever_the_options_are_they_fit_into_the_kernels_page(o in "[a-z0-9=,.:_]{0,200}", device in ".{0,60}") {
        if let Ok(source) = read("nfs", &format!("addr=nas,{o}"), &device) {
            let guest = source.for_guest("ab", None);
            for data in guest.data {
                assert!(data.len() + guest.source.len() < 4000);
                assert!(!data.contains('\0'));
            }
        }
    }
}
