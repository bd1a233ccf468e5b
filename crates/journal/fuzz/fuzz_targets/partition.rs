//! A valid journal with arbitrary patches: reading must end, and never panic.
#![no_main]
use journal::{Found, Query, ReadAt, Reader, Stream, WriteAt, Writer};
use libfuzzer_sys::fuzz_target;
use std::io;
use std::sync::Mutex;

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

fuzz_target!(|data: &[u8]| {
    let disk = Memory(Mutex::new(vec![0; 1 << 20]));
    let mut writer = Writer::open(&disk).expect("a new journal");
    for at in 0..20 {
        writer
            .output(Stream::Stdout, at, &[b'\n'; 40_000])
            .expect("memory");
    }
    writer.sync().expect("memory");
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
    let _ = Writer::open(&disk);
});
