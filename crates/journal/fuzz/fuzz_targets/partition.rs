//! A valid journal with arbitrary patches: reading must end, and never panic.
#![no_main]
use journal::{Found, Query, ReadAt, Reader, Stream, WriteAt, Writer};
use libfuzzer_sys::fuzz_target;
use std::io;
use std::sync::{LazyLock, Mutex};

struct Memory(Mutex<Vec<u8>>);

impl ReadAt for Memory {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let bytes = self.0.lock().map_err(|_| io::ErrorKind::Other)?;
        let found = bytes
            .get(offset as usize..)
            .and_then(|rest| rest.get(..buf.len()));
        buf.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
    fn size(&self) -> io::Result<u64> {
        Ok(1 << 20)
    }
}

impl WriteAt for Memory {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut bytes = self.0.lock().map_err(|_| io::ErrorKind::Other)?;
        bytes[offset as usize..offset as usize + data.len()].copy_from_slice(data);
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A journal of 20 records of so many bytes.
fn written(bytes: usize) -> Vec<u8> {
    let disk = Memory(Mutex::new(vec![0; 1 << 20]));
    let mut writer = Writer::open(&disk, 1).expect("a new journal");
    for at in 0..20 {
        writer
            .output(Stream::Stdout, at, &vec![b'\n'; bytes])
            .expect("memory");
    }
    writer.sync().expect("memory");
    drop(writer);
    disk.0.into_inner().expect("no panic so far")
}

/// One that has not come around its ring, and one that has.
static JOURNALS: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| [written(1_000), written(40_000)]);

fuzz_target!(|data: &[u8]| {
    let Some((which, data)) = data.split_first() else {
        return;
    };
    // Most of them the small one, which is read much quicker.
    let disk = Memory(Mutex::new(JOURNALS[usize::from(*which == 0)].clone()));
    for patch in data.chunks(12) {
        let Some((at, bytes)) = patch.split_first_chunk::<4>() else {
            continue;
        };
        let offset = u64::from(u32::from_le_bytes(*at)) % ((1 << 20) - 12);
        disk.write_at(offset, bytes).expect("memory");
    }
    let query = Query {
        stdout: true,
        stderr: true,
        since: 3,
        tail: Some(9),
        ..Query::default()
    };
    if let Ok(mut reader) = Reader::open(&disk) {
        let _ = reader.exit();
        if let Ok(mut cursor) = reader.query(&query) {
            while let Ok(Found::Output { .. } | Found::Lost(_)) = reader.next(&mut cursor) {}
        }
    }
    let _ = Writer::open(&disk, 1);
});
