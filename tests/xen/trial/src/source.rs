//! Xen's source, as Debian packages it.
//!
//! Why it exists: whoever doubts the comparison must be able to build the same bytes, so the version is named and apt
//! checks what the mirror gives. What must hold: the tree is there whole or not at all, and nobody changes it; a build
//! that edits works on a copy. What it refuses: another version. Debian's own patches are about packaging, and are left
//! out.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use breakwater_witness::debian;
use breakwater_witness::{exec, paths};

/// The source package's version, in [`SUITE`].
pub const VERSION: &str = "4.17.5+72-g01140da4e8-1";
/// The suite of Debian that it is from.
pub const SUITE: &str = "bookworm";
/// What a build of the hypervisor reads of the tree.
const PARTS: [&str; 3] = ["Config.mk", "config", "xen"];

/// The unpacked tree, below `home`: fetched where it is not there.
///
/// # Errors
/// The machine has no apt, no mirror of Debian, or no tar that reads xz; the mirror has another version.
pub fn tree(home: &Path) -> Result<PathBuf> {
    let tree = home.join("source").join(VERSION).join("tree");
    if tree.is_dir() {
        return Ok(tree);
    }
    let files = debian::fetch_source("xen", VERSION, SUITE, &home.join("source"))?;
    let entries = fs::read_dir(&files)?.flatten().map(|entry| entry.path());
    let is_original = |file: &PathBuf| file.to_string_lossy().contains(".orig.tar.");
    let original = entries.into_iter().find(is_original).context("Debian's source of xen has no .orig.tar")?;
    paths::fill_whole(&tree, |partial| {
        let mut tar = Command::new("tar");
        tar.arg("-xf").arg(&original).arg("-C").arg(partial).args(["--strip-components=1", "--no-same-owner"]);
        exec::run(&mut tar)
    })?;
    Ok(tree)
}

/// Makes `to` what `edited` makes of a copy of the tree `from`. A file that stays as it was is not written, so that
/// make builds what changed and no more.
///
/// # Errors
/// What `edited` fails with, before `to` changes; a file that cannot be read or written.
pub fn copy(from: &Path, to: &Path, edited: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let fresh = to.with_extension("fresh");
    if fresh.exists() {
        fs::remove_dir_all(&fresh)?;
    }
    fs::create_dir_all(&fresh)?;
    for part in PARTS {
        exec::ask(Command::new("cp").arg("-R").arg(from.join(part)).arg(&fresh))?;
    }
    edited(&fresh)?;
    let (new, old) = (files(&fresh)?, if to.is_dir() { files(to)? } else { BTreeSet::new() });
    for gone in old.difference(&new) {
        fs::remove_file(to.join(gone))?;
    }
    for file in &new {
        renew(&fresh.join(file), &to.join(file)).with_context(|| file.display().to_string())?;
    }
    Ok(fs::remove_dir_all(&fresh)?)
}

/// Moves `fresh` to `file`, unless they are alike.
fn renew(fresh: &Path, file: &Path) -> Result<()> {
    let is_link = |path: &Path| path.is_symlink();
    if is_link(fresh) || is_link(file) {
        if fs::read_link(fresh).ok() == fs::read_link(file).ok() {
            return Ok(());
        }
    } else if file.is_file() && fs::read(fresh)? == fs::read(file)? {
        return Ok(());
    }
    if let Some(dir) = file.parent() {
        fs::create_dir_all(dir)?;
    }
    Ok(fs::rename(fresh, file)?)
}

/// The files below `dir`, links among them, as paths from it.
fn files(dir: &Path) -> Result<BTreeSet<PathBuf>> {
    let (mut files, mut waiting) = (BTreeSet::new(), vec![dir.to_path_buf()]);
    while let Some(next) = waiting.pop() {
        for entry in fs::read_dir(&next)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                waiting.push(entry.path());
            } else {
                files.insert(entry.path().strip_prefix(dir)?.to_path_buf());
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree with the parts that a build reads.
    fn made(dir: &Path) -> Result<PathBuf> {
        let tree = dir.join("tree");
        fs::create_dir_all(tree.join("xen/arch"))?;
        fs::create_dir_all(tree.join("config"))?;
        for file in ["Config.mk", "config/a.mk", "xen/Makefile", "xen/arch/mm.c"] {
            fs::write(tree.join(file), file)?;
        }
        std::os::unix::fs::symlink("Makefile", tree.join("xen/link"))?;
        Ok(tree)
    }

    fn written(file: &Path) -> Result<std::time::SystemTime> {
        Ok(fs::metadata(file)?.modified()?)
    }

    #[test]
    fn good_a_copy_is_changed_where_an_edit_changed_it_and_nowhere_else() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let (tree, to) = (made(dir.path())?, dir.path().join("ours"));
        copy(&tree, &to, |fresh| Ok(fs::write(fresh.join("xen/new.c"), "new")?))?;
        let before = written(&to.join("xen/arch/mm.c"))?;
        copy(&tree, &to, |fresh| Ok(fs::write(fresh.join("xen/Makefile"), "ours")?))?;
        assert_eq!(written(&to.join("xen/arch/mm.c"))?, before);
        assert_eq!(fs::read_to_string(to.join("xen/link"))?, "ours");
        assert!(!to.join("xen/new.c").exists() && !dir.path().join("ours.fresh").exists());
        assert_eq!(fs::read_to_string(tree.join("xen/Makefile"))?, "xen/Makefile");
        Ok(())
    }

    #[test]
    fn bad_an_edit_that_fails_leaves_the_copy_as_it_was() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let (tree, to) = (made(dir.path())?, dir.path().join("ours"));
        copy(&tree, &to, |_| Ok(()))?;
        let failed = copy(&tree, &to, |fresh| {
            fs::write(fresh.join("xen/Makefile"), "half")?;
            anyhow::bail!("no match")
        });
        assert_eq!(failed.expect_err("it fails").to_string(), "no match");
        assert_eq!(fs::read_to_string(to.join("xen/Makefile"))?, "xen/Makefile");
        Ok(())
    }
}
