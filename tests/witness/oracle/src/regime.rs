//! The system registers of the EL2 stage 1 regime, decoded.

use breakwater_trace::Register;

use crate::descriptor::{Format, Granule};
use crate::params::Features;

/// The registers that decide how EL2 translates, as they stand.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord, Default)]
pub struct Controls {
    /// SCTLR_EL2.
    pub sctlr: u64,
    /// TCR_EL2.
    pub tcr: u64,
    /// TTBR0_EL2.
    pub ttbr0: u64,
    /// MAIR_EL2.
    pub mair: u64,
    /// HCR_EL2.
    pub hcr: u64,
    /// TCR2_EL2.
    pub tcr2: u64,
}

/// One of [`Controls`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Control {
    /// SCTLR_EL2.
    Sctlr,
    /// TCR_EL2.
    Tcr,
    /// TTBR0_EL2.
    Ttbr0,
    /// MAIR_EL2.
    Mair,
    /// HCR_EL2.
    Hcr,
    /// TCR2_EL2.
    Tcr2,
}

impl Control {
    /// Which of the controls `register` is, if it is one.
    #[must_use]
    pub fn of(register: Register) -> Option<Self> {
        Some(match register.name()? {
            "sctlr_el2" => Self::Sctlr,
            "tcr_el2" => Self::Tcr,
            "ttbr0_el2" => Self::Ttbr0,
            "mair_el2" => Self::Mair,
            "hcr_el2" => Self::Hcr,
            "tcr2_el2" => Self::Tcr2,
            _ => return None,
        })
    }

    /// Which of them a write to `register` at EL2 reaches: with HCR_EL2.E2H = 1 the name SCTLR_EL1 stands for SCTLR_EL2
    /// there.
    #[must_use]
    pub fn written(register: Register, controls: &Controls) -> Option<Self> {
        match register.name()? {
            "sctlr_el1" if controls.e2h() => Some(Self::Sctlr),
            _ => Self::of(register),
        }
    }
}

impl Control {
    /// The register's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sctlr => "SCTLR_EL2",
            Self::Tcr => "TCR_EL2",
            Self::Ttbr0 => "TTBR0_EL2",
            Self::Mair => "MAIR_EL2",
            Self::Hcr => "HCR_EL2",
            Self::Tcr2 => "TCR2_EL2",
        }
    }
}

/// Why walks under some controls are not followed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Unsupported {
    /// TCR_EL2.TG0 has a reserved value.
    Granule,
    /// TCR_EL2.T0SZ is out of range for granule and features.
    InputSize,
}

impl Controls {
    /// Sets one.
    pub fn set(&mut self, control: Control, value: u64) {
        match control {
            Control::Sctlr => self.sctlr = value,
            Control::Tcr => self.tcr = value,
            Control::Ttbr0 => self.ttbr0 = value,
            Control::Mair => self.mair = value,
            Control::Hcr => self.hcr = value,
            Control::Tcr2 => self.tcr2 = value,
        }
    }

    /// One of them.
    #[must_use]
    pub const fn get(&self, control: Control) -> u64 {
        match control {
            Control::Sctlr => self.sctlr,
            Control::Tcr => self.tcr,
            Control::Ttbr0 => self.ttbr0,
            Control::Mair => self.mair,
            Control::Hcr => self.hcr,
            Control::Tcr2 => self.tcr2,
        }
    }

    /// SCTLR_EL2.M.
    #[must_use]
    pub const fn mmu_on(&self) -> bool {
        self.sctlr & 1 != 0
    }

    /// SCTLR_EL2.C: data accesses are cacheable.
    #[must_use]
    pub const fn cache_on(&self) -> bool {
        self.sctlr >> 2 & 1 != 0
    }

    /// SCTLR_EL2.I: fetches may be cached with M = 0 too.
    #[must_use]
    pub const fn fetches_cached(&self) -> bool {
        self.sctlr >> 12 & 1 != 0
    }

    /// SCTLR_EL2.WXN.
    #[must_use]
    pub const fn wxn(&self) -> bool {
        self.sctlr >> 19 & 1 != 0
    }

    /// SCTLR_EL2.EE.
    #[must_use]
    pub const fn big_endian(&self) -> bool {
        self.sctlr >> 25 & 1 != 0
    }

    /// HCR_EL2.E2H.
    #[must_use]
    pub const fn e2h(&self) -> bool {
        self.hcr >> 34 & 1 != 0
    }

    /// TCR2_EL2.PIE.
    #[must_use]
    pub const fn permission_indirection(&self) -> bool {
        self.tcr2 >> 1 & 1 != 0
    }

    /// TTBR0_EL2.CnP.
    #[must_use]
    pub const fn common_not_private(&self) -> bool {
        self.ttbr0 & 1 != 0
    }

    /// Whether walks read the tables through the data caches: TCR_EL2.IRGN0 and ORGN0 are not both Non-cacheable.
    #[must_use]
    pub const fn walks_cacheable(&self) -> bool {
        self.tcr >> 8 & 0xf != 0
    }

    /// How descriptors are read on a PE with `features`.
    ///
    /// # Errors
    /// TCR_EL2 has values that no walk can follow.
    pub fn format(&self, features: &Features) -> Result<Format, Unsupported> {
        let granule = match self.tcr >> 14 & 3 {
            0 => Granule::K4,
            1 => Granule::K64,
            2 => Granule::K16,
            _ => return Err(Unsupported::Granule),
        };
        let ds = features.lpa2 && self.tcr >> 32 & 1 != 0 && granule != Granule::K64;
        let size = (self.tcr & 0x3f) as u8;
        let wide_input = ds || (granule == Granule::K64 && features.physical_bits == 52);
        let smallest = if wide_input { 12 } else { 16 };
        if !(smallest..=48).contains(&size) {
            return Err(Unsupported::InputSize);
        }
        let input_bits = 64 - size;
        if input_bits <= granule.page_shift() {
            return Err(Unsupported::InputSize);
        }
        let levels = (input_bits - granule.page_shift()).div_ceil(granule.stride());
        let wide_output = ds || granule == Granule::K64;
        let programmed = match self.tcr >> 16 & 7 {
            0 => 32,
            1 => 36,
            2 => 40,
            3 => 42,
            4 => 44,
            5 => 48,
            _ => 52,
        };
        let most = if wide_output { 52 } else { 48 };
        let hardware_access = features.hafdbs && self.tcr >> 21 & 1 != 0;
        Ok(Format {
            granule,
            ds,
            start_level: 4 - levels as i8,
            input_bits,
            wide: features.physical_bits == 52,
            output_bits: programmed.min(features.physical_bits).min(most),
            hardware_access,
            hardware_dirty: hardware_access && self.tcr >> 22 & 1 != 0,
            hierarchy_disabled: self.tcr >> 24 & 1 != 0,
            shareability: (self.tcr >> 12 & 3) as u8,
        })
    }

    /// Physical address of the root table that TTBR0_EL2 names under `format`.
    #[must_use]
    pub const fn root(&self, format: &Format) -> u64 {
        let low = self.ttbr0 & Self::root_bits(format);
        if format.output_bits == 52 { low | ((self.ttbr0 >> 2 & 0xf) << 48) } else { low }
    }

    /// The bits of TTBR0_EL2 that are bits of the root's address where they stand: a table is aligned to its size, and to 64 bytes at least
    /// where bits 5:2 are address bits 51:48.
    const fn root_bits(format: &Format) -> u64 {
        let bytes = 8 * format.entries(format.start_level);
        let aligned = if format.output_bits == 52 && bytes < 64 { 64 } else { bytes };
        0xffff_ffff_ffff & !(aligned - 1)
    }

    /// Bits of TTBR0_EL2 that are RES0 under `format` and are set. Bit 0 is CnP, on a PE that has it.
    #[must_use]
    pub const fn reserved_root_bits(&self, format: &Format) -> u64 {
        let high = if format.output_bits == 52 { 0x3c } else { 0 };
        self.ttbr0 & !(Self::root_bits(format) | high | 1)
    }

    /// `va` without the byte that TBI ignores; nothing if it is outside the input range.
    #[must_use]
    pub const fn input(&self, va: u64, format: &Format) -> Option<u64> {
        let va = if self.tcr >> 20 & 1 != 0 { va & ((1 << 56) - 1) } else { va };
        if va >> format.input_bits == 0 { Some(va) } else { None }
    }
}

/// What MAIR_EL2 says of an index.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum MemoryType {
    /// Device memory; the two bits are 0 nGnRnE, 1 nGnRE, 2 nGRE, 3 GRE.
    Device(u8),
    /// Normal memory: outer and inner cacheability, four bits each, as in MAIR_EL2 (4: Non-cacheable). Tagged memory is its own value.
    Normal {
        /// Outer cacheability.
        outer: u8,
        /// Inner cacheability.
        inner: u8,
    },
}

impl MemoryType {
    /// The type at `index` of `mair`.
    #[must_use]
    pub const fn of(mair: u64, index: u8) -> Self {
        let byte = (mair >> (8 * (index & 7))) as u8;
        if byte >> 4 == 0 { Self::Device(byte >> 2 & 3) } else { Self::Normal { outer: byte >> 4, inner: byte & 0xf } }
    }

    /// Whether `mair` has an encoding at `index` that is reserved for every PE. Those that FEAT_XS and FEAT_MTE2 give a meaning are not among
    /// them, because traces do not say who has these.
    #[must_use]
    pub const fn is_reserved(mair: u64, index: u8) -> bool {
        let byte = (mair >> (8 * (index & 7))) as u8;
        match (byte >> 4, byte & 0xf) {
            (0, low) => low & 2 != 0,
            (4 | 10 | 15, _) => false,
            (_, inner) => inner == 0,
        }
    }

    /// Whether it is Device memory.
    #[must_use]
    pub const fn is_device(self) -> bool {
        matches!(self, Self::Device(_))
    }
}
