// One file that is a Linux arm64 Image, a PE/COFF image and a raw binary, and the way from the loader to the first
// tables. MMU off, caches in any state, nothing of memory written but the first tables (tables.S): until the MMU is on,
// memory is Device, so no stack, no atomics, no unaligned access.

    .section .head.text, "ax", %progbits
    .global _head
_head:
    ccmp x18, #0, #0xd, pl      // no effect that matters; its first two bytes read "MZ", which makes the file a PE image
    b primary_entry
    .quad 0                     // text_offset: the loader's choice
    .quad _image_bytes          // image_size, everything that the image uses included (a number, not an address: see linker.ld)
    .quad 0xa                   // flags: little endian, 4 KiB pages, may be placed anywhere
    .quad 0, 0, 0
    .ascii "ARM\x64"
    .long pe_header - _head

    // The PE header follows in the same section: pe.S.

// In: x0 device tree. Out: does not return; goes on in start_on_link_address (mmu.S). Keeps: nothing. MMU: off.
ROUTINE primary_entry, .init.text.boot
    mov x21, x0
    mov x27, #0
    mov x28, #0
    adr x19, _head              // ADR, not ADRP: whether that is a multiple of 4 KiB is the question
    tst x19, #0xfff
    b.ne .Lmisaligned
    mrs x20, CurrentEL
    cmp x20, #(2 << 2)
    b.eq .Lentered_at_el2
    cmp x20, #(3 << 2)
    b.eq drop_to_el2
    mov x0, #{CAUSE_EL1}
    b refuse

.Lentered_at_el2:
    mrs x22, sctlr_el2
    tbnz x22, #{SCTLR_M_BIT}, .Lmmu_on_at_entry

    .global primary_at_el2
primary_at_el2:
    ADDRESS_OF x0, vectors
    msr vbar_el2, x0            // vectors are live from here on
    isb
    COUNT_ISB
    b check_machine

.Lmisaligned:
    mov x0, #{CAUSE_MISALIGNED}
    b refuse
.Lmmu_on_at_entry:
    mov x0, #{CAUSE_MMU_ON}
    b refuse
END_ROUTINE primary_entry

// Starts event counter 0 on INST_RETIRED where the PMU has it (QEMU: under -icount), then judges what must hold before
// a table is written. In: the names of macros.S. Out: goes on in build_first_tables with x19, x23, x24, x25 set.
// Clobbers x0-x3. MMU: off.
ROUTINE check_machine, .init.text.boot
    mrs x0, id_aa64dfr0_el1
    ubfx x0, x0, #{PMUVER_SHIFT}, #{PMUVER_BITS}
    cbz x0, .Lno_counter
    cmp x0, #{PMUVER_NOT_ARCHITECTED}
    b.eq .Lno_counter
    mrs x1, pmcr_el0
    ubfx x2, x1, #{PMCR_N_SHIFT}, #{PMCR_N_BITS}        // event counters
    cbz x2, .Lno_counter
    mov x0, #({PMEVTYPER_INSTRUCTIONS} & 0xffff)
    movk x0, #({PMEVTYPER_INSTRUCTIONS} >> 16), lsl #16
    msr pmevtyper0_el0, x0
    mov x0, #{PMCNTENSET_FIRST}
    msr pmcntenset_el0, x0
    orr x1, x1, #{PMCR_START}
    msr pmcr_el0, x1
.Lno_counter:
    COUNT_DSB                   // the two of SET_HCR
    COUNT_ISB
    SET_HCR .Le2h_stuck
    CLEAR_TCR2
    CHECK_GRANULE .Lno_granule

    and x1, x0, #0xf            // PARange, capped at 48 bits: what TCR_EL2.PS takes without FEAT_LPA2
    mov x2, #{PS_MAX}
    cmp x1, x2
    csel x1, x1, x2, lo
    CONSTANT x23, {TCR_WITHOUT_PS}
    orr x23, x23, x1, lsl #{PS_SHIFT}

    ADDRESS_OF x0, _image_end_exclusive
    CONSTANT x1, {IDENTITY_LIMIT}
    cmp x0, x1                  // the identity page must not fall on the slots of the hypervisor's own map
    b.hi .Ltoo_high

    adrp x24, _idmap_start
    CONSTANT x25, {SCTLR_OFF}   // WXN already set
    b build_first_tables

.Le2h_stuck:
    mov x0, #{CAUSE_E2H}
    b refuse
.Lno_granule:
    mov x0, #{CAUSE_GRANULE}
    b refuse
.Ltoo_high:
    mov x0, #{CAUSE_TOO_HIGH}
    b refuse
END_ROUTINE check_machine

// No firmware below: make EL2 usable and go there. SMC is disabled (nobody would answer), so the image never issues
// one. In: the names of macros.S. Out: primary_at_el2, at EL2. Clobbers x0, x1. MMU: off at EL3 and EL2.
ROUTINE drop_to_el2, .init.text.boot
    mov x22, #0
    CONSTANT x0, {SCTLR_RESET}
    msr sctlr_el2, x0           // reset leaves it unknown
    mov x0, #{SCR}
    mrs x1, id_aa64mmfr3_el1
    tst x1, #0xf                // TCRX
    orr x1, x0, #{SCR_TCR2EN}   // TCR2_EL2 is ours to clear
    csel x0, x1, x0, ne
    msr scr_el3, x0
    msr cptr_el3, xzr           // nothing of EL2's own registers traps to EL3, where nobody listens
    msr mdcr_el3, xzr
    mov x0, #{SPSR}
    msr spsr_el3, x0
    ADDRESS_OF x0, primary_at_el2
    msr elr_el3, x0
    eret
END_ROUTINE drop_to_el2
