//! What is done to an instruction: taken away, weakened, or swapped with the next.

use std::fmt;

use breakwater_trace::names::Family;
use breakwater_trace::{Barrier, Decoded, decode};

use super::sites::{NOP, Site, is_everywhere};

const ALLE2: u32 = 0xd50c_871f;
const ALLE1: u32 = 0xd50c_879f;
const DC_IVAC: u32 = 0xd508_7620;
const DC_CVAC: u32 = 0xd50b_7a20;
/// Registers whose writes are sequenced.
const SEQUENCED: [&str; 7] = ["sctlr_el2", "mair_el2", "tcr_el2", "tcr2_el2", "ttbr0_el2", "vbar_el2", "hcr_el2"];

/// What is done to an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mutation {
    /// It becomes a NOP.
    Removed,
    /// A barrier of loads and stores becomes one of stores.
    StoresOnly,
    /// A barrier reaches this PE alone.
    Nearer,
    /// The TLBI is of EL1&0, the DC IVAC becomes a DC CVAC.
    Other,
    /// It changes places with the next.
    Swapped,
}

/// A mutant: the words from a site on, and what they become.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Mutant {
    pub(super) site: Site,
    pub(super) change: Mutation,
    pub(super) words: Vec<u32>,
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let change = match self.change {
            Mutation::Removed => "",
            Mutation::StoresOnly => " of stores only",
            Mutation::Nearer => " of this PE only",
            Mutation::Other => " of another kind",
            Mutation::Swapped => " after its successor",
        };
        write!(f, "{}{change}", self.site)
    }
}

impl Mutant {
    /// Whether it is of a function whose name contains `name`, wherever that was inlined to.
    pub(super) fn is_of(&self, name: &str) -> bool {
        self.site.function.contains(name) || self.site.lines.iter().any(|line| line.contains(name))
    }

    /// Whether every image needs a reason to have the instruction, wherever it stands: others are tried in the first boot alone.
    pub(super) fn is_everywhere(&self) -> bool {
        self.change == Mutation::Removed && is_everywhere(self.site.words.0)
    }
}

/// All mutants of `site`: without it; and where its routine is `weakened`, all else that some rule forbids.
pub(super) fn mutants(site: &Site, weakened: bool) -> Vec<Mutant> {
    let (word, next) = site.words;
    let mut all = if weakened { changes(word, next) } else { vec![(Mutation::Removed, vec![NOP])] };
    all.retain(|_| weakened || is_everywhere(word));
    all.into_iter().map(|(change, words)| Mutant { site: site.clone(), change, words }).collect()
}

/// Whether sequences are made of instructions such as this.
pub(super) fn is_sequenced(word: u32) -> bool {
    let matters = |decoded: Decoded| match decoded {
        Decoded::Msr { register, .. } => register.name().is_some_and(|name| SEQUENCED.contains(&name)),
        Decoded::Mrs { register, .. } => register.name() == Some("hcr_el2"),
        Decoded::Maintain { operation, .. } if operation.zeroes() => false,
        Decoded::Maintain { operation, .. } => matches!(operation.family(), Some(Family::Tlbi | Family::Dc)),
        Decoded::Dsb(_) | Decoded::Dmb(_) | Decoded::Isb => true,
        Decoded::Eret | Decoded::Call { .. } => false,
    };
    decode(word).is_some_and(matters)
}

/// True for what orders others: swapping it changes a sequence, swapping two writes of registers does not.
fn orders(word: u32) -> bool {
    match decode(word) {
        Some(Decoded::Dsb(_) | Decoded::Dmb(_) | Decoded::Isb) => true,
        Some(Decoded::Maintain { operation, .. }) => operation.family() == Some(Family::Tlbi),
        _ => false,
    }
}

fn writes_hcr(word: u32) -> bool {
    matches!(decode(word), Some(Decoded::Msr { register, .. }) if register.name() == Some("hcr_el2"))
}

/// What can be done to `word` that some rule forbids.
fn changes(word: u32, next: Option<u32>) -> Vec<(Mutation, Vec<u32>)> {
    let mut changes = vec![(Mutation::Removed, vec![NOP])];
    if let Some(Decoded::Dsb(barrier) | Decoded::Dmb(barrier)) = decode(word) {
        let Barrier { crm, .. } = barrier;
        let with = |crm: u8| vec![word & !0xf00 | u32::from(crm) << 8];
        if barrier.orders_everything() {
            changes.push((Mutation::StoresOnly, with(crm & 0xc | 2)));
        }
        // The one before HCR_EL2 may be of this PE: it is for its own accesses.
        if crm >> 2 != 1 && !next.is_some_and(writes_hcr) {
            changes.push((Mutation::Nearer, with(4 | crm & 3)));
        }
    }
    if word == ALLE2 {
        changes.push((Mutation::Other, vec![ALLE1]));
    }
    if word & !31 == DC_IVAC {
        changes.push((Mutation::Other, vec![DC_CVAC | word & 31]));
    }
    if let Some(next) = next.filter(|next| is_sequenced(*next) && (orders(word) || orders(*next))) {
        changes.push((Mutation::Swapped, vec![next, word]));
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    const DSB_SY: u32 = 0xd503_3f9f;
    const DC_ZVA: u32 = 0xd50b_7420;
    const DSB_NSH: u32 = 0xd503_379f;
    const ISB: u32 = 0xd503_3fdf;
    const MSR_HCR: u32 = 0xd51c_1100;

    fn kinds(word: u32, next: Option<u32>) -> Vec<Mutation> {
        changes(word, next).into_iter().map(|(change, _)| change).collect()
    }

    #[test]
    fn good_each_instruction_has_the_mutants_that_matter() {
        use Mutation::{Nearer, Other, Removed, StoresOnly, Swapped};
        assert_eq!(kinds(DSB_SY, None), [Removed, StoresOnly, Nearer]);
        assert_eq!(kinds(DSB_NSH, Some(ISB)), [Removed, StoresOnly, Swapped]);
        assert_eq!(kinds(DSB_SY, Some(MSR_HCR)), [Removed, StoresOnly, Swapped]);
        assert_eq!(kinds(ALLE2, Some(DSB_NSH)), [Removed, Other, Swapped]);
        assert_eq!(kinds(DC_IVAC, Some(0x8b09_0000)), [Removed, Other]);
        assert_eq!(changes(DSB_SY, None)[1].1, [0xd503_3e9f], "dsb st");
        assert_eq!(changes(DSB_SY, None)[2].1, [DSB_NSH]);
    }

    #[test]
    fn good_outside_of_weakened_routines_instructions_are_only_taken_away() {
        let site = |word| Site { words: (word, Some(ISB)), ..Site::lone(0x1000, word) };
        let changes = |word, weakened| mutants(&site(word), weakened).iter().map(|one| one.change).collect::<Vec<_>>();
        assert_eq!(changes(DSB_SY, false), [Mutation::Removed]);
        assert_eq!(changes(MSR_HCR, false), []);
        assert_eq!((changes(DC_ZVA, false), changes(DC_IVAC, false)), (vec![], vec![Mutation::Removed]));
        assert!(!is_sequenced(DC_ZVA) && is_sequenced(DC_IVAC), "it is a store");
        assert_eq!(changes(MSR_HCR, true), [Mutation::Removed, Mutation::Swapped]);
        let swapped = &mutants(&site(MSR_HCR), true)[1];
        assert!(!swapped.is_everywhere() && swapped.to_string().ends_with("` after its successor"), "{swapped}");
    }
}
