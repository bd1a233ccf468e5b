//! `bootimage`: builds and inspects what container VMs boot from.

use std::path::PathBuf;

use anyhow::Context;
use bootimage::build::{Options, build};
use bootimage::compress::Compression;
use bootimage::iso::DEFAULT_CMDLINE;
use bootimage::modules::{DEFAULT_LIST, parse_list};
use clap::{Parser, Subcommand, ValueEnum};

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
}

#[derive(clap::Args)]
struct BuildArgs {
    /// Kernel package (.rpm, .deb) or folder (unpacked package, or made by `bootimage kernel`).
    #[arg(long)]
    kernel: PathBuf,
    /// Static program that becomes /init: the tether.
    #[arg(long)]
    init: PathBuf,
    /// Folder for vmlinuz, vmlinux, initrd.img, boot.iso and manifest.json.
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

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Build(args) => run_build(args),
    }
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
