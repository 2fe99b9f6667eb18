//! Routines of boot/ as the events of their system instructions, in order: what the host machine does in their place.
//!
//! Why it exists: the target runs assembly where the host machine runs these lists, so a judgement of the lists is one of the target only
//! while both agree. `cargo xtask test` decodes the routines of the built ELF and compares (`expansion/*`), instruction for
//! instruction. This file is part of both programs: it knows the trace format and nothing of the manager.

use breakwater_trace::{Barrier, Event, Operation, Register};

/// DSB SY.
pub(crate) const DSB_SY: Event = dsb(15);
/// DSB NSH.
pub(crate) const DSB_NSH: Event = dsb(7);

/// A DSB with this CRm.
pub(crate) const fn dsb(crm: u8) -> Event {
    Event::Dsb(Barrier { crm, without_xs: false })
}

/// A write of the register that a trace calls `name`.
pub(crate) fn msr(name: &str, value: u64) -> Event {
    Event::Msr { register: register(name), value }
}

/// A read of the register that a trace calls `name`.
pub(crate) fn mrs(name: &str) -> Event {
    Event::Mrs { register: register(name) }
}

/// The TLB maintenance that a trace calls `name`.
pub(crate) fn tlbi(name: &str, operand: u64) -> Event {
    Event::Maintain { operation: Operation::from_text(name).expect("an operation that the format names"), operand }
}

/// The register that a trace calls `name`.
pub(crate) fn register(name: &str) -> Register {
    Register::from_text(name).expect("a register that the format names")
}

/// boot/mmu.S, `switch_root` and then `switch_root_window`, on a CPU whose SCTLR_EL2 is `sctlr`.
pub(crate) fn switch_root(root: u64, sctlr: u64) -> [Event; 12] {
    [
        mrs("sctlr_el2"),
        DSB_SY,
        Event::Isb,
        msr("sctlr_el2", sctlr & !1),
        Event::Isb,
        tlbi("alle2", 0),
        DSB_NSH,
        Event::Isb,
        msr("ttbr0_el2", root),
        Event::Isb,
        msr("sctlr_el2", sctlr),
        Event::Isb,
    ]
}

/// The registers that decide how EL2 translates, as boot sets them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Translation {
    /// SCTLR_EL2 with M, C and I.
    pub(crate) sctlr_on: u64,
    /// TCR_EL2.
    pub(crate) tcr: u64,
    /// MAIR_EL2.
    pub(crate) mair: u64,
    /// HCR_EL2.
    pub(crate) hcr: u64,
}

impl Translation {
    /// SCTLR_EL2 without M, C and I.
    pub(crate) fn sctlr_off(&self) -> u64 {
        self.sctlr_on & !(1 | 1 << 2 | 1 << 12)
    }
}

/// boot/secondary.S, `secondary_entry` up to its vectors, which no translation depends on: VBAR_EL2 is written as 0 here.
pub(crate) fn secondary_vectors() -> [Event; 3] {
    [mrs("sctlr_el2"), msr("vbar_el2", 0), Event::Isb]
}

/// boot/secondary.S, `secondary_on_link_address`: the vectors again.
pub(crate) fn secondary_on_link_address() -> [Event; 2] {
    [msr("vbar_el2", 0), Event::Isb]
}

/// boot/secondary.S, the rest of `secondary_entry` on a CPU that is not refused: from reset into the runtime tables.
pub(crate) fn secondary(root: u64, to: &Translation) -> Vec<Event> {
    let regime = [DSB_SY, msr("hcr_el2", to.hcr), Event::Isb, mrs("hcr_el2")];
    let features = [mrs("id_aa64mmfr3_el1"), msr("tcr2_el2", 0), mrs("id_aa64mmfr0_el1")];
    let controls = [
        msr("mair_el2", to.mair),
        msr("tcr_el2", to.tcr),
        msr("ttbr0_el2", root),
        msr("sctlr_el2", to.sctlr_off()),
        Event::Isb,
    ];
    let enable = [tlbi("alle2", 0), DSB_NSH, Event::Isb, msr("sctlr_el2", to.sctlr_on), Event::Isb];
    [&regime[..], &features, &controls, &enable].concat()
}
