//! Names for the addresses that a profile counts.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use object::{Object, ObjectSegment, ObjectSymbol, SymbolKind};

use super::result::Share;

/// The symbols of an ELF file by link address, and where the image lies before it runs there.
#[derive(Default)]
pub(super) struct Symbols {
    names: BTreeMap<u64, String>,
    /// Physical and link address of the image's first byte, and its size.
    placed: Option<(u64, u64, u64)>,
}

impl Symbols {
    /// Reads `elf`, whose lowest segment is loaded at `load_address`.
    pub(super) fn read(elf: &Path, load_address: u64) -> Result<Self> {
        let name = || elf.display().to_string();
        let bytes = fs::read(elf).with_context(name)?;
        let file = object::File::parse(&*bytes).with_context(name)?;
        let named = file.symbols().filter_map(|symbol| {
            let name = symbol.name().ok().filter(|name| !name.is_empty() && !name.starts_with('$'))?;
            let code = matches!(symbol.kind(), SymbolKind::Text | SymbolKind::Unknown | SymbolKind::Label);
            (code && symbol.is_definition() || symbol.kind() == SymbolKind::Unknown)
                .then(|| (symbol.address(), format!("{:#}", rustc_demangle::demangle(name))))
        });
        let names = named.collect();
        let spans = file.segments().map(|segment| (segment.address(), segment.address() + segment.size()));
        let placed = spans.reduce(|all, one| (all.0.min(one.0), all.1.max(one.1)));
        Ok(Self { names, placed: placed.map(|(first, end)| (load_address, first, end - first)) })
    }

    /// The symbol that `pc` belongs to, wherever the image runs; its page if there is none.
    fn name(&self, pc: u64) -> String {
        let linked = match self.placed {
            Some((load, link, bytes)) if pc.wrapping_sub(load) < bytes => pc - load + link,
            _ => pc,
        };
        let inside = self.placed.is_some_and(|(_, link, bytes)| linked.wrapping_sub(link) < bytes);
        match self.names.range(..=linked).next_back() {
            Some((_, name)) if inside => name.clone(),
            _ => format!("page {:#x}", pc & !0xfff),
        }
    }

    /// Sums a profile by symbol, most first.
    pub(super) fn shares(&self, profile: &HashMap<u64, u64>) -> Vec<Share> {
        let mut by_name: HashMap<String, u64> = HashMap::new();
        for (pc, executions) in profile {
            *by_name.entry(self.name(*pc)).or_default() += executions;
        }
        let shares = by_name.into_iter().map(|(place, instructions)| Share { place, instructions });
        let mut shares: Vec<_> = shares.collect();
        shares.sort_by(|one, other| other.instructions.cmp(&one.instructions).then(one.place.cmp(&other.place)));
        shares
    }
}
