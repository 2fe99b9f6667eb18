//! Finding or fetching a QEMU that the image's proofs hold on: 9.2 or later (its plugin interface, and faults that older ones hide).

use super::{Install, apt};
use crate::{exec, paths, ui};
use anyhow::{Context, Result, bail};
use breakwater_witness::qemu::{HOW_TO_GET, OLDEST, PROGRAM, Qemu, major_minor, usable};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const PACKAGE: &str = "qemu-system-arm";
/// The emulator asked for, the one on PATH, the one unpacked here before, or one fetched now.
///
/// # Errors
/// None is there, and none may or can be fetched.
pub(crate) fn find(asked: Option<&Path>, install: Install) -> Result<Qemu> {
    if let Some(program) = asked {
        return usable(program.to_path_buf());
    }
    let on_path = exec::on_path(PROGRAM).map(usable);
    if let Some(Ok(qemu)) = on_path {
        return Ok(qemu);
    }
    if let Ok(qemu) = unpacked() {
        return Ok(qemu);
    }
    let why = match on_path {
        Some(Err(error)) => format!("{error:#}"),
        _ => format!("there is no {PROGRAM} on PATH"),
    };
    if install == Install::Never {
        bail!("QEMU is missing: {why}");
    }
    ui::step("Setting up", &format!("QEMU ({why})"));
    fetch()
}

fn unpacked() -> Result<Qemu> {
    let script = unpacked_dir().join(PROGRAM);
    if !script.is_file() {
        bail!("nothing is unpacked under {}", unpacked_dir().display());
    }
    usable(script)
}

/// Writes a script that stands for an unpacked QEMU: only QEMU itself gets the library path, and it finds its data and modules
/// wherever the directory goes.
fn write_script(root: &Path) -> Result<()> {
    let below = |dir: &PathBuf| Some(format!("$here/{}", dir.strip_prefix(root).ok()?.display()));
    let dirs = library_dirs(root);
    let libraries: Vec<String> = dirs.iter().filter_map(below).collect();
    let modules = dirs.iter().find(|dir| dir.ends_with("qemu")).and_then(below).unwrap_or_default();
    let script = format!(
        "#!/bin/sh\nhere=$(dirname \"$0\")\nexport LD_LIBRARY_PATH=\"{}\" QEMU_MODULE_DIR=\"{modules}\"\n\
         exec \"$here/usr/bin/{PROGRAM}\" -L \"$here/usr/share/qemu\" \"$@\"\n",
        libraries.join(":")
    );
    write_program(&root.join(PROGRAM), &script)
}

/// Writes a script that can be run. It is there whole or not at all.
pub(crate) fn write_program(path: &Path, script: &str) -> Result<()> {
    let partial = path.with_extension("partial");
    fs::write(&partial, script)?;
    fs::set_permissions(&partial, fs::Permissions::from_mode(0o755))?;
    Ok(fs::rename(&partial, path)?)
}

fn unpacked_dir() -> PathBuf {
    paths::out().join("qemu")
}

fn fetch() -> Result<Qemu> {
    if !apt::usable() {
        bail!("{HOW_TO_GET}");
    }
    let (id, codename) = apt::distribution().context("cannot tell which distribution this is")?;
    let backports = format!("{codename}-backports");
    let has_backports = apt::configured().iter().any(|source| source.suites.contains(&backports));
    let old_release = id == "debian" && codename == "bookworm";
    if apt::is_root()
        && (!old_release || has_backports)
        && let Some(qemu) = install_package()?
    {
        return Ok(qemu);
    }
    let (more, suite) =
        if old_release { (vec![backports.clone()], Some(backports.as_str())) } else { (Vec::new(), None) };
    let private = apt::Apt::new(paths::out().join("apt"), &codename, &more)?;
    let candidate = private.candidate(PACKAGE);
    if !old_release && candidate.as_deref().and_then(major_minor).is_none_or(|version| version < OLDEST) {
        bail!(
            "install {PACKAGE} {}.{} or later: {id} {codename} offers {}",
            OLDEST.0,
            OLDEST.1,
            candidate.as_deref().unwrap_or("none")
        );
    }
    private.unpack(&[PACKAGE], suite, &unpacked_dir(), write_script)?;
    unpacked()
}

/// Installs the system's package when one of the configured suites has it in a good version.
fn install_package() -> Result<Option<Qemu>> {
    let offered = || -> Result<Option<(String, String)>> {
        Ok(newest_good(&exec::ask(Command::new("apt-cache").args(["madison", PACKAGE]))?))
    };
    let mut found = offered()?;
    if found.is_none() {
        exec::run(Command::new("apt-get").args(["-qq", "update"]))?;
        found = offered()?;
    }
    let Some((version, suite)) = found else { return Ok(None) };
    let mut command = Command::new("apt-get");
    command.args(["-qq", "install", "--yes", "--no-install-recommends", "--target-release", &suite]);
    exec::run(command.arg(format!("{PACKAGE}={version}")).env("DEBIAN_FRONTEND", "noninteractive"))?;
    let program = exec::on_path(PROGRAM).context("the package is installed, but its program is not on PATH")?;
    usable(program).map(Some)
}

/// The first line of `apt-cache madison` (newest first) with a good version: the version and its suite.
fn newest_good(madison: &str) -> Option<(String, String)> {
    madison.lines().find_map(|line| {
        let mut columns = line.split('|').map(str::trim);
        let (_, version, source) = (columns.next()?, columns.next()?, columns.next()?);
        let suite = source.split_whitespace().nth(1)?.split('/').next()?;
        (major_minor(version)? >= OLDEST).then(|| (version.to_owned(), suite.to_owned()))
    })
}

/// Every directory below `root` that holds a shared library.
pub(crate) fn library_dirs(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![root.join("usr/lib"), root.join("lib")];
    while let Some(dir) = left.pop() {
        let entries: Vec<PathBuf> =
            fs::read_dir(&dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        let library = |file: &PathBuf| {
            let name = file.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
            name.ends_with(".so") || name.contains(".so.")
        };
        if entries.iter().any(library) {
            found.push(dir);
        }
        left.extend(entries.into_iter().filter(|path| path.is_dir() && !path.is_symlink()));
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_the_suite_that_has_it_is_named() {
        let madison = " qemu-system-arm | 1:10.0.2+ds-2 | http://m/debian x-backports/main amd64 Packages\n qemu-system-arm | 1:7.2 | http://m/debian x/main amd64 Packages\n";
        assert_eq!(newest_good(madison), Some(("1:10.0.2+ds-2".to_owned(), "x-backports".to_owned())));
        assert_eq!(newest_good(" qemu-system-arm | 1:7.2 | http://m/debian x/main amd64 Packages\n"), None);
    }
}
