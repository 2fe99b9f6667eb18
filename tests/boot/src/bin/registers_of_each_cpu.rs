//! Every CPU runs in the same tables with the same translation registers, WXN, M, C and I set.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod seen {
    use breakwater_boot::el2;
    use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

    /// SCTLR_EL2, TTBR0_EL2, TCR_EL2, MAIR_EL2 of the CPU that looked last.
    static SEEN: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

    pub(super) fn look(_: usize) {
        let own = el2::translation();
        for (place, value) in SEEN.iter().zip([own.sctlr, own.ttbr0, own.tcr, own.mair]) {
            place.store(value, Relaxed);
        }
    }

    pub(super) fn registers() -> [u64; 4] {
        [0, 1, 2, 3].map(|index| SEEN[index].load(Relaxed))
    }
}

breakwater_boot_tests::fact!(|booted| {
    const WXN: u64 = 1 << 19;
    const ON: u64 = 1 | 1 << 2 | 1 << 12;
    seen::look(0);
    let boot_cpu = seen::registers();
    for index in core::iter::once(0).chain(booted.handover.cpus().others()) {
        if index != 0 {
            booted.on_cpu(index, seen::look, 0);
        }
        let own = seen::registers();
        let [sctlr, ttbr0, tcr, mair] = own;
        say!("fact: CPU {index} SCTLR_EL2 {sctlr:#x} TTBR0_EL2 {ttbr0:#x} TCR_EL2 {tcr:#x} MAIR_EL2 {mair:#x}");
        booted.require(sctlr & (WXN | ON) == WXN | ON, format_args!("CPU {index}: WXN, M, C and I are not all set"));
        booted.require(own == boot_cpu, format_args!("CPU {index} differs from CPU 0"));
        booted.require(ttbr0 & 0xfff == 0, format_args!("CPU {index}: CnP or reserved bits of TTBR0_EL2 are set"));
    }
    let pool = booted.start.physical(booted.start.map().pool);
    booted.require(pool.contains(PhysAddr::at(boot_cpu[1])), "the root is not a frame of the pool");
    let count = booted.handover.cpus().count();
    booted.holds(format_args!("{count} CPUs run in the same tables"))
});
