//! Writes a folder's tree as an ext4 image, and compares the time with `mkfs.ext4 -d` and `cp -a`.
//!
//! `cargo run --release -p layers --example ext4_speed [FOLDER]` (default /usr/lib, and 100,000 files of 2 kB)

use anyhow::{Context as _, Result, ensure};
use layers::ext4::{Builder, Metadata, Options, Time};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

fn main() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let folder = std::env::args_os()
        .nth(1)
        .map_or("/usr/lib".into(), PathBuf::from);
    measure(&folder, scratch.path())?;
    let small = scratch.path().join("small");
    for folder in 0..100 {
        let folder = small.join(folder.to_string());
        std::fs::create_dir_all(&folder)?;
        for file in 0..1000 {
            std::fs::write(folder.join(file.to_string()), [7; 2000])?;
        }
    }
    measure(&small, scratch.path())
}

fn measure(folder: &Path, scratch: &Path) -> Result<()> {
    let image = scratch.join("image");
    let mut files: u64;
    // Once for the page cache, once for the clock.
    for _ in 0..2 {
        files = 0;
        let start = Instant::now();
        let mut builder = Builder::new(File::create(&image)?, Options::new([1; 16]));
        let mut buffer = vec![0; 1 << 20];
        add(&mut builder, folder, folder, &mut buffer, &mut files)?;
        let summary = builder.finish()?;
        let took = start.elapsed().as_secs_f64();
        println!(
            "{}: {files} files, {} MB of data, image {} MB: {took:.2} s, {:.0} MB/s, peak resident {} MB",
            folder.display(),
            summary.data >> 20,
            summary.bytes >> 20,
            summary.data as f64 / took / 1e6,
            peak()?,
        );
    }
    let ours = {
        files = 0;
        let start = Instant::now();
        let mut builder = Builder::new(File::create(&image)?, Options::new([1; 16]));
        add(
            &mut builder,
            folder,
            folder,
            &mut vec![0; 1 << 20],
            &mut files,
        )?;
        builder.finish()?;
        start.elapsed().as_secs_f64()
    };
    let other = scratch.join("other");
    File::create(&other)?.set_len(std::fs::metadata(&image)?.len() * 5 / 4 + (64 << 20))?;
    let inodes = (files + 1000).to_string();
    for (name, command, arguments) in [
        (
            "mkfs.ext4 -d",
            "mkfs.ext4",
            vec![
                "-q".as_ref(),
                "-F".as_ref(),
                "-N".as_ref(),
                inodes.as_ref(),
                "-d".as_ref(),
                folder.as_os_str(),
                other.as_os_str(),
            ],
        ),
        (
            "cp -a",
            "cp",
            vec![
                "-a".as_ref(),
                folder.as_os_str(),
                scratch.join("copy").as_os_str(),
            ],
        ),
    ] {
        let arguments: Vec<std::ffi::OsString> = arguments.into_iter().map(Into::into).collect();
        let start = Instant::now();
        let status = Command::new(command)
            .args(&arguments)
            .status()
            .context(command)?;
        ensure!(status.success(), "{name}: {status}");
        let took = start.elapsed().as_secs_f64();
        println!("  {name}: {took:.2} s; ours over it: {:.2}", ours / took);
    }
    std::fs::remove_dir_all(scratch.join("copy"))?;
    Ok(())
}

fn add(
    builder: &mut Builder<File>,
    root: &Path,
    at: &Path,
    buffer: &mut [u8],
    files: &mut u64,
) -> Result<()> {
    for entry in std::fs::read_dir(at)? {
        let path = entry?.path();
        let stat = path.symlink_metadata()?;
        let name = path.strip_prefix(root)?.as_os_str().as_bytes();
        let time = Time {
            secs: stat.mtime(),
            nanos: stat.mtime_nsec() as u32,
        };
        let meta = Metadata {
            uid: stat.uid(),
            gid: stat.gid(),
            ..Metadata::new((stat.mode() & 0o7777) as u16, time)
        };
        *files += 1;
        if stat.is_dir() {
            builder.directory(name, &meta)?;
            add(builder, root, &path, buffer, files)?;
        } else if stat.is_symlink() {
            builder.symlink(
                name,
                std::fs::read_link(&path)?.as_os_str().as_bytes(),
                &meta,
            )?;
        } else if stat.is_file() {
            let mut writer = builder.file(name, &meta)?;
            let mut file = File::open(&path)?;
            loop {
                match file.read(buffer)? {
                    0 => break,
                    n => writer.write(&buffer[..n])?,
                }
            }
            writer.finish()?;
        }
    }
    Ok(())
}

/// The most memory that this process has had, in MB.
fn peak() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|l| l.strip_prefix("VmHWM:"))
        .context("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? >> 10)
}
