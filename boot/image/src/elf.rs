//! The linked image: its symbols, what it loads, and the relocations that the link kept.

use crate::Error;
use object::elf::{
    EM_AARCH64, ET_EXEC, FileHeader64, PT_LOAD, SHF_ALLOC, SHF_EXECINSTR, SHN_ABS, SHN_UNDEF, SHT_SYMTAB, STT_FUNC,
    STT_NOTYPE, STT_OBJECT, STT_SECTION,
};
use object::read::elf::{FileHeader, ProgramHeader, Rela, SectionHeader, Sym};
use object::{Endianness, SectionIndex};
use std::fs;
use std::ops::Range;
use std::path::Path;

type Header = FileHeader64<Endianness>;

/// A section that is not loaded: the address, 8 bytes each, of every routine that runs before the MMU is on
/// (`BEFORE_MMU`, boot/macros.S).
const BEFORE_MMU: &[u8] = b".breakwater.before_mmu";

/// No image that a loader takes whole is longer; what is longer is no image of this kind.
const MAX_FLAT_BYTES: u64 = 1 << 30;

/// A symbol of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Symbol {
    /// As the linker has it: mangled.
    pub name: String,
    /// Where it is, by link address; the value itself if it is [`absolute`](Self::absolute).
    pub address: u64,
    /// In bytes; 0 if nobody said so.
    pub size: u64,
    /// A number rather than a place.
    pub absolute: bool,
    /// A function or an object, rather than a label or a section.
    pub typed: bool,
    /// A label without a type: assembly's, or the linker script's.
    pub label: bool,
}

/// Something that the linker filled in.
#[derive(Debug, Clone)]
pub struct Relocation {
    /// Where it was filled in.
    pub place: u64,
    /// The R_AARCH64_* number.
    pub kind: u32,
    /// Index into [`Elf::symbols`].
    pub symbol: usize,
    /// In bytes, from the symbol on.
    pub addend: i64,
}

/// What a segment loads.
#[derive(Debug, Clone)]
pub struct Segment {
    /// By link address.
    pub address: u64,
    /// What the file has for it; what is zeroed is not among it.
    pub bytes: Vec<u8>,
}

/// A linked image, as far as it matters here. Addresses are link addresses.
#[derive(Debug, Clone, Default)]
pub struct Elf {
    /// In the order of the file.
    pub symbols: Vec<Symbol>,
    /// In the order of the file.
    pub segments: Vec<Segment>,
    /// Of what is loaded.
    pub relocations: Vec<Relocation>,
    /// Sections that hold instructions, and the data among them.
    pub code: Vec<Range<u64>>,
    /// Routines that run before the MMU is on.
    pub before_mmu: Vec<u64>,
}

impl Elf {
    /// Reads an ELF file.
    ///
    /// # Errors
    /// [`Error::File`] and [`Error::NotAnImage`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        Self::parse(&fs::read(path).map_err(|source| Error::File { path: path.to_owned(), source })?)
    }

    /// Reads an ELF file's bytes.
    ///
    /// # Errors
    /// [`Error::NotAnImage`]: this is no linked 64-bit ELF program for AArch64, or part of it is missing.
    pub fn parse(data: &[u8]) -> Result<Self, Error> {
        let header = Header::parse(data)?;
        let endian = header.endian()?;
        if header.e_machine(endian) != EM_AARCH64 {
            return Err(Error::NotAnImage("it is for another machine".to_owned()));
        }
        if header.e_type(endian) != ET_EXEC {
            return Err(Error::NotAnImage("it has no fixed link address (ET_EXEC)".to_owned()));
        }
        let sections = header.sections(endian, data)?;
        let table = sections.symbols(endian, data, SHT_SYMTAB)?;
        let mut elf = Self::default();
        for symbol in table.iter() {
            let name = String::from_utf8_lossy(symbol.name(endian, table.strings())?).into_owned();
            let kind = symbol.st_type();
            // lld keeps a symbol for some input sections, but counts addends to it from the start of the output
            // section.
            let address = match kind {
                STT_SECTION => sections.section(SectionIndex(symbol.st_shndx(endian).0.into()))?.sh_addr(endian),
                _ => symbol.st_value(endian),
            };
            elf.symbols.push(Symbol {
                name,
                address,
                size: symbol.st_size(endian),
                absolute: matches!(symbol.st_shndx(endian), SHN_ABS | SHN_UNDEF),
                typed: kind == STT_FUNC || kind == STT_OBJECT,
                label: kind == STT_NOTYPE,
            });
        }
        for segment in header.program_headers(endian, data)?.iter().filter(|segment| segment.p_type(endian) == PT_LOAD)
        {
            let bytes = segment
                .data(endian, data)
                .map_err(|()| Error::NotAnImage("a segment lies outside of the file".to_owned()))?;
            elf.segments.push(Segment { address: segment.p_vaddr(endian), bytes: bytes.to_vec() });
        }
        for section in sections.iter() {
            if section.sh_flags(endian).0 & SHF_EXECINSTR.0 != 0 {
                let start = section.sh_addr(endian);
                elf.code.push(start..start.saturating_add(section.sh_size(endian)));
            }
            if sections.section_name(endian, section)? == BEFORE_MMU {
                let (words, _) = section.data(endian, data)?.as_chunks::<8>();
                elf.before_mmu.extend(words.iter().map(|word| u64::from_le_bytes(*word)));
            }
            let Some((relas, _)) = section.rela(endian, data)? else { continue };
            let filled = sections.section(SectionIndex(section.sh_info(endian) as usize))?;
            if filled.sh_flags(endian).0 & SHF_ALLOC.0 == 0 {
                continue;
            }
            elf.relocations.extend(relas.iter().map(|rela| Relocation {
                place: rela.r_offset(endian),
                kind: rela.r_type(endian, false).0,
                symbol: rela.r_sym(endian, false) as usize,
                addend: rela.r_addend(endian),
            }));
        }
        if elf.relocations.iter().any(|relocation| relocation.symbol >= elf.symbols.len()) {
            return Err(Error::NotAnImage("a relocation is against a symbol that is not there".to_owned()));
        }
        Ok(elf)
    }

    /// The address of a symbol.
    #[must_use]
    pub fn address_of(&self, name: &str) -> Option<u64> {
        self.symbols.iter().find(|symbol| symbol.name == name).map(|symbol| symbol.address)
    }

    /// The instructions of a function, and the data among them, as words; `None` if there is no function of that name, or it is not loaded.
    #[must_use]
    pub fn routine(&self, name: &str) -> Option<Vec<u32>> {
        let symbol = self.symbols.iter().find(|symbol| symbol.name == name && symbol.typed)?;
        let bytes = self.segments.iter().find_map(|segment| {
            let from = usize::try_from(symbol.address.checked_sub(segment.address)?).ok()?;
            segment.bytes.get(from..from.checked_add(usize::try_from(symbol.size).ok()?)?)
        })?;
        Some(bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect())
    }

    /// The function or object that an address lies in.
    #[must_use]
    pub fn containing(&self, address: u64) -> Option<&Symbol> {
        self.symbols.iter().find(|symbol| symbol.typed && symbol.contains(address))
    }

    /// The loaded bytes as they lie in memory, from the lowest address on; gaps are zeroes.
    ///
    /// # Errors
    /// [`Error::NotAnImage`]: nothing is loaded, or the segments are more than 1 GiB apart.
    pub fn flatten(&self) -> Result<Vec<u8>, Error> {
        let loaded = || self.segments.iter().filter(|segment| !segment.bytes.is_empty());
        let Some(start) = loaded().map(|segment| segment.address).min() else {
            return Err(Error::NotAnImage("it loads nothing".to_owned()));
        };
        let mut flat = Vec::new();
        for segment in loaded() {
            let offset = segment.address - start;
            let end = offset.saturating_add(segment.bytes.len() as u64);
            if end > MAX_FLAT_BYTES {
                return Err(Error::NotAnImage(format!("{start:#x} and {:#x} are too far apart", segment.address)));
            }
            let (offset, end) = (offset as usize, end as usize);
            if flat.len() < end {
                flat.resize(end, 0);
            }
            flat[offset..end].copy_from_slice(&segment.bytes);
        }
        Ok(flat)
    }
}

impl Symbol {
    /// Whether an address lies in it; a symbol without a size has its first byte.
    pub(crate) fn contains(&self, address: u64) -> bool {
        address.checked_sub(self.address).is_some_and(|offset| offset < self.size.max(1))
    }
}

impl From<object::read::Error> for Error {
    fn from(error: object::read::Error) -> Self {
        Self::NotAnImage(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(segments: &[(u64, &[u8])]) -> Result<Vec<u8>, Error> {
        let segments = segments.iter().map(|&(address, bytes)| Segment { address, bytes: bytes.to_vec() }).collect();
        Elf { segments, ..Elf::default() }.flatten()
    }

    #[test]
    fn good_flattening_fills_gaps_with_zeroes_and_leaves_out_empty_segments() {
        let flat = flat(&[(0x1004, b"b"), (0x1000, b"a"), (0x9000, b"")]);
        assert_eq!(flat.expect("two segments load"), b"a\0\0\0b");
    }

    #[test]
    fn good_a_routine_is_its_words_and_bad_one_that_is_not_loaded() {
        let symbol = |name: &str, address, typed| Symbol {
            name: name.to_owned(),
            address,
            size: 8,
            absolute: false,
            typed,
            label: !typed,
        };
        let symbols = vec![symbol("f", 0x1004, true), symbol("label", 0x1004, false), symbol("cut", 0x1008, true)];
        let segments = vec![Segment { address: 0x1000, bytes: (0..12).collect() }];
        let elf = Elf { symbols, segments, ..Elf::default() };
        assert_eq!(elf.routine("f"), Some(vec![0x0706_0504, 0x0b0a_0908]));
        assert!(["label", "cut", "nowhere"].iter().all(|name| elf.routine(name).is_none()));
    }

    #[test]
    fn bad_segments_far_apart_fill_no_memory() {
        for far in [1 << 40, u64::MAX] {
            assert!(flat(&[(0, b"a"), (far, b"b")]).expect_err("too far").to_string().contains("too far apart"));
        }
        assert!(flat(&[]).expect_err("empty").to_string().contains("loads nothing"));
    }
}
