//! The reader itself.

use std::io::{Read, Seek};

use super::header::{BLOCK, Format, Header, text};
use super::pax::{Effective, Records};
use super::{Entry, Kind, RawSink, TarError, sparse};
use crate::io::is_zero;

/// Largest extended header or long name in bytes: room for an extended attribute of 64 KiB several times over.
const MAX_EXTENDED: u64 = 1 << 20;

/// Bytes of the records of all global headers together: as much as one header may hold. They stay until the archive's
/// end.
const MAX_GLOBAL: u64 = MAX_EXTENDED;

/// Bounds of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TarLimits {
    /// Entries at most.
    pub entries: u64,
    /// Bytes of headers, extended ones included, at most. A record of a global header counts for each entry that
    /// takes it.
    pub metadata: u64,
    /// Bytes at most that are neither headers nor data that the caller reads: padding, data of volume labels and of
    /// entries that are passed over, what follows the archive's end. Blocks of zeros do not count.
    pub rest: u64,
}

/// Reads an archive from a stream.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    limits: TarLimits,
    entries: u64,
    metadata: u64,
    rest: u64,
    global: Records,
    /// Bytes of the current entry's data that were not read yet, and of the padding after it.
    data: u64,
    padding: u64,
    ended: bool,
}

impl<R: Read> Reader<R> {
    /// Starts at the archive's first byte.
    pub fn new(input: R, limits: TarLimits) -> Self {
        Self {
            input,
            limits,
            entries: 0,
            metadata: 0,
            rest: 0,
            global: Records::default(),
            data: 0,
            padding: 0,
            ended: false,
        }
    }

    /// Goes on to the next entry; `None` at the archive's end, which is two blocks of zeros or, as other readers
    /// allow, the end of the stream between entries. Data of the last entry that was not read goes to `raw`.
    pub fn next_entry(&mut self, raw: &mut dyn RawSink) -> Result<Option<Entry>, TarError> {
        self.skip_data(raw)?;
        if self.ended {
            return Ok(None);
        }
        let mut records = Records::default();
        let (mut long_name, mut long_link) = (None, None);
        // An extended header without an entry after it is a truncated archive.
        let mut extended = false;
        loop {
            let mut block = [0; BLOCK];
            if !self.block(&mut block, raw, extended)? {
                return Ok(None);
            }
            if block == [0; BLOCK] {
                if self.block(&mut block, raw, false)? && block != [0; BLOCK] {
                    return Err(
                        self.malformed("a block of zeros is followed by something else".into())
                    );
                }
                self.ended = true;
                return Ok(None);
            }
            let header = Header(&block);
            if !header.checksum_is_right() {
                return Err(self.malformed("a header's checksum is wrong".into()));
            }
            let size = header
                .size()
                .and_then(|size| u64::try_from(size).map_err(|_| format!("its size is {size}")));
            let size = size.map_err(|reason| self.malformed(reason))?;
            extended = matches!(header.kind(), b'x' | b'X' | b'L' | b'K') || extended;
            match header.kind() {
                b'g' => {
                    let bytes = self.extended(size, raw)?;
                    self.global
                        .add(&bytes)
                        .map_err(|reason| self.malformed(reason))?;
                    if !self.global.sparse.is_empty() {
                        return Err(
                            self.malformed("a global header describes a sparse file".into())
                        );
                    }
                    if self.global.bytes() > MAX_GLOBAL {
                        return Err(TarError::Limit {
                            what: "bytes of records in all global extended headers",
                            limit: MAX_GLOBAL,
                        });
                    }
                    records = Records::default();
                }
                b'x' | b'X' => {
                    let bytes = self.extended(size, raw)?;
                    records
                        .add(&bytes)
                        .map_err(|reason| self.malformed(reason))?;
                }
                b'L' => long_name = Some(text(&self.extended(size, raw)?).to_vec()),
                b'K' => long_link = Some(text(&self.extended(size, raw)?).to_vec()),
                // A volume's label.
                b'V' => self.skip_entry(size, raw)?,
                _ => {
                    self.entries += 1;
                    if self.entries > self.limits.entries {
                        return Err(TarError::Limit {
                            what: "entries",
                            limit: self.limits.entries,
                        });
                    }
                    return self
                        .entry(&block, size, &records, long_name, long_link, raw)
                        .map(Some);
                }
            }
        }
    }

    fn entry(
        &mut self,
        block: &[u8; BLOCK],
        size: u64,
        records: &Records,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
        raw: &mut dyn RawSink,
    ) -> Result<Entry, TarError> {
        let records = Effective::new(records, &self.global);
        let (mut entry, format_of_map) =
            self.describe(block, size, &records, long_name, long_link)?;
        let inherited = records.inherited();
        self.count(inherited)?;
        let (stored, padding) = (
            entry.data,
            entry.data.next_multiple_of(BLOCK as u64) - entry.data,
        );
        self.data = stored;
        self.padding = padding;
        let map = match format_of_map {
            Map::None => return Ok(entry),
            Map::Old => self.old_map(block, raw)?,
            Map::Given(map) => map,
            Map::InData => {
                let mut lines = sparse::Lines::default();
                loop {
                    if self.data < BLOCK as u64 {
                        return Err(self.malformed("its sparse map does not end".into()));
                    }
                    let mut block = [0; BLOCK];
                    self.block(&mut block, raw, true)?;
                    self.data -= BLOCK as u64;
                    if lines
                        .block(&block)
                        .map_err(|reason| self.malformed(reason))?
                    {
                        break;
                    }
                }
                lines.map
            }
        };
        entry.data = self.data;
        entry.sparse = Some(
            sparse::check(map, entry.data, entry.size).map_err(|reason| self.malformed(reason))?,
        );
        Ok(entry)
    }

    /// The map in an old GNU header and the blocks that follow it.
    fn old_map(
        &mut self,
        block: &[u8; BLOCK],
        raw: &mut dyn RawSink,
    ) -> Result<Vec<(u64, u64)>, TarError> {
        let mut map = Vec::new();
        sparse::add_pairs(&mut map, &block[386..482]).map_err(|reason| self.malformed(reason))?;
        let mut more = block[482] != 0;
        while more {
            let mut block = [0; BLOCK];
            self.block(&mut block, raw, true)?;
            sparse::add_pairs(&mut map, &block[..504]).map_err(|reason| self.malformed(reason))?;
            more = block[504] != 0;
        }
        Ok(map)
    }

    /// Puts together what header, long names and records say.
    fn describe(
        &self,
        block: &[u8; BLOCK],
        size: u64,
        records: &Effective<'_>,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<(Entry, Map), TarError> {
        let header = Header(block);
        let wrong = |reason| self.malformed(reason);
        let path = match records.name("GNU.sparse.name").map_err(wrong)? {
            Some(path) => Some(path),
            None => records.name("path").map_err(wrong)?,
        };
        let path = path.or(long_name).unwrap_or_else(|| header.path());
        let link = records
            .name("linkpath")
            .map_err(wrong)?
            .or(long_link)
            .unwrap_or_else(|| header.link().to_vec());
        let shown = String::from_utf8_lossy(&path[..path.len().min(200)]).into_owned();
        let at = |reason: String| self.malformed(format!("{shown:?}: {reason}"));

        let kind = match header.kind() {
            0 | b'0' | b'7' | b'S' if path.ends_with(b"/") && size == 0 => Kind::Directory,
            0 | b'0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::Char,
            b'4' => Kind::Block,
            b'5' | b'D' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => {
                return Err(at(format!(
                    "entries of type {:?} are not known",
                    char::from(other)
                )));
            }
        };
        // Only these have data; the size of others is a mere statement, as it is for Go's reader.
        let has_data = kind == Kind::File || header.kind() == b'D';
        let stored = records.number("size").map_err(at)?.unwrap_or(size);
        let stored = if has_data { stored } else { 0 };
        if stored > i64::MAX as u64 {
            return Err(at(format!("its size is {stored}")));
        }
        let id = |key: &str, field: Result<i64, String>| {
            let value = match records.number(key)? {
                Some(value) => value,
                None => u64::try_from(field?).map_err(|_| format!("its {key} is negative"))?,
            };
            u32::try_from(value).map_err(|_| format!("its {key} {value} is above 4294967295"))
        };
        let device = |part: i64| {
            u32::try_from(part).map_err(|_| at(format!("its device number {part} is out of range")))
        };
        let device = match kind {
            Kind::Char | Kind::Block => {
                let (major, minor) = header.device().map_err(at)?;
                (device(major)?, device(minor)?)
            }
            _ => (0, 0),
        };
        let map = self.map_of(&header, records).map_err(at)?;
        let size = match &map {
            Map::None => stored,
            Map::Old => u64::try_from(header.field(483..495, "real size").map_err(at)?)
                .map_err(|_| at("its real size is negative".into()))?,
            Map::Given(_) | Map::InData => {
                let real = records.number("GNU.sparse.realsize").map_err(at)?;
                let real = real.or(records.number("GNU.sparse.size").map_err(at)?);
                real.ok_or_else(|| at("it is sparse, but its real size is not told".into()))?
            }
        };
        let old_times = header.format() == Format::Gnu && header.kind() == b'S';
        let mtime = match records.time("mtime").map_err(at)? {
            Some(time) => time,
            None => header.mtime().map_err(at)?,
        };
        let entry = Entry {
            path,
            kind,
            mode: (header.mode().map_err(at)? & 0o7777) as u16,
            uid: id("uid", header.uid()).map_err(at)?,
            gid: id("gid", header.gid()).map_err(at)?,
            mtime,
            atime: records.time("atime").map_err(at)?.filter(|_| !old_times),
            ctime: records.time("ctime").map_err(at)?.filter(|_| !old_times),
            link: if matches!(kind, Kind::HardLink | Kind::Symlink) {
                link
            } else {
                Vec::new()
            },
            device,
            xattrs: records.xattrs().map_err(at)?,
            data: stored,
            size,
            sparse: None,
        };
        Ok((entry, map))
    }

    fn map_of(&self, header: &Header<'_>, records: &Effective<'_>) -> Result<Map, String> {
        if header.kind() == b'S' {
            return Ok(Map::Old);
        }
        let version = (
            records.number("GNU.sparse.major")?,
            records.number("GNU.sparse.minor")?,
        );
        Ok(match version {
            (Some(1), Some(0)) => Map::InData,
            (Some(1..), _) => return Err(format!("its sparse format {version:?} is not known")),
            _ if !records.sparse().is_empty() => Map::Given(records.sparse().to_vec()),
            _ => match records.get("GNU.sparse.map") {
                Some(list) => Map::Given(sparse::from_list(list)?),
                None if records.get("GNU.sparse.size").is_some() => Map::Given(Vec::new()),
                None => Map::None,
            },
        })
    }

    /// Bytes of the current entry's data that were not read yet.
    pub fn data_left(&self) -> u64 {
        self.data
    }

    /// Reads some of the current entry's data; 0 at its end, which is not before all of it was read.
    pub fn read_data(&mut self, buf: &mut [u8]) -> Result<usize, TarError> {
        let most = (buf.len() as u64).min(self.data) as usize;
        if most == 0 {
            return Ok(0);
        }
        let count = self.input.read(&mut buf[..most])?;
        if count == 0 {
            return Err(TarError::Truncated("inside a file's data"));
        }
        self.data -= count as u64;
        Ok(count)
    }

    /// Reads what follows the archive's end, up to the stream's.
    pub fn finish(mut self, raw: &mut dyn RawSink) -> Result<(), TarError> {
        let mut buf = vec![0; 64 * 1024];
        loop {
            match self.input.read(&mut buf)? {
                0 => return Ok(()),
                count => self.rest(&buf[..count], raw)?,
            }
        }
    }

    fn skip_data(&mut self, raw: &mut dyn RawSink) -> Result<(), TarError> {
        let mut buf = [0; 8192];
        while self.data > 0 {
            let count = self.read_data(&mut buf)?;
            self.rest(&buf[..count], raw)?;
        }
        let padding = std::mem::take(&mut self.padding) as usize;
        let mut filled = 0;
        while filled < padding {
            match self.input.read(&mut buf[filled..padding])? {
                0 => {
                    return Err(TarError::Truncated(
                        "inside the padding after a file's data",
                    ));
                }
                count => filled += count,
            }
        }
        self.rest(&buf[..padding], raw)
    }

    /// Passes on bytes that are nobody's.
    fn rest(&mut self, bytes: &[u8], raw: &mut dyn RawSink) -> Result<(), TarError> {
        let counted = bytes.chunks(BLOCK).filter(|block| !is_zero(block));
        let counted: usize = counted.map(<[u8]>::len).sum();
        self.rest = self.rest.saturating_add(counted as u64);
        if self.rest > self.limits.rest {
            return Err(TarError::Limit {
                what: "bytes outside of files and headers",
                limit: self.limits.rest,
            });
        }
        raw.raw(bytes)?;
        Ok(())
    }

    fn skip_entry(&mut self, size: u64, raw: &mut dyn RawSink) -> Result<(), TarError> {
        if size > i64::MAX as u64 {
            return Err(self.malformed(format!("a size of {size} bytes")));
        }
        self.data = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        self.skip_data(raw)
    }

    /// Reads an extended header's bytes.
    fn extended(&mut self, size: u64, raw: &mut dyn RawSink) -> Result<Vec<u8>, TarError> {
        if size > MAX_EXTENDED {
            return Err(TarError::Limit {
                what: "bytes in one extended header",
                limit: MAX_EXTENDED,
            });
        }
        self.count(size)?;
        let mut bytes = vec![0; size as usize];
        self.data = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        let mut filled = 0;
        while self.data > 0 {
            filled += self.read_data(&mut bytes[filled..])?;
        }
        raw.raw(&bytes)?;
        self.skip_data(raw)?;
        Ok(bytes)
    }

    fn count(&mut self, bytes: u64) -> Result<(), TarError> {
        self.metadata = self.metadata.saturating_add(bytes);
        if self.metadata > self.limits.metadata {
            return Err(TarError::Limit {
                what: "bytes of headers",
                limit: self.limits.metadata,
            });
        }
        Ok(())
    }

    /// Reads a block; false where the stream ends before it and `needed` is not.
    fn block(
        &mut self,
        block: &mut [u8; BLOCK],
        raw: &mut dyn RawSink,
        needed: bool,
    ) -> Result<bool, TarError> {
        self.count(BLOCK as u64)?;
        let mut filled = 0;
        while filled < BLOCK {
            match self.input.read(&mut block[filled..])? {
                0 if filled == 0 && !needed => {
                    self.ended = true;
                    return Ok(false);
                }
                0 => return Err(TarError::Truncated("inside a header")),
                count => filled += count,
            }
        }
        raw.raw(block)?;
        Ok(true)
    }

    fn malformed(&self, reason: String) -> TarError {
        TarError::Malformed {
            after: self.entries,
            reason,
        }
    }
}

impl<R: Read + Seek> Reader<R> {
    /// Where the current entry's data goes on, in bytes from the start of what is read.
    pub fn position(&mut self) -> Result<u64, TarError> {
        Ok(self.input.stream_position()?)
    }

    /// Passes over what is left of the current entry's data without reading it. Whether it is there is not looked at.
    pub fn pass_over(&mut self) -> Result<(), TarError> {
        let left = std::mem::take(&mut self.data).saturating_add(std::mem::take(&mut self.padding));
        let left =
            i64::try_from(left).map_err(|_| self.malformed(format!("an entry of {left} bytes")))?;
        self.input.seek_relative(left)?;
        Ok(())
    }
}

/// Where a sparse file's map is.
enum Map {
    /// The file is not sparse.
    None,
    /// In its header.
    Old,
    /// In its extended header.
    Given(Vec<(u64, u64)>),
    /// Before its data.
    InData,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header block, with its data.
    fn part(kind: u8, name: &str, data: &[u8]) -> Vec<u8> {
        let mut block = vec![0; BLOCK];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[100..107].copy_from_slice(b"0000755");
        block[124..135].copy_from_slice(format!("{:011o}", data.len()).as_bytes());
        block[156] = kind;
        block[257..265].copy_from_slice(b"ustar\x0000");
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block.extend(data);
        block.resize(block.len().next_multiple_of(BLOCK), 0);
        block
    }

    fn record(key: &str, value: &[u8]) -> Vec<u8> {
        let rest = key.len() + value.len() + 3;
        let length = (rest..)
            .find(|length| *length == rest + length.to_string().len())
            .unwrap();
        [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
    }

    fn entries(tar: &[u8], metadata: u64) -> Result<Vec<Entry>, TarError> {
        let limits = TarLimits {
            entries: 1000,
            metadata,
            rest: u64::MAX,
        };
        let mut reader = Reader::new(tar, limits);
        let mut entries = Vec::new();
        while let Some(entry) = reader.next_entry(&mut Vec::new())? {
            entries.push(entry);
        }
        Ok(entries)
    }

    #[test]
    fn global_records_hold_for_all_entries_and_an_entrys_own_for_it_alone() {
        let tar = [
            part(b'g', "g", &record("mtime", b"7")),
            part(b'0', "first", b""),
            part(b'x', "x", &record("mtime", b"8")),
            part(b'0', "second", b""),
            part(b'0', "third", b""),
            part(b'x', "x", &record("mtime", b"")),
            part(b'0', "fourth", b""),
            part(b'g', "g", &record("mtime", b"9")),
            part(b'0', "fifth", b""),
        ]
        .concat();
        let times: Vec<i64> = entries(&tar, 1 << 20)
            .unwrap()
            .iter()
            .map(|entry| entry.mtime.secs)
            .collect();
        assert_eq!(times, [7, 8, 7, 0, 9]);
    }

    #[test]
    fn all_global_records_together_are_bounded() {
        let header = |key: &str| part(b'g', "g", &record(key, &vec![b'v'; 600 << 10]));
        let end = part(b'0', "file", b"");
        // The same key again takes the place of what was there.
        let same = [header("comment"), header("comment"), end.clone()].concat();
        assert_eq!(entries(&same, 1 << 30).unwrap().len(), 1);
        let more = [header("comment"), header("other"), end].concat();
        let refused = entries(&more, 1 << 30).unwrap_err();
        assert!(
            matches!(
                refused,
                TarError::Limit {
                    limit: MAX_GLOBAL,
                    ..
                }
            ),
            "{refused}"
        );
        assert!(
            refused.to_string().contains("global extended headers"),
            "{refused}"
        );
    }

    #[test]
    fn a_global_record_counts_for_each_entry_that_takes_it() {
        let big = vec![b'v'; 100 << 10];
        let files: Vec<u8> = (0..100)
            .flat_map(|number| part(b'0', &number.to_string(), b""))
            .collect();
        let archive = |key: &str| [part(b'g', "g", &record(key, &big)), files.clone()].concat();
        // 100 times 100 KiB are more than the limit; what no entry takes is there once.
        assert_eq!(entries(&archive("comment"), 1 << 20).unwrap().len(), 100);
        for key in ["SCHILY.xattr.com.apple.x", "linkpath"] {
            let refused = entries(&archive(key), 1 << 20).unwrap_err();
            assert!(
                matches!(
                    refused,
                    TarError::Limit {
                        what: "bytes of headers",
                        ..
                    }
                ),
                "{key}: {refused}"
            );
        }
    }

    /// What goes to the sink, where so many bytes may that are nobody's.
    fn passed_on(tar: &[u8], rest: u64) -> Result<usize, TarError> {
        let limits = TarLimits {
            entries: 1000,
            metadata: 1 << 20,
            rest,
        };
        let (mut reader, mut raw) = (Reader::new(tar, limits), Vec::new());
        while reader.next_entry(&mut raw)?.is_some() {}
        reader.finish(&mut raw)?;
        Ok(raw.len())
    }

    #[test]
    fn bytes_that_are_nobody_s_are_bounded_and_zeros_are_not() {
        let (end, junk) = (vec![0; 2 * BLOCK], vec![7; 100 << 10]);
        let zeros = vec![0; 1 << 20];
        let mut padded = part(b'0', "file", b"x");
        padded.truncate(BLOCK + 1);
        padded.resize(2 * BLOCK, b'p');
        for (tar, counted) in [
            ([end.clone(), junk.clone()].concat(), junk.len()),
            (
                [part(b'V', "label", &junk), end.clone()].concat(),
                junk.len(),
            ),
            (
                [part(b'D', "folder", &junk), end.clone()].concat(),
                junk.len(),
            ),
            // Data that the caller did not ask for.
            (
                [part(b'0', "file", &junk), end.clone()].concat(),
                junk.len(),
            ),
            // Of these blocks, the data's is one that was not asked for, too.
            ([padded, end.clone()].concat(), BLOCK),
            ([end.clone(), zeros.clone()].concat(), 0),
            ([part(b'V', "label", &zeros), end.clone()].concat(), 0),
        ] {
            let counted = counted as u64;
            assert_eq!(passed_on(&tar, counted).unwrap(), tar.len());
            if counted > 0 {
                let refused = passed_on(&tar, counted - 1).unwrap_err();
                assert!(
                    refused.to_string().contains("outside of files and headers"),
                    "{refused}"
                );
            }
        }
    }

    #[test]
    fn what_is_passed_over_is_not_read() {
        let tar = [
            part(b'0', "first", &[1; 700]),
            part(b'x', "x", &record("size", b"600")),
            part(b'0', "second", &[2; 600]),
            vec![0; 2 * BLOCK],
        ]
        .concat();
        let limits = TarLimits {
            entries: 10,
            metadata: 1 << 20,
            rest: 0,
        };
        let mut reader = Reader::new(std::io::Cursor::new(&tar), limits);
        let mut places = Vec::new();
        while let Some(entry) = reader.next_entry(&mut Vec::new()).unwrap() {
            places.push((reader.position().unwrap(), entry.data));
            reader.pass_over().unwrap();
        }
        assert_eq!(places, [(512, 700), (512 + 1024 + 1536, 600)]);
    }
}
