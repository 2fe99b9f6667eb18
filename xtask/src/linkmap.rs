//! The linker's map: which input section each part of the image came from, and which symbols the linker script made.
//!
//! In the finished ELF input sections are merged, so that nothing else tells `.init.text.boot.primary_entry` from what follows it.

use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::path::Path;

/// Part of the image that came from one section of one object file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InputSection {
    pub(crate) start: u64,
    pub(crate) end_exclusive: u64,
    /// Such as `.text.boot.vectors`.
    pub(crate) name: String,
}

/// What the map says.
#[derive(Debug, Clone, Default)]
pub(crate) struct LinkMap {
    /// By address, none empty.
    pub(crate) sections: Vec<InputSection>,
    /// Symbols that the linker script assigns.
    pub(crate) script_symbols: BTreeSet<String>,
}

impl LinkMap {
    /// Reads a map that lld wrote.
    ///
    /// # Errors
    /// The file cannot be read or names no section of the image.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let map = Self::parse(&text);
        if map.sections.is_empty() {
            bail!("{} names no section", path.display());
        }
        Ok(map)
    }

    /// Lines are `VMA LMA Size Align` and then, by depth, an output section, an input section or a symbol.
    fn parse(text: &str) -> Self {
        let mut map = Self::default();
        for line in text.lines().skip(1) {
            let mut words = line.split_whitespace();
            let mut number = || u64::from_str_radix(words.next()?, 16).ok();
            let (Some(start), Some(_), Some(size), Some(_)) = (number(), number(), number(), number()) else {
                continue;
            };
            let what = words.collect::<Vec<_>>().join(" ");
            if let Some((_, name)) = what.rsplit_once(":(") {
                let name = name.trim_end_matches(')').to_owned();
                // Debug sections are not loaded and have address 0.
                if start != 0 && size != 0 {
                    map.sections.push(InputSection { start, end_exclusive: start + size, name });
                }
            } else if let Some((name, _)) = what.split_once('=') {
                let name = name.trim().trim_start_matches("PROVIDE(").trim_start_matches("HIDDEN(");
                if !name.is_empty() && !name.contains(['.', ' ']) {
                    map.script_symbols.insert(name.to_owned());
                }
            }
        }
        map.sections.sort_by_key(|section| section.start);
        map
    }

    /// The input section that an address came from.
    pub(crate) fn at(&self, address: u64) -> Option<&InputSection> {
        let after = self.sections.partition_point(|section| section.start <= address);
        let section = self.sections.get(after.checked_sub(1)?)?;
        (address < section.end_exclusive).then_some(section)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &str = "\
             VMA              LMA     Size Align Out     In      Symbol
     a0000200000      a0000200000     1000    64 .init
     a0000200000      a0000200000        0     1         _init_start = .
     a0000200000      a0000200000       40     8         /d/x.o:(.head.text)
     a0000200000      a0000200000        0     1                 _head
     a0000200040      a0000200040       10     4         /d/x.o:(.init.text.boot.primary_entry)
     a0000200050      a0000200050      fb0     1         . = ALIGN ( 4096 )
               0                0       12     1 .debug_str
               0                0       12     1         <internal>:(.debug_str)
";

    #[test]
    fn good_sections_and_script_symbols_are_told_apart() {
        let map = LinkMap::parse(MAP);
        assert_eq!(map.sections.len(), 2);
        assert_eq!(map.at(0x0a00_0020_0044).map(|s| s.name.as_str()), Some(".init.text.boot.primary_entry"));
        assert_eq!(map.at(0x0a00_0020_0050), None);
        assert_eq!(map.script_symbols.iter().collect::<Vec<_>>(), ["_init_start"]);
    }
}
