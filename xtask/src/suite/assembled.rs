//! Images that are assembly alone: all of a kind assembled by one run of the compiler, each linked for itself.
//!
//! Why one run: a hundred take a tenth of a second each, and together half of one. A module is a unit of code generation, so that each
//! image's labels are its own; the absolute symbol that is its name says which object is whose.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use object::{Object, ObjectSegment, ObjectSymbol, SymbolKind};

use crate::setup::{self, Toolchain};
use crate::{exec, paths};

/// Where the images begin, and QEMU's virt machine loads them.
pub(super) const LOAD_ADDRESS: u64 = 0x4008_0000;

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

/// What an image is made of.
#[derive(Debug)]
pub(super) struct Source {
    /// Its name, which is a symbol of it too.
    pub(super) name: String,
    /// Assembly in front of the files.
    pub(super) defines: String,
    /// Its files, from the top of the repository.
    pub(super) files: Vec<String>,
}

/// Images that are assembled, and not yet linked.
#[derive(Debug)]
pub(super) struct Assembled {
    /// Where they are, and what is linked of them, for `cargo xtask witness --image`.
    directory: PathBuf,
}

impl Assembled {
    /// Assembles every image into `target/breakwater/KIND`.
    ///
    /// # Errors
    /// The compiler cannot be run, or finds fault with a source.
    pub(super) fn new(kind: &str, sources: &[Source]) -> Result<Self> {
        let directory = paths::out().join(kind);
        paths::fill_whole(&directory, |into| {
            let wrapper = into.join("images.rs");
            fs::write(&wrapper, format!("#![no_std]\n{}", sources.iter().map(module).collect::<String>()))?;
            let rustc = setup::sysroot().context("cannot find the compiler")?.join("bin/rustc");
            let mut command = Command::new(rustc);
            command.args(["--edition=2024", "--crate-type=lib", "--emit=obj", "-Cpanic=abort", "-Ccodegen-units=4096"]);
            command.args(["--target", paths::TARGET, "--out-dir"]).arg(into).arg(&wrapper);
            exec::ask(&mut command)?;
            for object in fs::read_dir(into)? {
                let object = object?.path();
                if object.extension().is_some_and(|extension| extension == "o")
                    && let Some(name) = name_of(&object, sources)?
                {
                    fs::rename(&object, into.join(name).with_extension("o"))?;
                }
            }
            Ok(())
        })?;
        Ok(Self { directory })
    }

    /// Links the image `name`.
    ///
    /// # Errors
    /// It was not assembled, or does not link.
    pub(super) fn link(&self, name: &str, toolchain: &Toolchain) -> Result<Built> {
        let at = |extension: &str| self.directory.join(name).with_extension(extension);
        let (elf, raw) = (at("elf"), at("img"));
        let mut command = setup::linker(toolchain)?;
        command.args(["--entry=head", &format!("-Ttext={LOAD_ADDRESS:#x}"), "--omagic", "-o"]).arg(&elf).arg(at("o"));
        exec::ask(&mut command)?;
        let file = fs::read(&elf)?;
        let file = object::File::parse(&*file)?;
        let text =
            file.segments().find(|segment| segment.address() == LOAD_ADDRESS).context("the image has no code")?;
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
}

/// A module for each image: its names and its files.
fn module(Source { name, defines, files }: &Source) -> String {
    let files = files.iter().map(|file| format!(", include_str!({:?})", paths::root().join(file))).collect::<String>();
    format!("mod {name} {{ core::arch::global_asm!(\".set {name}, 1\\n{defines}\"{files}, options(raw)); }}\n")
}

/// The image that `object` is of.
fn name_of(object: &Path, sources: &[Source]) -> Result<Option<String>> {
    let bytes = fs::read(object)?;
    let file = object::File::parse(&*bytes).with_context(|| object.display().to_string())?;
    let is_named = |name: &str| sources.iter().any(|source| source.name == name);
    Ok(file.symbols().filter_map(|symbol| symbol.name().ok()).find(|name| is_named(name)).map(str::to_owned))
}
