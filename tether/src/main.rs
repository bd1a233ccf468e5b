//! The tether: PID 1 of a container VM, and, under another name, the small init of `--init`.

use std::ffi::CString;
use std::os::unix::ffi::OsStringExt;

fn main() {
    let strings = |list: Vec<std::ffi::OsString>| -> Vec<CString> {
        // What the kernel passed has no NUL inside.
        list.into_iter()
            .filter_map(|s| CString::new(s.into_vec()).ok())
            .collect()
    };
    let mut args = strings(std::env::args_os().collect());
    if args
        .first()
        .is_some_and(|name| name.as_bytes() == tether::container::init::NAME.as_bytes())
    {
        let env = strings(
            std::env::vars_os()
                .map(|(mut name, value)| {
                    name.push("=");
                    name.push(value);
                    name
                })
                .collect(),
        );
        args.remove(0);
        std::process::exit(tether::container::init::run(args, &env));
    }
    if std::process::id() != 1 {
        eprintln!("tether: this is the init of a container VM: it runs as process 1 only");
        std::process::exit(2);
    }
    tether::life::live()
}
