//! Paths: how they are shown, where files go that outlive a run, and directories that exist whole or not at all.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::{Builder, TempDir};

/// A path as it is shown: from the current directory where it lies inside.
#[must_use]
pub fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display().to_string()
}

/// Where a user's programs keep what they can make or fetch again: `$XDG_CACHE_HOME/breakwater-witness`, or below the home directory. Without
/// either, the system's directory for temporary files.
#[must_use]
pub fn cache() -> PathBuf {
    let of = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = of("XDG_CACHE_HOME").or_else(|| of("HOME").map(|home| home.join(".cache")));
    base.unwrap_or_else(std::env::temp_dir).join("breakwater-witness")
}

/// A directory in `dir` for the files of one run, which goes when it is dropped: two runs at a time share nothing.
///
/// # Errors
/// It cannot be made.
pub fn scratch_in(dir: &Path) -> Result<TempDir> {
    let made = fs::create_dir_all(dir).and_then(|()| Builder::new().prefix("breakwater-witness-").tempdir_in(dir));
    made.with_context(|| format!("cannot make a directory in {}", dir.display()))
}

/// Fills a directory by way of a temporary neighbour, so that it exists either complete or not at all.
///
/// # Errors
/// What `fill` fails with, or a directory that cannot be made, removed or renamed.
pub fn fill_whole(dir: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let partial = dir.with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    fs::create_dir_all(&partial)?;
    fill(&partial)?;
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    fs::rename(&partial, dir).with_context(|| format!("cannot rename {} to {}", partial.display(), dir.display()))
}
