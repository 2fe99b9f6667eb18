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
    mrs x20, CurrentEL
    cmp x20, #(2 << 2)
    b.eq .Lentered_at_el2
    cmp x20, #(3 << 2)
    b.eq .Lentered_at_el3
    mov x0, #{CAUSE_EL1}
    b refuse

.Lentered_at_el2:
    msr spsel, #1               // the stack is SP_EL2's: SP_EL0 is where exceptions are taken
    mrs x22, sctlr_el2
    tbnz x22, #{SCTLR_M_BIT}, .Lmmu_on_at_entry
    tst x19, #0xfff
    b.ne .Lmisaligned

    .global primary_at_el2
primary_at_el2:
    ADDRESS_OF x0, vectors
    msr vbar_el2, x0            // vectors are live from here on
    isb
    COUNT_ISB
    tbnz x22, #{SCTLR_EE_BIT}, .Lbig_endian
    b check_machine

.Lentered_at_el3:
    tst x19, #0xfff
    b.eq drop_to_el2
.Lmisaligned:
    mov x0, #{CAUSE_MISALIGNED}
    b refuse
.Lmmu_on_at_entry:
    tst x19, #0xfff
    b.ne .Lmisaligned
    b leave_flat_map            // TBNZ reaches 32 KiB; where a layout seed puts the routine is further
.Lbig_endian:
    bic x0, x22, #{SCTLR_EE}
    msr sctlr_el2, x0
    isb                         // data is little-endian before any is accessed
    COUNT_ISB
    b check_machine
END_ROUTINE primary_entry

// A loader that enters with its MMU on, in a map that is flat: what it has in its caches of image and tree goes to
// memory, then its MMU goes off as firmware's does. In: x19, x21, x22. Out: primary_entry, by way of
// leave_firmware_tables, with the device tree in x0; or refused. Clobbers x0-x3, x30. MMU: on, then off.
ROUTINE leave_flat_map, .init.text.boot
    msr daifset, #0xf           // the loader's handlers are gone
    FIRST_VECTORS
    mov x0, x19
    ADDRESS_OF x1, _image_end_exclusive
    bl check_flat
    cbnz x2, .Lnot_flat
    cbz x21, .Lclean_image
    tst x21, #7
    b.ne .Lclean_image          // no tree; what it is instead is said later
    bic x0, x21, #0xfff
    add x1, x21, #8
    bl check_flat
    cbnz x2, .Lclean_image      // the loader's caches hold nothing of what it does not map
    ldr w1, [x21, #4]           // totalsize, big endian
    tbnz x22, #{SCTLR_EE_BIT}, .Ltree_bytes
    rev w1, w1
.Ltree_bytes:
    cmp w1, #(2 << 20)
    b.hi .Lclean_image
    add x1, x21, x1
    bic x0, x21, #0xfff
    bl check_flat
    cbnz x2, .Lclean_image
    mov x0, x21
    bl clean_to_coherency
.Lclean_image:
    mov x0, x19
    ADDRESS_OF x1, _image_end_exclusive
    bl clean_to_coherency
    mov x0, x21
    b leave_firmware_tables
.Lnot_flat:
    mov x0, #{CAUSE_MMU_ON}
    b refuse
END_ROUTINE leave_flat_map

// Whether the tables in force map each page of a span to itself. In: x0 start, a page's; x1 end exclusive. Out: x2, 0
// if so. Clobbers x0. MMU: on.
ROUTINE check_flat, .init.text.boot
.Lcheck_page:
    at s1e2r, x0
    isb                         // PAR_EL1 is of this address
    mrs x2, par_el1
    tbnz x2, #0, .Lchecked      // F: not mapped
    eor x2, x2, x0
    ubfx x2, x2, #12, #40       // PA
    cbnz x2, .Lchecked
    add x0, x0, #4096
    cmp x0, x1
    b.lo .Lcheck_page
.Lchecked:
    ret
END_ROUTINE check_flat

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
// one. What the part has and traps to EL3 unless told otherwise, belongs to EL2. In: the names of macros.S. Out:
// primary_at_el2, at EL2. Clobbers x0-x2. MMU: off at EL3 and EL2.
ROUTINE drop_to_el2, .init.text.boot
    mov x22, #0
    CONSTANT x0, {SCTLR_RESET}
    msr sctlr_el2, x0           // reset leaves it unknown
    mov x0, #{SCR}
    mrs x1, id_aa64mmfr3_el1
    tst x1, #0xf                // TCRX
    orr x1, x0, #{SCR_TCR2EN}   // TCR2_EL2 is ours to clear
    csel x0, x1, x0, ne
    mrs x1, id_aa64isar1_el1
    mrs x2, S3_0_C0_C6_2        // ID_AA64ISAR2_EL1
    and x1, x1, #0xff0          // APA and API
    and x2, x2, #0xf000         // APA3
    orr x1, x1, x2
    cmp x1, #0
    orr x1, x0, #{SCR_APK_API}  // pointer authentication: its keys and its instructions
    csel x0, x1, x0, ne
    mrs x1, id_aa64mmfr0_el1
    tst x1, #(0xf << 56)        // FGT
    orr x1, x0, #{SCR_FGTEN}
    csel x0, x1, x0, ne
    mrs x1, id_aa64mmfr1_el1
    tst x1, #(0xf << 40)        // HCX
    orr x1, x0, #{SCR_HXEN}
    csel x0, x1, x0, ne
    msr scr_el3, x0
    mrs x1, id_aa64pfr0_el1
    tst x1, #(0xf << 24)        // GIC: is there a system register interface
    b.eq .Lno_gic_registers
    mov x0, #{ICC_SRE}
    msr S3_6_C12_C12_5, x0      // ICC_SRE_EL3
.Lno_gic_registers:
    msr cptr_el3, xzr           // nothing of EL2's own registers traps to EL3, where nobody listens
    msr mdcr_el3, xzr
    mov x0, #{SPSR}
    msr spsr_el3, x0
    ADDRESS_OF x0, primary_at_el2
    msr elr_el3, x0
    eret
END_ROUTINE drop_to_el2
