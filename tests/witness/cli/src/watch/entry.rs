//! Where judging begins: an image that a loader starts is judged from its own entry on.
//!
//! Why it exists: firmware may break rules that are none of the image's business, and does. What it left is taken as
//! found. What must hold: the entry is recognised by the image's own bytes, wherever its loader has put them, and until
//! it is entered nothing is judged. Where that never happens there is no verdict.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use object::LittleEndian;
use object::pe::{IMAGE_FILE_MACHINE_ARM64, ImageNtHeaders64};
use object::read::pe::{ImageNtHeaders, ImageOptionalHeader, PeFile};

use crate::loader::Loaded;
use crate::machine;
use crate::names::{Names, Relocation};

/// Bytes of the entry's code that are compared: a line of cache, which no two images share.
const CODE_BYTES: usize = 64;

/// Where judging begins.
#[derive(Debug, Clone, Default)]
pub enum From {
    /// At the first instruction of the machine.
    #[default]
    Reset,
    /// At one of these virtual addresses.
    Addresses(Vec<u64>),
    /// At the entry of an image that a loader puts somewhere.
    Payload(Payload),
}

/// An image whose place only its loader knows.
#[derive(Debug, Clone)]
pub struct Payload {
    bytes: Vec<u8>,
    /// Offsets of its entries from its first byte in memory, and the code there.
    entries: Vec<(u64, Vec<u8>)>,
    elfs: Vec<PathBuf>,
    relocated: Vec<Relocation>,
}

impl Payload {
    /// The image in a file: a Linux `Image`, a UEFI application, both at once, or a raw binary, whose entry is its
    /// first byte.
    ///
    /// # Errors
    /// It cannot be read, or has no code where it says that it begins.
    pub fn read(image: &Path, elfs: &[PathBuf], relocated: &[Relocation]) -> Result<Self> {
        let bytes = std::fs::read(image).with_context(|| format!("cannot read {}", image.display()))?;
        let entries = entries(&bytes).with_context(|| format!("{}: where it begins", image.display()))?;
        Ok(Self { bytes, entries, elfs: elfs.to_vec(), relocated: relocated.to_vec() })
    }

    /// Names for addresses, now that it is known to lie at `pa`.
    ///
    /// # Errors
    /// As [`Names::read`].
    pub fn names(&self, pa: u64) -> Result<Names> {
        Names::read(&self.elfs, &[Loaded { pa, bytes: self.bytes.clone() }], &self.relocated)
    }
}

impl From {
    /// `entry`, a symbol or an address.
    ///
    /// # Errors
    /// There is no such symbol, or no image whose entry could be meant.
    pub fn parse(text: &str, symbols: &Names, payload: impl FnOnce() -> Result<Option<Payload>>) -> Result<Self> {
        if text == "entry" {
            return match payload()? {
                Some(payload) => Ok(Self::Payload(payload)),
                None => bail!("--from entry: there is no --image behind --bios whose entry could be meant"),
            };
        }
        let addresses = machine::address(text).map_or_else(|_| symbols.addresses(text), |address| vec![address]);
        ensure!(!addresses.is_empty(), "--from {text}: there is no such symbol (--elf gives symbols)");
        Ok(Self::Addresses(addresses))
    }

    /// The recorder's arguments that say so.
    pub(crate) fn arguments(&self) -> String {
        match self {
            Self::Reset => String::new(),
            Self::Addresses(addresses) => addresses.iter().map(|address| format!(",from={address:x}")).collect(),
            Self::Payload(Payload { bytes, entries, .. }) => {
                let one = |(offset, code): &(u64, Vec<u8>)| {
                    let words = code.chunks_exact(4).map(|word| word.iter().rev());
                    let words: String = words.flatten().map(|byte| format!("{byte:02x}")).collect();
                    format!(",entry={offset:x}:{:x}:{words}", bytes.len())
                };
                entries.iter().map(one).collect()
            }
        }
    }

    /// Whether all is judged.
    pub(crate) const fn is_reset(&self) -> bool {
        matches!(self, Self::Reset)
    }
}

/// Where an image may be entered: offsets from its first byte in memory, and the code there.
fn entries(bytes: &[u8]) -> Result<Vec<(u64, Vec<u8>)>> {
    ensure!(
        !bytes.starts_with(b"\x7fELF"),
        "an ELF file behind firmware is entered where it says: give --from 0xADDRESS"
    );
    let mut entries = Vec::new();
    // An application that is no Image is never entered at its header.
    if bytes.get(56..60) == Some(b"ARM\x64") || !bytes.starts_with(b"MZ") {
        entries.push((0, bytes.get(..CODE_BYTES).context("it is shorter than any header")?.to_vec()));
    }
    if bytes.starts_with(b"MZ") {
        entries.push(application_entry(bytes)?);
    }
    Ok(entries)
}

/// The entry of a UEFI application.
fn application_entry(bytes: &[u8]) -> Result<(u64, Vec<u8>)> {
    let file = PeFile::<ImageNtHeaders64>::parse(bytes)?;
    ensure!(
        file.nt_headers().file_header().machine.get(LittleEndian) == IMAGE_FILE_MACHINE_ARM64,
        "it is not for arm64"
    );
    let entry = file.nt_headers().optional_header().address_of_entry_point();
    let code = file.section_table().pe_data_at(bytes, entry).context("no section holds its entry point")?;
    Ok((entry.into(), code.get(..CODE_BYTES).unwrap_or(code).to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Linux Image.
    fn image() -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..128).collect();
        bytes[56..60].copy_from_slice(b"ARM\x64");
        bytes
    }

    #[test]
    fn good_an_image_is_entered_at_its_first_byte_and_recognised_by_it() {
        let entries = entries(&image()).expect("it has a header");
        assert_eq!(entries, [(0, image()[..CODE_BYTES].to_vec())]);
        let (bytes, elfs, relocated) = (image(), Vec::new(), Vec::new());
        let from = From::Payload(Payload { bytes, entries, elfs, relocated });
        assert!(from.arguments().starts_with(",entry=0:80:0302010007060504"), "{}", from.arguments());
    }

    #[test]
    fn good_an_address_is_an_entry_and_the_machine_s_own_is_none() {
        let from = From::parse("0x4000_1000", &Names::default(), || Ok(None)).expect("an address");
        assert_eq!(from.arguments(), ",from=40001000");
        assert_eq!(From::default().arguments(), "");
    }

    #[test]
    fn bad_entries_that_nobody_can_find() {
        let why = |text| From::parse(text, &Names::default(), || Ok(None)).expect_err("refused").to_string();
        assert!(why("entry").contains("no --image behind --bios"));
        assert!(why("main").contains("no such symbol"));
        assert!(entries(b"\x7fELF").is_err_and(|why| why.to_string().contains("0xADDRESS")));
        assert!(entries(b"MZ and no more").is_err());
        assert!(entries(&[0; 8]).is_err());
    }
}
