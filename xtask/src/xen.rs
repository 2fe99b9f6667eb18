//! `cargo xtask xen`: Debian's Xen as it is and with our core (tests/xen/trial), with the emulator, the packages and
//! the library that are xtask's to bring.

use crate::setup::{self, Loader};
use crate::{image, linux, paths};
use anyhow::{Context as _, Result};
use breakwater_witness::Tools;
use breakwater_xen_trial::Ground;
use breakwater_xen_trial::boot::Supply;
use breakwater_xen_trial::library;
pub(crate) use breakwater_xen_trial::{AFTER_HELP, Args};
use std::path::PathBuf;

/// Fetches, builds, boots, watches and compares.
///
/// # Errors
/// Something cannot be had, or what was shown is not what was promised.
pub(crate) fn command(args: &Args) -> Result<()> {
    let home = paths::out().join("xen");
    let tools = Tools::new(setup::emulator(args.qemu.as_deref())?, &home.join("scratch"), &home)?;
    breakwater_xen_trial::command(args, &Ground { home, tools, supply: &Brought, library: &library })
}

/// What domains and loaders are made of.
struct Brought;

impl Supply for Brought {
    fn kernel_and_initrd(&self, init: &str) -> Result<(PathBuf, Vec<u8>)> {
        linux::kernel_and_initrd(init)
    }

    fn uefi(&self) -> Result<PathBuf> {
        setup::loader(Loader::Uefi)
    }

    fn grub(&self) -> Result<(PathBuf, PathBuf)> {
        let program = setup::loader(Loader::Grub)?;
        let module = program.with_file_name("../xen_boot.mod");
        Ok((program, module))
    }
}

/// Builds the library that our Xen links; for one that speaks on the UART at `early_uart`, if there is one.
fn library(early_uart: Option<&str>) -> Result<PathBuf> {
    let toolchain = setup::ready(None)?.toolchain;
    let mut cargo = image::cargo(&toolchain, "build", None);
    early_uart.map(|registers| cargo.env("BREAKWATER_XEN_EARLY_UART", registers));
    crate::exec::run(cargo.args(["--package", "breakwater-xen"])).context("our library for Xen does not build")?;
    Ok(paths::target().join(paths::TARGET).join("release").join("libbreakwater_xen.a"))
}

/// Builds that library, and checks it.
///
/// # Errors
/// It does not build, or see [`library::check`].
pub(crate) fn check_library() -> Result<()> {
    library::check(&std::fs::read(library(None)?)?)
}
