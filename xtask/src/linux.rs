//! `cargo xtask guest`: boot/examples/guest.rs, the example hypervisor, and what runs under it: Debian's arm64 kernel
//! with a user space of one shell script, or ten instructions that try to get out.
//!
//! The hypervisor and its guest share a machine of 2 GiB: the first is the hypervisor's, the second is the guest's. The
//! guest's tree is QEMU's own, less what the hypervisor does not give: other CPUs, and devices that are not mapped in
//! stage 2.

use crate::boot::Boot;
use crate::image;
use crate::loader::{self, IMAGE_AT, Loading, State};
use crate::machine::Machine;
use crate::setup::{self, Qemu, Toolchain};
use crate::trees::{GUEST_RAM as RAM, GUEST_RAM_BYTES as RAM_BYTES};
use crate::{child, exec, paths, trees, ui};
use anyhow::{Context, Result, bail, ensure};
use breakwater_witness::apt::{self, Apt};
use cpio::{NewcBuilder, newc};
use dtoolkit::Node;
use dtoolkit::fdt::Fdt;
use dtoolkit::model::{DeviceTree, DeviceTreeProperty};
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is loaded into the guest's RAM.
const KERNEL_AT: u64 = RAM + 0x20_0000;
const TREE_AT: u64 = RAM + 0x800_0000;
const INITRD_AT: u64 = RAM + 0x900_0000;

/// The package whose dependency is the kernel's newest.
const PACKAGE: &str = "linux-image-arm64";
/// What the guest runs as its first process.
const INIT: &str = "#!/bin/busybox sh\necho \"user space: $(/bin/busybox uname -a)\"\nexec /bin/busybox poweroff -f\n";
/// What of QEMU's tree is the guest's: nodes of the root, by their names without the address.
const NODES: [&str; 9] = ["aliases", "apb-pclk", "chosen", "cpus", "intc", "memory", "pl011", "psci", "timer"];

/// `cargo xtask guest`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run the ten instructions that try to get out, not the kernel: the run ends with their abort, status 4
    #[arg(long)]
    twin: bool,
    /// CPUs of the machine; the guest has one
    #[arg(long, default_value_t = 2, value_name = "N")]
    smp: u32,
    /// Add this to the kernel's command line
    #[arg(long, default_value = "", value_name = "LINE", allow_hyphen_values = true)]
    append: String,
    /// Use this QEMU
    #[arg(long, value_name = "FILE", env = "BREAKWATER_QEMU")]
    qemu: Option<PathBuf>,
    /// Seconds until a run counts as hung
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    timeout: u64,
}

/// What runs under the hypervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Guest {
    /// Debian's kernel, to user space and power-off.
    Linux,
    /// Ten instructions: a CPU_ON, and a store to the hypervisor's image.
    Twin,
}

/// Runs `guest`.
///
/// # Errors
/// Set-up, build or run failed.
pub(crate) fn command(args: &Args) -> Result<()> {
    let ready = setup::ready(args.qemu.as_deref())?;
    let img = build(&ready.toolchain)?;
    let scratch = paths::out().join("guest");
    let guest = if args.twin { Guest::Twin } else { Guest::Linux };
    let machine = Machine { smp: args.smp, options: vec!["its=off".to_owned()], ..Machine::default() };
    let tree = trees::make("guest", &ready.qemu, &machine, "exit=semihosting", &scratch)?;
    let entry = Loading::Shim { tree: tree.bytes, tree_at: tree.at, image_at: IMAGE_AT, state: State::AsProtocol };
    let boot = Boot { qemu: &ready.qemu, img: &img, machine: &machine, entry: &entry, scratch: &scratch };
    let mut qemu = boot.command()?;
    qemu.args(arguments(guest, &ready.qemu, &machine, &args.append, &scratch)?);
    ui::command(&exec::shown(&qemu));
    let finished = child::run(&mut qemu, Duration::from_secs(args.timeout), true)?;
    ensure!(!finished.timed_out, "the guest still runs after {} s", args.timeout);
    let wanted = if args.twin { 4 } else { 0 };
    ensure!(finished.status == Some(wanted), "QEMU's status is {:?}, not {wanted}", finished.status);
    ui::step("Ran", &format!("in {:.2} s, as it should", finished.took.as_secs_f64()));
    Ok(())
}

/// Builds and flattens the example.
///
/// # Errors
/// It does not build.
pub(crate) fn build(toolchain: &Toolchain) -> Result<PathBuf> {
    // As tests/boot does, so that the library is compiled once for all.
    let with = ["--package", "breakwater-boot", "--features", "earlycon-semihosting", "--example", "guest"];
    Ok(image::program(toolchain, &with)?.img)
}

/// The options that load a guest into its RAM. Files that have to be made go to `scratch`.
///
/// # Errors
/// The kernel's packages cannot be had, or a file cannot be written.
pub(crate) fn arguments(
    guest: Guest,
    qemu: &Qemu,
    machine: &Machine,
    append: &str,
    scratch: &Path,
) -> Result<Vec<String>> {
    if guest == Guest::Twin {
        return Ok(loader::load(&loader::write(scratch, "twin.bin", &twin())?, KERNEL_AT));
    }
    let (kernel, initrd) = kernel_and_initrd(INIT)?;
    let line = format!("console=ttyAMA0 {append}");
    let tree = tree(&machine.tree(qemu, scratch)?, line.trim_end(), INITRD_AT + initrd.len() as u64)?;
    let kernel = loader::load(&kernel, KERNEL_AT);
    let tree = loader::load(&loader::write(scratch, "guest.dtb", &tree)?, TREE_AT);
    Ok([kernel, tree, loader::load(&loader::write(scratch, "initrd.cpio", &initrd)?, INITRD_AT)].concat())
}

/// Asks for another CPU, by its own code, then writes to the hypervisor's image.
fn twin() -> Vec<u8> {
    const IMAGE_64K: u32 = (IMAGE_AT >> 16) as u32;
    let code: [u32; 10] = [
        0xd280_0060,                  // mov x0, #3
        0xf2b8_8000,                  // movk x0, #0xc400, lsl #16: CPU_ON
        0xd280_0021,                  // mov x1, #1
        0x1000_0002,                  // adr x2, .
        0xd400_0003,                  // smc #0
        0xb100_0c1f,                  // cmn x0, #3: DENIED
        0x5400_0001,                  // b.ne .
        0xd2a0_0004 | IMAGE_64K << 5, // mov x4, #IMAGE_AT
        0xf900_0080,                  // str x0, [x4]
        0x1400_0000,                  // b .
    ];
    code.into_iter().flat_map(u32::to_le_bytes).collect()
}

/// Debian's kernel, and a user space whose first process is the script `init`.
///
/// # Errors
/// The packages cannot be had, or the archive cannot be made.
pub(crate) fn kernel_and_initrd(init: &str) -> Result<(PathBuf, Vec<u8>)> {
    let debian = fetch()?;
    let initrd = initrd(&fs::read(debian.join(BUSYBOX))?, init)?;
    Ok((debian.join(KERNEL), initrd))
}

/// The user space: one program that is many, and a script.
fn initrd(busybox: &[u8], init: &str) -> Result<Vec<u8>> {
    const DIRECTORY: u32 = 0o040_755;
    const PROGRAM: u32 = 0o100_755;
    let files: [(&str, u32, &[u8]); 3] =
        [("bin", DIRECTORY, &[]), ("bin/busybox", PROGRAM, busybox), ("init", PROGRAM, init.as_bytes())];
    let mut archive = Vec::new();
    for (name, mode, contents) in files {
        let size = u32::try_from(contents.len())?;
        let mut file = NewcBuilder::new(name).mode(mode).nlink(1).write(&mut archive, size);
        std::io::Write::write_all(&mut file, contents)?;
        file.finish()?;
    }
    Ok(newc::trailer(archive)?)
}

/// The guest's tree, out of QEMU's.
fn tree(base: &[u8], command_line: &str, initrd_end_exclusive: u64) -> Result<Vec<u8>> {
    let fdt = Fdt::new(base).map_err(|error| anyhow::anyhow!("QEMU's tree: {error}"))?;
    let mut tree = DeviceTree::from_fdt(&fdt);
    trees::keep(&mut tree.root, |name| NODES.contains(&name.split('@').next().unwrap_or(name)));
    trees::keep(trees::node(&mut tree, "/cpus")?, |name| name == "cpu@0");
    for memory in tree.root.children_mut().filter(|node| node.name().starts_with("memory@")) {
        trees::set(memory, trees::reg(&[(RAM, RAM_BYTES)]));
    }
    let chosen = trees::node(&mut tree, "/chosen")?;
    trees::set(chosen, DeviceTreeProperty::new_unchecked("bootargs", command_line));
    trees::set(chosen, DeviceTreeProperty::new_unchecked("linux,initrd-start", INITRD_AT));
    trees::set(chosen, DeviceTreeProperty::new_unchecked("linux,initrd-end", initrd_end_exclusive));
    Ok(tree.to_dtb())
}

const KERNEL: &str = "kernel";
const BUSYBOX: &str = "busybox";

/// Debian's packages for arm64, and the name of that of its newest kernel: of the distribution, or of another suite.
/// `what` is made of them.
///
/// # Errors
/// They cannot be had.
pub(crate) fn newest_kernel(what: &str, suite: Option<&str>) -> Result<(Apt, String)> {
    ensure!(apt::usable(), "{what}, and this machine has no apt to fetch them");
    let sources = setup::sources(suite).with_context(|| what.to_owned())?;
    ensure!(!sources.is_empty(), "{what}, and the system's apt sources name no mirror");
    let (debian, said) = Apt::foreign(paths::out().join("apt-arm64"), "arm64", &sources)?;
    let Some(kernel) = debian.dependency(PACKAGE) else {
        bail!("cannot fetch Debian's arm64 kernel, {PACKAGE}: {}", apt::reason(&said));
    };
    Ok((debian, kernel))
}

/// Removes these folders of what a package has.
///
/// # Errors
/// One cannot be removed.
pub(crate) fn leave_out(tree: &Path, folders: &[&str]) -> Result<()> {
    for folder in folders.iter().map(|folder| tree.join(folder)).filter(|folder| folder.is_dir()) {
        fs::remove_dir_all(folder)?;
    }
    Ok(())
}

/// Debian's kernel and busybox for arm64, from `target/breakwater/debian-arm64` if they are there, otherwise fetched by
/// a private apt.
fn fetch() -> Result<PathBuf> {
    let _lock = paths::lock()?;
    let home = paths::out().join("debian-arm64");
    if home.is_dir() {
        return Ok(home);
    }
    let (debian, kernel) = newest_kernel("the guest is made of Debian packages", None)?;
    let busybox = "busybox-static";
    ui::step("Fetching", &format!("{kernel} and {busybox} for arm64"));
    debian.unpack_alone(&[kernel.clone(), busybox.to_owned()], &home, |tree| {
        let of_kernel = fs::read_dir(tree.join("boot"))?.flatten().map(|entry| entry.path());
        let image = of_kernel.into_iter().find(|file| file.to_string_lossy().contains("/vmlinuz-"));
        let image = image.with_context(|| format!("{kernel} has no kernel"))?;
        ensure!(fs::read(&image)?.get(56..60) == Some(b"ARM\x64"), "{kernel}'s kernel is no arm64 Image");
        fs::rename(image, tree.join(KERNEL))?;
        fs::rename(tree.join("bin/busybox"), tree.join(BUSYBOX))?;
        // Some hundred MiB of modules.
        leave_out(tree, &["bin", "boot", "lib", "usr"])
    })?;
    Ok(home)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dtoolkit::Property;
    use dtoolkit::model::DeviceTreeNode;

    #[test]
    fn good_the_guests_tree_has_one_cpu_its_own_ram_and_no_other_device() {
        let mut base = DeviceTree::new();
        for name in ["chosen", "cpus", "fw-cfg@9020000", "memory@40000000", "pl011@9000000"] {
            base.root.add_child(DeviceTreeNode::new_unchecked(name));
        }
        let cpus = trees::node(&mut base, "/cpus").expect("it was added");
        ["cpu@0", "cpu@1"].into_iter().for_each(|name| cpus.add_child(DeviceTreeNode::new_unchecked(name)));
        let bytes = tree(&base.to_dtb(), "console=ttyAMA0", INITRD_AT + 5).expect("a tree");
        let made = DeviceTree::from_fdt(&Fdt::new(&bytes).expect("a tree"));
        let there = |path| made.find_node(path).is_some();
        assert!(there("/pl011@9000000") && there("/cpus/cpu@0") && !there("/cpus/cpu@1") && !there("/fw-cfg@9020000"));
        let reg = made.find_node("/memory@40000000").and_then(|memory| memory.property("reg")).expect("its memory");
        assert_eq!(reg.value(), [RAM.to_be_bytes(), RAM_BYTES.to_be_bytes()].concat());
        let end = made.find_node("/chosen").and_then(|chosen| chosen.property("linux,initrd-end")).expect("an initrd");
        assert_eq!(end.value(), (INITRD_AT + 5).to_be_bytes());
    }

    #[test]
    fn good_the_initrd_is_an_archive_of_three_files() {
        let archive = initrd(b"a program", INIT).expect("an archive");
        let files = archive.windows(6).filter(|window| window == b"070701").count();
        assert_eq!((files, &archive[..6]), (4, b"070701".as_slice())); // and its end
    }

    #[test]
    fn good_the_twin_is_ten_instructions_and_stores_to_the_image() {
        let words: Vec<u32> =
            twin().chunks(4).map(|word| u32::from_le_bytes(word.try_into().expect("a word"))).collect();
        assert_eq!((words.len(), words[7]), (10, 0xd2a8_8004)); // mov x4, #0x4400_0000
    }
}
