//! The seeded images, assembled: all of them by one run of the compiler, each linked for itself.
//!
//! Why one run: a hundred take a tenth of a second each, and together half of one. A module is a unit of code generation, so that each
//! image's labels are its own; the absolute symbol that is its name says which object is whose.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use object::{Object, ObjectSegment, ObjectSymbol, SymbolKind};

use super::Seeded;
use crate::setup::{self, Toolchain};
use crate::{exec, paths};

/// Where the images begin, and QEMU's virt machine loads them.
const LOAD_ADDRESS: u64 = 0x4008_0000;

/// An image as files.
#[derive(Debug)]
pub(super) struct Built {
    /// Its bytes, from [`LOAD_ADDRESS`] on.
    pub(super) raw: PathBuf,
    /// The same with symbols.
    pub(super) elf: PathBuf,
    /// The labels at each address.
    pub(super) labels: BTreeMap<u64, Vec<String>>,
}

/// Where all of them are left, for `cargo xtask witness --image`.
fn directory() -> PathBuf {
    paths::out().join("seeded")
}

/// Assembles every image.
///
/// # Errors
/// The compiler cannot be run, or finds fault with a source.
pub(super) fn assemble(images: &[Seeded]) -> Result<()> {
    paths::fill_whole(&directory(), |into| {
        let wrapper = into.join("seeded.rs");
        fs::write(&wrapper, source(images))?;
        let rustc = setup::sysroot().context("cannot find the compiler")?.join("bin/rustc");
        let mut command = Command::new(rustc);
        command.args(["--edition=2024", "--crate-type=lib", "--emit=obj", "-Cpanic=abort", "-Ccodegen-units=4096"]);
        command.args(["--target", paths::TARGET, "--out-dir"]).arg(into).arg(&wrapper);
        exec::ask(&mut command)?;
        for object in fs::read_dir(into)? {
            let object = object?.path();
            if object.extension().is_some_and(|extension| extension == "o")
                && let Some(name) = name_of(&object, images)?
            {
                fs::rename(&object, into.join(name).with_extension("o"))?;
            }
        }
        Ok(())
    })
}

/// A module for each image: its name, what all have in common, and its own file.
fn source(images: &[Seeded]) -> String {
    let file = |name: &str| paths::root().join("tests/witness/images").join(name).with_extension("S");
    let module = |image: &Seeded| {
        let Seeded { name, family, .. } = image;
        let (common, own) = (file("common"), file(family));
        format!(
            "mod {name} {{ core::arch::global_asm!(\".set {name}, 1\", include_str!({common:?}), include_str!({own:?}), options(raw)); }}\n"
        )
    };
    format!("#![no_std]\n{}", images.iter().map(module).collect::<String>())
}

/// The image that `object` is of.
fn name_of(object: &Path, images: &[Seeded]) -> Result<Option<String>> {
    let bytes = fs::read(object)?;
    let file = object::File::parse(&*bytes).with_context(|| object.display().to_string())?;
    let is_named = |name: &str| images.iter().any(|image| image.name == name);
    Ok(file.symbols().filter_map(|symbol| symbol.name().ok()).find(|name| is_named(name)).map(str::to_owned))
}

/// Links the image `name`.
///
/// # Errors
/// It was not assembled, or does not link.
pub(super) fn link(name: &str, toolchain: &Toolchain) -> Result<Built> {
    let at = |extension: &str| directory().join(name).with_extension(extension);
    let (elf, raw) = (at("elf"), at("img"));
    let linker = match toolchain {
        Toolchain::BuildStd { linker, .. } => linker.clone(),
        Toolchain::Pinned => setup::linker()?,
    };
    let mut command = Command::new(&linker);
    if linker.file_name().is_some_and(|name| name == "rust-lld") {
        command.args(["-flavor", "gnu"]);
    }
    command.args(["--entry=head", &format!("-Ttext={LOAD_ADDRESS:#x}"), "--omagic", "-o"]).arg(&elf).arg(at("o"));
    exec::ask(&mut command)?;
    let file = fs::read(&elf)?;
    let file = object::File::parse(&*file)?;
    let text = file.segments().find(|segment| segment.address() == LOAD_ADDRESS).context("the image has no code")?;
    let bytes = text.data()?;
    ensure!(!bytes.is_empty(), "the image is empty");
    fs::write(&raw, bytes)?;
    let mut labels: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for symbol in file.symbols() {
        let name = symbol.name().unwrap_or_default();
        if !symbol.is_undefined() && symbol.kind() != SymbolKind::File && !name.starts_with(['$', '.']) {
            labels.entry(symbol.address()).or_default().push(name.to_owned());
        }
    }
    Ok(Built { raw, elf, labels })
}
