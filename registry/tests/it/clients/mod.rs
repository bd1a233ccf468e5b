//! Clients that nobody here wrote, against a registry with TLS that wants them to sign in.

mod buildah;
mod containerd;
mod docker;
mod oras;
mod skopeo;

pub use skopeo::reads_layout;

use crate::crash::Process;
use crate::harness::*;
use registry::server::tls::generate;
use registry::settings::TlsSettings;
use reqwest::{Certificate, Client, Method};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A registry with TLS, as a process, and a folder for its client.
struct Shop {
    process: Process,
    /// `127.0.0.1:PORT`
    host: String,
    work: TempDir,
    _folder: TempDir,
}

impl Shop {
    fn open() -> Self {
        let tls = TlsSettings {
            certificate: "server.crt".into(),
            key: "server.key".into(),
        };
        Self::with(registry::settings::Settings {
            tls: Some(tls),
            ..settings()
        })
    }

    /// For a client that believes in no TLS on loopback.
    fn plain() -> Self {
        Self::with(settings())
    }

    fn with(with: registry::settings::Settings) -> Self {
        let folder = TempDir::new().unwrap();
        init(folder.path(), &with);
        let made = generate::certificates(&["127.0.0.1".into()]).unwrap();
        std::fs::write(folder.path().join("server.crt"), made.certificate).unwrap();
        std::fs::write(folder.path().join("server.key"), made.key).unwrap();
        let work = TempDir::new().unwrap();
        std::fs::create_dir(work.path().join("certs")).unwrap();
        std::fs::write(work.path().join("certs/ca.crt"), &made.ca).unwrap();
        let mut process = Process::start(folder.path());
        let ca = Certificate::from_pem(made.ca.as_bytes()).unwrap();
        let http = Client::builder().no_proxy().tls_built_in_root_certs(false);
        process.client.http = http.add_root_certificate(ca).build().unwrap();
        let host = process.client.base.split("//").nth(1).unwrap();
        Shop {
            host: host.to_owned(),
            process,
            work,
            _folder: folder,
        }
    }

    /// A path in the client's folder, as text.
    fn path(&self, name: &str) -> String {
        self.work.path().join(name).display().to_string()
    }

    fn ca(&self) -> PathBuf {
        self.work.path().join("certs/ca.crt")
    }

    /// The blobs that were mounted into a repository, by the audit log.
    fn mounted(&self, repository: &str) -> usize {
        let entries = self.ask(Method::GET, "/api/v1/audit?limit=1000");
        let entries: serde_json::Value = serde_json::from_str(&entries.1).unwrap();
        let mounts = entries.as_array().unwrap().iter().filter(|e| {
            e["operation"] == "blob.mount" && e["repository"] == repository && e["status"] == 201
        });
        mounts.count()
    }

    /// Status and body of an administrator's request.
    fn ask(&self, method: Method, path: &str) -> (u16, String) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(async {
            let answer = self
                .process
                .client
                .request(method, path)
                .send()
                .await
                .unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        })
    }

    /// A command with this registry's authority as the only one, and a home of its own.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("SSL_CERT_FILE", self.ca())
            .env("HOME", self.work.path())
            .env("XDG_DATA_HOME", self.work.path())
            .env("XDG_RUNTIME_DIR", self.work.path());
        command
    }
}

/// A command's success and output; `None` when it is not installed, which is said.
fn output(mut command: Command) -> Option<(bool, String)> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = match command.output() {
        Ok(output) => output,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skipped: {program} is not installed (make setup-test, make clients)");
            return None;
        }
        Err(e) => panic!("{program}: {e}"),
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    Some((output.status.success(), text))
}

fn run(program: &str, args: &[&str]) -> Option<(bool, String)> {
    let mut command = Command::new(program);
    command.args(args);
    output(command)
}

fn must(program: &str, args: &[&str]) -> Option<String> {
    let (good, text) = run(program, args)?;
    assert!(good, "{program} {args:?}: {text}");
    Some(text)
}

/// An image in OCI's layout with one layer, made by umoci.
fn layout(folder: &Path) -> Option<String> {
    let layout = folder.join("layout");
    let image = format!("{}:v1", layout.display());
    must("umoci", &["init", "--layout", layout.to_str().unwrap()])?;
    must("umoci", &["new", "--image", &image])?;
    std::fs::write(folder.join("file"), "a file of the image").unwrap();
    let file = folder.join("file");
    let insert = ["insert", "--rootless", "--image", &image];
    must(
        "umoci",
        &[&insert[..], &[file.to_str().unwrap(), "/file"]].concat(),
    )?;
    Some(image)
}

/// Pushes an image into the public project with skopeo, for clients that make none themselves.
fn stock(shop: &Shop) -> Option<String> {
    let image = layout(shop.work.path())?;
    let at = format!("{}/default-project/a:v1", shop.host);
    let creds = format!("developer:{PASSWORD}");
    let certs = shop.path("certs");
    let tls = format!(
        "--dest-tls-verify={}",
        shop.process.client.base.starts_with("https")
    );
    let copy = [
        "copy",
        "--insecure-policy",
        &tls,
        "--dest-cert-dir",
        &certs,
        "--dest-creds",
        &creds,
    ];
    let (from, to) = (format!("oci:{image}"), format!("docker://{at}"));
    must("skopeo", &[&copy[..], &[&from, &to]].concat())?;
    Some(at)
}
