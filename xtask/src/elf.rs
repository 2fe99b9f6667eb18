//! The linked image as xtask reads it: symbols, what is loaded, and the relocations that the link kept.

use anyhow::{Context, Result, bail};
use object::elf::{
    FileHeader64, PT_LOAD, SHF_ALLOC, SHF_EXECINSTR, SHN_ABS, SHN_UNDEF, STT_FUNC, STT_NOTYPE, STT_OBJECT, STT_SECTION,
};
use object::read::elf::{FileHeader, ProgramHeader, Rela, SectionHeader, Sym};
use object::{Endianness, SectionIndex};
use std::ops::Range;
use std::path::Path;

type Header = FileHeader64<Endianness>;

/// A symbol of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Symbol {
    pub(crate) name: String,
    pub(crate) address: u64,
    pub(crate) size: u64,
    /// A number rather than a place.
    pub(crate) absolute: bool,
    /// A function or an object, rather than a label or a section.
    pub(crate) typed: bool,
    /// A label without a type: assembly's, or the linker script's.
    pub(crate) label: bool,
}

/// Something that the linker filled in.
#[derive(Debug, Clone)]
pub(crate) struct Relocation {
    /// Where it was filled in.
    pub(crate) place: u64,
    /// The R_AARCH64_* number.
    pub(crate) kind: u32,
    /// Index into [`Elf::symbols`].
    pub(crate) symbol: usize,
    pub(crate) addend: i64,
}

/// What a segment loads.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub(crate) address: u64,
    pub(crate) bytes: Vec<u8>,
}

/// A linked image.
#[derive(Debug, Clone, Default)]
pub(crate) struct Elf {
    pub(crate) symbols: Vec<Symbol>,
    pub(crate) segments: Vec<Segment>,
    pub(crate) relocations: Vec<Relocation>,
    /// Sections that hold instructions, and the data among them.
    pub(crate) code: Vec<Range<u64>>,
}

impl Elf {
    /// Reads an ELF file.
    ///
    /// # Errors
    /// The file cannot be read, or is no 64-bit ELF with a symbol table.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let data = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&data).with_context(|| format!("{} is not an image", path.display()))
    }

    fn parse(data: &[u8]) -> Result<Self> {
        let header = Header::parse(data)?;
        let endian = header.endian()?;
        let sections = header.sections(endian, data)?;
        let table = sections.symbols(endian, data, object::elf::SHT_SYMTAB)?;
        let mut elf = Self::default();
        for symbol in table.iter() {
            let name = String::from_utf8_lossy(symbol.name(endian, table.strings()).unwrap_or_default()).into_owned();
            let kind = symbol.st_type();
            // lld keeps a symbol for every input section, but counts addends to it from the start of the output section.
            let address = match kind {
                STT_SECTION => sections.section(SectionIndex(usize::from(symbol.st_shndx(endian).0)))?.sh_addr(endian),
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
            let Ok(bytes) = segment.data(endian, data) else { bail!("a segment lies outside the file") };
            elf.segments.push(Segment { address: segment.p_vaddr(endian), bytes: bytes.to_vec() });
        }
        for section in sections.iter() {
            if section.sh_flags(endian).0 & SHF_EXECINSTR.0 != 0 {
                elf.code.push(section.sh_addr(endian)..section.sh_addr(endian) + section.sh_size(endian));
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
        Ok(elf)
    }

    /// The address of a symbol.
    pub(crate) fn address_of(&self, name: &str) -> Option<u64> {
        self.symbols.iter().find(|symbol| symbol.name == name).map(|symbol| symbol.address)
    }

    /// The function or object that an address lies in.
    pub(crate) fn containing(&self, address: u64) -> Option<&Symbol> {
        self.symbols
            .iter()
            .find(|symbol| symbol.typed && symbol.address <= address && address < symbol.address + symbol.size.max(1))
    }

    /// The loaded bytes as they lie in memory, from the lowest address on.
    ///
    /// # Errors
    /// Nothing is loaded.
    pub(crate) fn flatten(&self) -> Result<Vec<u8>> {
        let loaded = || self.segments.iter().filter(|segment| !segment.bytes.is_empty());
        let Some(start) = loaded().map(|segment| segment.address).min() else { bail!("the image loads nothing") };
        let mut flat = Vec::new();
        for segment in loaded() {
            let offset = usize::try_from(segment.address - start)?;
            let end = offset + segment.bytes.len();
            if flat.len() < end {
                flat.resize(end, 0);
            }
            flat[offset..end].copy_from_slice(&segment.bytes);
        }
        Ok(flat)
    }

    /// A hash of the order of functions and objects by address (FNV-1a, 64 bits): it tells layouts apart.
    pub(crate) fn order_hash(&self) -> u64 {
        let mut order: Vec<(u64, &str)> = self
            .symbols
            .iter()
            .filter(|symbol| symbol.typed)
            .map(|symbol| (symbol.address, symbol.name.as_str()))
            .collect();
        order.sort_unstable();
        let bytes = order.iter().flat_map(|(_, name)| name.bytes().chain([0]));
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbol(name: &str, address: u64) -> Symbol {
        Symbol { name: name.to_owned(), address, size: 8, absolute: false, typed: true, label: false }
    }

    #[test]
    fn good_the_hash_follows_the_order_and_not_the_addresses() {
        let with = |symbols: Vec<Symbol>| Elf { symbols, ..Elf::default() }.order_hash();
        let one = with(vec![symbol("a", 0), symbol("b", 8)]);
        assert_eq!(one, with(vec![symbol("b", 64), symbol("a", 16)]));
        assert_ne!(one, with(vec![symbol("a", 8), symbol("b", 0)]));
    }

    #[test]
    fn good_flattening_fills_gaps_with_zeroes_and_leaves_out_empty_segments() {
        let segment = |address, bytes: &[u8]| Segment { address, bytes: bytes.to_vec() };
        let segments = vec![segment(0x1004, b"b"), segment(0x1000, b"a"), segment(0x9000, b"")];
        assert_eq!(Elf { segments, ..Elf::default() }.flatten().expect("two segments load"), b"a\0\0\0b");
    }
}
