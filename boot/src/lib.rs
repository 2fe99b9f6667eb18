//! Breakwater on the machine: what a hypervisor links.
//!
//! The crate `breakwater` decides what is mapped and in which order; this crate does it. Assembly (`*.S`) enters at EL2
//! with the MMU off and puts W^X tables in force; `el2` holds every instruction that touches memory or a system
//! register; `boot` runs the phases of the machine's boot; a `Handover` is what is left at the end.
//!
//! # A hypervisor on it
//!
//! A package with `breakwater` and `breakwater-boot` as dependencies, `breakwater-boot` as a build-dependency too, and
//! a build script whose `main` is one line (the module `link`, on a host):
//!
//! ```ignore
//! breakwater_boot::link();
//! ```
//!
//! And the program. [`entry!`] names its first function; `boot` returns when the tables are audited and every CPU
//! waits for work:
//!
//! ```ignore
#![doc = include_str!("../../tests/boot/door/src/main.rs")]
//! ```
//!
//! `cargo build --target aarch64-unknown-none-softfloat` links it, `breakwater-image` checks it and writes the flat
//! file that loaders take. No option of the compiler is needed. What stays of this crate and the core may be called
//! after boot; what only boot needs is freed by then (`breakwater::device_tree`, `breakwater::command_line::parse`,
//! `breakwater::regions::frametable`), and `breakwater-image` refuses an image that still calls it. Modules and crates
//! of the hypervisor's own are never freed, whatever their names.
//!
//! # The image and its options
//!
//! The linked image is at once a Linux arm64 `Image`, a PE/COFF EFI application and a raw binary, once `breakwater-image`
//! has flattened it. It runs at any 4 KiB-aligned physical address below the map of the hypervisor, which begins at
//! 10 TiB unless `BREAKWATER_XEN_SLOT` says otherwise. Options come from the command line in the device tree's `/chosen`
//! or, where UEFI started the image with load options that say something, from these alone:
//!
//! | option | meaning | default |
//! |---|---|---|
//! | `exit=semihosting\|psci\|park` | how the run ends; `semihosting` is for a debugger or QEMU, never for a board without one | `park` |
//! | `maxcpus=N` | at most N CPUs are brought up, the boot CPU included; 0 is the boot CPU alone | all |
//! | `cpu-timeout=N` | a started CPU may take N seconds to report, more while others arrive; then it is off, or still expected | 1 |
//! | `livepatch=on\|off` | whether the livepatch slot gets its tables | `on` |
//!
//! An option matches whole. An unknown one is named in a warning and ignored; a known one with a malformed value is refused.
//! A refusal says one line, and leaves its cause (`breakwater::refusal::Cause`) in x0 and at the symbol `refusal_cause` of
//! the stopped CPU. What happens before a console is known is said to a debugger only if the feature
//! `earlycon-semihosting` is on, as it is in the images that `cargo xtask` builds for QEMU; or on the UART that the
//! environment variable `BREAKWATER_EARLYCON` names when the image is compiled (`breakwater::earlycon`). Such a UART
//! speaks from the first instruction to the last, until the machine's console takes over; where that is the same, or
//! there is none with a driver, it stays.
//!
//! The newest 64 KiB of all that is said stay in memory at the symbol `breakwater_log` (`breakwater::log`).
//!
//! Exit statuses under semihosting: 0 booted and audited, 2 refused, 3 panic, 4 exception, 5 the audit found a mismatch.
//!
//! # Under UEFI
//!
//! The image is a UEFI application: by the removable path `\EFI\BOOT\BOOTAA64.EFI`, from the shell, by GRUB's `linux`
//! and `chainloader`, by U-Boot's `bootefi`. It needs EL2, and a device tree or ACPI 2.0: of a tree it makes a copy;
//! where there is none, MADT names the CPUs, FADT how PSCI is called, and SPCR the console.
//!
//! UEFI's memory map, as it is when boot services end, decides what is RAM: loader, boot services and conventional
//! memory that may be mapped write-back. All else (runtime services, ACPI, reserved, persistent and unaccepted memory,
//! what nobody knows) is neither mapped nor handed out, and the device tree need not have memory nodes. The report
//! lists what the firmware keeps, and each span of which tree and firmware say different things;
//! `Handover::firmware_map` has the map.
//!
//! Up to 682 descriptors of 48 bytes, load options of 2,048 characters and ACPI tables of 128 KiB are taken; more are
//! refused on the firmware's console. Of what the shell gives, the first word is the file: the image warns that it
//! knows no such option. GRUB's `linux` gives both load options and, with `devicetree`, a tree with a command line of
//! its own: the former count. CPUs that wait by ACPI's parking protocol are named and left.
//!
//! # Consoles
//!
//! The UART that the device tree's `stdout-path` names, otherwise alias `serial0`, if it is of a kind below. What ran
//! before has set its speed and its pins and has enabled it: the image only sends. It waits for a UART that is busy,
//! but not for ever: one that has stopped loses what is printed, and costs boot one wait of some seconds. The facts
//! and their sources are in `breakwater::uart`; every kind is tested against a model of its registers, and these have
//! run under QEMU too:
//!
//! | kind | on | run under QEMU's |
//! |---|---|---|
//! | PL011, SBSA | many | `virt`, `xlnx-versal-virt` |
//! | 8250: 16550, DesignWare, mini UART, AM65x, Tegra, MT6577 | many | `raspi3b`, `raspi4b` (the mini UART) |
//! | Cadence | Zynq UltraScale+ | `xlnx-zcu102` |
//! | i.MX | i.MX 8M | `imx8mp-evk` |
//! | LPUART | i.MX 8X, 8ULP, 93 | |
//! | Meson | Amlogic | |
//! | GENI, UARTDM | Qualcomm | |
//! | SCIF | Renesas R-Car Gen3, RZ/G2 | |
//! | Armada 3700 | Marvell | |
//!
//! # Two crates in one
//!
//! For the target, all of the above. On a host there is nothing to boot: there is what build scripts call.

#![cfg_attr(target_os = "none", no_std)]
#![deny(unsafe_code)]

#[cfg(target_os = "none")]
pub mod console;
#[cfg(target_os = "none")]
#[allow(unsafe_code)]
pub mod el2;
#[cfg(not(target_os = "none"))]
pub mod link;
#[cfg(target_os = "none")]
mod phases;

#[cfg(target_os = "none")]
pub use phases::{Console, Handover, boot};

#[cfg(not(target_os = "none"))]
pub use link::{Link, link};

/// Names the function that an image runs once assembly has done its part.
///
/// `entry!(main)` takes a `fn main(start: Start) -> !`, once in an image, in the crate that is linked as it.
///
/// The function runs on the boot CPU, on the boot stack, at the link address, in the first tables, with interrupts
/// masked; nothing of the machine is known yet. It usually gives `start` to `boot` at once. Without the macro the linker
/// misses `breakwater_main`.
///
/// The macro makes the one symbol that assembly's side looks for, and checks the function's type; a crate that denies
/// unsafe code may use it. On a host, where there is nothing to boot, it leaves a `main` that says so.
#[macro_export]
macro_rules! entry {
    ($function:path) => {
        #[cfg(target_os = "none")]
        const _: () = {
            #[unsafe(no_mangle)]
            extern "Rust" fn breakwater_main(start: $crate::el2::Start) -> ! {
                let function: fn($crate::el2::Start) -> ! = $function;
                function(start)
            }
        };
        #[cfg(not(target_os = "none"))]
        fn main() {
            eprintln!("this is a bare-metal image: build it with --target aarch64-unknown-none-softfloat");
            std::process::exit(2);
        }
    };
}
