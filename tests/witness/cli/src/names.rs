//! Names for addresses: of functions, wherever they run. An image is linked to one address, loaded at another, and may
//! move itself to a third.
//!
//! What must hold: a name is a symbol's within the same segment, by address, or there is none. A segment of per-CPU
//! data at address 0 names no code elsewhere.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Result, ensure};

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
    /// Functions of these names, where nothing moves.
    #[cfg(test)]
    pub(crate) fn of_functions(functions: &[(&str, u64)], code: std::ops::Range<u64>) -> Self {
        let names = functions.iter().map(|(name, address)| (*address, (*name).to_owned())).collect();
        let segments = vec![Placed { link: code.start, pa: code.start, bytes: code.end - code.start }];
        Self { files: vec![File { names, segments }], relocated: Vec::new() }
    }

    /// Those of the files `elfs`. Where one of them is found in what is `loaded`, its addresses follow from that; else
    /// it lies where it says itself. The first may differ from the image in every byte, and still is the first of
    /// `loaded`.
    ///
    /// # Errors
    /// As [`Elf::read`]; a relocation of what is in none of the files.
    pub fn read<P: AsRef<Path>>(elfs: &[P], loaded: &[Loaded], relocated: &[Relocation]) -> Result<Self> {
        let mut names = Self { files: Vec::new(), relocated: relocated.to_vec() };
        for elf in elfs {
            let elf = Elf::read(elf.as_ref())?;
            let otherwise = loaded.first().filter(|_| names.files.is_empty());
            names.files.push(File::of(&elf, loaded, otherwise));
        }
        for relocation in relocated {
            let Relocation { from, to } = *relocation;
            ensure!(
                names.moved(*relocation).next().is_some(),
                "--relocated {from:#x}={to:#x}: nothing is at {from:#x}"
            );
        }
        Ok(names)
    }

    /// The symbol that `pc` belongs to, and how many bytes into it.
    #[must_use]
    pub fn place(&self, pc: u64) -> Option<(&str, u64)> {
        let moved = self.relocated.iter().find_map(|relocation| {
            let before = pc.wrapping_sub(relocation.to).wrapping_add(relocation.from);
            self.moved(*relocation).find_map(|(file, base)| file.name(before, base))
        });
        // Then where an image is loaded: what lies there is known, and where it is linked another may lie.
        moved.or_else(|| BASES.iter().find_map(|base| self.files.iter().find_map(|file| file.name(pc, *base))))
    }

    /// The files that moved by `relocation`: in which its first byte is, as they are linked or as they are loaded.
    fn moved(&self, relocation: Relocation) -> impl Iterator<Item = (&File, Base)> {
        let both = self.files.iter().flat_map(|file| BASES.map(|base| (file, base)));
        both.filter(move |(file, base)| file.holds(relocation.from, *base))
    }

    /// The addresses of the symbol `name`: where it is linked, where it is loaded, and where it moves.
    #[must_use]
    pub fn addresses(&self, name: &str) -> Vec<u64> {
        let own = self.files.iter().flat_map(|file| [Placed::link as Base, Placed::pa].map(|base| (file, base, 0)));
        let moved = self.relocated.iter().flat_map(|relocation| {
            let by = relocation.to.wrapping_sub(relocation.from);
            self.moved(*relocation).map(move |(file, base)| (file, base, by))
        });
        let mut all = Vec::new();
        for (file, base, by) in own.chain(moved) {
            let address = file.address(name, base).map(|address| address.wrapping_add(by));
            all.extend(address.filter(|address| !all.contains(address)));
        }
        all
    }
}

/// From where a segment's addresses are counted.
type Base = fn(&Placed) -> u64;

/// The likelier first.
const BASES: [Base; 2] = [Placed::pa, Placed::link];

impl Placed {
    const fn link(&self) -> u64 {
        self.link
    }

    const fn pa(&self) -> u64 {
        self.pa
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

    fn holds(&self, address: u64, base: Base) -> bool {
        self.segments.iter().any(|segment| address.wrapping_sub(base(segment)) < segment.bytes)
    }

    /// The name of `pc`, where each segment begins at `base`.
    fn name(&self, pc: u64, base: Base) -> Option<(&str, u64)> {
        self.segments.iter().find_map(|segment| {
            let ahead = pc.wrapping_sub(base(segment));
            let linked = segment.link.checked_add(ahead).filter(|_| ahead < segment.bytes)?;
            let (start, name) = self.names.range(segment.link..=linked).next_back()?;
            Some((name.as_str(), linked - start))
        })
    }

    /// The address of the symbol `name`, where each segment begins at `base`.
    fn address(&self, name: &str, base: Base) -> Option<u64> {
        let linked = *self.names.iter().find(|(_, known)| *known == name)?.0;
        let segment = self.segments.iter().find(|segment| linked.wrapping_sub(segment.link) < segment.bytes);
        // A symbol of no segment has the address that it says, and no other.
        segment.map_or(Some(linked), |segment| Some(base(segment).wrapping_add(linked - segment.link)))
    }
}

/// The lowest physical address of what the file loads.
fn lowest(elf: &Elf) -> Option<u64> {
    elf.segments.iter().filter(|segment| !segment.bytes.is_empty()).map(|segment| segment.pa).min()
}

/// How much further up in memory the file lies than it says, if its code is in `loaded`, to the byte: as it says, or
/// from one of its segments on where a flat image begins, whether or not that holds the file's headers.
fn found(elf: &Elf, loaded: &[Loaded]) -> Option<u64> {
    let starts = || elf.segments.iter().filter(|segment| !segment.bytes.is_empty()).map(|segment| segment.pa);
    let flat = loaded.iter().flat_map(|image| starts().map(|start| image.pa.wrapping_sub(start)));
    std::iter::once(0).chain(flat).find(|moved| is_at(elf, loaded, *moved))
}

/// Whether all code of the file lies in `loaded`, `moved` bytes further up than it says. A file without code is
/// nowhere.
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
    fn good_what_moved_is_named_from_its_own_file() {
        let at_0 = |pa, bytes: &[u8; 16], name: &str| Elf {
            symbols: vec![symbol(name, 0, true)],
            segments: vec![segment(0, pa, bytes)],
            code: std::iter::once(0..0x10).collect(),
        };
        let (loader, payload) = (at_0(0, b"0123456789abcdef", "loader"), at_0(0, b"another sixteen!", "payload"));
        let to_the_top = "0x40000000=0x7ff00000".parse().unwrap();
        let names = names(&[loader, payload], &at(0x4000_0000, b"0123456789abcdef"), &[to_the_top]);
        assert_eq!(names.place(0x7ff0_0008), Some(("loader", 8)));
        assert_eq!(names.addresses("payload"), [0]);
    }

    #[test]
    fn good_a_segment_at_the_end_of_all_addresses() {
        let mut elf = image();
        elf.segments[0].address = u64::MAX - 0x20;
        let names = names(&[elf], &at(0x4000_0000, b"0123456789abcdef"), &[]);
        assert_eq!(names.place(0x10), None);
    }

    #[test]
    fn bad_relocations_are_two_addresses() {
        for text in ["", "0x1000", "0x1000=", "=0x1000", "here=there"] {
            assert!(text.parse::<Relocation>().is_err(), "{text}");
        }
    }
}
