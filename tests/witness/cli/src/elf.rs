//! An ELF file of an image: what is loaded where, which of it is code, and names for addresses.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use object::elf::{FileHeader64, PT_LOAD, SHF_EXECINSTR, SHT_SYMTAB, STT_FUNC, STT_NOTYPE, STT_OBJECT};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader, Sym};
use object::{Endianness, elf::SHN_UNDEF};

/// The most memory that a segment is taken to fill beyond its bytes.
const MOST_SEGMENT_BYTES: usize = 1 << 30;

/// A symbol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Symbol {
    /// As the file has it.
    pub name: String,
    /// The address that it is linked to.
    pub address: u64,
    /// In bytes; 0 for a label.
    pub size: u64,
    /// It is a function.
    pub is_function: bool,
    /// It is a function or an object, and no label.
    pub is_typed: bool,
}

/// What a segment loads.
#[derive(Debug, Clone)]
pub struct Segment {
    /// The address that it is linked to.
    pub address: u64,
    /// Its physical address.
    pub pa: u64,
    /// Its bytes in the file.
    pub bytes: Vec<u8>,
    /// How much memory it takes; what is not in the file is zero.
    pub memory_bytes: u64,
}

/// An ELF file.
#[derive(Debug, Clone, Default)]
pub struct Elf {
    /// Functions, objects and labels.
    pub symbols: Vec<Symbol>,
    /// What is loaded.
    pub segments: Vec<Segment>,
    /// The addresses of sections that hold instructions, and the data among them.
    pub code: Vec<Range<u64>>,
}

impl Elf {
    /// Reads a file.
    ///
    /// # Errors
    /// The file cannot be read, or is no 64-bit ELF file.
    pub fn read(path: &Path) -> Result<Self> {
        let data = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&data).with_context(|| path.display().to_string())
    }

    /// Reads the bytes of a file.
    ///
    /// # Errors
    /// They are no 64-bit ELF file.
    pub fn parse(data: &[u8]) -> Result<Self> {
        let header = FileHeader64::<Endianness>::parse(data)?;
        let endian = header.endian()?;
        let sections = header.sections(endian, data)?;
        let table = sections.symbols(endian, data, SHT_SYMTAB)?;
        let mut elf = Self::default();
        for symbol in table.iter() {
            let kind = symbol.st_type();
            let is_typed = kind == STT_FUNC || kind == STT_OBJECT;
            let name = String::from_utf8_lossy(symbol.name(endian, table.strings()).unwrap_or_default()).into_owned();
            if !name.is_empty() && symbol.st_shndx(endian) != SHN_UNDEF && (is_typed || kind == STT_NOTYPE) {
                let (address, size) = (symbol.st_value(endian), symbol.st_size(endian));
                elf.symbols.push(Symbol { name, address, size, is_function: kind == STT_FUNC, is_typed });
            }
        }
        for segment in header.program_headers(endian, data)?.iter().filter(|segment| segment.p_type(endian) == PT_LOAD)
        {
            let Ok(bytes) = segment.data(endian, data) else { bail!("a segment lies outside the file") };
            elf.segments.push(Segment {
                address: segment.p_vaddr(endian),
                pa: segment.p_paddr(endian),
                bytes: bytes.to_vec(),
                memory_bytes: segment.p_memsz(endian),
            });
        }
        let code = sections.iter().filter(|section| section.sh_flags(endian).0 & SHF_EXECINSTR.0 != 0);
        elf.code =
            code.map(|section| section.sh_addr(endian)..section.sh_addr(endian) + section.sh_size(endian)).collect();
        Ok(elf)
    }

    /// The function of this name.
    #[must_use]
    pub fn function(&self, name: &str) -> Option<&Symbol> {
        self.symbols.iter().find(|symbol| symbol.name == name && symbol.is_typed)
    }

    /// The lowest address that is loaded, and the bytes from there on as they lie in memory.
    ///
    /// # Errors
    /// Nothing is loaded.
    pub fn flatten(&self) -> Result<(u64, Vec<u8>)> {
        let loaded = || self.segments.iter().filter(|segment| !segment.bytes.is_empty());
        let start = loaded().map(|segment| segment.address).min().context("the image loads nothing")?;
        let mut flat = Vec::new();
        for segment in loaded() {
            let offset = usize::try_from(segment.address - start)?;
            let end = offset + segment.bytes.len();
            if flat.len() < end {
                flat.resize(end, 0);
            }
            flat[offset..end].copy_from_slice(&segment.bytes);
        }
        Ok((start, flat))
    }

    /// Each segment's physical address and memory, the lowest first, as a loader fills it.
    ///
    /// # Errors
    /// Nothing is loaded.
    pub fn loaded(&self) -> Result<Vec<(u64, Vec<u8>)>> {
        let of = |segment: &Segment| {
            let mut bytes = segment.bytes.clone();
            bytes.resize(usize::try_from(segment.memory_bytes).unwrap_or(usize::MAX).min(MOST_SEGMENT_BYTES), 0);
            (segment.pa, bytes)
        };
        let mut loaded: Vec<_> = self.segments.iter().map(of).collect();
        loaded.sort_by_key(|(pa, _)| *pa);
        ensure!(!loaded.is_empty(), "the ELF file loads nothing");
        Ok(loaded)
    }
}

/// A name as its author wrote it, without the compiler's hash.
#[must_use]
pub fn demangled(name: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(address: u64, bytes: &[u8]) -> Segment {
        Segment { address, pa: address, bytes: bytes.to_vec(), memory_bytes: bytes.len() as u64 }
    }

    #[test]
    fn good_flattening_fills_gaps_with_zeroes_and_leaves_out_empty_segments() {
        let segments = vec![segment(0x1004, b"b"), segment(0x1000, b"a"), segment(0x9000, b"")];
        let elf = Elf { segments, ..Elf::default() };
        assert_eq!(elf.flatten().expect("two segments load"), (0x1000, b"a\0\0\0b".to_vec()));
    }
}
