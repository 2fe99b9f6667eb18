//! Where things are: the repository, Cargo's target directory, and `target/breakwater` with what xtask makes.

use anyhow::{Context, Result};
pub(crate) use breakwater_witness::paths::{fill_whole, shown};
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The bare-metal target of the image: no floating point or SIMD at EL2.
pub(crate) const TARGET: &str = "aarch64-unknown-none-softfloat";

/// The repository.
pub(crate) fn root() -> PathBuf {
    let manifest =
        std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    manifest.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// Cargo's target directory.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// Cargo, in the repository, for a package of its choice: what Cargo told xtask about itself is not for others.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).env_remove("CARGO_MANIFEST_DIR");
    command
}

/// What xtask makes: images, fetched tools, notes.
pub(crate) fn out() -> PathBuf {
    target().join("breakwater")
}

/// The repository's files, as paths from its top, sorted: no build directory, and no hidden one but those that belong to it.
///
/// # Errors
/// A directory cannot be read.
pub(crate) fn files() -> Result<Vec<String>> {
    const HIDDEN: [&str; 4] = [".cargo", ".ci", ".github", ".gitignore"];
    let root = root();
    let (mut files, mut waiting) = (Vec::new(), vec![root.clone()]);
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).with_context(|| shown(&directory))? {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            let foreign = name.starts_with('.') && !HIDDEN.contains(&&*name) || name == "target" || path == target();
            if entry.file_type()?.is_dir() {
                waiting.extend((!foreign).then_some(path));
            } else {
                files.push(path.strip_prefix(&root).unwrap_or(&path).display().to_string());
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Held while `target/breakwater` changes: two xtasks at once take turns. Released when dropped.
pub(crate) struct Lock {
    _file: File,
}

/// Takes the lock, and says so when it has to wait for it.
///
/// # Errors
/// The directory cannot be made or the lock file cannot be opened.
pub(crate) fn lock() -> Result<Lock> {
    let dir = out();
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let path = dir.join(".lock");
    let file = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            crate::ui::step("Waiting", "for another xtask that holds target/breakwater");
            file.lock().context("cannot lock target/breakwater")?;
        }
        Err(TryLockError::Error(error)) => return Err(error).context("cannot lock target/breakwater"),
    }
    Ok(Lock { _file: file })
}
