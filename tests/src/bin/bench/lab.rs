//! What benchmarks share, each made when first wanted.

use crate::floors::Floors;
use crate::http::Client;
use crate::registry::Pair;
use crate::share;
use anyhow::{Context, Result};
use std::path::PathBuf;
use tests::docker::Docker;
use tests::dockerd::Dockerd;
use tests::places;
use tests::registry::Registry;
use tests::vch::{Settings, Vch};

/// The busybox test image.
pub const BUSYBOX: &str = "mooring-test/busybox";

/// Which kernel a host's VMs boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// The distribution's package.
    Packaged,
    /// The trimmed one.
    Fast,
    /// The trimmed one where it is built, else the package.
    Best,
}

/// How a host is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setup {
    /// `vsock` or `serial`.
    pub link: &'static str,
    /// Its VMs' kernel.
    pub kernel: Kernel,
    /// Boot from the ISO, not directly.
    pub iso: bool,
}

impl Setup {
    /// A direct boot of the best kernel that there is.
    pub fn link(link: &'static str) -> Self {
        Setup {
            link,
            kernel: Kernel::Best,
            iso: false,
        }
    }

    fn boot(self) -> PathBuf {
        match self.kernel {
            Kernel::Packaged => places::boot_packaged(),
            Kernel::Fast => places::boot_fast(),
            Kernel::Best => places::boot(),
        }
    }
}

/// What benchmarks share.
#[derive(Debug, Default)]
pub struct Lab {
    floors: Option<Floors>,
    host: Option<(Setup, Vch)>,
    /// A host that shares a folder, which a container has.
    shared: Option<(Vch, tempfile::TempDir)>,
    dockerd: Option<Dockerd>,
    registry: Option<Registry>,
    registries: Option<Pair>,
}

impl Lab {
    /// The floors.
    ///
    /// # Errors
    /// When no VM runs here.
    pub fn floors(&mut self) -> Result<&mut Floors> {
        if self.floors.is_none() {
            self.floors = Some(Floors::new()?);
        }
        self.floors.as_mut().context("made above")
    }

    /// A host with this setup and the busybox image; one that has another is ended before.
    ///
    /// # Errors
    /// When it does not start.
    pub fn host(&mut self, setup: Setup) -> Result<&Vch> {
        if self.host.as_ref().is_none_or(|(is, _)| *is != setup) {
            self.host = None;
            self.shared = None;
            eprintln!(
                "bench: starting a virtual container host (link {}, {:?} kernel, {})",
                setup.link,
                setup.kernel,
                if setup.iso {
                    "from the ISO"
                } else {
                    "direct boot"
                }
            );
            let mut settings = Settings::link(setup.link);
            settings.boot = setup.boot();
            if setup.iso {
                settings.more = vec!["--boot-from".into(), "iso".into()];
            }
            let vch = Vch::start(settings)?;
            load(&vch.docker)?;
            self.host = Some((setup, vch));
        }
        Ok(&self.host.as_ref().context("made above")?.1)
    }

    /// A client of a host with a container that runs and has a folder of the machine.
    ///
    /// # Errors
    /// When it does not start.
    pub fn shared(&mut self) -> Result<Docker> {
        if self.shared.is_none() {
            self.host = None;
            eprintln!("bench: starting a virtual container host that shares a folder");
            let folder = tempfile::Builder::new().prefix("bench-share-").tempdir()?;
            let mut settings = Settings::link("vsock");
            let path = folder.path().display().to_string();
            settings.more = vec!["--share".into(), path.clone()];
            let vch = Vch::start(settings)?;
            load(&vch.docker)?;
            let mount = format!("{path}:{}", share::SHARED);
            let run = ["run", "-d", "--name", share::CONTAINER, "-v", &mount];
            let args = [&run[..], &[BUSYBOX, "sleep", "1000000"]].concat();
            vch.docker.ok(&args)?;
            self.shared = Some((vch, folder));
        }
        Ok(self.shared.as_ref().context("made above")?.0.docker.clone())
    }

    /// A raw client of the host with this setup.
    ///
    /// # Errors
    /// As [`Lab::host`].
    pub fn client(&mut self, setup: Setup) -> Result<Client> {
        let docker = &self.host(setup)?.docker;
        Ok(Client::new(docker.socket().context("a unix socket")?))
    }

    /// The peer, with the busybox image.
    ///
    /// # Errors
    /// When it does not start.
    pub fn dockerd(&mut self) -> Result<Docker> {
        if self.dockerd.is_none() {
            let dockerd = Dockerd::start()?;
            load(&dockerd.docker)?;
            self.dockerd = Some(dockerd);
        }
        Ok(self.dockerd.as_ref().context("made above")?.docker.clone())
    }

    /// The peer's network namespace.
    ///
    /// # Errors
    /// When it does not start.
    pub fn dockerd_namespace(&mut self) -> Result<String> {
        self.dockerd()?;
        let dockerd = self.dockerd.as_ref().context("made above")?;
        Ok(dockerd.namespace().to_owned())
    }

    /// Our registry and its peer.
    ///
    /// # Errors
    /// When one does not start.
    pub fn registries(&mut self) -> Result<&Pair> {
        if self.registries.is_none() {
            self.registries = Some(Pair::start()?);
        }
        self.registries.as_ref().context("made above")
    }

    /// A test image's reference in a registry that both sides reach under the same name.
    ///
    /// # Errors
    /// When it cannot be served.
    pub fn pushed(&mut self, image: &str) -> Result<String> {
        self.dockerd()?;
        if self.registry.is_none() {
            self.registry = Some(Registry::start()?);
        }
        let registry = self.registry.as_ref().context("made above")?;
        eprintln!("bench: pushing the image {image} to the registry");
        let reference = registry.push(image)?;
        self.dockerd
            .as_mut()
            .context("made above")?
            .serve(registry)?;
        Ok(reference)
    }
}

fn load(docker: &Docker) -> Result<()> {
    let archive = places::archive("busybox");
    let path = archive.to_str().context("the archive's path")?;
    docker.ok(&["load", "-q", "-i", path]).map(drop)
}
