//! Where the image has a barrier or a maintenance instruction: every DSB, ISB, TLBI, DC and IC of its executable
//! sections, wherever the compiler has inlined it to. DC ZVA is none of them: it is a store. Data among the code (literal
//! pools, headers) is told apart by the mapping symbols of the ELF file.

use std::collections::{HashMap, HashSet};
use std::fmt;

use breakwater_trace::names::Family;
use breakwater_trace::{Decoded, decode};

use super::change::is_sequenced;
use crate::elf::{Elf, Symbol, demangled};

/// What a mutant has in an instruction's place.
pub(super) const NOP: u32 = 0xd503_201f;

/// An instruction that may be taken away.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Site {
    /// At the address that the image is linked to.
    pub(super) address: u64,
    /// The function, without the compiler's hash.
    pub(super) function: String,
    /// Bytes from the function's start.
    pub(super) offset: u64,
    /// As the trace would call it.
    pub(super) instruction: String,
    /// The nearest instruction before it in the function that has a name.
    pub(super) before: Option<String>,
    /// The nearest after it.
    pub(super) after: Option<String>,
    /// The lines of the source that it comes from, if they are the protocol's.
    pub(super) lines: Vec<String>,
    /// It only waits: it stands in a loop that loads and compares, and does nothing else.
    pub(super) pauses: bool,
    /// It, and what follows it in the function.
    pub(super) words: (u32, Option<u32>),
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{:#x}: `{}`", self.function, self.offset, self.instruction)
    }
}

/// An instruction that acts on the translation regime or calls somebody, as an assembler spells it, without general registers.
pub(super) fn spell(word: u32) -> Option<String> {
    Some(match decode(word)? {
        Decoded::Msr { register, .. } => format!("msr {register}"),
        Decoded::Mrs { register, .. } => format!("mrs {register}"),
        Decoded::Maintain { operation, .. } => match operation.family()? {
            Family::Tlbi => format!("tlbi {operation}"),
            Family::Dc => format!("dc {operation}"),
            Family::Ic => format!("ic {operation}"),
            Family::At => format!("at {operation}"),
        },
        Decoded::Dsb(barrier) => format!("dsb {barrier}"),
        Decoded::Dmb(barrier) => format!("dmb {barrier}"),
        Decoded::Isb => "isb".into(),
        Decoded::Eret => "eret".into(),
        Decoded::Call { immediate, .. } => format!("call {immediate:#x}"),
    })
}

/// Whether every image needs a reason to have it.
pub(super) fn is_everywhere(word: u32) -> bool {
    match decode(word) {
        Some(Decoded::Dsb(_) | Decoded::Isb) => true,
        Some(Decoded::Maintain { operation, .. }) if operation.zeroes() => false,
        Some(Decoded::Maintain { operation, .. }) => operation.family().is_some_and(|family| family != Family::At),
        _ => false,
    }
}

/// All of them, by address, and in the routines `weakened` everything that sequences are made of; `lines` says what lines of the source an
/// address comes from.
pub(super) fn find(elf: &Elf, weakened: &HashSet<String>, lines: impl Fn(u64) -> Vec<String>) -> Vec<Site> {
    let words = instructions(elf);
    let mut functions: Vec<&Symbol> = elf
        .symbols
        .iter()
        .filter(|symbol| symbol.is_typed && symbol.size > 0 && is_code(elf, symbol.address))
        .collect();
    // Of two names for one place the first by the alphabet counts.
    functions.sort_by_key(|symbol| (symbol.address, &symbol.name));
    functions.dedup_by_key(|symbol| symbol.address);
    let mut found = Vec::new();
    for function in &functions {
        let range = function.address..function.address + function.size;
        let body: Vec<(u64, u32)> =
            range.step_by(4).filter_map(|address| Some((address, *words.get(&address)?))).collect();
        found.extend(of_function(function, weakened.contains(&function.name), &body));
    }
    let outside = words.iter().filter(|&(address, word)| {
        is_everywhere(*word) && !functions.iter().any(|one| (one.address..one.address + one.size).contains(address))
    });
    let outside: Vec<Site> = outside.map(|(&address, &word)| Site::lone(address, word)).collect();
    found.extend(outside);
    found.sort_by_key(|site| site.address);
    found.iter_mut().for_each(|site| site.lines = lines(site.address));
    found
}

fn is_code(elf: &Elf, address: u64) -> bool {
    elf.code.iter().any(|range| range.contains(&address))
}

/// The words of the executable sections that are instructions.
fn instructions(elf: &Elf) -> HashMap<u64, u32> {
    let is_mapping =
        |name: &str, kind: &str| name == kind || name.strip_prefix(kind).is_some_and(|n| n.starts_with('.'));
    let mut marks: Vec<(u64, bool)> = elf
        .symbols
        .iter()
        .filter(|symbol| is_mapping(&symbol.name, "$x") || is_mapping(&symbol.name, "$d"))
        .map(|symbol| (symbol.address, symbol.name.starts_with("$x")))
        .collect();
    marks.sort_unstable();
    let mut words = HashMap::new();
    for segment in &elf.segments {
        for (index, word) in segment.bytes.as_chunks::<4>().0.iter().enumerate() {
            let address = segment.address + 4 * index as u64;
            let before = marks.partition_point(|mark| mark.0 <= address);
            let marked = before.checked_sub(1).is_none_or(|last| marks[last].1);
            if marked && is_code(elf, address) {
                words.insert(address, u32::from_le_bytes(*word));
            }
        }
    }
    words
}

fn of_function(function: &Symbol, weakened: bool, body: &[(u64, u32)]) -> Vec<Site> {
    let name = demangled(&function.name);
    let spelled: Vec<Option<String>> = body.iter().map(|(_, word)| spell(*word)).collect();
    let is_site = |word| is_everywhere(word) || weakened && is_sequenced(word);
    let at: Vec<usize> = (0..body.len()).filter(|&index| is_site(body[index].1)).collect();
    let site = |&index: &usize| Site {
        address: body[index].0,
        function: name.clone(),
        offset: body[index].0 - function.address,
        instruction: spelled[index].clone().unwrap_or_default(),
        before: spelled[..index].iter().rev().flatten().next().cloned(),
        after: spelled[index + 1..].iter().flatten().next().cloned(),
        lines: Vec::new(),
        pauses: decode(body[index].1) == Some(Decoded::Isb) && pauses(body, index),
        words: (body[index].1, body.get(index + 1).map(|next| next.1)),
    };
    at.iter().map(site).collect()
}

impl Site {
    /// One that no function has.
    pub(super) fn lone(address: u64, word: u32) -> Self {
        let instruction = spell(word).unwrap_or_default();
        let (function, lines, words) = (format!("{address:#x}"), Vec::new(), (word, None));
        Self { address, function, offset: 0, instruction, before: None, after: None, lines, pauses: false, words }
    }
}

/// Instructions that a loop around a pause may have.
const LOOP_WORDS: usize = 16;

/// Whether the instruction at `index` stands in a loop that changes nothing but registers and calls nobody.
fn pauses(body: &[(u64, u32)], index: usize) -> bool {
    (index + 1..body.len().min(index + LOOP_WORDS)).any(|branch| {
        let Some(target) = target(body[branch]) else { return false };
        let Some(start) = (0..=index).rev().take(LOOP_WORDS).find(|&start| body[start].0 == target) else {
            return false;
        };
        (start..=branch).all(|at| at == index || only_looks(body[at].1))
    })
}

/// Where a direct branch leads.
fn target((address, word): (u64, u32)) -> Option<u64> {
    let (bits, shift) = match word {
        _ if word & 0xfc00_0000 == 0x1400_0000 => (26, 0), // B
        _ if word & 0xff00_0010 == 0x5400_0000 => (19, 5), // B.cond
        _ if word & 0x7e00_0000 == 0x3400_0000 => (19, 5), // CBZ, CBNZ
        _ if word & 0x7e00_0000 == 0x3600_0000 => (14, 5), // TBZ, TBNZ
        _ => return None,
    };
    let field = i64::from(word >> shift) << (64 - bits) >> (64 - bits);
    Some(address.wrapping_add_signed(field * 4))
}

/// Whether an instruction leaves memory and system registers alone, and goes no further than a direct branch.
fn only_looks(word: u32) -> bool {
    let loads_plainly = matches!(word & 0x3b00_0000, 0x3900_0000 | 0x3800_0000) && word >> 22 & 3 != 0;
    let loads_in_order = word & 0x3f40_0000 == 0x0840_0000; // LDXR, LDAXR, LDAR
    let computes = word & 0x1c00_0000 == 0x1000_0000 || word & 0x0e00_0000 == 0x0a00_0000;
    let reads_a_register = word & 0xfff0_0000 == 0xd530_0000 && decode(word).is_none();
    let hint = word & 0xffff_f01f == NOP & 0xffff_f01f;
    loads_plainly || loads_in_order || computes || reads_a_register || hint || target((0, word)).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISB: u32 = 0xd503_3fdf;
    const DSB_SY: u32 = 0xd503_3f9f;

    fn symbol(name: &str, address: u64, size: u64) -> Symbol {
        Symbol { name: name.into(), address, size, is_function: size > 0, is_typed: size > 0 }
    }

    fn found(elf: &Elf) -> Vec<Site> {
        find(elf, &HashSet::new(), |_| Vec::new())
    }

    fn elf(symbols: Vec<Symbol>, words: &[u32]) -> Elf {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let end_exclusive = 0x1000 + bytes.len() as u64;
        let code = std::iter::once(0x1000..end_exclusive).collect();
        let (pa, memory_bytes) = (0x1000, bytes.len() as u64);
        Elf { symbols, segments: vec![crate::elf::Segment { address: 0x1000, pa, bytes, memory_bytes }], code }
    }

    #[test]
    fn good_data_among_code_is_no_site() {
        let symbols =
            vec![symbol("$x", 0x1000, 0), symbol("$d.1", 0x1004, 0), symbol("$x", 0x1008, 0), symbol("f", 0x1000, 16)];
        let sites = found(&elf(symbols, &[ISB, ISB, DSB_SY, NOP]));
        let texts: Vec<String> = sites.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["f+0x0: `isb`", "f+0x8: `dsb sy`"]);
        assert_eq!(sites[0].after.as_deref(), Some("dsb sy"));
    }

    #[test]
    fn good_code_that_no_function_has_counts_too() {
        let sites = found(&elf(vec![symbol("$x", 0x1000, 0)], &[NOP, DSB_SY]));
        assert_eq!(sites.iter().map(|site| site.address).collect::<Vec<_>>(), [0x1004]);
    }

    #[test]
    fn good_a_loop_that_only_looks_pauses() {
        // ldrb w10, [x8]; cbz w10, out; isb; b to the load
        let waits = [0x3940_010a, 0x3400_006a, ISB, 0x17ff_fffd, NOP];
        assert!(found(&elf(vec![symbol("f", 0x1000, 20)], &waits))[0].pauses);
        // isb; adrp x8; ldrb w8, [x8]; cbnz w8 to the isb
        let again = [ISB, 0x9000_0008, 0x3940_0108, 0x35ff_ffa8];
        assert!(found(&elf(vec![symbol("f", 0x1000, 16)], &again))[0].pauses);
    }

    #[test]
    fn bad_a_loop_that_does_something_is_no_pause() {
        // The same with a store, with a call, with a TLBI, and without a way back.
        for other in [0x3900_010a, 0x9400_0010, 0xd50c_871f] {
            let words = [0x3940_010a, other, ISB, 0x17ff_fffd];
            assert!(found(&elf(vec![symbol("f", 0x1000, 16)], &words)).iter().all(|site| !site.pauses), "{other:#x}");
        }
        assert!(!found(&elf(vec![symbol("f", 0x1000, 12)], &[0x3940_010a, ISB, 0x3400_006a]))[0].pauses);
        let dsb = [0x3940_010a, 0x3400_006a, DSB_SY, 0x17ff_fffd];
        assert!(!found(&elf(vec![symbol("f", 0x1000, 16)], &dsb))[0].pauses, "only an ISB is a pause");
    }
}
