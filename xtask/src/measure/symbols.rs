//! Names for the addresses that a profile counts.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use object::{Object, ObjectSegment, ObjectSymbol, SymbolKind};
use rustc_hash::FxHashMap;

use super::result::Share;

/// The symbols of an ELF file by link address, and where the image lies before it runs there.
#[derive(Default)]
pub(crate) struct Symbols {
    names: BTreeMap<u64, String>,
    /// Physical and link address of the image's first byte, and its size.
    placed: Option<(u64, u64, u64)>,
}

impl Symbols {
    /// Reads `elf`, whose lowest segment is loaded at `load_address`.
    pub(crate) fn read(elf: &Path, load_address: u64) -> Result<Self> {
        let name = || elf.display().to_string();
        let bytes = fs::read(elf).with_context(name)?;
        let file = object::File::parse(&*bytes).with_context(name)?;
        let named = file.symbols().filter_map(|symbol| {
            let name = symbol.name().ok().filter(|name| !name.is_empty() && !name.starts_with('$'))?;
            let code = matches!(symbol.kind(), SymbolKind::Text | SymbolKind::Unknown | SymbolKind::Label);
            let is_function = symbol.kind() == SymbolKind::Text;
            (code && symbol.is_definition() || symbol.kind() == SymbolKind::Unknown)
                .then(|| (is_function, symbol.address(), format!("{:#}", rustc_demangle::demangle(name))))
        });
        // Of several names for one address a function's is the one: the others mark where something ends.
        let mut named: Vec<_> = named.collect();
        named.sort_by_key(|(is_function, ..)| *is_function);
        let names = named.into_iter().map(|(_, address, name)| (address, name)).collect();
        let spans = file.segments().map(|segment| (segment.address(), segment.address() + segment.size()));
        let placed = spans.reduce(|all, one| (all.0.min(one.0), all.1.max(one.1)));
        Ok(Self { names, placed: placed.map(|(first, end)| (load_address, first, end - first)) })
    }

    /// The symbol that `pc` belongs to, wherever the image runs; its page if there is none.
    fn name(&self, pc: u64) -> String {
        self.place(pc).map_or_else(|| format!("page {:#x}", pc & !0xfff), |(name, _)| name.to_owned())
    }

    /// The symbol that `pc` belongs to, wherever the image runs, and how many bytes into it.
    pub(crate) fn place(&self, pc: u64) -> Option<(&str, u64)> {
        let (load, link, bytes) = self.placed?;
        let linked = if pc.wrapping_sub(load) < bytes { pc - load + link } else { pc };
        let (start, name) = self.names.range(..=linked).next_back()?;
        (linked.wrapping_sub(link) < bytes).then(|| (name.as_str(), linked - start))
    }

    /// The address of the symbol `name`, linked and where it is loaded.
    pub(crate) fn addresses(&self, name: &str) -> Vec<u64> {
        let linked = self.names.iter().find(|(_, known)| *known == name).map(|(address, _)| *address);
        let loaded = |linked: u64| self.placed.map(|(load, link, _)| linked.wrapping_sub(link).wrapping_add(load));
        linked.into_iter().flat_map(|linked| [Some(linked), loaded(linked)]).flatten().collect()
    }

    /// Sums a profile by symbol, most first.
    pub(super) fn shares(&self, profile: &FxHashMap<u64, u64>) -> Vec<Share> {
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
