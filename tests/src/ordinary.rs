//! Programs that an ordinary user runs.

use std::path::Path;
use std::process::Command;

/// Who that is where the tests run as root: nobody, by ID.
pub const ID: u32 = 65534;

/// Becomes the ordinary user. Distributions let everybody use the tun device; where this machine does not, the program
/// sees one that does, in mounts of its own.
const BECOME: &str = r#"
if [ "$(stat -c %a /dev/net/tun)" != 666 ]; then
    device=$(mktemp -u) && mknod -m 666 "$device" c 10 200 && mount --bind "$device" /dev/net/tun && rm "$device"
fi
exec setpriv --reuid=65534 --regid=65534 --clear-groups -- "$@""#;

/// A command line that an ordinary user runs: whoever runs the tests, unless that is root.
pub fn command(program: &Path) -> Command {
    if !nix::unistd::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "--", "sh", "-c"])
        .args([BECOME, "sh"])
        .arg(program);
    command
}
