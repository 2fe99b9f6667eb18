//! The toolchain for where rustup cannot add the target: a distribution's compiler with its matching library source, installed or
//! unpacked under `target/`, which builds `core` for the target itself. Debian's security suite keeps such a pair for browsers, newer
//! than the release.

use super::qemu::{library_dirs, write_program};
use super::{Install, Toolchain, apt, sysroot};
use crate::{exec, paths, ui};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiler and library source, in order of preference.
const PAIRS: [(&str, &str); 2] = [("rustc-web", "rust-web-src"), ("rustc", "rust-src")];

/// The pinned compiler's minor version: what the code is written for.
const OLDEST_MINOR: u32 = 95;

/// One that an earlier set-up left here. Its script is written anew where it names other paths: the directory may have
/// moved.
pub(crate) fn already() -> Option<Toolchain> {
    let root = unpacked_dir();
    root.join("usr/bin/rustc").is_file().then_some(())?;
    Some(Toolchain::BuildStd { rustc: write_script(&root).ok()?, linker: linker().ok()? })
}

/// The fallback toolchain: installed, unpacked before, or fetched now.
///
/// # Errors
/// It is not there, and may not or cannot be fetched.
pub(crate) fn find(install: Install) -> Result<Toolchain> {
    if let Some(there) = already() {
        return Ok(there);
    }
    let linker = linker()?;
    if matches_its_source(Path::new("/")) {
        return Ok(Toolchain::BuildStd { rustc: PathBuf::from("/usr/bin/rustc"), linker });
    }
    if install == Install::Never {
        bail!("the fallback toolchain is missing");
    }
    fetch()?;
    Ok(Toolchain::BuildStd { rustc: write_script(&unpacked_dir())?, linker })
}

fn fetch() -> Result<()> {
    if !apt::usable() {
        bail!("the fallback toolchain is fetched with apt, which is not here");
    }
    let (id, codename) = apt::distribution().context("cannot tell which distribution this is")?;
    ui::step("Setting up", "a compiler with the source of its library, from the distribution");
    let private = apt::Apt::new(paths::out().join("apt"), &codename, &[])?;
    let offered = PAIRS.into_iter().find(|(compiler, source)| {
        let version = private.candidate(compiler);
        version.is_some()
            && version == private.candidate(source)
            && version.is_some_and(|v| minor_of(&v) >= Some(OLDEST_MINOR))
    });
    let Some((compiler, source)) = offered else {
        bail!("{id} {codename} has no compiler since 1.{OLDEST_MINOR} with the source of its library");
    };
    private.unpack(&[compiler, source], None, &unpacked_dir(), |_| Ok(()))?;
    if !matches_its_source(&unpacked_dir()) {
        bail!("the compiler from {compiler} does not run when unpacked, or {source} is not its source");
    }
    Ok(())
}

/// Whether a compiler is there, new enough, and the library source beside it is of its own version (any other fails to build).
fn matches_its_source(root: &Path) -> bool {
    let Some(version) = version_of(root) else { return false };
    let source = fs::read_link(root.join("usr/lib/rustlib/src/rust"));
    let named_alike = source.is_ok_and(|link| link.to_string_lossy().contains(&version));
    let there = root.join("usr/lib/rustlib/src/rust/library/core/src/lib.rs").is_file();
    there && named_alike && minor_of(&version) >= Some(OLDEST_MINOR)
}

fn version_of(root: &Path) -> Option<String> {
    let mut command = Command::new(root.join("usr/bin/rustc"));
    if root != Path::new("/") {
        command.env("LD_LIBRARY_PATH", std::env::join_paths(library_dirs(root)).ok()?);
    }
    let said = exec::ask(command.arg("--version")).ok()?;
    said.split_whitespace().nth(1).map(str::to_owned)
}

fn minor_of(version: &str) -> Option<u32> {
    version.split('.').nth(1)?.parse().ok()
}

/// Writes the script that stands for the compiler. Only the compiler gets the library path: in Cargo's own environment it would reach
/// every other program of the build.
fn write_script(root: &Path) -> Result<PathBuf> {
    let libraries = library_dirs(root).iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(":");
    let rustc = root.join("usr/bin/rustc");
    let script = format!("#!/bin/sh\nLD_LIBRARY_PATH='{libraries}' exec '{}' \"$@\"\n", rustc.display());
    let path = script_path();
    // Not while others may run it: two set-ups at a time would take each other's half-written file.
    if fs::read_to_string(&path).ok().as_deref() != Some(script.as_str()) {
        write_program(&path, &script)?;
    }
    Ok(path)
}

/// The pinned toolchain brings its linker along, whatever targets it has; else the system's.
pub(super) fn linker() -> Result<PathBuf> {
    let own = sysroot().and_then(|dir| {
        let hosts = fs::read_dir(dir.join("lib/rustlib")).ok()?;
        hosts.flatten().map(|host| host.path().join("bin/rust-lld")).find(|file| file.is_file())
    });
    own.or_else(|| exec::on_path("ld.lld")).context("there is no linker for the image: install the package lld")
}

fn unpacked_dir() -> PathBuf {
    paths::out().join("rust")
}

fn script_path() -> PathBuf {
    paths::out().join("fallback-rustc")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_the_minor_version_is_read_from_a_package_version() {
        assert_eq!(minor_of("1.85.0+dfsg3-1~deb12u3"), Some(85));
        assert!(minor_of("1.63.0+dfsg1-2") < Some(OLDEST_MINOR));
    }
}
