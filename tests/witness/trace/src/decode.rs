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
    Some(if reads { Decoded::Mrs { register } } else { Decoded::Msr { register, rt } })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words from an assembler, next to the text it was given.
    #[test]
    fn good_words_from_an_assembler_are_told_apart() {
        let spell = |word| match decode(word) {
            Some(Decoded::Msr { register, rt }) => format!("msr {register}, x{rt}"),
            Some(Decoded::Mrs { register }) => format!("mrs {register}"),
            Some(Decoded::Maintain { operation, rt }) => {
                format!("{:?} {operation}, x{rt}", operation.family().unwrap())
            }
            Some(Decoded::Dsb(barrier)) => format!("dsb {barrier}"),
            Some(Decoded::Dmb(barrier)) => format!("dmb {barrier}"),
            other => format!("{other:?}"),
        };
        assert_eq!(spell(0xd51c_1000), "msr sctlr_el2, x0");
        assert_eq!(spell(0xd51c_2005), "msr ttbr0_el2, x5");
        assert_eq!(spell(0xd53c_a205), "mrs mair_el2");
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
    fn good_other_instructions_are_only_counted() {
        // mov x0,#1; stp x1,x2,[x3]; nop; wfi; msr daifset,#15; sb; mrs x0, cntvct_el0
        for word in [0xd280_0020, 0xa900_0861, 0xd503_201f, 0xd503_207f, 0xd503_4fdf, 0xd503_30ff, 0xd53b_e040] {
            assert_eq!(decode(word), None, "{word:#x}");
        }
    }
}
