//! Instruction word -> what the recorder must report of it.
//!
//! Only the instructions that act on the translation regime are told apart; loads and stores are reported by QEMU itself, and
//! everything else is merely counted.

use crate::event::{Barrier, Call};
use crate::names::{Encoding, Operation, Register};

/// An instruction of interest, before its operands are known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decoded {
    /// MSR of a named register from general register `rt` (31 reads as zero).
    Msr {
        /// Register written.
        register: Register,
        /// Number of the general register that holds the value.
        rt: u8,
    },
    /// MRS of a named register.
    Mrs {
        /// Register read.
        register: Register,
        /// Number of the general register that it is read into.
        rt: u8,
    },
    /// TLBI, DC, IC or AT.
    Maintain {
        /// What it does.
        operation: Operation,
        /// Number of the general register that holds the operand.
        rt: u8,
    },
    /// Data synchronisation barrier.
    Dsb(Barrier),
    /// Data memory barrier.
    Dmb(Barrier),
    /// Instruction synchronisation barrier.
    Isb,
    /// Exception return, authenticated or not.
    Eret,
    /// An instruction that calls somebody: SVC, HVC, SMC, BRK, HLT.
    Call {
        /// Whom.
        call: Call,
        /// The immediate.
        immediate: u16,
    },
}

/// What `word` does to the translation regime; nothing for the vast majority.
pub fn decode(word: u32) -> Option<Decoded> {
    match word {
        0xd69f_03e0 | 0xd69f_0bff | 0xd69f_0fff => Some(Decoded::Eret),
        _ if word & 0xff00_0000 == 0xd400_0000 => exception_generating(word),
        _ if word & 0xffff_f000 == 0xd503_3000 => barrier(word),
        _ if word & 0xffc0_0000 == 0xd500_0000 => system(word),
        _ => None,
    }
}

/// Whether `word` is a store-release, or an atomic instruction whose store is one: STLR, STLUR, STLXR, STLXP, CAS, CASP,
/// SWP and LDADD and its like with L. STLLR is none: it orders what lies in its own LORegion alone.
pub const fn releases(word: u32) -> bool {
    const ORDERED: u32 = 1 << 15;
    let exclusive = word & 0x3fe0_0000 == 0x0800_0000;
    // Of the smaller sizes this is CASP.
    let pair = word & 0x3fe0_0000 == 0x0820_0000 && (word >> 31 != 0 || word & 0x7c00 == 0x7c00);
    let acquiring_casp = word & 0xbfe0_7c00 == 0x0860_7c00;
    let store = word & 0x3fe0_0000 == 0x0880_0000;
    let swap = word & 0x3fa0_7c00 == 0x08a0_7c00;
    if exclusive || pair || acquiring_casp || store || swap {
        return word & ORDERED != 0;
    }
    let unscaled = word & 0x3fe0_0c00 == 0x1900_0000;
    let update = word & 0x3f20_0c00 == 0x3820_0000 && word & 1 << 22 != 0;
    unscaled || update
}

/// SVC, HVC, SMC, BRK and HLT.
fn exception_generating(word: u32) -> Option<Decoded> {
    let call = match word & 0x00e0_001f {
        0x01 => Call::Svc,
        0x02 => Call::Hvc,
        0x03 => Call::Smc,
        0x0020_0000 => Call::Brk,
        0x0040_0000 => Call::Hlt,
        _ => return None,
    };
    Some(Decoded::Call { call, immediate: (word >> 5) as u16 })
}

/// The barrier space: CRm in bits 11 to 8, op2 in 7 to 5, 31 in the register field.
fn barrier(word: u32) -> Option<Decoded> {
    let crm = ((word >> 8) & 15) as u8;
    match word & 0xff {
        0x9f => Some(Decoded::Dsb(Barrier { crm, without_xs: false })),
        0xbf => Some(Decoded::Dmb(Barrier { crm, without_xs: false })),
        0xdf => Some(Decoded::Isb),
        // DSB nXS has an op2 of its own and only four variants.
        0x3f if crm & 3 == 2 => Some(Decoded::Dsb(Barrier { crm, without_xs: true })),
        _ => None,
    }
}

/// MSR, MRS and SYS with a general register.
fn system(word: u32) -> Option<Decoded> {
    let encoding = Encoding::of_instruction(word);
    let rt = (word & 31) as u8;
    let reads = word & (1 << 21) != 0;
    let operation = Operation(encoding);
    if !reads && operation.family().is_some() {
        return Some(Decoded::Maintain { operation, rt });
    }
    let register = Register(encoding);
    // An access to a register that has no name here cannot change how EL2 translates.
    register.name()?;
    Some(if reads { Decoded::Mrs { register, rt } } else { Decoded::Msr { register, rt } })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words from an assembler, next to the text it was given.
    #[test]
    fn good_words_from_an_assembler_are_told_apart() {
        let spell = |word| match decode(word) {
            Some(Decoded::Msr { register, rt }) => format!("msr {register}, x{rt}"),
            Some(Decoded::Mrs { register, rt }) => format!("mrs x{rt}, {register}"),
            Some(Decoded::Maintain { operation, rt }) => {
                format!("{:?} {operation}, x{rt}", operation.family().unwrap())
            }
            Some(Decoded::Dsb(barrier)) => format!("dsb {barrier}"),
            Some(Decoded::Dmb(barrier)) => format!("dmb {barrier}"),
            other => format!("{other:?}"),
        };
        assert_eq!(spell(0xd51c_1000), "msr sctlr_el2, x0");
        assert_eq!(spell(0xd51c_2005), "msr ttbr0_el2, x5");
        assert_eq!(spell(0xd53c_a205), "mrs x5, mair_el2");
        assert_eq!(spell(0xd53b_00ed), "mrs x13, dczid_el0");
        assert_eq!(spell(0xd50c_871f), "Tlbi alle2, x31");
        assert_eq!(spell(0xd50c_8323), "Tlbi vae2is, x3");
        assert_eq!(spell(0xd50b_7423), "Dc zva, x3");
        assert_eq!(spell(0xd508_7623), "Dc ivac, x3");
        assert_eq!(spell(0xd503_3a9f), "dsb ishst");
        assert_eq!(spell(0xd503_3b9f), "dsb ish");
        assert_eq!(spell(0xd503_3fbf), "dmb sy");
        assert_eq!(spell(0xd503_3a3f), "dsb ishnxs");
        assert_eq!(decode(0xd503_3fdf), Some(Decoded::Isb));
        assert_eq!(decode(0xd69f_03e0), Some(Decoded::Eret));
        assert_eq!(decode(0xd45e_0000), Some(Decoded::Call { call: Call::Hlt, immediate: 0xf000 }));
        assert_eq!(decode(0xd400_0003), Some(Decoded::Call { call: Call::Smc, immediate: 0 }));
    }

    #[test]
    fn good_stores_that_release_are_told_apart() {
        for (word, text) in [
            (0xc89f_fc20, "stlr x0, [x1]"),
            (0x089f_fc20, "stlrb w0, [x1]"),
            (0x489f_fc20, "stlrh w0, [x1]"),
            (0xc802_fc20, "stlxr w2, x0, [x1]"),
            (0x0802_fc20, "stlxrb w2, w0, [x1]"),
            (0x4802_fc20, "stlxrh w2, w0, [x1]"),
            (0xc823_8820, "stlxp w3, x0, x2, [x1]"),
            (0x8823_8820, "stlxp w3, w0, w2, [x1]"),
            (0xd900_8020, "stlur x0, [x1, #8]"),
            (0x191f_f020, "stlurb w0, [x1, #-1]"),
            (0xc8a2_fc20, "casl x2, x0, [x1]"),
            (0x88e2_fc20, "casal w2, w0, [x1]"),
            (0x4822_fc86, "caspl x2, x3, x6, x7, [x4]"),
            (0x4862_fc86, "caspal x2, x3, x6, x7, [x4]"),
            (0xf860_8041, "swpl x0, x1, [x2]"),
            (0xf8e0_8041, "swpal x0, x1, [x2]"),
            (0xb8e3_1041, "ldclral w3, w1, [x2]"),
            (0x3860_705f, "stuminlb w0, [x2]"),
        ] {
            assert!(releases(word), "{text}");
        }
        for (word, text) in [
            (0xc8df_fc20, "ldar x0, [x1]"),
            (0xc85f_fc20, "ldaxr x0, [x1]"),
            (0xc87f_8820, "ldaxp x0, x2, [x1]"),
            (0xc802_7c20, "stxr w2, x0, [x1]"),
            (0xc823_0820, "stxp w3, x0, x2, [x1]"),
            (0xc89f_7c20, "stllr x0, [x1]"),
            (0xd940_8020, "ldapur x0, [x1, #8]"),
            (0x08e2_7c20, "casab w2, w0, [x1]"),
            (0x4862_7c86, "caspa x2, x3, x6, x7, [x4]"),
            (0xf820_8041, "swp x0, x1, [x2]"),
            (0xf8a0_8041, "swpa x0, x1, [x2]"),
            (0xf8a0_0041, "ldadda x0, x1, [x2]"),
            (0xf8bf_c041, "ldapr x1, [x2]"),
            (0xf900_0020, "str x0, [x1]"),
            (0xf860_6841, "ldr x1, [x2, x0]"),
            (0xa900_0861, "stp x1, x2, [x3]"),
            (0xd503_3abf, "dmb ishst"),
        ] {
            assert!(!releases(word), "{text}");
        }
    }

    #[test]
    fn good_other_instructions_are_only_counted() {
        // mov x0,#1; stp x1,x2,[x3]; nop; wfi; msr daifset,#15; sb; mrs x0, cntvct_el0
        for word in [0xd280_0020, 0xa900_0861, 0xd503_201f, 0xd503_207f, 0xd503_4fdf, 0xd503_30ff, 0xd53b_e040] {
            assert_eq!(decode(word), None, "{word:#x}");
        }
    }
}
