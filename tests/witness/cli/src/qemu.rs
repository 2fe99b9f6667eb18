//! A QEMU that can record: 9.2 or later (its plugin interface, and faults that older ones hide). What it records with is the recorder, a
//! plugin whose bytes are part of this command.

use std::fs;
use std::hash::Hasher;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use rustc_hash::FxHasher;

use crate::exec;

/// The emulator's name.
pub const PROGRAM: &str = "qemu-system-aarch64";
/// The oldest version that will do.
pub const OLDEST: (u32, u32) = (9, 2);
/// How to get one, after what is wrong.
pub const HOW_TO_GET: &str = "install QEMU 9.2 or later (qemu-system-aarch64; Debian and Ubuntu: qemu-system-arm, Fedora: \
    qemu-system-aarch64-core, Arch: qemu-system-aarch64), or name one with --qemu FILE or BREAKWATER_QEMU";

/// An emulator.
#[derive(Debug, Clone)]
pub struct Qemu {
    /// Its file.
    pub program: PathBuf,
    /// Its version, as it says it.
    pub version: String,
}

impl Qemu {
    /// A command that runs it.
    #[must_use]
    pub fn command(&self) -> Command {
        Command::new(&self.program)
    }
}

/// No display, no network, this `-serial`, and semihosting for the exit status.
pub fn quiet_console<'a>(command: &'a mut Command, serial: &str) -> &'a mut Command {
    command.args(["-display", "none", "-serial", serial, "-monitor", "none", "-nic", "none", "-no-reboot"]);
    command.args(["-semihosting-config", "enable=on,target=native"])
}

/// The emulator asked for, or the one on PATH.
///
/// # Errors
/// There is none, or it is too old.
pub fn find(asked: Option<&Path>) -> Result<Qemu> {
    match asked {
        Some(program) => usable(program.to_path_buf()),
        None => usable(exec::on_path(PROGRAM).with_context(|| format!("there is no {PROGRAM} on PATH"))?),
    }
}

/// [`find`], for whoever has no other way to get one.
///
/// # Errors
/// As [`find`]; the error says how to get one.
pub fn required(asked: Option<&Path>) -> Result<Qemu> {
    find(asked).or_else(|why| bail!("{why:#}: {HOW_TO_GET}"))
}

/// Asks a QEMU for its version and refuses one that is too old.
///
/// # Errors
/// It cannot be run, does not say its version, or is too old.
pub fn usable(program: PathBuf) -> Result<Qemu> {
    let said = exec::ask(Command::new(&program).arg("--version"))?;
    let version = said.split_whitespace().skip_while(|word| *word != "version").nth(1);
    let version = version.context("QEMU does not say its version")?.to_owned();
    if major_minor(&version).is_none_or(|version| version < OLDEST) {
        bail!("{} is QEMU {version}, and {}.{} is needed", program.display(), OLDEST.0, OLDEST.1);
    }
    Ok(Qemu { program, version })
}

/// `1:10.0.2+ds-2` is 10.0.
#[must_use]
pub fn major_minor(version: &str) -> Option<(u32, u32)> {
    let upstream = version.split_once(':').map_or(version, |(_, rest)| rest);
    let mut numbers = upstream.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

static RECORDER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/recorder.so"));

/// The recorder as a file in `dir`, where QEMU can load it. It is written by way of a temporary file, so that others may do the same meanwhile.
///
/// # Errors
/// The file cannot be written.
pub fn recorder(dir: &Path) -> Result<PathBuf> {
    // Named by its contents: another version of this command may run at the same time.
    let mut hasher = FxHasher::default();
    hasher.write(RECORDER);
    let file = dir.join(format!("libbreakwater_recorder-{:016x}.so", hasher.finish()));
    if fs::read(&file).is_ok_and(|there| there == RECORDER) {
        return Ok(file);
    }
    let name = || format!("cannot write {}", file.display());
    fs::create_dir_all(dir).with_context(name)?;
    let partial = dir.join(format!("recorder-{}.partial", std::process::id()));
    fs::write(&partial, RECORDER).and_then(|()| fs::rename(&partial, &file)).with_context(name)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_versions_compare_by_number() {
        assert_eq!(major_minor("1:10.0.2+ds-2+deb13u1~bpo12+1"), Some((10, 0)));
        assert!(major_minor("9.2.1").is_some_and(|version| version >= OLDEST));
        assert!(major_minor("1:7.2+dfsg-7").is_some_and(|version| version < OLDEST));
    }

    #[test]
    fn bad_no_emulator_and_how_to_get_one() {
        let error = required(Some(Path::new("/nowhere/qemu"))).expect_err("there is none").to_string();
        assert!(error.contains("/nowhere/qemu") && error.contains("install QEMU 9.2 or later"), "{error}");
        assert_eq!(error.lines().count(), 1);
    }

    #[test]
    fn good_the_recorder_is_a_shared_library_and_written_once() {
        let dir = std::env::temp_dir().join(format!("breakwater-plugin-{}", std::process::id()));
        let file = recorder(&dir).expect("it can be written");
        let written = fs::metadata(&file).and_then(|data| data.modified()).expect("it is there");
        assert!(fs::read(&file).is_ok_and(|bytes| bytes.starts_with(b"\x7fELF")));
        assert_eq!(recorder(&dir).ok(), Some(file.clone()));
        assert_eq!(fs::metadata(&file).and_then(|data| data.modified()).ok(), Some(written));
        fs::remove_dir_all(&dir).expect("it is this test's");
    }
}
