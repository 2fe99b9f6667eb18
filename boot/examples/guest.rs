//! An example hypervisor: one guest of one CPU, from the handover to the guest's power-off. `cargo xtask guest` boots Debian's kernel in it.
//!
//! What holds while the guest runs:
//!
//! - Memory has one owner. The tree reserves the guest's RAM with `no-map`, so the hypervisor maps none of it: checked before the guest
//!   starts. Stage 2 maps that RAM, the interrupt controller and one UART: any other access is an abort, which ends the run.
//! - The guest stays at EL1. SMC is trapped, since firmware would start another CPU at EL2, outside of stage 2.
//! - No device of the guest's accesses memory by itself. One that does needs an SMMU.
//!
//! A loader has put kernel, initrd and device tree into the guest's RAM.

#![cfg_attr(target_os = "none", no_std, no_main)]

breakwater_boot::entry!(hypervisor::main);

#[cfg(target_os = "none")]
mod hypervisor {
    use aarch64_cpu::registers::*;
    use breakwater::addr::{PhysAddr, PhysSpan};
    use breakwater::fault::Syndrome;
    use breakwater_boot::el2::{self, Start, Status};
    use breakwater_boot::{Handover, line};
    use core::arch::{asm, naked_asm};
    use core::sync::atomic::{AtomicU64, Ordering};

    const GIB: u64 = 1 << 30;
    const MIB: u64 = 1 << 20;

    /// The guest's RAM, one GiB; where its kernel starts, and where its device tree is.
    const RAM: u64 = 2 * GIB;
    const KERNEL: u64 = RAM + 2 * MIB;
    const TREE: u64 = RAM + 128 * MIB;
    /// The interrupt controller, without an ITS: that would access memory.
    const GIC: u64 = 128 * MIB;
    /// The UART, one page, behind the interrupt controller. Soon after it is fw_cfg, which accesses memory.
    const UART: u64 = 144 * MIB;

    pub(super) fn main(start: Start) -> ! {
        hand_over(breakwater_boot::boot(start))
    }

    /// Where a hypervisor takes over.
    fn hand_over(handover: Handover) -> ! {
        let leave = |status| el2::leave(handover.exit(), status);
        let is_guests = |span: PhysSpan| PhysSpan::of(PhysAddr::at(RAM), GIB)?.intersection(span);
        for region in handover.regions().lock().iter() {
            let maps = region.output.and_then(|output| PhysSpan::of(output, region.virt.bytes()));
            if maps.and_then(is_guests).is_some() {
                line!("guest: refused: {} maps RAM of the guest, which the tree does not reserve", region.name);
                leave(Status::Refused);
            }
        }
        confine();
        let mut guest = Guest::new();
        line!("guest: starts at {KERNEL:#x}");
        loop {
            guest.run();
            if !ESR_EL2.matches_all(ESR_EL2::EC::SMC64) {
                // Of an abort, the guest's address; otherwise it says nothing.
                let address = HPFAR_EL2.read(HPFAR_EL2::FIPA) << 12 | FAR_EL2.get() & 0xfff;
                line!("guest: {}, address {address:#x}, pc {:#x}", Syndrome(ESR_EL2.get()), guest.pc);
                leave(Status::Exception);
            }
            guest.pc += 4; // trapped before it is executed
            if guest.calls_firmware() {
                line!("guest: powered off");
                leave(Status::Success);
            }
        }
    }

    #[repr(align(4096))]
    struct Table([AtomicU64; 512]);

    impl Table {
        fn set(&self, slot: u64, descriptor: u64) {
            self.0[slot as usize].store(descriptor, Ordering::Relaxed);
        }

        fn physical(&self) -> u64 {
            // SAFETY: AT writes PAR_EL1 alone, which nothing else uses.
            unsafe { asm!("at s1e2r, {}", "isb", in(reg) self, options(nostack, preserves_flags)) }
            PAR_EL1.get() & 0x0000_ffff_ffff_f000
        }
    }

    static STAGE2: [Table; 3] = [const { Table([const { AtomicU64::new(0) }; 512]) }; 3];

    /// Puts stage 2 in force for EL1 and EL0, where a guest's address is the physical address, or nothing.
    fn confine() {
        const BLOCK: u64 = 0b01;
        const TABLE_OR_PAGE: u64 = 0b11;
        /// Normal write-back, read and write, inner shareable, accessed.
        const MEMORY: u64 = 0b1111 << 2 | 0b11 << 6 | 0b11 << 8 | 1 << 10;
        /// Device-nGnRE, read and write, accessed, never executable.
        const DEVICE: u64 = 0b0001 << 2 | 0b11 << 6 | 1 << 10 | 1 << 54;
        let [level1, level2, level3] = &STAGE2;
        level1.set(0, level2.physical() | TABLE_OR_PAGE);
        level1.set(RAM / GIB, RAM | MEMORY | BLOCK);
        (GIC..UART).step_by(2 << 20).for_each(|at| level2.set(at / (2 * MIB), at | DEVICE | BLOCK));
        level2.set(UART / (2 * MIB), level3.physical() | TABLE_OR_PAGE);
        level3.set(0, UART | DEVICE | TABLE_OR_PAGE);

        VTTBR_EL2.set(level1.physical());
        let size = VTCR_EL2::T0SZ.val(32) + VTCR_EL2::SL0::Granule4KBLevel1 + VTCR_EL2::PS::PA_32B_4GB;
        let walks = VTCR_EL2::SH0::Inner + VTCR_EL2::ORGN0::NormalWBRAWA + VTCR_EL2::IRGN0::NormalWBRAWA;
        VTCR_EL2.write(VTCR_EL2::RES1.val(1) + size + walks);
        HCR_EL2.write(HCR_EL2::RW::EL1IsAarch64 + HCR_EL2::VM::Enable + HCR_EL2::TSC::EnableTrapEl1SmcToEl2);
        // SAFETY: barriers, and maintenance of a regime that nothing has used yet.
        unsafe { asm!("dsb ish", "isb", "tlbi vmalls12e1", "dsb ish", "isb", options(nostack, preserves_flags)) }
    }

    /// What of the guest's CPU changes while the hypervisor runs.
    #[repr(C)]
    struct Guest {
        x: [u64; 31],
        sp_el0: u64,
        pc: u64,
        flags: u64,
    }

    impl Guest {
        /// As arm64 kernels are started: at EL1, MMU off, interrupts masked, the device tree in x0.
        fn new() -> Self {
            MDCR_EL2.write(MDCR_EL2::HPMN.val(MDCR_EL2.read(MDCR_EL2::HPMN))); // the guest's: debug, all event counters
            CPTR_EL2.set(0x33ff); // RES1: floating point is the guest's
            CNTHCTL_EL2.write(CNTHCTL_EL2::EL1PCEN::SET + CNTHCTL_EL2::EL1PCTEN::SET);
            CNTVOFF_EL2.set(0);
            ICC_SRE_EL2.modify(ICC_SRE_EL2::SRE::SET + ICC_SRE_EL2::ENABLE::SET);
            VMPIDR_EL2.set(MPIDR_EL1.get());
            SCTLR_EL1.set(0x30d0_0800); // RES1
            // SAFETY: what EL1 reads as MIDR_EL1, and traps from AArch32.
            unsafe { asm!("msr vpidr_el2, {}", "msr hstr_el2, xzr", in(reg) MIDR_EL1.get(), options(nomem, nostack)) }
            let masked = SPSR_EL2::D::Masked + SPSR_EL2::A::Masked + SPSR_EL2::I::Masked + SPSR_EL2::F::Masked;
            let mut x = [0; 31];
            x[0] = TREE;
            Self { x, sp_el0: 0, pc: KERNEL, flags: (SPSR_EL2::M::EL1h + masked).value }
        }

        /// Runs the guest until it traps.
        fn run(&mut self) {
            ELR_EL2.set(self.pc);
            SPSR_EL2.set(self.flags);
            // SAFETY: stage 2 is in force, and `new` and the guest's own exceptions set EL1 or EL0 in `flags`.
            unsafe { enter(self) };
            (self.pc, self.flags) = (ELR_EL2.get(), SPSR_EL2.get());
        }

        /// Answers a call of PSCI 0.2 in the firmware's place. True when the guest wants to be powered off.
        fn calls_firmware(&mut self) -> bool {
            let answer: i64 = match self.x[0] as u32 {
                0x8400_0008 => return true, // SYSTEM_OFF
                0x8400_0000 => 2,           // PSCI_VERSION: 0.2
                0x8400_0003 | 0xc400_0003 => {
                    line!("guest: CPU_ON of CPU {:#x} denied", self.x[1]);
                    -3 // DENIED
                }
                _ => -1, // NOT_SUPPORTED
            };
            self.x[0] = answer as u64;
            false
        }
    }

    /// One instruction for each of x2 to x30: the register, and its place in the [`Guest`] at x0.
    macro_rules! each {
        ($instruction:literal) => {
            concat!(
                ".irp n, 2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30\n",
                $instruction,
                " x\\n, [x0, #8 * \\n]\n.endr"
            )
        };
    }

    /// Swaps what a call keeps, the exception stack in SP_EL0 and the vectors for the guest's registers; and back when it traps. The
    /// hypervisor uses no floating-point register.
    ///
    /// # Safety
    /// ELR_EL2 and SPSR_EL2 lead to EL1 or EL0, and stage 2 is in force.
    #[unsafe(naked)]
    unsafe extern "C" fn enter(guest: &mut Guest) {
        naked_asm!(
            "stp x19, x20, [sp, #-128]!; stp x21, x22, [sp, #16]; stp x23, x24, [sp, #32]",
            "stp x25, x26, [sp, #48]; stp x27, x28, [sp, #64]; stp x29, x30, [sp, #80]",
            "mrs x1, sp_el0; mrs x2, vbar_el2; stp x1, x2, [sp, #96]; str x0, [sp, #112]",
            "adr x1, 2f; msr vbar_el2, x1; ldr x1, [x0, #8 * 31]; msr sp_el0, x1",
            each!("ldr"),
            "ldp x0, x1, [x0]; eret",
            // Vectors: a guest's synchronous exceptions. Its interrupts stay at EL1, and EL2 has none between here and ERET.
            ".balign 0x800; 2: .rept 8; b .; .balign 0x80; .endr; b 3f; .balign 0x80; .rept 7; b .; .balign 0x80; .endr",
            "3: stp x0, x1, [sp, #-16]!; ldr x0, [sp, #16 + 112]",
            each!("str"),
            "ldp x1, x2, [sp], #16; stp x1, x2, [x0]; mrs x1, sp_el0; str x1, [x0, #8 * 31]",
            "ldp x1, x2, [sp, #96]; msr sp_el0, x1; msr vbar_el2, x2; isb",
            "ldp x29, x30, [sp, #80]; ldp x27, x28, [sp, #64]; ldp x25, x26, [sp, #48]",
            "ldp x23, x24, [sp, #32]; ldp x21, x22, [sp, #16]; ldp x19, x20, [sp], #128; ret",
        )
    }
}
