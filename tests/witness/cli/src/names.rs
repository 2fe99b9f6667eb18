//! Names for addresses: of functions, wherever they run. An image is linked to one address, loaded at another, and may move itself to a third.
//!
//! What must hold: a name is a symbol's of the same segment, or there is none. A segment of per-CPU data at address 0 names no code.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;

use anyhow::Result;

use crate::elf::{Elf, Segment, Symbol, demangled};
use crate::loader::Loaded;
use crate::machine;

/// Names for addresses, from any number of ELF files.
#[derive(Debug, Clone, Default)]
pub struct Names {
    files: Vec<File>,
    relocated: Vec<Relocation>,
}

/// The names of one ELF file.
#[derive(Debug, Clone)]
struct File {
    /// By link address.
    names: BTreeMap<u64, String>,
    segments: Vec<Placed>,
}

/// A segment: where it is linked, and where it lies in memory.
#[derive(Debug, Clone, Copy)]
struct Placed {
    link: u64,
    pa: u64,
    bytes: u64,
}

/// An image that moved itself: what lay at `from`, as it was linked or loaded, runs at `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relocation {
    /// The first byte that moved.
    pub from: u64,
    /// Where it is now.
    pub to: u64,
}

impl FromStr for Relocation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (from, to) = text.split_once('=').ok_or("FROM=TO, two addresses")?;
        Ok(Self { from: machine::address(from)?, to: machine::address(to)? })
    }
}

impl Names {
    /// Those of the files `elfs`. Where one of them is found in what is `loaded`, its addresses follow from that; else it lies where it says
    /// itself. The first may differ from the image in every byte, and still is the first of `loaded`.
    ///
    /// # Errors
    /// As [`Elf::read`].
    pub fn read<P: AsRef<Path>>(elfs: &[P], loaded: &[Loaded], relocated: &[Relocation]) -> Result<Self> {
        let mut names = Self { files: Vec::new(), relocated: relocated.to_vec() };
        for elf in elfs {
            let elf = Elf::read(elf.as_ref())?;
            let otherwise = loaded.first().filter(|_| names.files.is_empty());
            names.files.push(File::of(&elf, loaded, otherwise));
        }
        Ok(names)
    }

    /// The symbol that `pc` belongs to, and how many bytes into it.
    #[must_use]
    pub fn place(&self, pc: u64) -> Option<(&str, u64)> {
        let moved = self.relocated.iter().filter_map(|relocation| self.before(*relocation, pc));
        moved.chain([pc]).find_map(|pc| {
            // Where an image is loaded first: what lies there is known, and where it is linked another may lie.
            let loaded = self.files.iter().find_map(|file| file.name(pc, |segment| segment.pa));
            loaded.or_else(|| self.files.iter().find_map(|file| file.name(pc, |segment| segment.link)))
        })
    }

    /// Where what runs at `pc` lay before it moved.
    fn before(&self, Relocation { from, to }: Relocation, pc: u64) -> Option<u64> {
        let before = pc.checked_sub(to)?.checked_add(from)?;
        let of_one = |base: fn(&Placed) -> u64, file: &File| {
            // From the segment that holds the first byte on, all of the file moved.
            file.holds(from, base) && file.holds(before, base)
        };
        let moved = |file| of_one(|segment| segment.link, file) || of_one(|segment| segment.pa, file);
        self.files.iter().any(moved).then_some(before)
    }

    /// The addresses of the symbol `name`: where it is linked, where it is loaded, and where it moves.
    #[must_use]
    pub fn addresses(&self, name: &str) -> Vec<u64> {
        let mut all = Vec::new();
        for file in &self.files {
            let Some(linked) = file.names.iter().find(|(_, known)| *known == name).map(|(address, _)| *address) else {
                continue;
            };
            let loaded = file.segments.iter().find(|segment| linked.wrapping_sub(segment.link) < segment.bytes);
            let own = [Some(linked), loaded.map(|segment| linked - segment.link + segment.pa)];
            let moved = |address: u64| {
                let to = self.relocated.iter().map(move |one| address.wrapping_sub(one.from).wrapping_add(one.to));
                let held =
                    to.filter(move |pc| self.relocated.iter().any(|one| self.before(*one, *pc) == Some(address)));
                std::iter::once(address).chain(held)
            };
            for address in own.into_iter().flatten().flat_map(moved) {
                if !all.contains(&address) {
                    all.push(address);
                }
            }
        }
        all
    }
}

impl File {
    /// Of an ELF file, found in `loaded`, or else taken for all of `otherwise`.
    fn of(elf: &Elf, loaded: &[Loaded], otherwise: Option<&Loaded>) -> Self {
        let is_code = |symbol: &&Symbol| (symbol.is_function || !symbol.is_typed) && !symbol.name.starts_with('$');
        let mut named: Vec<&Symbol> = elf.symbols.iter().filter(is_code).collect();
        // Of several names for one address a function's is the one: the others mark where something ends.
        named.sort_by_key(|symbol| symbol.is_function);
        let names = named.iter().map(|symbol| (symbol.address, demangled(&symbol.name))).collect();
        let moved = found(elf, loaded).or_else(|| Some(otherwise?.pa.wrapping_sub(lowest(elf)?))).unwrap_or(0);
        let place = |segment: &Segment| Placed {
            link: segment.address,
            pa: segment.pa.wrapping_add(moved),
            bytes: segment.memory_bytes,
        };
        Self { names, segments: elf.segments.iter().map(place).collect() }
    }

    fn holds(&self, address: u64, base: fn(&Placed) -> u64) -> bool {
        self.segments.iter().any(|segment| address.wrapping_sub(base(segment)) < segment.bytes)
    }

    /// The name of `pc`, where each segment begins at `base`.
    fn name(&self, pc: u64, base: impl Fn(&Placed) -> u64) -> Option<(&str, u64)> {
        self.segments.iter().filter(|segment| pc.wrapping_sub(base(segment)) < segment.bytes).find_map(|segment| {
            let linked = pc - base(segment) + segment.link;
            let (start, name) = self.names.range(segment.link..=linked).next_back()?;
            Some((name.as_str(), linked - start))
        })
    }
}

/// The lowest physical address of what the file loads.
fn lowest(elf: &Elf) -> Option<u64> {
    elf.segments.iter().filter(|segment| !segment.bytes.is_empty()).map(|segment| segment.pa).min()
}

/// How much further up in memory the file lies than it says, if its code is in `loaded`, to the byte: as it says, or from one of its segments on
/// where a flat image begins, whether or not that holds the file's headers.
fn found(elf: &Elf, loaded: &[Loaded]) -> Option<u64> {
    let starts = || elf.segments.iter().filter(|segment| !segment.bytes.is_empty()).map(|segment| segment.pa);
    let flat = loaded.iter().flat_map(|image| starts().map(|start| image.pa.wrapping_sub(start)));
    std::iter::once(0).chain(flat).find(|moved| is_at(elf, loaded, *moved))
}

/// Whether all code of the file lies in `loaded`, `moved` bytes further up than it says. A file without code is nowhere.
fn is_at(elf: &Elf, loaded: &[Loaded], moved: u64) -> bool {
    let code = || elf.code.iter().filter(|code| !code.is_empty());
    code().next().is_some()
        && code().all(|code| {
            let holds = |segment: &&Segment| code.start.wrapping_sub(segment.address) < segment.bytes.len() as u64;
            let Some(segment) = elf.segments.iter().find(holds) else { return false };
            let first = (code.start - segment.address) as usize;
            let bytes = &segment.bytes[first..segment.bytes.len().min(first + (code.end - code.start) as usize)];
            let pa = segment.pa.wrapping_add(first as u64).wrapping_add(moved);
            loaded.iter().any(|image| {
                let ahead = usize::try_from(pa.wrapping_sub(image.pa)).unwrap_or(usize::MAX);
                image.bytes.get(ahead..ahead.saturating_add(bytes.len())) == Some(bytes)
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbol(name: &str, address: u64, is_function: bool) -> Symbol {
        Symbol { name: name.to_owned(), address, size: 4, is_function, is_typed: is_function }
    }

    fn segment(address: u64, pa: u64, bytes: &[u8]) -> Segment {
        Segment { address, pa, bytes: bytes.to_vec(), memory_bytes: bytes.len().max(64) as u64 }
    }

    /// Names of files that lie in one image.
    fn names(elfs: &[Elf], loaded: &[Loaded], relocated: &[Relocation]) -> Names {
        let of = |(index, elf)| File::of(elf, loaded, loaded.first().filter(|_| index == 0));
        Names { files: elfs.iter().enumerate().map(of).collect(), relocated: relocated.to_vec() }
    }

    /// 16 bytes of code at 0x1000, in which `start` is at 0 and `second` at 8.
    fn image() -> Elf {
        let symbols = vec![
            symbol("start", 0x1000, true),
            symbol("end_of_others", 0x1000, false),
            symbol("$x", 0x1004, false),
            symbol("second", 0x1008, true),
        ];
        let segments = vec![segment(0x1000, 0x1000, b"0123456789abcdef")];
        Elf { symbols, segments, code: std::iter::once(0x1000..0x1010).collect() }
    }

    fn at(pa: u64, bytes: &[u8]) -> Vec<Loaded> {
        vec![Loaded { pa, bytes: bytes.to_vec() }]
    }

    #[test]
    fn good_a_place_is_found_where_the_image_is_linked_and_where_it_is_loaded() {
        let names = names(&[image()], &at(0x4000_0000, b"0123456789abcdef"), &[]);
        assert_eq!(names.place(0x1004), Some(("start", 4)));
        assert_eq!(names.place(0x4000_000c), Some(("second", 4)));
        assert_eq!(names.place(0x2000), None);
        assert_eq!(names.addresses("start"), [0x1000, 0x4000_0000]);
    }

    #[test]
    fn good_a_segment_that_is_not_loaded_with_the_code_names_no_code() {
        let mut elf = image();
        elf.segments.insert(0, segment(0, 0x9000, b""));
        elf.symbols.push(symbol("percpu_area", 0, false));
        let names = names(&[elf], &at(0x1000, b"0123456789abcdef"), &[]);
        assert_eq!(names.place(0x1008), Some(("second", 0)));
        assert_eq!(names.place(0x20), Some(("percpu_area", 0x20)), "its own addresses stay its own");
        assert_eq!(names.place(0x1000 + 0x40), None, "behind the segment");
    }

    #[test]
    fn good_a_flat_image_begins_behind_the_headers_of_its_file() {
        let mut elf = image();
        elf.segments.insert(0, segment(0xf00, 0xf00, b"\x7fELF and what follows"));
        let names = names(&[elf], &at(0x4000_0000, b"0123456789abcdef"), &[]);
        assert_eq!(names.place(0x4000_0008), Some(("second", 0)));
    }

    #[test]
    fn good_an_image_that_was_patched_is_taken_to_begin_with_its_file() {
        let names = names(&[image()], &at(0x4000_0000, b"0123 patched cdef"), &[]);
        assert_eq!(names.place(0x4000_0008), Some(("second", 0)));
    }

    #[test]
    fn good_a_loader_and_what_it_loads_have_a_file_each() {
        let mut payload = image();
        payload.segments[0] = segment(0x1000, 0x8000_0000, b"another sixteen!");
        payload.symbols = vec![symbol("payload", 0x1000, true)];
        let names = names(&[image(), payload], &at(0x4000_0000, b"0123456789abcdef"), &[]);
        assert_eq!(names.place(0x4000_0000), Some(("start", 0)));
        assert_eq!(names.place(0x8000_0008), Some(("payload", 8)));
    }

    #[test]
    fn good_an_image_that_moved_itself_is_followed() {
        let to_the_top = "0x40000000=0x7ff00000".parse().unwrap();
        let names = names(&[image()], &at(0x4000_0000, b"0123456789abcdef"), &[to_the_top]);
        assert_eq!(names.place(0x7ff0_000c), Some(("second", 4)));
        assert_eq!(names.place(0x4000_000c), Some(("second", 4)), "before it moved");
        assert_eq!(names.place(0x7ff0_1000), None);
        assert_eq!(names.addresses("second"), [0x1008, 0x4000_0008, 0x7ff0_0008]);
    }

    #[test]
    fn bad_relocations_are_two_addresses() {
        for text in ["", "0x1000", "0x1000=", "=0x1000", "here=there"] {
            assert!(text.parse::<Relocation>().is_err(), "{text}");
        }
    }
}
