//! `vch status` as a program.

use std::process::{Command, Stdio};

#[test]
fn whoever_has_read_enough_is_no_fault() {
    let dir = tempfile::tempdir().unwrap();
    for more in [&[][..], &["--json"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = Command::new(env!("CARGO_BIN_EXE_vch"))
            .arg("status")
            .arg("--state")
            .arg(dir.path())
            .args(more)
            .stdout(writer)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && errors.is_empty(), "{errors}");
    }
}
