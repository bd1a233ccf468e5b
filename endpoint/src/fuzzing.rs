//! What must hold of each parser of foreign bytes, whatever they are. `endpoint/fuzz` drives these
//! with libFuzzer, the property tests below with what is nearly right.

use crate::api::query::Query;
use crate::containers::config::Config;
use crate::containers::create::CreateRequest;
use crate::containers::files::unpack;
use crate::containers::instructions::apply;
use crate::errors::Error;
use crate::images::archive::{Archive, Packed};
use crate::images::load::decompressed;
use crate::images::manifest::{self, Document, LAYERS_MAX, Platform};
use crate::images::registry::{Challenge, says};
use crate::images::{Reference, StoredImage};
use crate::networks::{addresses::Addresses, attachment::Wanted, dns, request::NetworkRequest};
use std::io::{Read, Write};

/// Bytes that an archive may unpack to here.
const ARCHIVE_MAX: u64 = 16 << 20;

/// A registry's answer: a manifest or an index, and a configuration.
pub fn manifest(bytes: &[u8]) {
    match manifest::parse(bytes) {
        Ok(Document::Index(list)) => {
            if let Ok(chosen) = manifest::choose(&list, &Platform::ours()) {
                let platform = chosen.platform.as_ref();
                assert!(platform.map_or(list.len() == 1, |p| Platform::ours().takes(p)));
            }
        }
        Ok(Document::Image(image)) => assert!(image.layers.len() <= LAYERS_MAX),
        Err(error) => drop(error.to_string()),
    }
    if let Ok(config) = manifest::config(bytes) {
        assert!(config.diff_ids.len() <= LAYERS_MAX);
    }
}

/// What `docker load` is given, compressed or not.
pub fn archive(bytes: &[u8]) {
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(bytes).expect("room for it");
    let opened = decompressed(file, &std::env::temp_dir(), ARCHIVE_MAX).and_then(Archive::open);
    let Ok(archive) = opened else { return };
    let Ok(images) = archive.images() else {
        return;
    };
    for listed in images {
        let Ok(Packed { layers, .. }) = archive.packed(&listed, None) else {
            continue;
        };
        assert!(layers.len() <= LAYERS_MAX);
        for layer in layers {
            if let Ok(part) = archive.part(&layer) {
                let read = std::io::copy(&mut part.take(ARCHIVE_MAX), &mut std::io::sink());
                assert_eq!(read.ok(), Some(archive.size(&layer)));
            }
        }
    }
}

/// What `docker cp` is given. What is passed on to a guest is clean, and as long as it says.
pub fn copied(bytes: &[u8]) {
    use wire::files::{Decoder, Item, Kind, Record, is_clean};
    let mut decoder = Decoder::new();
    let (mut ended, mut room) = (false, ARCHIVE_MAX);
    let whole = unpack(bytes, "/", |piece| {
        room = room
            .checked_sub(piece.len() as u64)
            .ok_or_else(|| Error::bad("enough"))?;
        decoder.push(&piece);
        while let Some(item) = decoder.next_item().expect("records") {
            match item {
                Item::Record(Record::Entry(entry)) => {
                    assert!(is_clean(&entry.path));
                    if let Kind::HardLink(first) = &entry.kind {
                        assert!(is_clean(first));
                    }
                }
                Item::Record(record) => ended = record == Record::End,
                Item::Bytes(_) => {}
            }
        }
        Ok(())
    });
    assert_eq!(whole.is_ok(), ended);
}

/// `docker commit --change`.
pub fn change(text: &str) {
    let mut config = Config::default();
    if apply(&mut config, &[text.to_owned()]).is_ok() {
        let shown = serde_json::to_value(&config).expect("a configuration is JSON");
        let fields = shown.as_object().expect("an object");
        assert_eq!(Config::read(fields).ok(), Some(config));
    }
}

/// An image's reference, and a platform. What is accepted is shown as it is read again.
pub fn reference(text: &str) {
    if let Ok(reference) = Reference::parse(text) {
        let shown = reference.to_string();
        let again = Reference::parse(&shown).expect("a reference is shown as one");
        assert_eq!(again.to_string(), shown);
        assert_eq!(
            (again.domain, again.path),
            (reference.domain, reference.path)
        );
    }
    if let Some(platform) = Platform::parse(text) {
        let again = Platform::parse(&platform.to_string()).expect("a platform is shown as one");
        assert!(again.takes(&platform));
    }
}

/// `WWW-Authenticate`. A bearer's realm is never empty.
pub fn challenge(text: &str) {
    if let Some(Challenge::Bearer { realm, .. }) = Challenge::parse(text) {
        assert!(!realm.is_empty());
    }
}

/// What a signature signs.
pub fn payload(bytes: &[u8]) {
    if let Some(digest) = says(bytes) {
        let text = String::from_utf8_lossy(bytes);
        // As it is written there, or with escapes.
        assert!(text.contains(&digest.to_string()) || text.contains('\\'));
    }
}

/// A request's query with its filters, times and signals.
pub fn query(text: &str) {
    let query = Query::parse(text);
    let _ = (query.number::<u32>("n"), query.flag("all"));
    if let Ok(filters) = query.filters() {
        let labels = [("a".to_owned(), "b".to_owned())].into();
        let _ = (filters.labels("label", &labels), filters.flag("dangling"));
        assert!(filters.allow(&[]).is_ok() || filters != Default::default());
    }
    let now = 1_700_000_000_000_000_000;
    let _ = crate::timestamps::parse(query.text("since"), now);
    let _ = crate::api::attach::detach_keys(query.text("detachKeys"));
    if let Ok(signal) = crate::containers::signals::parse(query.text("signal")) {
        assert!((1..=64).contains(&signal));
    }
}

/// The body of `containers/create`.
pub fn create(bytes: &[u8]) {
    if let Ok(body) = serde_json::from_slice(bytes)
        && let Ok(request) = CreateRequest::read(&body, Some("name"))
    {
        assert!(!request.config.image.is_empty());
    }
}

/// The body of `networks/create`, and of `networks/{id}/connect`.
pub fn network(bytes: &[u8]) {
    let Ok(body) = serde_json::from_slice(bytes) else {
        return;
    };
    if let Ok(request) = NetworkRequest::read(&body) {
        for pool in request.pools {
            assert!(pool.subnet.contains(&pool.gateway));
            assert!(pool.range.is_none_or(|range| pool.subnet.contains(&range)));
            let mut addresses = Addresses::default();
            if let Ok(address) = addresses.take(&pool, None) {
                assert!(pool.subnet.contains(&address) && address != pool.gateway);
            }
        }
    }
    if let Ok(wanted) = Wanted::read(&body["EndpointConfig"]) {
        assert!(wanted.ipv4.is_none_or(|address| address.is_ipv4()));
    }
}

/// A question to the name server, from a container.
pub fn question(bytes: &[u8]) {
    let asker = std::net::Ipv4Addr::new(10, 0, 0, 9).into();
    if let Some(answer) = dns::answer_alone(bytes, asker) {
        // The answer is to that question, and says that it is one.
        assert_eq!(answer[..2], bytes[..2]);
        assert_ne!(answer[2] & 0x80, 0);
    }
}

/// A record on the datastore: its file's name, the file, and what is in it.
pub fn record(bytes: &[u8]) {
    if let Ok(name) = std::str::from_utf8(bytes)
        && let Some((name, generation)) = crate::records::split(name)
    {
        let again = crate::records::file_name(name, generation);
        assert_eq!(crate::records::split(&again), Some((name, generation)));
    }
    let payload = crate::records::open(bytes, 1);
    for payload in [payload.as_deref(), Some(bytes)].into_iter().flatten() {
        let _ = crate::records::decode::<StoredImage>("image", payload);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    /// Bytes that are nearly one of these: cut, changed in some places, or as they are.
    fn nearly(samples: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
        let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
        let cut = prop::option::weighted(0.3, any::<prop::sample::Index>());
        (prop::sample::select(samples), changes, cut).prop_map(|(mut bytes, changes, cut)| {
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            bytes
        })
    }

    fn texts(samples: &[&str]) -> impl Strategy<Value = String> {
        let samples = samples.iter().map(|s| s.as_bytes().to_vec()).collect();
        nearly(samples).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    fn manifests() -> Vec<Vec<u8>> {
        let descriptor = format!(r#"{{"digest":"{DIGEST}","size":3}}"#);
        [
            format!(r#"{{"schemaVersion":2,"config":{descriptor},"layers":[{descriptor}]}}"#),
            format!(
                r#"{{"schemaVersion":2,"manifests":[{{"digest":"{DIGEST}","size":3,"platform":{{"os":"linux","architecture":"amd64"}}}}]}}"#
            ),
            format!(
                r#"{{"os":"linux","architecture":"amd64","rootfs":{{"diff_ids":["{DIGEST}"]}}}}"#
            ),
        ]
        .map(String::into_bytes)
        .to_vec()
    }

    fn archives() -> Vec<Vec<u8>> {
        let files: [(&str, &[u8]); 3] = [
            (
                "manifest.json",
                br#"[{"Config":"c.json","RepoTags":["a/b:1"],"Layers":["l.tar"]}]"#,
            ),
            ("c.json", b"{}"),
            ("l.tar", b"layer"),
        ];
        let mut builder = tar::Builder::new(Vec::new());
        for (name, data) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(data.len() as u64);
            builder.append_data(&mut header, name, data).unwrap();
        }
        let plain = builder.into_inner().unwrap();
        let squeezed = zstd::encode_all(plain.as_slice(), 1).unwrap();
        vec![plain, squeezed]
    }

    proptest! {
        #[test]
        fn any_manifest_is_read_or_refused(bytes in nearly(manifests())) {
            manifest(&bytes);
        }

        #[test]
        fn any_archive_is_read_or_refused(bytes in nearly(archives())) {
            archive(&bytes);
        }

        #[test]
        fn any_archive_to_copy_is_taken_clean_or_refused(bytes in nearly(archives())) {
            copied(&bytes);
        }

        #[test]
        fn any_change_of_a_commit_is_made_or_refused(text in texts(&[
            "ENV A=$B C=\"d e\" F='g'\\ h", "ENTRYPOINT [\"a\"]\nCMD b", "EXPOSE 80-82/udp 53",
            "HEALTHCHECK --interval=1m30s --retries=3 CMD x", "LABEL ${A:-b}=${A:+c}", "WORKDIR a/../b",
            "VOLUME [\"/a\"]", "ONBUILD RUN x", "STOPSIGNAL SIGINT", "USER a:b",
        ])) {
            change(&text);
        }

        #[test]
        fn any_reference_is_shown_as_it_is_read(text in texts(&[
            "127.0.0.1:5000/a/b:1", "[::1]:5000/x", "busybox", "docker.io/library/a:x",
            "x@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "linux/arm/v7", "LOCALHOST/a",
        ])) {
            reference(&text);
        }

        #[test]
        fn any_challenge_is_read_or_refused(text in texts(&[
            "Basic realm=\"x\"", "Bearer realm=\"https://a/t\",service=\"s\",scope=\"a:b:pull,push\"",
        ])) {
            challenge(&text);
        }

        #[test]
        fn any_payload_is_read_or_refused(text in texts(&[
            "{\"critical\":{\"image\":{\"docker-manifest-digest\":\"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"},\"type\":\"cosign container image signature\"}}",
        ])) {
            payload(text.as_bytes());
        }

        #[test]
        fn any_query_is_read_or_refused(text in texts(&[
            "all=1&n=7&since=2026-01-01T00%3A00%3A00Z&detachKeys=ctrl-a,b&signal=SIGRTMIN%2B3",
            "filters=%7B%22label%22%3A%5B%22a%3Db%22%5D%7D&since=10m&signal=9",
        ])) {
            query(&text);
        }

        #[test]
        fn any_body_of_a_create_is_read_or_refused(text in texts(&[
            r#"{"Image":"x","Cmd":["a"],"Env":["A=b"],"StopSignal":"TERM","HostConfig":{"Memory":134217728,"NanoCpus":1000000000,"CapAdd":["NET_ADMIN"],"ExtraHosts":["a:1.2.3.4"]},"NetworkingConfig":{"EndpointsConfig":{"bridge":{"MacAddress":"00:50:56:00:00:01"}}}}"#,
        ])) {
            create(text.as_bytes());
        }

        #[test]
        fn any_network_is_read_or_refused(text in texts(&[
            r#"{"Name":"x","Internal":true,"IPAM":{"Config":[{"Subnet":"10.1.0.0/16","IPRange":"10.1.2.0/24","Gateway":"10.1.0.1","AuxiliaryAddresses":{"a":"10.1.2.3"}},{"Subnet":"fd00::/64"}]},"Options":{"com.docker.network.driver.mtu":"1400"}}"#,
            r#"{"Container":"x","EndpointConfig":{"IPAMConfig":{"IPv4Address":"10.0.0.2"},"Aliases":["a"],"Links":["a:b"],"MacAddress":"00:50:56:00:00:01"}}"#,
        ])) {
            network(text.as_bytes());
        }

        #[test]
        fn any_question_is_answered_or_not(bytes in nearly(vec![
            b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03web\0\0\x01\0\x01".to_vec(),
            b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x012\x010\x010\x0210\x07in-addr\x04arpa\0\0\x0c\0\x01".to_vec(),
        ])) {
            question(&bytes);
        }

        #[test]
        fn any_record_counts_or_does_not(text in texts(&[
            r#"{"generation":1,"checksum":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","payload":"{}"}"#,
            "image-ab.3.json",
        ])) {
            record(text.as_bytes());
        }
    }
}
