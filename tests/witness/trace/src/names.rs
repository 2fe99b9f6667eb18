//! System registers and maintenance operations, by encoding and by name.
//!
//! Both are points in one space (op0, op1, CRn, CRm, op2): MSR and MRS use op0 = 2 or 3, the SYS instructions that TLBI, DC, IC
//! and AT are aliases of use op0 = 1. A point without a name here keeps the assembler's generic spelling,
//! `s<op0>_<op1>_c<CRn>_c<CRm>_<op2>`, so that no event is lost for want of a table row.

use core::fmt;

/// A point of the system instruction space.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Encoding {
    /// The five fields, most significant first, as they stand in bits 20 to 5 of the instruction.
    bits: u16,
}

impl Encoding {
    /// The encoding with these fields; each is cut to its width.
    pub const fn new(op0: u16, op1: u16, crn: u16, crm: u16, op2: u16) -> Self {
        let high = ((op0 & 3) << 14) | ((op1 & 7) << 11);
        Self { bits: high | ((crn & 15) << 7) | ((crm & 15) << 3) | (op2 & 7) }
    }

    /// The encoding that an MSR, MRS or SYS instruction word carries.
    pub const fn of_instruction(word: u32) -> Self {
        Self { bits: (word >> 5) as u16 }
    }

    /// The five fields as they stand in an instruction.
    pub(crate) const fn bits(self) -> u16 {
        self.bits
    }

    /// The encoding with the `bits` of another.
    pub(crate) const fn of_bits(bits: u16) -> Self {
        Self { bits }
    }

    const fn op0(self) -> u16 {
        self.bits >> 14
    }

    /// op1: for maintenance operations, the exception level whose regime is meant.
    pub const fn op1(self) -> u16 {
        (self.bits >> 11) & 7
    }

    /// CRn.
    pub const fn crn(self) -> u16 {
        (self.bits >> 7) & 15
    }

    /// CRm: for TLBI, the shareability domain and whether it is a range operation.
    pub const fn crm(self) -> u16 {
        (self.bits >> 3) & 15
    }

    /// op2.
    pub const fn op2(self) -> u16 {
        self.bits & 7
    }

    fn generic(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}_{}_c{}_c{}_{}", self.op0(), self.op1(), self.crn(), self.crm(), self.op2())
    }

    /// Parses the generic spelling.
    fn from_generic(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix('s')?.split('_');
        let mut field = |prefix: &str, limit: u16| -> Option<u16> {
            let digits = parts.next()?.strip_prefix(prefix)?;
            let value = digits.parse().ok()?;
            (value <= limit && !digits.starts_with('+')).then_some(value)
        };
        let encoding = Self::new(field("", 3)?, field("", 7)?, field("c", 15)?, field("c", 15)?, field("", 7)?);
        parts.next().is_none().then_some(encoding)
    }
}

macro_rules! named {
    ($(#[$doc:meta])* $kind:ident, $table:ident: $($name:literal = $op0:literal $op1:literal $crn:literal $crm:literal $op2:literal),+ $(,)?) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
        pub struct $kind(
            /// Where it stands in the system instruction space.
            pub Encoding,
        );

        const $table: &[(&str, Encoding)] = &[$(($name, Encoding::new($op0, $op1, $crn, $crm, $op2))),+];

        impl $kind {
            /// Its architectural name in lower case, where this crate knows one.
            pub const fn name(self) -> Option<&'static str> {
                // A table that is searched would cost more than the event that is asked about.
                $(
                    if self.0.bits == Encoding::new($op0, $op1, $crn, $crm, $op2).bits {
                        return Some($name);
                    }
                )+
                None
            }

            /// The one that the text form calls `text`.
            pub fn from_text(text: &str) -> Option<Self> {
                let named = $table.iter().find(|row| row.0 == text).map(|row| row.1);
                named.or_else(|| Encoding::from_generic(text)).map(Self)
            }
        }

        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => self.0.generic(f),
                }
            }
        }
    };
}

named! {
    /// A system register. The named ones are those that decide how EL2 translates, where it takes exceptions and
    /// returns to, who it is, and whether what other levels store goes into caches.
    Register, REGISTERS:
    "sctlr_el2" = 3 4 1 0 0,
    "sctlr2_el2" = 3 4 1 0 3,
    "hcr_el2" = 3 4 1 1 0,
    "ttbr0_el2" = 3 4 2 0 0,
    "ttbr1_el2" = 3 4 2 0 1,
    "tcr_el2" = 3 4 2 0 2,
    "tcr2_el2" = 3 4 2 0 3,
    "vttbr_el2" = 3 4 2 1 0,
    "vtcr_el2" = 3 4 2 1 2,
    "mair_el2" = 3 4 10 2 0,
    "pire0_el2" = 3 4 10 2 2,
    "pir_el2" = 3 4 10 2 3,
    "vbar_el2" = 3 4 12 0 0,
    "spsr_el2" = 3 4 4 0 0,
    "spsr_el3" = 3 6 4 0 0,
    "sctlr_el1" = 3 0 1 0 0,
    "vbar_el3" = 3 6 12 0 0,
    "tpidr_el2" = 3 4 13 0 2,
    "scr_el3" = 3 6 1 1 0,
    "sctlr_el3" = 3 6 1 0 0,
    "vpidr_el2" = 3 4 0 0 0,
    "vmpidr_el2" = 3 4 0 0 5,
    "ctr_el0" = 3 3 0 0 1,
    "dczid_el0" = 3 3 0 0 7,
    "mpidr_el1" = 3 0 0 0 5,
    "id_aa64isar0_el1" = 3 0 0 6 0,
    "id_aa64isar1_el1" = 3 0 0 6 1,
    "id_aa64isar2_el1" = 3 0 0 6 2,
    "id_aa64mmfr0_el1" = 3 0 0 7 0,
    "id_aa64mmfr1_el1" = 3 0 0 7 1,
    "id_aa64mmfr2_el1" = 3 0 0 7 2,
    "id_aa64mmfr3_el1" = 3 0 0 7 3,
    "id_aa64mmfr4_el1" = 3 0 0 7 4,
    "midr_el1" = 3 0 0 0 0,
}

named! {
    /// A maintenance operation: the SYS instruction behind TLBI, DC, IC or AT.
    Operation, OPERATIONS:
    "alle2" = 1 4 8 7 0, "alle2is" = 1 4 8 3 0, "alle2os" = 1 4 8 1 0,
    "vae2" = 1 4 8 7 1, "vae2is" = 1 4 8 3 1, "vae2os" = 1 4 8 1 1,
    "vale2" = 1 4 8 7 5, "vale2is" = 1 4 8 3 5, "vale2os" = 1 4 8 1 5,
    "rvae2" = 1 4 8 6 1, "rvae2is" = 1 4 8 2 1, "rvae2os" = 1 4 8 5 1,
    "rvale2" = 1 4 8 6 5, "rvale2is" = 1 4 8 2 5, "rvale2os" = 1 4 8 5 5,
    "alle2nxs" = 1 4 9 7 0, "alle2isnxs" = 1 4 9 3 0,
    "vae2nxs" = 1 4 9 7 1, "vae2isnxs" = 1 4 9 3 1,
    "vale2nxs" = 1 4 9 7 5, "vale2isnxs" = 1 4 9 3 5,
    "alle1" = 1 4 8 7 4, "alle1is" = 1 4 8 3 4,
    "vmalls12e1" = 1 4 8 7 6, "vmalls12e1is" = 1 4 8 3 6,
    "ipas2e1" = 1 4 8 4 1, "ipas2e1is" = 1 4 8 0 1,
    "ipas2le1" = 1 4 8 4 5, "ipas2le1is" = 1 4 8 0 5,
    "vmalle1" = 1 0 8 7 0, "vmalle1is" = 1 0 8 3 0,
    "vae1" = 1 0 8 7 1, "vae1is" = 1 0 8 3 1,
    "aside1" = 1 0 8 7 2, "aside1is" = 1 0 8 3 2,
    "vaae1" = 1 0 8 7 3, "vaae1is" = 1 0 8 3 3,
    "vale1" = 1 0 8 7 5, "vale1is" = 1 0 8 3 5,
    "vaale1" = 1 0 8 7 7, "vaale1is" = 1 0 8 3 7,
    "alle3" = 1 6 8 7 0, "alle3is" = 1 6 8 3 0,
    "vae3" = 1 6 8 7 1, "vae3is" = 1 6 8 3 1,
    "vale3" = 1 6 8 7 5, "vale3is" = 1 6 8 3 5,
    "ialluis" = 1 0 7 1 0, "iallu" = 1 0 7 5 0, "ivau" = 1 3 7 5 1,
    "ivac" = 1 0 7 6 1, "isw" = 1 0 7 6 2, "csw" = 1 0 7 10 2, "cisw" = 1 0 7 14 2,
    "zva" = 1 3 7 4 1, "gva" = 1 3 7 4 3, "gzva" = 1 3 7 4 4, "cvac" = 1 3 7 10 1, "cvau" = 1 3 7 11 1,
    "cvap" = 1 3 7 12 1, "cvadp" = 1 3 7 13 1, "civac" = 1 3 7 14 1,
    "s1e1r" = 1 0 7 8 0, "s1e1w" = 1 0 7 8 1, "s1e0r" = 1 0 7 8 2, "s1e0w" = 1 0 7 8 3,
    "s1e2r" = 1 4 7 8 0, "s1e2w" = 1 4 7 8 1,
    "s12e1r" = 1 4 7 8 4, "s12e1w" = 1 4 7 8 5, "s12e0r" = 1 4 7 8 6, "s12e0w" = 1 4 7 8 7,
}

/// Which of the four instructions an [`Operation`] is written with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Family {
    /// Translation invalidation.
    Tlbi,
    /// Data-cache maintenance.
    Dc,
    /// Instruction-cache maintenance.
    Ic,
    /// Address translation.
    At,
}

impl Operation {
    /// The instruction that performs this operation; nothing for a SYS instruction that is none of the four.
    pub const fn family(self) -> Option<Family> {
        let Self(encoding) = self;
        match (encoding.op0(), encoding.crn(), encoding.crm()) {
            (1, 8 | 9, _) => Some(Family::Tlbi),
            (1, 7, 1 | 5) => Some(Family::Ic),
            (1, 7, 8 | 9) => Some(Family::At),
            (1, 7, 4 | 6 | 10..=14) => Some(Family::Dc),
            _ => None,
        }
    }

    /// True for a TLBI that invalidates entries of the EL2 stage 1 regime.
    pub const fn invalidates_el2(self) -> bool {
        let Self(encoding) = self;
        let is_tlbi = matches!(self.family(), Some(Family::Tlbi));
        let is_ipa = matches!(encoding.crm(), 0 | 4);
        is_tlbi && encoding.op1() == 4 && matches!(encoding.op2(), 0 | 1 | 5) && !is_ipa
    }

    /// True for a DC that writes zeros (DC ZVA, and DC GZVA, which writes tags besides).
    pub const fn zeroes(self) -> bool {
        let Self(encoding) = self;
        encoding.bits == Encoding::new(1, 3, 7, 4, 1).bits || encoding.bits == Encoding::new(1, 3, 7, 4, 4).bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_every_name_finds_its_own_encoding() {
        for (name, encoding) in REGISTERS {
            assert_eq!(Register::from_text(name), Some(Register(*encoding)));
            assert_eq!(Register(*encoding).to_string(), *name);
        }
        for (name, encoding) in OPERATIONS {
            assert_eq!(Operation::from_text(name), Some(Operation(*encoding)));
            assert_eq!(Operation(*encoding).to_string(), *name);
        }
    }

    #[test]
    fn good_an_unnamed_register_survives_the_round_trip() {
        let unnamed = Register(Encoding::new(3, 5, 15, 2, 7));
        assert_eq!(unnamed.to_string(), "s3_5_c15_c2_7");
        assert_eq!(Register::from_text("s3_5_c15_c2_7"), Some(unnamed));
    }

    #[test]
    fn bad_spellings_outside_the_space_are_refused() {
        for text in
            ["s4_0_c0_c0_0", "s3_0_c16_c0_0", "s3_0_c0_c0", "s3_0_c0_c0_0_0", "s3_0_0_0_0", "", "s", "s+3_0_c0_c0_0"]
        {
            assert_eq!(Register::from_text(text), None, "{text:?}");
        }
    }

    #[test]
    fn good_only_el2_operations_invalidate_el2() {
        let el2 = |name| Operation::from_text(name).is_some_and(Operation::invalidates_el2);
        assert!(["alle2", "vae2is", "vale2", "rvae2is", "vae2isnxs"].into_iter().all(el2));
        assert!(
            !["alle1", "vmalle1", "vmalls12e1is", "ipas2e1is", "ipas2le1", "vae3", "civac", "iallu"]
                .into_iter()
                .any(el2)
        );
    }
}
