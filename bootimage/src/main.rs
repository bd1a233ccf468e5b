//! `bootimage`: builds and inspects what container VMs boot from.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use bootimage::build::{Options, build};
use bootimage::compress::Compression;
use bootimage::iso::DEFAULT_CMDLINE;
use bootimage::kernel::{self, Progress};
use bootimage::modules::{DEFAULT_LIST, parse_list};
use clap::{Parser, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

/// Builds and inspects what container VMs boot from: kernel, initramfs and ISO.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build kernel, initramfs and ISO from a kernel package and a static init.
    Build(BuildArgs),
    /// List what is inside an initramfs, an ISO, a kernel, or a kernel package: sizes, versions.
    Inspect {
        /// The file, or a kernel's folder.
        file: PathBuf,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Build the trimmed kernel, which boots in little more than half the time, from the distribution's source.
    ///
    /// Takes about 5 minutes on two cores, once: the result is kept in the cache folder, by source
    /// and configuration. An interrupted build goes on where it was.
    Kernel(KernelArgs),
}

#[derive(clap::Args)]
struct KernelArgs {
    /// Tarball of the kernel's source; the newest /usr/src/linux-source-*.tar.xz if not given.
    #[arg(long)]
    source: Option<PathBuf>,
    /// Configuration fragment (CONFIG_X=y lines) in place of the one that comes with bootimage.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Folder for finished kernels and for the build under way.
    #[arg(long, default_value = "target/kernel/cache")]
    cache: PathBuf,
    /// Folder for bzImage, vmlinux, config, modules.builtin and release.
    #[arg(long, default_value = "target/kernel/fast")]
    out: PathBuf,
    /// Processes that compile at the same time; one a CPU if not given.
    #[arg(long, short)]
    jobs: Option<usize>,
}

#[derive(clap::Args)]
struct BuildArgs {
    /// Kernel package (.rpm, .deb) or folder (unpacked package, or made by `bootimage kernel`).
    #[arg(long)]
    kernel: PathBuf,
    /// Static program that becomes /init: the tether.
    #[arg(long)]
    init: PathBuf,
    /// Folder for vmlinuz, vmlinux, initrd.cpio, initrd.img, boot.iso and manifest.json.
    #[arg(long)]
    out: PathBuf,
    /// File that lists the modules: GROUP required|optional NAME [ALIAS…], one a line.
    /// The default list covers ESXi's devices and QEMU's.
    #[arg(long)]
    modules: Option<PathBuf>,
    /// Compression of the initramfs.
    #[arg(long, value_enum, default_value = "auto")]
    compress: CompressArg,
    /// Also make boot.iso, which boots by BIOS and UEFI.
    #[arg(long)]
    iso: bool,
    /// Kernel command line of the ISO.
    #[arg(long, default_value = DEFAULT_CMDLINE)]
    cmdline: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum CompressArg {
    /// The best one that the kernel's configuration allows.
    Auto,
    None,
    Gzip,
    Zstd,
    Lz4,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bootimage: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Build(args) => run_build(args),
        Command::Kernel(args) => run_kernel(args),
        Command::Inspect { file, json } => {
            let report = bootimage::inspect::inspect(&file)?;
            if json {
                println!("{}", serde_json::to_string_pretty(&report)?);
            } else {
                print!("{}", report.text());
            }
            Ok(())
        }
    }
}

fn run_kernel(args: KernelArgs) -> anyhow::Result<()> {
    let config = match &args.config {
        Some(path) => std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the configuration {}", path.display()))?,
        None => kernel::DEFAULT_CONFIG.to_string(),
    };
    let jobs = match args.jobs {
        Some(jobs) => jobs.max(1),
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let options = kernel::Options {
        source: args.source,
        config,
        cache: args.cache,
        out: args.out.clone(),
        jobs,
    };
    let bar = progress_bar();
    let mut tenths = 0;
    let built = kernel::build(&options, &mut |progress| match progress {
        // Where there is no terminal, a line a step and a tenth.
        Progress::Step(step) if bar.is_hidden() => {
            tenths = 0;
            eprintln!("bootimage: {step}");
        }
        Progress::Step(step) => bar.set_message(step),
        Progress::Unpacked(done, all) | Progress::Compiled(done, all) => {
            bar.set_length(all);
            bar.set_position(done);
            let now = done * 10 / all.max(1);
            if bar.is_hidden() && now > tenths {
                tenths = now;
                eprintln!("bootimage: {}%", now * 10);
            }
        }
    })?;
    bar.finish_and_clear();
    let how = if built { "built" } else { "from the cache" };
    println!("kernel ({how}) in {}", args.out.display());
    Ok(())
}

/// A bar on a terminal; hidden elsewhere.
fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::new(1);
    if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:40}] {percent}% {elapsed}") {
        bar.set_style(style);
    }
    bar
}

fn run_build(args: BuildArgs) -> anyhow::Result<()> {
    let modules = match &args.modules {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the module list {}", path.display()))?;
            parse_list(&text, &path.display().to_string())?
        }
        None => parse_list(DEFAULT_LIST, "the default module list")?,
    };
    let options = Options {
        kernel: args.kernel,
        init: args.init,
        out: args.out.clone(),
        modules,
        iso: args.iso.then_some(args.cmdline),
        compression: match args.compress {
            CompressArg::Auto => None,
            CompressArg::None => Some(Compression::None),
            CompressArg::Gzip => Some(Compression::Gzip),
            CompressArg::Zstd => Some(Compression::Zstd),
            CompressArg::Lz4 => Some(Compression::Lz4Legacy),
        },
    };
    let manifest = build(&options, &mut |step| eprintln!("bootimage: {step}"))?;
    println!(
        "kernel {} ({})",
        manifest.kernel.release, manifest.kernel.label
    );
    for file in &manifest.files {
        println!("{:>12}  {}", file.size, args.out.join(&file.file).display());
    }
    println!(
        "{} modules, {} built in, {} optional ones absent",
        manifest.modules.len(),
        manifest.builtin.len(),
        manifest.absent.len()
    );
    Ok(())
}
