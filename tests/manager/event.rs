//! What a machine is asked to do, one step each.

/// A barrier's kind and scope.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Dsb {
    /// Stores only, Inner Shareable.
    IshSt,
    /// Loads and stores, Inner Shareable.
    Ish,
    /// Loads and stores, this PE.
    Nsh,
}

/// A step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    /// A descriptor was stored at a physical address, in a table that is said to be of `level`.
    Store { address: u64, level: u8, value: u64 },
    /// A frame was zeroed.
    Zero { frame: u64 },
    /// A data synchronization barrier.
    Dsb(Dsb),
    /// An instruction synchronization barrier.
    Isb,
    /// ALLE2 or ALLE2IS.
    TlbiAll { broadcast: bool },
    /// VALE2 or VALE2IS, with its operand as the register holds it.
    TlbiLeafVa { broadcast: bool, operand: u64 },
    /// SCTLR_EL2.M went to 0.
    MmuOff,
    /// TTBR0_EL2 was written.
    Ttbr { root: u64 },
    /// SCTLR_EL2.M went to 1.
    MmuOn,
}

impl Event {
    /// Whether it is a TLBI of any form.
    pub(crate) fn is_tlbi(self) -> bool {
        matches!(self, Self::TlbiAll { .. } | Self::TlbiLeafVa { .. })
    }
}
