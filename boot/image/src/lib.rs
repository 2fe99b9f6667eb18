//! What comes after the link of an image that is built on Breakwater: checks that no compiler and no linker makes, and
//! the flat file that boot loaders take.
//!
//! The checks read the linked ELF file alone, as `breakwater-boot` and its linker script have it linked:
//!
//! * **Absolute addresses.** The loader decides where the image lies in memory. What runs before the MMU is on, runs
//!   there and not at the link address: an absolute address in it leads elsewhere, on one board and not on another.
//! * **References to what is freed.** Boot frees its own code at the end, and the frames get another use. What can run
//!   after boot must not refer to it.
//!
//! A check that cannot be made is a refusal and never a pass: the link must keep relocations (`--emit-relocs`) and
//! symbols.
//!
//! As a command, `breakwater-image target/.../hypervisor` checks and writes `hypervisor.img` beside. As a library:
//!
//! ```no_run
//! use breakwater_image::{Elf, Error, replace};
//! use std::path::Path;
//!
//! fn finish(linked: &Path) -> Result<(), Error> {
//!     let elf = Elf::read(linked)?;
//!     elf.check()?;
//!     replace(&linked.with_extension("img"), &elf.flatten()?)
//! }
//! ```
//!
//! What the second check cannot see: an address that is computed and not referred to, and the end of a constant without
//! a symbol, whose middle something else refers to.

#![forbid(unsafe_code)]

mod check;
mod elf;

pub use elf::{Elf, Relocation, Segment, Symbol};

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io, process};

/// Why there is no image.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read or written.
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The bytes are no linked program for AArch64, or not whole.
    NotAnImage(String),
    /// Something is missing from the file without which nothing can be checked.
    Uncheckable(String),
    /// What the checks found: one line each, by the names of functions and objects.
    Refused(Vec<String>),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, source } => write!(f, "{}: {source}", path.display()),
            Self::NotAnImage(why) => write!(f, "this is no linked AArch64 image: {why}"),
            Self::Uncheckable(why) => write!(f, "the image cannot be checked: {why}"),
            Self::Refused(found) => write!(f, "the image is refused:\n  {}", found.join("\n  ")),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Replaces a file whole, by way of a temporary one beside it: whoever reads it at the same time reads the old or the
/// new. A file that holds these bytes already is left alone.
///
/// # Errors
/// [`Error::File`]: the file cannot be written; it is as it was.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let mut partial = OsString::from(path);
    partial.push(format!(".{}.partial", process::id()));
    fs::write(&partial, bytes).and_then(|()| fs::rename(&partial, path)).map_err(|source| {
        // The first error is the one to tell.
        let _ = fs::remove_file(&partial);
        Error::File { path: path.to_owned(), source }
    })
}
