//! How an image is linked: for build scripts, so on a host only.
//!
//! Cargo does not pass the link arguments of a dependency on. So each package that links an image says so in the `main`
//! of its own build script, with this crate among its build-dependencies:
//!
//! ```
//! breakwater_boot::link();
//! ```
//!
//! A package without this line does not link, and the linker says which line is missing. What [`Link`] can set is set
//! there; a value that cannot work stops the build and is named.
//!
//! # What is not set here
//!
//! The hypervisor's own slot of the map, and with it the link address, is a constant of the core, which is compiled
//! before any build script of a dependent runs. It comes from the environment: `breakwater::layout::XEN_SLOT`.
//!
//! Flags of the compiler are not set either: no build script can. None is needed. This repository builds its own images
//! with `-Cforce-frame-pointers=no`, which saves instructions; an image without it is as good.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::{env, fs};

/// The linker script. Whoever is compiled with it is compiled again when it changes, and links again.
const SCRIPT: &str = include_str!("../../linker.ld");
const SCRIPT_PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../linker.ld");

const PAGE_BYTES: u64 = 4096;
/// What one level 3 table maps.
const TABLE_SPAN_BYTES: u64 = 2 << 20;
/// What the map has for the image.
const IMAGE_BYTES_MAX: u64 = 8 << 20;
/// What the slot of a CPU has for its stack, guard pages left out.
const CPU_STACK_BYTES_MAX: u64 = 44 << 10;
/// Below this, boot itself would not fit: its machine description, region map and audit are on the boot stack.
const BOOT_STACK_BYTES_MIN: u64 = 96 << 10;
const EXCEPTION_STACK_BYTES_MIN: u64 = 8 << 10;
const CPU_STACK_BYTES_MIN: u64 = 8 << 10;

/// Links this package's programs as images, with the values of [`Link::default`]. See [`Link::emit`].
pub fn link() {
    Link::default().emit();
}

/// What a dependent may choose of its image.
///
/// ```no_run
/// breakwater_boot::Link { boot_stack_bytes: 256 << 10, ..Default::default() }.emit();
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// Bytes of the boot CPU's stack: whole pages, at least 96 KiB, which boot itself needs.
    pub boot_stack_bytes: u64,
    /// Bytes of the stack on which the boot CPU takes exceptions: whole pages, at least 8 KiB.
    pub exception_stack_bytes: u64,
    /// Bytes of the stack of each other CPU: whole pages, 8 KiB to 44 KiB.
    pub cpu_stack_bytes: u64,
    /// The most that the image may have in memory, stacks and tables included: 2, 4, 6 or 8 MiB. Each 2 MiB take one
    /// more table.
    pub image_bytes_max: u64,
    /// Whether the map has the slot for code that is patched in at run time. Where it has, `livepatch=off` on the
    /// command line still leaves it out.
    pub livepatch: bool,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            boot_stack_bytes: BOOT_STACK_BYTES_MIN,
            exception_stack_bytes: EXCEPTION_STACK_BYTES_MIN,
            cpu_stack_bytes: 32 << 10,
            image_bytes_max: TABLE_SPAN_BYTES,
            livepatch: true,
        }
    }
}

impl Link {
    /// Tells Cargo, from a build script, how to link the programs of this package. On a host it does nothing: there,
    /// they are no images.
    ///
    /// A value that cannot work stops the build with a message that names it.
    pub fn emit(self) {
        // A build script that names a file is not run for others: the sources of the package are none of its business.
        println!("cargo::rerun-if-changed={SCRIPT_PATH}");
        println!("cargo::rerun-if-changed=build.rs");
        if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
            return;
        }
        if let Err(why) = self.check() {
            println!("cargo::error={why}");
            return;
        }
        let script = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("breakwater.ld");
        if let Err(error) = fs::write(&script, SCRIPT) {
            println!("cargo::error={}: {error}", script.display());
            return;
        }
        self.arguments(&script).iter().for_each(|argument| println!("cargo::rustc-link-arg={argument}"));
    }

    /// What the linker is told.
    fn arguments(self, script: &Path) -> Vec<String> {
        let mut arguments = vec![
            format!("-T{}", script.display()),
            // Relocations stay in the ELF file: breakwater-image refuses absolute addresses in code that runs before
            // the MMU is on.
            "--emit-relocs".to_owned(),
            "-zmax-page-size=4096".to_owned(),
            // The softfloat target, unlike aarch64-unknown-none, does not ask for this workaround by itself.
            "--fix-cortex-a53-843419".to_owned(),
        ];
        let standard = Self::default();
        let numbers = [
            ("boot_stack_bytes", self.boot_stack_bytes, standard.boot_stack_bytes),
            ("exception_stack_bytes", self.exception_stack_bytes, standard.exception_stack_bytes),
            ("cpu_stack_bytes", self.cpu_stack_bytes, standard.cpu_stack_bytes),
            ("image_bytes_max", self.image_bytes_max, standard.image_bytes_max),
            ("livepatch", self.livepatch.into(), standard.livepatch.into()),
        ];
        let chosen = numbers.into_iter().filter(|(_, value, standard)| value != standard);
        arguments.extend(chosen.map(|(name, value, _)| format!("--defsym=set_{name}={value:#x}")));
        arguments
    }

    /// Refuses what cannot work.
    fn check(self) -> Result<(), String> {
        let stacks = [
            ("boot_stack_bytes", self.boot_stack_bytes, BOOT_STACK_BYTES_MIN, IMAGE_BYTES_MAX),
            ("exception_stack_bytes", self.exception_stack_bytes, EXCEPTION_STACK_BYTES_MIN, IMAGE_BYTES_MAX),
            ("cpu_stack_bytes", self.cpu_stack_bytes, CPU_STACK_BYTES_MIN, CPU_STACK_BYTES_MAX),
        ];
        for (name, value, least, most) in stacks {
            if !value.is_multiple_of(PAGE_BYTES) || !(least..=most).contains(&value) {
                return Err(format!(
                    "{name} is {value:#x}: it takes whole pages of 4 KiB, {least:#x} to {most:#x} bytes"
                ));
            }
        }
        let image = self.image_bytes_max;
        if !image.is_multiple_of(TABLE_SPAN_BYTES) || !(TABLE_SPAN_BYTES..=IMAGE_BYTES_MAX).contains(&image) {
            return Err(format!("image_bytes_max is {image:#x}: it takes 2, 4, 6 or 8 MiB"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(link: Link) -> String {
        link.check().expect_err("refused")
    }

    #[test]
    fn good_only_what_was_chosen_is_told_to_the_linker() {
        let script = Path::new("/x.ld");
        assert_eq!(Link::default().arguments(script).len(), 4);
        let chosen = Link { boot_stack_bytes: 128 << 10, livepatch: false, ..Link::default() };
        assert_eq!(chosen.check(), Ok(()));
        assert_eq!(
            chosen.arguments(script)[4..],
            ["--defsym=set_boot_stack_bytes=0x20000", "--defsym=set_livepatch=0x0"]
        );
    }

    #[test]
    fn bad_values_are_refused_by_name() {
        let link = Link::default();
        assert!(said(Link { boot_stack_bytes: 64 << 10, ..link }).starts_with("boot_stack_bytes is 0x10000:"));
        assert!(said(Link { exception_stack_bytes: 100, ..link }).starts_with("exception_stack_bytes is 0x64:"));
        assert!(said(Link { cpu_stack_bytes: 48 << 10, ..link }).starts_with("cpu_stack_bytes is 0xc000:"));
        for image_bytes_max in [0, 3 << 20, 10 << 20] {
            assert!(said(Link { image_bytes_max, ..link }).starts_with("image_bytes_max is "));
        }
    }

    #[test]
    fn good_the_linker_script_knows_each_name_and_its_usual_value() {
        let link = Link::default();
        let usual = [
            ("boot_stack_bytes", link.boot_stack_bytes),
            ("exception_stack_bytes", link.exception_stack_bytes),
            ("cpu_stack_bytes", link.cpu_stack_bytes),
            ("image_bytes_max", link.image_bytes_max),
            ("livepatch", link.livepatch.into()),
        ];
        for (name, value) in usual {
            let line = format!("{name} = DEFINED(set_{name}) ? set_{name} : {value:#x};");
            assert!(SCRIPT.contains(&line), "{line}");
        }
    }
}
