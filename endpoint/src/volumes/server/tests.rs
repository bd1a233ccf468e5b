use super::rpc::body;
use super::xdr::Out;
use super::*;

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
