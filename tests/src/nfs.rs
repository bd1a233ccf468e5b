//! An NFS server as a peer: NFS-Ganesha, versions 3 and 4, beside the machine at an address of its own.

use crate::command::eventually;
use crate::namespace::Namespace;
use anyhow::{Context, Result, bail};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// A running server; ended when this goes out of scope.
#[derive(Debug)]
pub struct NfsServer {
    // Dropped in this order.
    process: Child,
    _namespace: Namespace,
    folder: TempDir,
    /// Its address.
    pub address: String,
}

impl NfsServer {
    /// Starts one that exports an empty folder.
    ///
    /// # Errors
    /// When it does not serve; with the end of its log.
    pub fn start() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("mooring-nfs-").tempdir()?;
        let at = |name: &str| folder.path().join(name).display().to_string();
        for name in ["export", "state"] {
            std::fs::create_dir(at(name))?;
        }
        let namespace = Namespace::new("nfs")?;
        let address = namespace.cable()?;
        let (export, state) = (at("export"), at("state"));
        let config = format!(
            "NFS_CORE_PARAM {{ Protocols = 3, 4; NFS_Port = 2049; MNT_Port = 20048; Enable_NLM = false; Enable_RQUOTA = false; Bind_addr = {address}; }}\n\
             NFSV4 {{ Graceless = true; Lease_Lifetime = 10; Only_Numeric_Owners = true; RecoveryRoot = {state}; }}\n\
             EXPORT {{ Export_Id = 1; Path = {export}; Pseudo = {export}; Access_Type = RW; Squash = No_Root_Squash; SecType = sys; Protocols = 3, 4; Transports = TCP; PrivilegedPort = false; FSAL {{ Name = VFS; }} }}\n"
        );
        std::fs::write(at("conf"), config)?;
        // Version 3 wants rpcbind, whose socket is in /run. All of it ends with the first process.
        let script = format!(
            "mount -t tmpfs none /run && mkdir /run/rpcbind && rpcbind && exec ganesha.nfsd -F -f {} -L {} -p {}",
            at("conf"),
            at("log"),
            at("pid")
        );
        let mut c = namespace.command("unshare");
        c.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        c.args(["sh", "-c", &script]);
        c.stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(at("errors"))?);
        // Ctrl-C is for this program, which then ends it.
        std::os::unix::process::CommandExt::process_group(&mut c, 0);
        let log = at("log");
        let mut server = NfsServer {
            process: c
                .spawn()
                .context("start NFS-Ganesha (Debian packages nfs-ganesha-vfs and rpcbind)")?,
            _namespace: namespace,
            folder,
            address,
        };
        let there: SocketAddr = format!("{}:2049", server.address).parse()?;
        eventually("the NFS server serves", || {
            if let Some(status) = server.process.try_wait()? {
                let text = std::fs::read_to_string(&log).unwrap_or_default();
                let lines: Vec<&str> = text.lines().rev().take(10).collect();
                bail!(
                    "it ended ({status}); last lines first:\n{}",
                    lines.join("\n")
                );
            }
            Ok(TcpStream::connect_timeout(&there, Duration::from_secs(1)).is_ok())
        })?;
        Ok(server)
    }

    /// The folder that it exports, which is the path for clients, too.
    pub fn export(&self) -> PathBuf {
        self.folder.path().join("export")
    }

    /// Kills it; its address stays, and refuses connections.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for NfsServer {
    fn drop(&mut self) {
        self.kill();
    }
}
