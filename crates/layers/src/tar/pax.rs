//! PAX extended headers: records `<length> <key>=<value>\n`, cut by their length.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Bound;

use crate::ext4::Time;

/// What the keys of extended attributes begin with.
const LIBARCHIVE: &[u8] = b"LIBARCHIVE.xattr.";
const SCHILY: &[u8] = b"SCHILY.xattr.";

/// The records of extended headers: an entry's own, or those of the global headers before it. Not `Clone`: there may
/// be many, and there is one entry after the other.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// An empty value takes the key away, that of a global header, too; it is kept to say so.
    values: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Bytes of all keys and values.
    bytes: u64,
    /// GNU's sparse format 0.0 repeats its keys, so their order matters: offsets and lengths.
    pub(super) sparse: Vec<(u64, u64)>,
}

impl Records {
    /// Adds the records of an extended header.
    pub(super) fn add(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        let mut offset = None;
        while !bytes.is_empty() {
            let (key, value, rest) = cut(bytes).ok_or_else(|| {
                format!(
                    "an extended header's record is malformed: {:?}",
                    String::from_utf8_lossy(&bytes[..bytes.len().min(60)])
                )
            })?;
            bytes = rest;
            match key {
                b"GNU.sparse.offset" => {
                    offset = Some(decimal(value).ok_or("a GNU.sparse.offset is no number")?)
                }
                b"GNU.sparse.numbytes" => {
                    let length = decimal(value).ok_or("a GNU.sparse.numbytes is no number")?;
                    self.sparse.push((
                        offset
                            .take()
                            .ok_or("a GNU.sparse.numbytes follows no offset")?,
                        length,
                    ));
                }
                _ => {
                    self.bytes += (key.len() + value.len()) as u64;
                    if let Some(old) = self.values.insert(key.to_vec(), value.to_vec()) {
                        self.bytes -= (key.len() + old.len()) as u64;
                    }
                }
            }
        }
        Ok(())
    }

    /// Bytes of all keys and values.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Those whose key begins with `prefix`, by key.
    fn with_prefix<'a>(&'a self, prefix: &[u8]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.values
            .range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (key.as_slice(), value.as_slice()))
    }
}

/// The records that hold for an entry: its own ones, then the global ones, looked up where they are.
#[derive(Debug)]
pub(super) struct Effective<'a> {
    own: &'a Records,
    global: &'a Records,
    inherited: Cell<u64>,
}

impl<'a> Effective<'a> {
    pub(super) fn new(own: &'a Records, global: &'a Records) -> Self {
        Self {
            own,
            global,
            inherited: Cell::new(0),
        }
    }

    /// Bytes of the global records that were looked up so far. One global record is work, and may be memory, for each
    /// entry that has it, so it counts as if the entry had it itself.
    pub(super) fn inherited(&self) -> u64 {
        self.inherited.get()
    }

    fn inherit(&self, key: &[u8], value: &[u8]) {
        let bytes = (key.len() + value.len()) as u64;
        self.inherited.set(self.inherited.get() + bytes);
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a [u8]> {
        let value = self.own.values.get(key.as_bytes()).or_else(|| {
            let value = self.global.values.get(key.as_bytes())?;
            self.inherit(key.as_bytes(), value);
            Some(value)
        });
        value.map(Vec::as_slice).filter(|value| !value.is_empty())
    }

    /// Those whose key begins with `prefix`, by key.
    fn with_prefix(&self, prefix: &[u8]) -> BTreeMap<&'a [u8], &'a [u8]> {
        let mut found = BTreeMap::new();
        for (key, value) in self.global.with_prefix(prefix) {
            self.inherit(key, value);
            found.insert(key, value);
        }
        found.extend(self.own.with_prefix(prefix));
        found
    }

    /// Offsets and lengths of GNU's sparse format 0.0. A global header has none.
    pub(super) fn sparse(&self) -> &'a [(u64, u64)] {
        &self.own.sparse
    }

    /// A name: it must not hold a NUL.
    pub(super) fn name(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        match self.get(key) {
            Some(name) if name.contains(&0) => {
                Err(format!("the {key} in its extended header holds a NUL"))
            }
            name => Ok(name.map(<[u8]>::to_vec)),
        }
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<u64>, String> {
        self.get(key)
            .map(|value| decimal(value).ok_or_else(|| bad(key, value)))
            .transpose()
    }

    pub(super) fn time(&self, key: &str) -> Result<Option<Time>, String> {
        self.get(key)
            .map(|value| time(value).ok_or_else(|| bad(key, value)))
            .transpose()
    }

    /// The extended attributes. `SCHILY.xattr.` has values as they are; `LIBARCHIVE.xattr.` has names in URL
    /// encoding and values in base64, and counts only for names that the former does not have.
    pub(super) fn xattrs(&self) -> Result<super::Xattrs, String> {
        let mut found = BTreeMap::new();
        for (key, value) in self.with_prefix(LIBARCHIVE) {
            if value.is_empty() {
                continue;
            }
            let name = &key[LIBARCHIVE.len()..];
            let name = url_decoded(name).ok_or_else(|| bad("LIBARCHIVE.xattr", name))?;
            found.insert(
                name,
                base64_decoded(value).ok_or_else(|| bad("LIBARCHIVE.xattr", value))?,
            );
        }
        // An empty value is one here: an attribute may have none.
        for (key, value) in self.with_prefix(SCHILY) {
            found.insert(key[SCHILY.len()..].to_vec(), value.to_vec());
        }
        Ok(found.into_iter().collect())
    }
}

fn bad(key: &str, value: &[u8]) -> String {
    format!(
        "the {key} in its extended header is malformed: {:?}",
        String::from_utf8_lossy(&value[..value.len().min(60)])
    )
}

/// Takes the first record off.
fn cut(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let length = usize::try_from(decimal(&bytes[..blank])?).ok()?;
    let record = bytes.get(blank + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], &bytes[length..]))
}

pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |value, byte| match byte {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

/// Seconds with an optional sign and fraction; what is finer than a nanosecond is cut off towards the past.
fn time(value: &[u8]) -> Option<Time> {
    let (negative, value) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let mut parts = value.splitn(2, |byte| *byte == b'.');
    let secs = i64::try_from(decimal(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or(&[]);
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut nanos = 0;
    for at in 0..9 {
        nanos = nanos * 10 + fraction.get(at).map_or(0, |digit| u32::from(digit - b'0'));
    }
    let finer = fraction.iter().skip(9).any(|digit| *digit != b'0');
    Some(match (negative, nanos + u32::from(negative && finer)) {
        (false, nanos) => Time { secs, nanos },
        (true, 0) => Time {
            secs: -secs,
            nanos: 0,
        },
        (true, nanos) => Time {
            secs: -secs - 1,
            nanos: 1_000_000_000 - nanos,
        },
    })
}

fn url_decoded(mut text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    while let Some((first, rest)) = text.split_first() {
        text = rest;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let mut byte = [0];
        hex::decode_to_slice(text.get(..2)?, &mut byte).ok()?;
        bytes.push(byte[0]);
        text = &text[2..];
    }
    Some(bytes)
}

/// libarchive leaves the padding out.
fn base64_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0u32, 0);
    let end = text
        .iter()
        .rposition(|byte| *byte != b'=')
        .map_or(0, |at| at + 1);
    for byte in &text[..end] {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &[u8]) -> Vec<u8> {
        let rest = key.len() + value.len() + 3;
        let length = (1..)
            .find(|length: &usize| *length == rest + length.to_string().len())
            .unwrap();
        [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
    }

    /// What holds for an entry with these records where there are no global ones.
    fn alone(own: &Records) -> Effective<'_> {
        static NONE: Records = Records {
            values: BTreeMap::new(),
            bytes: 0,
            sparse: Vec::new(),
        };
        Effective::new(own, &NONE)
    }

    fn read(records: &[(&str, &[u8])]) -> Records {
        let mut read = Records::default();
        for (key, value) in records {
            read.add(&record(key, value)).unwrap();
        }
        read
    }

    #[test]
    fn an_entrys_own_record_hides_the_global_one_and_an_empty_one_takes_it_away() {
        let global = read(&[
            ("path", b"of all"),
            ("linkpath", b"of all"),
            ("mtime", b"7"),
            ("uid", b"1"),
            ("uid", b""),
            ("LIBARCHIVE.xattr.user.gone", b"AQID/w"),
            ("LIBARCHIVE.xattr.user.%6B", b"AQID/w"),
            ("SCHILY.xattr.user.a", b"of all"),
            ("SCHILY.xattr.user.b", b"of all"),
        ]);
        let own = read(&[
            ("path", b"own"),
            ("linkpath", b""),
            ("LIBARCHIVE.xattr.user.gone", b""),
            ("SCHILY.xattr.user.b", b""),
            ("SCHILY.xattr.user.c", b"own"),
        ]);
        let records = Effective::new(&own, &global);
        assert_eq!(records.name("path").unwrap().unwrap(), b"own");
        assert_eq!(records.name("linkpath").unwrap(), None);
        assert_eq!(records.number("uid").unwrap(), None);
        assert_eq!(records.time("mtime").unwrap(), Some(Time::from_secs(7)));
        let expected: [(&[u8], &[u8]); 4] = [
            (b"user.a", b"of all"),
            (b"user.b", b""),
            (b"user.c", b"own"),
            (b"user.k", &[1, 2, 3, 255]),
        ];
        let expected = expected.map(|(name, value)| (name.to_vec(), value.to_vec()));
        assert_eq!(records.xattrs().unwrap(), expected);
        // The next entry has its own records, or none.
        let next = Records::default();
        let records = Effective::new(&next, &global);
        assert_eq!(records.name("path").unwrap().unwrap(), b"of all");
        assert_eq!(records.name("linkpath").unwrap().unwrap(), b"of all");
    }

    #[test]
    fn what_is_replaced_is_not_counted_and_what_is_inherited_is() {
        let global = read(&[
            ("path", &[b'p'; 1000]),
            ("path", b"four"),
            ("comment", b"c"),
        ]);
        assert_eq!(global.bytes(), 4 + 4 + 7 + 1);
        let own = read(&[("linkpath", b"own")]);
        let records = Effective::new(&own, &global);
        records.name("linkpath").unwrap();
        assert_eq!(records.inherited(), 0);
        records.name("path").unwrap();
        assert_eq!(records.inherited(), 4 + 4);
        let global = read(&[("SCHILY.xattr.user.a", b"12345")]);
        let records = Effective::new(&own, &global);
        records.xattrs().unwrap();
        assert_eq!(records.inherited(), 19 + 5);
    }

    #[test]
    fn a_binary_value_with_newlines_and_nuls_is_kept() {
        let value = b"\n12 path=evil\n\0\xff=";
        let mut records = Records::default();
        records
            .add(
                &[
                    record("SCHILY.xattr.user.x", value),
                    record("path", b"good"),
                ]
                .concat(),
            )
            .unwrap();
        assert_eq!(
            alone(&records).xattrs().unwrap(),
            [(b"user.x".to_vec(), value.to_vec())]
        );
        assert_eq!(alone(&records).name("path").unwrap().unwrap(), b"good");
    }

    #[test]
    fn malformed_records_are_refused() {
        for bad in [
            &b"5 a=b\n"[..],
            b"7 a=b\n",
            b"x a=b\n",
            b"6 a=bX",
            b"99999999999999999999 a=b\n",
            b"3 =",
            b"5 ab\n",
            b"0 a=b\n",
        ] {
            assert!(
                Records::default().add(bad).is_err(),
                "{:?}",
                String::from_utf8_lossy(bad)
            );
        }
        let mut records = Records::default();
        records.add(b"6 a=b\n").unwrap();
        records.add(&record("path", b"a\0b")).unwrap();
        assert!(alone(&records).name("path").is_err());
    }

    #[test]
    fn times_before_1970_round_towards_the_past() {
        assert_eq!(
            time(b"1.5"),
            Some(Time {
                secs: 1,
                nanos: 500_000_000
            })
        );
        assert_eq!(time(b"1.0000000019"), Some(Time { secs: 1, nanos: 1 }));
        assert_eq!(
            time(b"-1.5"),
            Some(Time {
                secs: -2,
                nanos: 500_000_000
            })
        );
        assert_eq!(time(b"-1"), Some(Time { secs: -1, nanos: 0 }));
        assert_eq!(time(b"-0.9999999999"), Some(Time { secs: -1, nanos: 0 }));
        assert_eq!(time(b"1.x"), None);
        assert_eq!(time(b""), None);
    }

    #[test]
    fn libarchives_encoding_is_read() {
        let mut records = Records::default();
        records
            .add(&record("LIBARCHIVE.xattr.user.a%3db", b"AQID/w"))
            .unwrap();
        assert_eq!(
            alone(&records).xattrs().unwrap(),
            [(b"user.a=b".to_vec(), vec![1, 2, 3, 255])]
        );
    }
}
