//! Ways into the image that lead through firmware: UEFI, U-Boot and GRUB as Debian packages them, fetched where they are
//! missing, each told to start the image by itself.

use crate::loader::{load, write};
use crate::paths;
use crate::setup::{self, Loader};
use anyhow::{Context, Result};
use breakwater_card::board::REMOVABLE;
use breakwater_card::disk::{self, Table};
use breakwater_card::uboot;
use serde::Deserialize;
use std::fs;
use std::path::Path;

/// Where U-Boot finds the image, and the tree that QEMU has put there.
const IMAGE_AT: u64 = 0x4100_0000;
const TREE_AT: u64 = 0x4000_0000;
/// Where a FIT image lies, and where the image that it holds is moved to.
const FIT_AT: u64 = 0x4400_0000;
const MOVED_TO: u32 = 0x4080_0000;
/// U-Boot's environment on `virt`: at the start of the second flash, whose file is as large as the flash.
const ENVIRONMENT_BYTES: usize = 0x4_0000;
const FLASH_BYTES: u64 = 64 << 20;
/// UEFI does not wait for somebody who wants a menu.
const AT_ONCE: [&str; 2] = ["-boot", "menu=on,splash-time=1"];

/// A way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Way {
    /// UEFI takes the image and its command line from QEMU's -kernel
    Uefi,
    /// UEFI finds the image on a disk, by the removable path. A command line comes with the tree; with ACPI, none
    Esp,
    /// UEFI's shell starts the image from a disk, with a command line
    Shell,
    /// UEFI finds GRUB on a disk, whose devicetree and linux give the image a tree and a command line
    Grub,
    /// The same with linux alone, and with the tree that UEFI has, or ACPI
    Linux,
    /// The same with chainloader
    Chainloader,
    /// The same with xen_hypervisor, and a file as xen_module
    Xen,
    /// U-Boot's bootefi starts the image in memory
    Bootefi,
    /// U-Boot's booti does, with QEMU's tree
    Booti,
    /// U-Boot's bootm starts it from a FIT image in memory, which brings a tree
    Bootm,
    /// U-Boot finds the image on a disk, by the removable path. A command line comes with the tree
    Uboot,
}

/// The options of QEMU that start `img` this way, firmware first. The tree goes where a loader needs one. Files that
/// they name go to `scratch`.
///
/// # Errors
/// A package cannot be had, or a file cannot be written.
pub(crate) fn arguments(way: Way, img: &Path, append: &str, tree: &[u8], scratch: &Path) -> Result<Vec<String>> {
    let image = fs::read(img).with_context(|| paths::shown(img))?;
    let with_disk =
        |bios, files: &[(&str, &[u8])]| Ok([firmware(bios)?, drive(files, scratch)?, words(&AT_ONCE)].concat());
    let grub = |script: &str| {
        let grub = setup::loader(Loader::Grub)?;
        let (program, module) = (fs::read(&grub)?, fs::read(grub.with_file_name("../xen_boot.mod"))?);
        let script = format!("{script}boot\n");
        let files: [(&str, &[u8]); 5] = [
            ("xen_boot.mod", &module),
            (REMOVABLE, &program),
            ("EFI/debian/grub.cfg", script.as_bytes()),
            ("tree.dtb", tree),
            ("image", &image),
        ];
        with_disk(Loader::Uefi, &files)
    };
    // QEMU gives it to the firmware.
    let with_tree = || anyhow::Ok(words(&["-dtb", &write(scratch, "given.dtb", tree)?.display().to_string()]));
    match way {
        Way::Uefi => {
            let kernel = words(&["-kernel", &img.display().to_string(), "-append", append]);
            Ok([firmware(Loader::Uefi)?, kernel].concat())
        }
        Way::Esp => Ok([with_disk(Loader::Uefi, &[(REMOVABLE, &image)])?, with_tree()?].concat()),
        Way::Uboot => Ok([with_disk(Loader::UBoot, &[(REMOVABLE, &image)])?, with_tree()?].concat()),
        Way::Shell => {
            let script = format!("fs0:\\image.efi {append}\r\n");
            with_disk(Loader::Uefi, &[("image.efi", &image), ("startup.nsh", script.as_bytes())])
        }
        Way::Grub => grub(&format!("devicetree /tree.dtb\nlinux /image {append}\n")),
        Way::Linux => grub(&format!("linux /image {append}\n")),
        Way::Chainloader => grub(&format!("chainloader /image {append}\n")),
        Way::Xen => {
            grub(&format!("insmod /xen_boot.mod\nxen_hypervisor /image {append}\nxen_module /EFI/debian/grub.cfg\n"))
        }
        Way::Bootefi => {
            let command = format!("bootefi {IMAGE_AT:#x}:{:#x} {TREE_AT:#x}", image.len());
            commanded(&command, append, load(img, IMAGE_AT), scratch)
        }
        Way::Booti => commanded(&format!("booti {IMAGE_AT:#x} - {TREE_AT:#x}"), append, load(img, IMAGE_AT), scratch),
        Way::Bootm => {
            let fit = write(scratch, "fit.itb", &uboot::fit(&image, MOVED_TO, tree))?;
            commanded(&format!("bootm {FIT_AT:#x}"), append, load(&fit, FIT_AT), scratch)
        }
    }
}

/// U-Boot, told to do `command` with what is `loaded`.
fn commanded(command: &str, append: &str, loaded: Vec<String>, scratch: &Path) -> Result<Vec<String>> {
    let variables = ["bootdelay=0", &format!("bootargs={append}"), &format!("bootcmd={command}")];
    let flash = write(scratch, "environment.img", &uboot::environment(&variables, ENVIRONMENT_BYTES))?;
    fs::OpenOptions::new().write(true).open(&flash)?.set_len(FLASH_BYTES)?;
    let flash = format!("if=pflash,format=raw,index=1,file={}", flash.display());
    Ok([firmware(Loader::UBoot)?, words(&["-drive", &flash]), loaded].concat())
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn firmware(which: Loader) -> Result<Vec<String>> {
    Ok(words(&["-bios", &setup::loader(which)?.display().to_string()]))
}

fn drive(files: &[(&str, &[u8])], scratch: &Path) -> Result<Vec<String>> {
    let file = write(scratch, "disk.img", &disk::with_files(Table::Gpt, files)?)?;
    let drive = format!("if=none,id=disk,format=raw,file={}", file.display());
    Ok(words(&["-drive", &drive, "-device", "virtio-blk-device,drive=disk"]))
}
