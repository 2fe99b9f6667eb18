//! Boots Xen with Debian's kernel as its first domain, to a line of that kernel's user space and to power-off.
//!
//! Why it exists: a page table that is wrong shows when somebody uses it; a hypervisor that builds a domain, runs its
//! kernel and shuts down uses all of its own. What must hold: the domain is told from Xen itself, by a line that its
//! first process alone prints; a boot ends by itself, with the status of a machine that was switched off. What it
//! refuses: to guess from the serial line of a boot that hung.
//!
//! By `-kernel` QEMU brings Xen, and its guest-loader the modules. A tree that QEMU would not make, with banks that
//! have a hole or with a domain of its own, goes by a shim. UEFI and GRUB find everything on a disk.

mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use breakwater_card::board::REMOVABLE;
use breakwater_card::disk::{self, Table};
use breakwater_witness::child::{self, Finished, Limits};
use breakwater_witness::loader::{self, IMAGE_AT, Loading, State, TREE_AT};
use breakwater_witness::machine::Machine;
use breakwater_witness::qemu::{Qemu, quiet_console};

/// What the first process of a domain prints.
pub const MARKER: &str = "user space of the domain";
/// Xen says so before it switches the machine off.
const HALTED: &str = "Hardware Dom0 halted: halting machine";
/// Xen says so when it gives up; without `noreboot` QEMU ends a few seconds later.
const PANIC: &str = "Panic on CPU";
/// Where a domain's kernel lies until Xen copies it, above the tree that QEMU makes.
const KERNEL_AT: u64 = 0x4900_0000;
const ALIGNMENT: u64 = 2 << 20;
/// Xen's command line.
const APPEND: &str = "console=dtuart dtuart=/pl011@9000000 bootscrub=0";
/// The first domain's kernel's.
const DOM0: &str = "console=hvc0";
/// UEFI does not wait for somebody who wants a menu.
const AT_ONCE: [&str; 2] = ["-boot", "menu=on,splash-time=1"];

/// Files that domains run, and firmware.
pub trait Supply: Sync {
    /// Debian's arm64 kernel, and an archive whose first process is the script `init`.
    ///
    /// # Errors
    /// They cannot be had.
    fn kernel_and_initrd(&self, init: &str) -> Result<(PathBuf, Vec<u8>)>;

    /// UEFI for `virt`.
    ///
    /// # Errors
    /// It cannot be had.
    fn uefi(&self) -> Result<PathBuf>;

    /// GRUB for UEFI, and its module that starts Xen.
    ///
    /// # Errors
    /// They cannot be had.
    fn grub(&self) -> Result<(PathBuf, PathBuf)>;
}

/// Who starts Xen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Way {
    /// QEMU's `-kernel`.
    #[default]
    Kernel,
    /// A shim, with a tree of ours: two banks of memory with a hole between them.
    Banks,
    /// The same with one domain in the tree, and no first one.
    Dom0less,
    /// UEFI, which finds Xen and its configuration on a disk.
    Uefi,
    /// GRUB's `xen_hypervisor`, which UEFI finds on a disk.
    Grub,
}

/// A boot.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its machine.
    pub machine: Machine,
    /// Who starts Xen.
    pub way: Way,
    /// Memory of the first domain, as Xen's command line has it.
    pub dom0_memory: &'static str,
    /// More of Xen's command line.
    pub append: &'static str,
}

/// A machine whose time is the number of instructions: on a busy host its timers do not fire sooner than its CPUs can
/// answer, and two boots are alike. Its CPUs take turns; those that are watched run side by side.
pub(crate) fn counted() -> Machine {
    Machine { smp: 1, icount: true, ..Machine::default() }
}

impl Default for Case {
    fn default() -> Self {
        Self { machine: counted(), way: Way::Kernel, dom0_memory: "256M", append: "" }
    }
}

/// A file that Xen gets beside its image.
pub(crate) struct Module {
    /// What Xen takes it for: `kernel` or `ramdisk`.
    pub(crate) kind: &'static str,
    pub(crate) file: PathBuf,
    pub(crate) at: u64,
    pub(crate) bytes: u64,
    /// Its command line, if it has one.
    pub(crate) line: &'static str,
}

impl Case {
    /// Xen's command line.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{APPEND} dom0_mem={} {}", self.dom0_memory, self.append).trim_end().to_owned()
    }

    /// The options of QEMU that bring Xen and its modules, beside those of the machine. Files go to `scratch`.
    ///
    /// # Errors
    /// A file cannot be had, read or written.
    pub fn arguments(&self, qemu: &Qemu, xen: &Path, supply: &dyn Supply, scratch: &Path) -> Result<Vec<String>> {
        fs::create_dir_all(scratch)?;
        match self.way {
            Way::Kernel => {
                let load = Loading::Kernel { load_address: None, append: self.line() };
                let load = loader::arguments(&load, &self.machine, xen, scratch)?;
                Ok([load, self.guests(supply, scratch)?].concat())
            }
            Way::Banks => {
                let line = self.line();
                self.shimmed(qemu, xen, supply, scratch, &|tree, modules| {
                    tree::two_banks(tree, self.machine.memory_bytes()?)?;
                    tree::set_line(tree, &line)?;
                    modules.iter().try_for_each(|module| tree::add_module(tree, "/chosen", module))
                })
            }
            Way::Dom0less => {
                let line = self.line();
                self.shimmed(qemu, xen, supply, scratch, &|tree, modules| {
                    tree::set_line(tree, &line)?;
                    tree::add_domain(tree, modules)
                })
            }
            Way::Uefi | Way::Grub => self.disk_arguments(xen, supply, scratch),
        }
    }

    /// The modules, as QEMU's guest-loader brings them.
    ///
    /// # Errors
    /// As [`Case::arguments`].
    pub fn guests(&self, supply: &dyn Supply, scratch: &Path) -> Result<Vec<String>> {
        let of_module = |module: &Module| {
            let Module { kind, file, at, line, .. } = module;
            let kind = if *kind == "ramdisk" { "initrd" } else { kind };
            let line = if line.is_empty() { String::new() } else { format!(",bootargs={line}") };
            ["-device".to_owned(), format!("guest-loader,addr={at:#x},{kind}={}{line}", file.display())]
        };
        Ok(modules(supply, scratch, DOM0)?.iter().flat_map(of_module).collect())
    }

    /// By a shim, with QEMU's own tree changed by `edit`.
    fn shimmed(
        &self,
        qemu: &Qemu,
        xen: &Path,
        supply: &dyn Supply,
        scratch: &Path,
        edit: &dyn Fn(&mut tree::Tree, &[Module]) -> Result<()>,
    ) -> Result<Vec<String>> {
        let line = if self.way == Way::Dom0less { "console=ttyAMA0" } else { DOM0 };
        let modules = modules(supply, scratch, line)?;
        let tree = tree::made(&self.machine.tree(qemu, scratch)?, |tree| edit(tree, &modules))?;
        let shim = Loading::Shim { tree, tree_at: TREE_AT, image_at: IMAGE_AT, state: State::AsProtocol };
        let shim = loader::arguments(&shim, &self.machine, xen, scratch)?;
        let loads = modules.iter().flat_map(|module| loader::load(&module.file, module.at));
        Ok(shim.into_iter().chain(loads).collect())
    }

    /// By firmware, with everything on a disk.
    fn disk_arguments(&self, xen: &Path, supply: &dyn Supply, scratch: &Path) -> Result<Vec<String>> {
        let (kernel, initrd) = supply.kernel_and_initrd(&init())?;
        let (xen, kernel, line) = (fs::read(xen)?, fs::read(kernel)?, self.line());
        let common: [(&str, &[u8]); 2] = [("kernel", &kernel), ("initrd", &initrd)];
        let disk = if self.way == Way::Uefi {
            // Xen looks for a file of its own name beside itself.
            let beside = "EFI/BOOT/BOOTAA64.cfg";
            let text =
                format!("[global]\ndefault=dom0\n[dom0]\noptions={line}\nkernel=\\kernel {DOM0}\nramdisk=\\initrd\n");
            let files: [(&str, &[u8]); 2] = [(REMOVABLE, &xen), (beside, text.as_bytes())];
            disk::with_files(Table::Gpt, &[&common[..], &files].concat())?
        } else {
            let (program, module) = supply.grub()?;
            let (program, module) = (fs::read(program)?, fs::read(module)?);
            let script = format!(
                "insmod /xen_boot.mod\nxen_hypervisor /xen {line}\nxen_module /kernel {DOM0}\nxen_module /initrd\nboot\n"
            );
            let files: [(&str, &[u8]); 4] = [
                (REMOVABLE, &program),
                ("xen_boot.mod", &module),
                ("EFI/debian/grub.cfg", script.as_bytes()),
                ("xen", &xen),
            ];
            disk::with_files(Table::Gpt, &[&common[..], &files].concat())?
        };
        let file = loader::write(scratch, "disk.img", &disk)?;
        let drive = format!("if=none,id=disk,format=raw,file={}", file.display());
        let words = ["-bios", &supply.uefi()?.display().to_string(), "-drive", &drive, "-device"];
        let words = words.into_iter().chain(["virtio-blk-device,drive=disk"]).chain(AT_ONCE);
        Ok(words.map(str::to_owned).collect())
    }

    /// QEMU's command line for this boot of the image `xen`. Files go to `scratch`.
    ///
    /// # Errors
    /// As [`Case::arguments`].
    pub fn command(&self, qemu: &Qemu, xen: &Path, supply: &dyn Supply, scratch: &Path) -> Result<Command> {
        let mut machine = self.machine.clone();
        if matches!(self.way, Way::Uefi | Way::Grub) {
            // Xen's defconfig has no ACPI.
            machine.options.push("acpi=off".to_owned());
        }
        let mut command = qemu.command();
        command.args(machine.arguments()?);
        command.args(self.arguments(qemu, xen, supply, scratch)?);
        quiet_console(&mut command, "stdio");
        Ok(command)
    }

    /// Boots it to its end, or until QEMU has worked for `timeout`: who waits for a busy host does not hang.
    ///
    /// # Errors
    /// As [`Case::command`]; QEMU cannot be run; or what [`Case::judge`] says.
    pub fn run(&self, command: &mut Command, timeout: Duration) -> Result<Finished> {
        // Who has no first domain goes on when its domains have ended.
        let marker = (self.way == Way::Dom0less).then(|| MARKER.to_owned());
        let limits = Limits { timeout: 10 * timeout, work: Some(timeout), marker, ..Limits::default() };
        let finished = child::run_until(command, &limits, false)?;
        self.judge(&finished)?;
        Ok(finished)
    }

    /// Whether the boot came to where it should.
    ///
    /// # Errors
    /// What it lacks, in one line, with the last that was said.
    pub fn judge(&self, finished: &Finished) -> Result<()> {
        let serial = &finished.serial;
        let last = serial.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing was said").trim();
        let panic =
            serial.lines().skip_while(|line| !line.contains(PANIC)).map(|line| line.trim_start_matches("(XEN)").trim());
        let panic: Vec<&str> = panic.take(2).collect();
        ensure!(panic.is_empty(), "{}", panic.join(" "));
        ensure!(!finished.timed_out, "it hangs after {:.0} s: {last}", finished.took.as_secs_f64());
        ensure!(serial.contains(MARKER), "it ended without its domain: {last}, {}", finished.ended());
        let (smp, up) = (self.machine.smp, serial.lines().find_map(brought_up));
        ensure!(up == Some(smp), "of {smp} CPUs {} came up", up.unwrap_or(0));
        if self.way != Way::Dom0less {
            ensure!(finished.status == Some(0), "it did not switch off: {}", finished.ended());
            ensure!(serial.contains(HALTED), "it ended otherwise than by its first domain: {last}");
        }
        Ok(())
    }
}

/// Requires that the core has audited its tables when init was done, and found what was declared.
///
/// # Errors
/// It did not, or it found something else: its line.
pub fn require_audit(serial: &str) -> Result<()> {
    let said = serial.lines().find_map(|line| line.split_once("breakwater: audit: ")).map(|(_, said)| said.trim());
    let said = said.context("the core has audited nothing")?;
    ensure!(said.split(", ").any(|part| part == "0 mismatches"), "the audit says: {said}");
    Ok(())
}

/// How many CPUs run, if that is what this line of Xen's says.
fn brought_up(line: &str) -> Option<u32> {
    line.split_once("Brought up ")?.1.split_whitespace().next()?.parse().ok()
}

/// The script that a domain's user space is.
fn init() -> String {
    format!("#!/bin/busybox sh\necho \"{MARKER}\"\nexec /bin/busybox poweroff -f\n")
}

/// The domain's kernel with this command line, and its user space, as files.
fn modules(supply: &dyn Supply, scratch: &Path, line: &'static str) -> Result<[Module; 2]> {
    let (kernel, initrd) = supply.kernel_and_initrd(&init())?;
    let initrd = loader::write(scratch, "initrd.cpio", &initrd)?;
    let of_file = |kind, file: PathBuf, at: u64, line| -> Result<Module> {
        let bytes = fs::metadata(&file)?.len();
        Ok(Module { kind, file, at, bytes, line })
    };
    let kernel = of_file("kernel", kernel, KERNEL_AT, line)?;
    let after = (kernel.at + kernel.bytes).next_multiple_of(ALIGNMENT);
    Ok([kernel, of_file("ramdisk", initrd, after, "")?])
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: &str = "(XEN) Brought up 1 CPUs\n";

    fn ended(serial: &str, status: Option<i32>) -> Finished {
        Finished { serial: serial.to_owned(), status, ..Finished::default() }
    }

    #[test]
    fn good_a_domain_that_switches_off_is_a_boot() {
        let serial = format!("(XEN) Brought up 1 CPUs\n{MARKER}\n(XEN) {HALTED}\n");
        assert!(Case::default().judge(&ended(&serial, Some(0))).is_ok());
        let alone = Case { way: Way::Dom0less, ..Case::default() };
        assert!(alone.judge(&ended(&format!("{UP}(XEN) DOM1: {MARKER}\n"), None)).is_ok());
    }

    #[test]
    fn bad_a_boot_that_lacks_something_says_what() {
        let refused = |serial: &str, status| {
            Case::default().judge(&ended(serial, status)).expect_err("it is no boot").to_string()
        };
        let said = format!("{UP}{MARKER}\n");
        assert!(
            refused(&format!("{UP}(XEN) so far\n"), Some(0)).starts_with("it ended without its domain: (XEN) so far")
        );
        assert_eq!(refused(&format!("(XEN) Brought up 2 CPUs\n{MARKER}"), Some(0)), "of 1 CPUs 2 came up");
        assert_eq!(refused(MARKER, Some(0)), "of 1 CPUs 0 came up");
        assert!(refused(&said, Some(1)).starts_with("it did not switch off"));
        assert!(refused(&said, Some(0)).starts_with("it ended otherwise"));
        let panic = "(XEN) Panic on CPU 0:\n(XEN) Unable to do so\n(XEN) ***\n";
        assert_eq!(refused(panic, None), "Panic on CPU 0: Unable to do so");
        let hung = Finished { timed_out: true, ..ended("(XEN) here\n\n", None) };
        assert!(
            Case::default()
                .judge(&hung)
                .expect_err("it hung")
                .to_string()
                .starts_with("it hangs after 0 s: (XEN) here")
        );
    }

    #[test]
    fn good_an_audit_without_mismatches() {
        assert!(require_audit("x\n(XEN) breakwater: audit: 5 pages in 2 parts, 3 tables, 0 mismatches\r\n").is_ok());
    }

    #[test]
    fn bad_an_audit_that_found_something_or_none() {
        let refused = |serial: &str| require_audit(serial).expect_err("it is refused").to_string();
        assert_eq!(
            refused("(XEN) breakwater: audit: 5 pages, 10 mismatches\n"),
            "the audit says: 5 pages, 10 mismatches"
        );
        assert_eq!(refused("(XEN) audit\n"), "the core has audited nothing");
    }

    #[test]
    fn good_the_command_line_says_what_a_case_adds() {
        let case = Case { append: "sync_console", dom0_memory: "128M", ..Case::default() };
        assert_eq!(case.line(), format!("{APPEND} dom0_mem=128M sync_console"));
    }
}
