use super::rpc::body;
use super::xdr::{In, Out};
use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// What Linux's server answers to READDIR of version 4.0 with one file and one folder.
fn four() -> Vec<u8> {
    let entry = |out: Out, cookie: u64, name: &[u8], kind: u32| {
        let out = out.u32(1).u64(cookie).opaque(name);
        out.all(&[1, 1 << 1]).opaque(&kind.to_be_bytes())
    };
    let out = Out::default().u32(0).opaque(b"").all(&[2, 22, 0, 26, 0]);
    let out = entry(out.raw(&[7; 8]), 3, b"file", 1);
    entry(out, 9, b"folder", 2).all(&[0, 1]).0
}

/// The same by READDIRPLUS of version 3.
fn three() -> Vec<u8> {
    let entry = |out: Out, cookie: u64, name: &[u8], kind: u32| {
        let out = out.u32(1).u64(99).opaque(name).u64(cookie);
        out.all(&[1, kind]).raw(&[0; 80]).u32(1).opaque(&[5; 28])
    };
    let out = entry(Out::default().all(&[0, 0]).raw(&[7; 8]), 3, b"file", 1);
    entry(out, 9, b"folder", 2).all(&[0, 1]).0
}

#[test]
fn a_page_of_a_folder_is_read_in_both_versions() {
    for page in [v4::page(&four()).unwrap(), v3::page(&three()).unwrap()] {
        let entry = |name: &[u8], is_folder| Entry {
            name: name.to_vec(),
            is_folder,
        };
        assert_eq!(
            page.entries,
            [entry(b"file", false), entry(b"folder", true)]
        );
        assert_eq!((page.next, page.last), (([7; 8], 9), true));
    }
}

#[test]
fn an_answer_to_another_call_and_a_refusal_are_no_results() {
    let accepted = |status: u32| Out::default().all(&[7, 1, 0, 0, 0, status, 42]).0;
    assert_eq!(body(&accepted(0), 7, "x").unwrap(), [0, 0, 0, 42]);
    assert!(matches!(body(&accepted(0), 8, "x"), Err(Fault::Garbled)));
    assert!(matches!(
        body(&accepted(2), 7, "x"),
        Err(Fault::Missing("x"))
    ));
    let refused = Out::default().all(&[7, 1, 1, 1, 5]).0;
    assert!(matches!(body(&refused, 7, "x"), Err(Fault::User)));
    let status = Out::default().u32(13).0;
    let fault = v3::mounted(&status).unwrap_err();
    assert_eq!(fault.to_string(), "permission denied");
}

/// A server of version 4.0 that says yes to everything, and lists one file whatever was deleted.
async fn forgetful(listener: TcpListener) {
    let (mut stream, _) = listener.accept().await.unwrap();
    while let Ok(head) = stream.read_u32().await {
        let mut call = vec![0; (head & !(1 << 31)) as usize];
        stream.read_exact(&mut call).await.unwrap();
        let mut from = In(&call);
        let number = from.u32().unwrap();
        from.raw(20).unwrap();
        for _credential_and_verifier in 0..2 {
            from.u32().unwrap();
            from.opaque(400).unwrap();
        }
        from.opaque(0).unwrap();
        from.raw(8).unwrap();
        let first = from.u32().unwrap();
        if first == 22 {
            from.opaque(128).unwrap();
        }
        let ok = Out::default().u32(0).opaque(b"");
        let results = match (first, from.u32().unwrap()) {
            (24, _) => ok.all(&[2, 24, 0, 10, 0]).opaque(b"root"),
            (_, 15) => ok.all(&[3, 22, 0, 15, 0, 10, 0]).opaque(b"folder"),
            (_, 26) => {
                let page = ok.all(&[2, 22, 0, 26, 0]).raw(&[7; 8]);
                let entry = page.u32(1).u64(3).opaque(b"file").all(&[1, 1 << 1]);
                entry.opaque(&1u32.to_be_bytes()).all(&[0, 1])
            }
            (_, other) => ok.all(&[2, 22, 0, other, 0]),
        };
        let answer = Out::default().all(&[number, 1, 0, 0, 0, 0]).raw(&results.0);
        stream
            .write_u32(1 << 31 | answer.0.len() as u32)
            .await
            .unwrap();
        stream.write_all(&answer.0).await.unwrap();
    }
}

#[tokio::test]
async fn a_server_that_deletes_nothing_does_not_keep_the_endpoint_busy_for_ever() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(forgetful(listener));
    let server = Server {
        address: at.ip(),
        port: Some(at.port()),
        mount_port: None,
        four: true,
        three: false,
        user: User::default(),
    };
    let mut folders = Folders::open(&server, "/").await.unwrap();
    let fault = folders.delete("vch", "volume").await.unwrap_err();
    assert_eq!(
        fault.to_string(),
        "the server still lists what it has deleted"
    );
}

proptest::proptest! {
    #[test]
    fn what_a_server_answers_is_bounded_whatever_it_is(bytes: Vec<u8>, cut in 0usize..200, flip in 0usize..200, bit in 0u8..8) {
        drop((v3::page(&bytes), v4::page(&bytes), v3::mounted(&bytes), body(&bytes, 1, "x").map(drop)));
        for (mut near, read) in [(four(), v4::page as fn(&[u8]) -> _), (three(), v3::page)] {
            let place = flip % near.len();
            near[place] ^= 1 << bit;
            near.truncate(near.len() - cut % near.len());
            if let Ok(page) = read(&near) {
                assert!(page.entries.len() <= near.len());
            }
        }
    }
}
