//! `registry`: see `registry --help`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    registry::cli::main()
}
