//! Sees to what the build and the boots need: the Rust target and QEMU. Whatever is there already is used as it is; what is missing is
//! fetched, after saying how; and nothing outside `target/` changes except by rustup and, as root, by the distribution's own
//! package manager.

mod fallback;
mod qemu;

pub(crate) use breakwater_witness::{apt, qemu::Qemu};

use crate::{exec, paths, ui};
use anyhow::{Context as _, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Fetching one target's library takes seconds; a dead network must not take minutes.
const RUSTUP_LIMIT: Duration = Duration::from_secs(120);

/// The compiler for the image.
#[derive(Debug, Clone)]
pub(crate) enum Toolchain {
    /// The pinned compiler, with the target's precompiled library.
    Pinned,
    /// A compiler that builds the library itself, from the distribution's source of it.
    BuildStd {
        /// A compiler to set as RUSTC.
        rustc: PathBuf,
        /// An `lld` that links the image.
        linker: PathBuf,
    },
}

/// What a build and a boot stand on.
#[derive(Debug, Clone)]
pub(crate) struct Ready {
    /// The compiler.
    pub(crate) toolchain: Toolchain,
    /// The emulator.
    pub(crate) qemu: Qemu,
}

/// What may be done about something that is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Install {
    /// Fetch it.
    Allowed,
    /// Only report it.
    Never,
}

/// `cargo xtask setup`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only check: say what is missing and fail, install nothing
    #[arg(long)]
    no_install: bool,
    /// Use this QEMU
    #[arg(long, value_name = "FILE", env = "BREAKWATER_QEMU")]
    qemu: Option<PathBuf>,
    /// Also see to the fallback toolchain that `build --fallback-toolchain` and its test use
    #[arg(long)]
    fallback_toolchain: bool,
}

/// Runs `setup` and shows what it found.
///
/// # Errors
/// Something is missing and could not be had.
pub(crate) fn command(args: &Args) -> Result<()> {
    let install = if args.no_install { Install::Never } else { Install::Allowed };
    let _lock = paths::lock()?;
    let found_toolchain = toolchain(install);
    let found_qemu = qemu::find(args.qemu.as_deref(), install);
    match &found_toolchain {
        Ok(Toolchain::Pinned) => ui::step("Rust", &format!("{} is there", paths::TARGET)),
        Ok(Toolchain::BuildStd { rustc, .. }) => ui::step("Rust", &format!("builds core with {}", paths::shown(rustc))),
        Err(error) => ui::failure(&format!("{error:#}")),
    }
    match &found_qemu {
        Ok(qemu) => ui::step("QEMU", &format!("{} at {}", qemu.version, paths::shown(&qemu.program))),
        Err(error) => ui::failure(&format!("{error:#}")),
    }
    for (name, program) in [("rustfmt", "cargo-fmt"), ("clippy", "cargo-clippy")] {
        match component(name, program, install) {
            Ok(()) => ui::step("Rust", &format!("{name} is there, for lint")),
            // Neither a build nor a boot needs it.
            Err(error) => ui::step("Note", &format!("{error:#}")),
        }
    }
    if args.fallback_toolchain {
        fallback::find(install)?;
        ui::step("Rust", "the fallback toolchain is there");
    }
    if found_toolchain.is_err() || found_qemu.is_err() {
        bail!("set-up is not complete");
    }
    Ok(())
}

/// Everything a boot needs, fetched where it is missing.
///
/// # Errors
/// Something is missing and could not be had.
pub(crate) fn ready(qemu: Option<&Path>) -> Result<Ready> {
    let _lock = paths::lock()?;
    Ok(Ready { toolchain: toolchain(Install::Allowed)?, qemu: qemu::find(qemu, Install::Allowed)? })
}

/// An emulator, fetched where there is none.
///
/// # Errors
/// None can be had.
pub(crate) fn emulator(qemu: Option<&Path>) -> Result<Qemu> {
    let _lock = paths::lock()?;
    qemu::find(qemu, Install::Allowed)
}

/// A compiler for the image: the pinned one where its target is there or can be added, else the fallback.
///
/// # Errors
/// Neither can be had.
pub(crate) fn toolchain(install: Install) -> Result<Toolchain> {
    if there() {
        return Ok(Toolchain::Pinned);
    }
    if let Some(there) = fallback::already() {
        return Ok(there);
    }
    if install == Install::Never {
        bail!("the Rust target is missing: rustup target add {}", paths::TARGET);
    }
    ui::step("Setting up", &format!("the Rust target {}", paths::TARGET));
    match add_target() {
        Ok(()) => Ok(Toolchain::Pinned),
        Err(error) => {
            ui::step("Note", &format!("{error:#}; building core from the distribution's source instead"));
            fallback::find(install)
        }
    }
}

/// Sees to it that the compiler in use has its component `name`, of which `program` is one.
///
/// # Errors
/// It is missing, and may not or cannot be fetched.
pub(crate) fn component(name: &str, program: &str, install: Install) -> Result<()> {
    let there = || sysroot().is_some_and(|dir| dir.join("bin").join(program).is_file());
    if there() {
        return Ok(());
    }
    let missing = || format!("{name} is missing: rustup component add {name}");
    if install == Install::Never || exec::on_path("rustup").is_none() {
        bail!("{}", missing());
    }
    ui::step("Setting up", &format!("{name}, for lint"));
    let mut rustup = Command::new("rustup");
    rustup.args(["component", "add", name]).current_dir(paths::root());
    exec::run_within(&mut rustup, RUSTUP_LIMIT).with_context(missing)?;
    ensure!(there(), "rustup added {name}, but not to the toolchain that runs xtask");
    Ok(())
}

/// The fallback toolchain, whether or not the pinned one would do.
///
/// # Errors
/// It cannot be had here.
pub(crate) fn fallback_toolchain() -> Result<Toolchain> {
    let _lock = paths::lock()?;
    fallback::find(Install::Allowed)
}

/// The `lld` that links images with `toolchain`, as GNU's linker is called.
///
/// # Errors
/// Neither the pinned toolchain nor the system has one.
pub(crate) fn linker(toolchain: &Toolchain) -> Result<Command> {
    let program = match toolchain {
        Toolchain::BuildStd { linker, .. } => linker.clone(),
        Toolchain::Pinned => fallback::linker()?,
    };
    let mut command = Command::new(&program);
    if program.file_name().is_some_and(|name| name == "rust-lld") {
        command.args(["-flavor", "gnu"]);
    }
    Ok(command)
}

fn add_target() -> Result<()> {
    if exec::on_path("rustup").is_none() {
        bail!("there is no rustup");
    }
    exec::run_within(
        Command::new("rustup").args(["target", "add", paths::TARGET]).current_dir(paths::root()),
        RUSTUP_LIMIT,
    )?;
    ensure!(there(), "rustup added the target, but not to the toolchain that runs xtask");
    Ok(())
}

/// Where the pinned compiler keeps what belongs to it: Cargo names itself to what it runs, and lives in the toolchain's `bin`.
pub(crate) fn sysroot() -> Option<PathBuf> {
    let by_cargo =
        std::env::var_os("CARGO").map(PathBuf::from).and_then(|cargo| Some(cargo.parent()?.parent()?.to_path_buf()));
    by_cargo.filter(|dir| dir.join("lib/rustlib").is_dir()).or_else(|| {
        let shown = exec::ask(Command::new("rustc").args(["--print", "sysroot"]).current_dir(paths::root())).ok()?;
        Some(PathBuf::from(shown.trim()))
    })
}

/// Whether the pinned compiler has the target's library.
fn there() -> bool {
    sysroot().is_some_and(|dir| dir.join("lib/rustlib").join(paths::TARGET).join("lib").is_dir())
}

/// What Debian packages of what runs before an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loader {
    /// UEFI for QEMU's `virt`.
    Uefi,
    /// U-Boot for the same.
    UBoot,
    /// A boot loader that UEFI starts.
    Grub,
    /// U-Boot for the Raspberry Pi 3.
    UBootRpi3,
    /// The same for the Raspberry Pi 4.
    UBootRpi4,
    /// What the Raspberry Pi's own processor runs: the licence of all the files.
    RaspiFirmware,
}

impl Loader {
    /// The suite of Debian that has it as it is wanted here, if not each has.
    const fn suite(self) -> Option<&'static str> {
        match self {
            Self::Uefi | Self::UBoot | Self::Grub => None,
            Self::UBootRpi3 | Self::UBootRpi4 | Self::RaspiFirmware => Some("trixie"),
        }
    }

    /// Its package, and where that has it.
    const fn place(self) -> (&'static str, &'static str) {
        match self {
            Self::Uefi => ("qemu-efi-aarch64", "usr/share/qemu-efi-aarch64/QEMU_EFI.fd"),
            Self::UBoot => ("u-boot-qemu", "usr/lib/u-boot/qemu_arm64/u-boot.bin"),
            Self::Grub => ("grub-efi-arm64-bin", "usr/lib/grub/arm64-efi/monolithic/grubaa64.efi"),
            Self::UBootRpi3 => ("u-boot-rpi", "usr/lib/u-boot/rpi_3/u-boot.bin"),
            Self::UBootRpi4 => ("u-boot-rpi", "usr/lib/u-boot/rpi_4/u-boot.bin"),
            Self::RaspiFirmware => ("raspi-firmware", "usr/share/doc/raspi-firmware/copyright"),
        }
    }
}

/// Finds or fetches a loader: the system's, or the distribution's package for arm64, unpacked under target/.
///
/// # Errors
/// There is none, and none can be fetched here.
pub(crate) fn loader(which: Loader) -> Result<PathBuf> {
    let _lock = paths::lock()?;
    let (package, file) = which.place();
    let into = paths::out().join("loaders").join(package);
    let installed = which.suite().is_none().then(|| PathBuf::from("/").join(file));
    if let Some(there) = installed.into_iter().chain([into.join(file)]).find(|place| place.is_file()) {
        return Ok(there);
    }
    let install = || format!("install what Debian and Ubuntu call {package}");
    ensure!(apt::usable(), "{}", install());
    let sources = sources(which.suite()).with_context(install)?;
    let (debian, said) = apt::Apt::foreign(paths::out().join("apt-arm64"), "arm64", &sources)?;
    ui::step("Fetching", package);
    let fetched = debian.unpack_alone(&[package.to_owned()], &into, |_| Ok(()));
    fetched.with_context(|| format!("{}: {}", install(), apt::reason(&said)))?;
    ensure!(into.join(file).is_file(), "{package} has no {file}");
    Ok(into.join(file))
}

/// The system's own sources of its distribution; or `suite` of Debian, with what is not free, from the same mirror.
///
/// # Errors
/// They cannot be told, or are not Debian's.
pub(crate) fn sources(suite: Option<&str>) -> Result<Vec<apt::Source>> {
    let (name, codename) = apt::distribution().context("cannot tell which distribution this is")?;
    let own = apt::of_distribution(&codename);
    let Some(suite) = suite else { return Ok(own) };
    ensure!(name == "debian", "that is in Debian's suite {suite}, and this is {name}");
    let mirror = own.into_iter().find(|source| source.suites.contains(&codename));
    let mirror = mirror.with_context(|| format!("the system's apt sources name no mirror for {codename}"))?;
    let components = ["main", "non-free-firmware"].map(str::to_owned).to_vec();
    Ok(vec![apt::Source { suites: vec![suite.to_owned()], components, ..mirror }])
}
