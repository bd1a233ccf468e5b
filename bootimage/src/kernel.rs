//! Builds the trimmed kernel from the distribution's source package.
//!
//! The cache folder holds, for each pair of source and configuration, named by a key out of both
//! their SHA-256 and this recipe's number:
//! - `KEY/`: the finished kernel (bzImage, vmlinux, config, modules.builtin, release), renamed into
//!   place when it is whole;
//! - `src-…/`, `obj-…/`: unpacked source and objects while a build is under way. An interrupted
//!   build goes on from there; a finished one removes them (2 GB).
//!
//! One build at a time: a second one waits for the lock on the cache folder.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use sha2::{Digest, Sha256};

use crate::{Error, Result, vmlinux};

/// The configuration that comes with this program.
pub const DEFAULT_CONFIG: &str = include_str!("../kernel/tether.config");

/// Goes into the cache's key; to be counted up when the way of building changes.
const RECIPE: u32 = 1;

/// Steps that make reports for the default configuration, to show progress by.
const EXPECTED_STEPS: u64 = 2_450;

/// Last lines of the build's output that an error shows.
const LAST_LINES: usize = 15;

/// What to build, from what, and where.
#[derive(Debug, Clone)]
pub struct Options {
    /// Source package's tarball; `None` looks for the newest /usr/src/linux-source-*.tar.xz.
    pub source: Option<PathBuf>,
    /// Text of the configuration fragment.
    pub config: String,
    /// The cache folder.
    pub cache: PathBuf,
    /// Folder for the finished kernel; replaced as a whole.
    pub out: PathBuf,
    /// Processes that compile at the same time.
    pub jobs: usize,
}

/// How far a build is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// A step begins.
    Step(String),
    /// Bytes of the tarball that are unpacked, and all of them.
    Unpacked(u64, u64),
    /// Steps of the compilation that are done, and about how many there are.
    Compiled(u64, u64),
}

/// Builds the kernel, or takes it from the cache, and puts it into `out`; says whether it was
/// built now.
///
/// # Errors
/// No source package, a missing compiler, an option of the configuration that the kernel does not
/// take, a failed compilation.
pub fn build(options: &Options, progress: &mut dyn FnMut(Progress)) -> Result<bool> {
    let source = match &options.source {
        Some(path) => path.clone(),
        None => find_source(Path::new("/usr/src"))?,
    };
    fs::create_dir_all(&options.cache).map_err(Error::io("create", &options.cache))?;
    let cache = fs::canonicalize(&options.cache).map_err(Error::io("resolve", &options.cache))?;
    let lock_path = cache.join("lock");
    let lock = File::create(&lock_path).map_err(Error::io("create", &lock_path))?;
    if lock.try_lock().is_err() {
        progress(Progress::Step(
            "waiting for another kernel build to end".into(),
        ));
        lock.lock().map_err(Error::io("lock", &lock_path))?;
    }
    let source_hash = hash_file(&source)?;
    let key = key(&source_hash, &options.config);
    let done = cache.join(&key);
    let fresh = !done.join("release").exists();
    if fresh {
        let job = Job {
            cache: &cache,
            source: &source,
            source_hash: &source_hash,
            key: &key,
            options,
        };
        job.run(&done, progress)?;
    }
    publish(&done, &options.out, &key)?;
    Ok(fresh)
}

/// The cache's key for a source and a configuration.
fn key(source_hash: &str, config: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("{RECIPE}\n{source_hash}\n"));
    // Comments and order make no other kernel.
    let mut lines: Vec<&str> = wanted_options(config).collect();
    lines.sort_unstable();
    for line in lines {
        hash.update(line);
        hash.update("\n");
    }
    hex::encode(&hash.finalize()[..8])
}

fn wanted_options(config: &str) -> impl Iterator<Item = &str> {
    config
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("CONFIG_"))
}

/// The newest `linux-source-*.tar.xz` of a folder.
fn find_source(folder: &Path) -> Result<PathBuf> {
    let names = fs::read_dir(folder).map_err(Error::io("list", folder))?;
    names
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            name.starts_with("linux-source-") && name.ends_with(".tar.xz")
        })
        .max_by_key(|path| numbers(path))
        .ok_or_else(|| Error::Incomplete {
            path: folder.to_path_buf(),
            missing: "linux-source-*.tar.xz".into(),
            hint: "install Debian's package linux-source-6.1, or name a tarball with --source"
                .into(),
        })
}

/// The numbers in a file's name: 6.12 is newer than 6.9.
fn numbers(path: &Path) -> Vec<u64> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

fn hash_file(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let len = file.read(&mut buffer).map_err(Error::io("read", path))?;
        if len == 0 {
            return Ok(hex::encode(hash.finalize()));
        }
        hash.update(&buffer[..len]);
    }
}

struct Job<'a> {
    cache: &'a Path,
    source: &'a Path,
    source_hash: &'a str,
    key: &'a str,
    options: &'a Options,
}

impl Job<'_> {
    fn run(&self, done: &Path, progress: &mut dyn FnMut(Progress)) -> Result<()> {
        let tree = self.unpack(progress)?;
        let objects = self.cache.join(format!("obj-{}", self.key));
        fs::create_dir_all(&objects).map_err(Error::io("create", &objects))?;

        progress(Progress::Step("configuring the kernel".into()));
        let fragment = objects.join("fragment.config");
        write_if_changed(&fragment, &self.options.config)?;
        let mut configure = self.make(&tree, &objects);
        configure
            .env("KCONFIG_ALLCONFIG", &fragment)
            .arg("allnoconfig");
        self.run_make(configure, &mut |_| {})?;
        let config_path = objects.join(".config");
        let config = fs::read_to_string(&config_path).map_err(Error::io("read", &config_path))?;
        check_taken(&self.options.config, &config)?;

        progress(Progress::Step("compiling the kernel".into()));
        let mut compile = self.make(&tree, &objects);
        compile
            .arg(format!("-j{}", self.options.jobs))
            .arg("bzImage");
        let mut steps = 0;
        self.run_make(compile, &mut |line| {
            if is_step(line) {
                steps += 1;
                progress(Progress::Compiled(steps, EXPECTED_STEPS.max(steps + 1)));
            }
        })?;

        progress(Progress::Step("collecting the kernel".into()));
        self.collect(&objects, done)?;
        for folder in [objects, tree] {
            fs::remove_dir_all(&folder).map_err(Error::io("remove", &folder))?;
        }
        Ok(())
    }

    /// Unpacks the source, through a name that is only given up when all of it is there.
    fn unpack(&self, progress: &mut dyn FnMut(Progress)) -> Result<PathBuf> {
        let tree = self.cache.join(format!("src-{}", &self.source_hash[..16]));
        if tree.exists() {
            return Ok(tree);
        }
        progress(Progress::Step(format!(
            "unpacking {}",
            self.source.display()
        )));
        let partial = tree.with_extension("partial");
        if partial.exists() {
            fs::remove_dir_all(&partial).map_err(Error::io("remove", &partial))?;
        }
        fs::create_dir_all(&partial).map_err(Error::io("create", &partial))?;
        let mut file = File::open(self.source).map_err(Error::io("open", self.source))?;
        let size = file
            .metadata()
            .map_err(Error::io("look at", self.source))?
            .len();
        let mut tar = spawn(
            Command::new("tar")
                .args(["-xJ", "--strip-components=1", "-C"])
                .arg(&partial)
                .stdin(Stdio::piped()),
        )?;
        let written = feed(&mut tar, &mut file, |done| {
            progress(Progress::Unpacked(done, size))
        });
        let status = tar.wait().map_err(Error::io("wait for", "tar"))?;
        if !status.success() || written.is_err() {
            return Err(Error::Program {
                program: "tar".into(),
                why: format!("{status} on {}", self.source.display()),
                hint: "is the tarball whole, is there room for 2 GB, is xz-utils installed?".into(),
            });
        }
        fs::rename(&partial, &tree).map_err(Error::io("rename", &partial))?;
        Ok(tree)
    }

    fn make(&self, tree: &Path, objects: &Path) -> Command {
        let mut make = Command::new("make");
        make.arg("-C")
            .arg(tree)
            .arg(format!("O={}", objects.display()));
        // What the kernel would say of when, where and by whom it was built.
        make.env("KBUILD_BUILD_TIMESTAMP", "1980-01-01 00:00:00 UTC")
            .env("KBUILD_BUILD_USER", "mooring")
            .env("KBUILD_BUILD_HOST", "mooring")
            .env("KBUILD_BUILD_VERSION", "1")
            // A jobserver of a make around this program is not ours to use.
            .env_remove("MAKEFLAGS")
            .env_remove("MFLAGS")
            .env_remove("MAKELEVEL");
        make
    }

    /// Runs make, keeping all that it says in `build.log`.
    fn run_make(&self, mut make: Command, line: &mut dyn FnMut(&str)) -> Result<()> {
        let log_path = self.cache.join("build.log");
        let mut log = File::create(&log_path).map_err(Error::io("create", &log_path))?;
        let errors = log.try_clone().map_err(Error::io("create", &log_path))?;
        let mut child = spawn(
            make.stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(errors),
        )?;
        if let Some(output) = child.stdout.take() {
            for text in BufReader::new(output).split(b'\n') {
                let text = text.map_err(Error::io("read the output of", "make"))?;
                log.write_all(&text)
                    .and_then(|()| log.write_all(b"\n"))
                    .map_err(Error::io("write", &log_path))?;
                line(&String::from_utf8_lossy(&text));
            }
        }
        let status = child.wait().map_err(Error::io("wait for", "make"))?;
        if status.success() {
            return Ok(());
        }
        Err(Error::Program {
            program: "make".into(),
            why: format!("{status}; its last words:\n{}", last_lines(&log_path)),
            hint: format!(
                "all of it is in {}; a kernel build needs Debian's packages build-essential, flex, \
                 bison, bc, libelf-dev, libssl-dev, lz4 and kmod",
                log_path.display()
            ),
        })
    }

    fn collect(&self, objects: &Path, done: &Path) -> Result<()> {
        let partial = done.with_extension("partial");
        if partial.exists() {
            fs::remove_dir_all(&partial).map_err(Error::io("remove", &partial))?;
        }
        fs::create_dir_all(&partial).map_err(Error::io("create", &partial))?;
        let image_path = objects.join("arch/x86/boot/bzImage");
        let image = fs::read(&image_path).map_err(Error::io("read", &image_path))?;
        let release = vmlinux::release(&image)
            .ok_or_else(|| Error::format("bzImage", "has no release in its header"))?;
        let elf = vmlinux::extract(&image, "bzImage")?;
        if !vmlinux::has_pvh_entry(&elf) {
            return Err(Error::format(
                "the kernel",
                "has no PVH entry; set CONFIG_PVH=y",
            ));
        }
        let read = |name: &str| {
            let path = objects.join(name);
            fs::read(&path).map_err(Error::io("read", path))
        };
        let files = [
            ("bzImage", image),
            ("vmlinux", elf),
            ("config", read(".config")?),
            ("modules.builtin", read("modules.builtin")?),
            ("key", format!("{}\n", self.key).into_bytes()),
            // The last one: what has it is whole.
            ("release", format!("{release}\n").into_bytes()),
        ];
        for (name, content) in files {
            write_synced(&partial.join(name), &content)?;
        }
        fs::rename(&partial, done).map_err(Error::io("rename", &partial))?;
        sync_folder(self.cache)
    }
}

/// Whether a line of make's output reports a step (`  CC      init/main.o`).
fn is_step(line: &str) -> bool {
    line.strip_prefix("  ")
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()))
}

/// Refuses a configuration of which the kernel did not take all: it would lack what was asked for.
fn check_taken(fragment: &str, config: &str) -> Result<()> {
    let set: std::collections::HashSet<&str> = config.lines().collect();
    let lost: Vec<&str> = wanted_options(fragment)
        .filter(|line| match line.strip_suffix("=n") {
            Some(name) => set.iter().any(|have| {
                have.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with('='))
            }),
            None => !set.contains(line),
        })
        .collect();
    if lost.is_empty() {
        return Ok(());
    }
    Err(Error::format(
        "the kernel's configuration",
        format!(
            "these options did not take effect: {}; something that they depend on is not set, or \
             the source is of another version",
            lost.join(", ")
        ),
    ))
}

/// Copies the finished kernel to where it is wanted, unless it is there.
fn publish(done: &Path, out: &Path, key: &str) -> Result<()> {
    if fs::read_to_string(out.join("key")).is_ok_and(|have| have.trim() == key) {
        return Ok(());
    }
    let parent = match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
    let fresh = tempfile::Builder::new()
        .prefix(".kernel-")
        .tempdir_in(parent)
        .map_err(Error::io("create a folder in", parent))?;
    let entries = fs::read_dir(done).map_err(Error::io("list", done))?;
    for entry in entries {
        let entry = entry.map_err(Error::io("list", done))?;
        let content = fs::read(entry.path()).map_err(Error::io("read", entry.path()))?;
        write_synced(&fresh.path().join(entry.file_name()), &content)?;
    }
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(fresh.path(), fs::Permissions::from_mode(0o755))
        .map_err(Error::io("set the mode of", fresh.path()))?;
    let mut old = None;
    if out.exists() {
        // Only what this program made is replaced.
        if !out.join("key").exists()
            && fs::read_dir(out)
                .map_err(Error::io("list", out))?
                .next()
                .is_some()
        {
            return Err(Error::format(
                out.display().to_string(),
                "is there and holds something else than a kernel made here; name another folder",
            ));
        }
        // Aside whole: a folder that lost some of its files would be taken for somebody else's.
        let aside = tempfile::Builder::new()
            .prefix(".kernel-")
            .tempdir_in(parent)
            .map_err(Error::io("create a folder in", parent))?;
        fs::rename(out, aside.path().join("old")).map_err(Error::io("rename", out))?;
        old = Some(aside);
    }
    fs::rename(fresh.keep(), out).map_err(Error::io("rename to", out))?;
    sync_folder(parent)?;
    drop(old);
    Ok(())
}

fn spawn(command: &mut Command) -> Result<Child> {
    let program = command.get_program().to_string_lossy().into_owned();
    command.spawn().map_err(|error| Error::Program {
        why: error.to_string(),
        hint: format!("install {program}"),
        program,
    })
}

/// Copies a file into a program, telling how much is done after each MiB.
fn feed(child: &mut Child, file: &mut File, mut done: impl FnMut(u64)) -> std::io::Result<()> {
    let Some(mut input) = child.stdin.take() else {
        return Ok(());
    };
    let mut total = 0;
    loop {
        let len = std::io::copy(&mut Read::by_ref(file).take(1 << 20), &mut input)?;
        if len == 0 {
            return Ok(());
        }
        total += len;
        done(total);
    }
}

/// Keeps the file's time where the text is the same, so that make does not begin anew.
fn write_if_changed(path: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|have| have == text) {
        return Ok(());
    }
    fs::write(path, text).map_err(Error::io("write", path))
}

fn write_synced(path: &Path, content: &[u8]) -> Result<()> {
    let mut file = File::create(path).map_err(Error::io("create", path))?;
    file.write_all(content)
        .and_then(|()| file.sync_all())
        .map_err(Error::io("write", path))
}

fn sync_folder(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(Error::io("sync", path))
}

fn last_lines(path: &Path) -> String {
    let Ok(file) = File::open(path) else {
        return String::new();
    };
    let mut last = VecDeque::new();
    for line in BufReader::new(file)
        .split(b'\n')
        .map_while(std::result::Result::ok)
    {
        last.push_back(String::from_utf8_lossy(&line).into_owned());
        if last.len() > LAST_LINES {
            last.pop_front();
        }
    }
    last.into_iter().collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_depends_on_source_and_options_but_not_on_comments() {
        let base = key("aa", "CONFIG_A=y\nCONFIG_B=n\n");
        assert_eq!(base, key("aa", "# words\nCONFIG_B=n\n\nCONFIG_A=y"));
        assert_ne!(base, key("ab", "CONFIG_A=y\nCONFIG_B=n\n"));
        assert_ne!(base, key("aa", "CONFIG_A=y\n"));
    }

    #[test]
    fn an_option_that_the_kernel_did_not_take_is_named() {
        let config = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=m\nCONFIG_D_E=y\n";
        check_taken("CONFIG_A=y\nCONFIG_B=n\nCONFIG_D=n\n", config).unwrap();
        let error = check_taken("CONFIG_B=y\nCONFIG_C=n\n", config)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("did not take effect: CONFIG_B=y, CONFIG_C=n;"),
            "{error}"
        );
    }

    #[test]
    fn a_folder_with_other_things_in_it_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (done, out) = (dir.path().join("done"), dir.path().join("out"));
        fs::create_dir(&done).unwrap();
        fs::write(done.join("key"), "k1\n").unwrap();
        publish(&done, &out, "k1").unwrap();
        assert_eq!(fs::read_to_string(out.join("key")).unwrap(), "k1\n");
        // An older kernel is replaced, somebody's files are not.
        fs::write(done.join("key"), "k2\n").unwrap();
        publish(&done, &out, "k2").unwrap();
        assert_eq!(fs::read_to_string(out.join("key")).unwrap(), "k2\n");
        let home = dir.path().join("home");
        fs::create_dir(&home).unwrap();
        fs::write(home.join("thesis.txt"), "years of work").unwrap();
        publish(&done, &home, "k2").unwrap_err();
        assert!(home.join("thesis.txt").exists());
    }

    #[test]
    fn a_missing_source_says_which_package_brings_it() {
        let dir = tempfile::tempdir().unwrap();
        let error = find_source(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains("install Debian's package linux-source-6.1"),
            "{error}"
        );
    }

    #[test]
    fn the_newest_source_is_taken_by_its_number() {
        let dir = tempfile::tempdir().unwrap();
        for version in ["6.1", "6.12", "6.9"] {
            let name = format!("linux-source-{version}.tar.xz");
            fs::write(dir.path().join(name), b"").unwrap();
        }
        let found = find_source(dir.path()).unwrap();
        assert!(
            found.ends_with("linux-source-6.12.tar.xz"),
            "{}",
            found.display()
        );
    }

    #[test]
    fn steps_are_told_from_other_lines() {
        assert!(is_step("  CC      init/main.o"));
        assert!(is_step("  LD      vmlinux.o"));
        assert!(!is_step("make[1]: Entering directory"));
    }

    #[test]
    fn the_default_configuration_names_no_option_twice() {
        let mut seen = std::collections::HashSet::new();
        for line in wanted_options(DEFAULT_CONFIG) {
            let name = line.split('=').next().unwrap();
            assert!(seen.insert(name), "{name} is there twice");
        }
    }
}
