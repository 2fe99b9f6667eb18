//! The recorder, a QEMU plugin: its bytes are part of this command.

use std::fs;
use std::hash::Hasher;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustc_hash::FxHasher;

static BYTES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/recorder.so"));

/// The plugin as a file in `dir`, where QEMU can load it. It is written by way of a temporary file, so that others may do the same meanwhile.
///
/// # Errors
/// The file cannot be written.
pub fn unpack(dir: &Path) -> Result<PathBuf> {
    // Named by its contents: another version of this command may run at the same time.
    let mut hasher = FxHasher::default();
    hasher.write(BYTES);
    let file = dir.join(format!("libbreakwater_recorder-{:016x}.so", hasher.finish()));
    if fs::read(&file).is_ok_and(|there| there == BYTES) {
        return Ok(file);
    }
    let name = || format!("cannot write {}", file.display());
    fs::create_dir_all(dir).with_context(name)?;
    let partial = dir.join(format!("recorder-{}.partial", std::process::id()));
    fs::write(&partial, BYTES).and_then(|()| fs::rename(&partial, &file)).with_context(name)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_it_is_a_shared_library_and_written_once() {
        let dir = std::env::temp_dir().join(format!("breakwater-plugin-{}", std::process::id()));
        let file = unpack(&dir).expect("it can be written");
        let written = fs::metadata(&file).and_then(|data| data.modified()).expect("it is there");
        assert!(fs::read(&file).is_ok_and(|bytes| bytes.starts_with(b"\x7fELF")));
        assert_eq!(unpack(&dir).ok(), Some(file.clone()));
        assert_eq!(fs::metadata(&file).and_then(|data| data.modified()).ok(), Some(written));
        fs::remove_dir_all(&dir).expect("it is this test's");
    }
}
