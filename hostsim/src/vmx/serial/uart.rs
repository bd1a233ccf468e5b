//! The way between QEMU's UART and the shim: two FIFOs in the run folder.
//!
//! QEMU writes a UART's bytes one by one. On a unix socket each of them is a buffer of its own,
//! and some 270 of them are all that one holds; a FIFO packs them, which makes the port several
//! times as fast. And while nobody waits at the FIFO, a write wakes nobody: so a thread of its own
//! reads it, and pauses for a moment after each read.

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use std::fs::File;
use std::io::{self, Read};
use std::time::Duration;
use tokio::net::unix::pipe::{OpenOptions, Sender};
use tokio::sync::mpsc;

/// Bytes read at once.
const READ: usize = 4096;
/// Pieces that wait to be taken; with it the reading, and so the guest's UART, comes to a halt.
const WAITING: usize = 4;
/// The pause between reads, in which bytes gather; a real UART at 115,200 baud sends 6 in it.
const GATHER: Duration = Duration::from_micros(500);

/// The shim's ends of a port's FIFOs.
#[derive(Debug)]
pub(in crate::vmx) struct Uart {
    /// From the guest, in pieces; closed once QEMU has closed its end.
    pub(super) reader: mpsc::Receiver<Vec<u8>>,
    /// To the guest.
    pub(super) writer: Sender,
}

/// Keeps the FIFO from the guest open for as long as QEMU has not opened it: without any writer
/// it would be at its end.
#[derive(Debug)]
pub(in crate::vmx) struct Guard {
    _writer: File,
}

impl Uart {
    /// Make the FIFOs of a port, `<base>.in` and `<base>.out`, in the current folder.
    pub(in crate::vmx) fn create(base: &str) -> io::Result<(Uart, Guard)> {
        let (input, output) = (format!("{base}.in"), format!("{base}.out"));
        for path in [&input, &output] {
            match std::fs::remove_file(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => mkfifo(path.as_str(), Mode::S_IRUSR | Mode::S_IWUSR)?,
            }
        }
        // For both: a FIFO that has only one side so far blocks whoever opens it.
        let writer = File::options().read(true).write(true).open(&output)?;
        let guard = Guard { _writer: writer };
        let fifo = File::open(&output)?;
        let (sender, reader) = mpsc::channel(WAITING);
        std::thread::Builder::new()
            .name(base.to_owned())
            .spawn(move || read(fifo, &sender))?;
        let writer = OpenOptions::new().read_write(true).open_sender(&input)?;
        Ok((Uart { reader, writer }, guard))
    }
}

fn read(mut fifo: File, to: &mpsc::Sender<Vec<u8>>) {
    let mut buffer = [0; READ];
    loop {
        match fifo.read(&mut buffer) {
            Ok(0) => return,
            Ok(n) => {
                if to
                    .blocking_send(buffer.get(..n).unwrap_or_default().to_vec())
                    .is_err()
                {
                    return;
                }
                if n < READ {
                    std::thread::sleep(GATHER);
                }
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
