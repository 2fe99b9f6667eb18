//! Claims that end in a broken promise on top of a panic.

use std::process::Command;

/// Runs `doomed` in a process of its own, which must die saying `promise`: there a debt is dropped while another panic unwinds, and two
/// panics end a process. `module` and `name` are the calling test's.
pub(super) fn dies_saying(module: &str, name: &str, promise: &str, doomed: impl FnOnce()) {
    const CHILD: &str = "BREAKWATER_DOOMED_TEST";
    if std::env::var_os(CHILD).is_some() {
        return doomed();
    }
    let full_name = format!("{}::{name}", module.split_once("::").unwrap().1);
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child.args(["--exact", &full_name, "--nocapture"]).env(CHILD, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(promise), "{said}");
}
