//! Our registry beside Debian's docker-registry: `registry-…`.

pub mod load;

use crate::measure::{Alternate, Bar, Row, Unit};
use ::tests::own_registry::{self, OwnRegistry};
use ::tests::registry::Registry as Debian;
use anyhow::{Context, Result};
use load::{Blob, Connection, Server, Took};
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tempfile::TempDir;

const NAME: &str = "default-project/bench";
const MIB: usize = 1 << 20;

/// Both registries, empty at first.
#[derive(Debug)]
pub struct Pair {
    ours: OwnRegistry,
    debian: Debian,
    _folder: TempDir,
    next: AtomicU64,
}

impl Pair {
    /// Starts both, each on a folder below the temporary one.
    pub fn start() -> Result<Self> {
        let folder = TempDir::new()?;
        Ok(Pair {
            ours: OwnRegistry::start(&folder)?,
            debian: Debian::start()?,
            _folder: folder,
            next: AtomicU64::new(0),
        })
    }

    /// Ours and the reference, to be pushed to; with authentication here, without there.
    fn servers(&self) -> [Server; 2] {
        use base64::Engine as _;
        let basic = base64::engine::general_purpose::STANDARD
            .encode(format!("admin:{}", self.ours.password));
        [
            Server {
                address: self.ours.address.clone(),
                authorization: format!("authorization: Basic {basic}\r\n"),
            },
            Server {
                address: self.debian.address.clone(),
                authorization: String::new(),
            },
        ]
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Pushes one blob of this size to both; its path.
    fn blob(&self, size: usize) -> Result<String> {
        let tail = bytes(size);
        let blob = Blob::new(self.number(), &tail);
        for server in &self.servers() {
            Connection::open(server)?.push(NAME, &blob)?;
        }
        Ok(format!("/v2/{NAME}/blobs/{}", blob.digest))
    }
}

fn bytes(size: usize) -> Vec<u8> {
    // Nothing on the way compresses; zeros would do, but a file system may make holes of them.
    (0..size.saturating_sub(8))
        .map(|n| (n % 251) as u8)
        .collect()
}

/// How many requests a measurement has: enough for a p99 where that is affordable.
fn count(size: usize, clients: usize, pull: bool) -> usize {
    let bytes = if pull { 2 << 30 } else { 512 << 20 };
    (bytes / size).clamp(clients, 4096).max(clients)
}

/// `registry-{pull,push}-SIZE-CLIENTS`: throughput, p50 and p99.
pub fn transfer(
    pair: &Pair,
    order: &Alternate,
    pull: bool,
    size: usize,
    clients: usize,
) -> Result<Vec<Row>> {
    let count = count(size, clients, pull);
    let path = if pull {
        pair.blob(size)?
    } else {
        String::new()
    };
    let tail = bytes(size);
    let [ours, debian] = pair.servers();
    let measure = |server: &Server| -> Result<Took> {
        if pull {
            let server = Server {
                authorization: String::new(),
                ..server.clone()
            };
            return load::run(&server, clients, count, |c, _| {
                c.exchange("GET", &path, "", &[], "200").map(|_| ())
            });
        }
        // Hashed before the clock runs.
        let blobs: Vec<Blob> = (0..count)
            .map(|_| Blob::new(pair.number(), &tail))
            .collect();
        load::run(server, clients, count, |c, n| c.push(NAME, &blobs[n]))
    };
    let row = |name: &str, unit, bar| Row {
        name: format!("{}{name}", order.name),
        unit,
        ours: Vec::new(),
        reference: Vec::new(),
        bar,
    };
    let mut rows = [
        row("", Unit::Rate, order.bar),
        row("-p50", Unit::Seconds, Bar::None),
        row("-p99", Unit::Seconds, Bar::None),
    ];
    let warm = usize::from(order.warm);
    for n in 0..order.runs + warm {
        let (o, r) = (measure(&ours)?, measure(&debian)?);
        eprintln!(
            "bench: {} {n}: ours {:.1}/s, reference {:.1}/s, ratio {:.2}",
            order.name,
            o.per_second,
            r.per_second,
            o.per_second / r.per_second
        );
        if n < warm {
            continue;
        }
        #[allow(clippy::cast_precision_loss, reason = "sizes are far below 2^53")]
        let scale = size as f64;
        let figures = |t: Took| [t.per_second * scale, t.p50, t.p99];
        for (row, (o, r)) in rows.iter_mut().zip(figures(o).into_iter().zip(figures(r))) {
            row.ours.push(o);
            row.reference.push(r);
        }
    }
    Ok(rows.into())
}

/// `registry-resident`: VmRSS while 1,000 clients pull 100 MB and take nothing of it.
pub fn resident(order: &Alternate) -> Result<Vec<Row>> {
    const PULLS: usize = 1000;
    raise_open_files()?;
    // Fresh ones: what an earlier load left in memory is not what is asked.
    let pair = Pair::start()?;
    let path = pair.blob(100 * MIB)?;
    let mut figures = Vec::new();
    for (server, pid) in pair
        .servers()
        .iter()
        .zip([pair.ours.pid(), pair.debian.pid()])
    {
        let mut open = Vec::new();
        for _ in 0..PULLS {
            let mut connection = Connection::open(server)?;
            connection.send("GET", &path, "", &[])?;
            open.push(connection);
        }
        for connection in &mut open {
            connection.head("200")?;
        }
        figures.push(resident_bytes(pid)?);
    }
    Ok(vec![Row {
        name: order.name.to_owned(),
        unit: Unit::Bytes,
        ours: vec![figures[0]],
        reference: vec![figures[1]],
        bar: order.bar,
    }])
}

fn raise_open_files() -> Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(())
}

fn resident_bytes(pid: u32) -> Result<f64> {
    let mut status = String::new();
    std::fs::File::open(format!("/proc/{pid}/status"))?.read_to_string(&mut status)?;
    let kilobytes = status
        .lines()
        .find_map(|l| l.strip_prefix("VmRSS:"))
        .and_then(|l| l.trim().strip_suffix(" kB"))
        .context("VmRSS")?;
    Ok(kilobytes.trim().parse::<f64>()? * 1024.0)
}

/// `registry-tag-page`: 100 tags out of 100,000, from the middle; and the same against 5 ms.
pub fn tag_page(order: &Alternate) -> Result<Vec<Row>> {
    const TAGS: usize = 100_000;
    const BAR: f64 = 0.005;
    let pair = Pair::start()?;
    let [ours, debian] = pair.servers();
    let config = Blob::new(pair.number(), b"");
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":8}},"layers":[]}}"#,
        config.digest
    );
    let kind = "content-type: application/vnd.oci.image.manifest.v1+json\r\n";
    let put = |c: &mut Connection, n: usize| {
        let path = format!("/v2/{NAME}/manifests/t{n:06}");
        c.exchange("PUT", &path, kind, &[manifest.as_bytes()], "201")
            .map(|_| ())
    };
    for server in [&ours, &debian] {
        Connection::open(server)?.push(NAME, &config)?;
    }
    eprintln!("bench: {TAGS} tags in each");
    load::run(&ours, 256, TAGS, put)?;
    // Debian's has one for a start, and the others are files as it writes them: over HTTP it would take an hour.
    put(&mut Connection::open(&debian)?, 0)?;
    let tags = pair.debian.storage.path().join(format!(
        "data/docker/registry/v2/repositories/{NAME}/_manifests/tags"
    ));
    let link = std::fs::read(tags.join("t000000/current/link")).context("docker-registry's tag")?;
    for n in 1..TAGS {
        let current = tags.join(format!("t{n:06}/current"));
        std::fs::create_dir_all(&current)?;
        std::fs::write(current.join("link"), &link)?;
    }
    let page = |server: &Server, count| {
        let path = format!("/v2/{NAME}/tags/list?n=100&last=t050000");
        let server = Server {
            authorization: String::new(),
            ..server.clone()
        };
        load::run(&server, 1, count, |c, _| {
            c.exchange("GET", &path, "", &[], "200").map(|_| ())
        })
        .map(|took| took.p50)
    };
    let row = order.run(|| page(&ours, 200), || page(&debian, 1))?;
    let bar = Row {
        name: format!("{}-5ms", order.name),
        reference: row.ours.iter().map(|_| BAR).collect(),
        ours: row.ours.clone(),
        unit: row.unit,
        bar: Bar::AtMost(1.0),
    };
    Ok(vec![row, bar])
}

/// `registry-start`: from exec to the first answer, with 1,000,000 blobs; against a second.
pub fn start(order: &Alternate) -> Result<Vec<Row>> {
    let folder = TempDir::new()?;
    let password = own_registry::init(folder.path())?;
    fill(folder.path())?;
    let mut row = Row {
        name: order.name.to_owned(),
        unit: Unit::Seconds,
        ours: Vec::new(),
        reference: Vec::new(),
        bar: order.bar,
    };
    for _ in 0..order.runs {
        let begin = Instant::now();
        let server = OwnRegistry::serve(folder.path(), password.clone())?;
        let server = Server {
            address: server.address.clone(),
            authorization: String::new(),
        };
        Connection::open(&server)?.exchange("GET", "/readyz", "", &[], "200")?;
        row.ours.push(begin.elapsed().as_secs_f64());
        row.reference.push(1.0);
    }
    Ok(vec![row])
}

/// A million blobs in the metadata (their files are not looked at by a start, so they are not made).
fn fill(folder: &std::path::Path) -> Result<()> {
    use registry::digest::{Algorithm, Digest};
    use registry::metadata::{Error, Metadata};
    let metadata = Metadata::open(&folder.join("metadata.sqlite"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    for thousand in 0..1000u32 {
        let more = metadata.write(move |db| {
            let name = format!("default-project/many{}", thousand % 10);
            let name = name
                .parse()
                .map_err(|_| Error::Damaged("a repository's name"))?;
            let repository = db.ensure_repository(&name)?.ok_or(Error::Closed)?;
            for n in 0..1000u32 {
                let n = thousand * 1000 + n;
                let digest = Digest::of(Algorithm::Sha256, &n.to_le_bytes());
                db.add_blob(repository.id, &digest, 4, &format!("{n:032x}"))?;
            }
            Ok::<_, Error>(())
        });
        runtime.block_on(more)?;
    }
    Ok(())
}
