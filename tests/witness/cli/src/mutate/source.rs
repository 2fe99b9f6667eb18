//! Which lines of the source an instruction comes from: the debugging information says what was inlined where.
//!
//! Why it exists: a barrier that the protocol issues in one place is in the image as often as the compiler inlines that place, and boot executes
//! few of these copies. Two that come from the same lines of the protocol are twins.

use std::path::Path;

use addr2line::Context as Lines;
use addr2line::gimli::{Dwarf, EndianSlice, LittleEndian, SectionId};
use anyhow::{Context as _, Result};
use object::{Object, ObjectSection};

use super::redundant::Twins;
use crate::elf::demangled;

type Reader<'a> = EndianSlice<'a, LittleEndian>;

/// The lines of an ELF file.
pub(super) struct Sources<'a> {
    lines: Lines<Reader<'a>>,
    twins: &'a Twins,
}

impl<'a> Sources<'a> {
    /// Reads the debugging information in `elf`, which was read from `name`.
    ///
    /// # Errors
    /// It is no ELF file, or its debugging information is malformed.
    pub(super) fn of(elf: &'a [u8], name: &Path, twins: &'a Twins) -> Result<Self> {
        let file = object::File::parse(elf).with_context(|| name.display().to_string())?;
        let section = |id: SectionId| -> Result<Reader<'a>> {
            let data = file.section_by_name(id.name()).and_then(|section| section.data().ok());
            Ok(EndianSlice::new(data.unwrap_or_default(), LittleEndian))
        };
        Ok(Self { lines: Lines::from_dwarf(Dwarf::load(section)?)?, twins })
    }

    /// The functions and lines that the instruction at `address` comes from, the innermost first, as far as they are the protocol's; empty
    /// for assembly.
    pub(super) fn lines(&self, address: u64) -> Vec<String> {
        let mut lines = Vec::new();
        let Ok(mut frames) = self.lines.find_frames(address).skip_all_loads() else { return lines };
        while let Ok(Some(frame)) = frames.next() {
            let location = frame.location.as_ref();
            let file = location.and_then(|location| location.file).unwrap_or_default();
            if self.twins.between.iter().any(|part| file.contains(part.as_str())) {
                continue;
            }
            if !self.twins.within.iter().any(|part| file.contains(part.as_str())) {
                break;
            }
            let name = frame.function.as_ref().and_then(|function| function.raw_name().ok()).unwrap_or_default();
            let line = location.and_then(|location| location.line).unwrap_or_default();
            lines.push(format!("{}:{line}", demangled(&name)));
        }
        lines
    }
}

/// Whether two instructions come from the same lines, as far as is known of both: what is not inlined into its caller does not know it.
pub(super) fn alike(one: &[String], other: &[String]) -> bool {
    !one.is_empty() && !other.is_empty() && one.iter().zip(other).all(|(one, other)| one == other)
}

#[cfg(test)]
mod tests {
    use super::alike;

    fn lines(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn good_the_same_lines_wherever_they_are_inlined() {
        assert!(alike(&lines("dsb:9 complete:41"), &lines("dsb:9 complete:41")));
        assert!(alike(&lines("tlbi:3"), &lines("tlbi:3 invalidate:38")), "a function of its own has no callers");
    }

    #[test]
    fn bad_other_lines_are_no_twins() {
        assert!(!alike(&lines("dsb:9 complete:41"), &lines("dsb:9 publish:13")));
        assert!(!alike(&lines("dsb:9"), &lines("isb:9")));
        assert!(!alike(&[], &lines("dsb:9")) && !alike(&[], &[]), "assembly has none");
    }
}
