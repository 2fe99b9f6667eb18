//! A UEFI firmware for QEMU's `virt`: the system's, or the distribution's package unpacked under target/.

use super::apt;
use crate::paths;
use anyhow::{Context, Result, bail};
use std::path::PathBuf;

const PACKAGE: &str = "qemu-efi-aarch64";
const FILE: &str = "usr/share/qemu-efi-aarch64/QEMU_EFI.fd";

/// Finds or fetches it.
///
/// # Errors
/// There is none, and none can be fetched here.
pub(crate) fn find() -> Result<PathBuf> {
    let _lock = paths::lock()?;
    let into = paths::out().join("firmware");
    let places = [PathBuf::from("/").join(FILE), into.join(FILE)];
    if let Some(there) = places.iter().find(|file| file.is_file()) {
        return Ok(there.clone());
    }
    if !apt::usable() {
        bail!("install a UEFI firmware for AArch64 (Debian and Ubuntu: {PACKAGE})");
    }
    let (_, codename) = apt::distribution().context("cannot tell which distribution this is")?;
    apt::Apt::new(paths::out().join("apt"), &codename, &[])?.unpack(&[PACKAGE], None, &into, |_| Ok(()))?;
    Ok(into.join(FILE))
}
