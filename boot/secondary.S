// Where PSCI and spin tables start the other CPUs: in the identity page, straight into the runtime tables. Never part
// of init: a CPU may arrive late.

// A spin table lets CPUs go without a word, and all that share a release address at once. So each looks for the record
// that bears its own name: the primary has named them all before it lets the first one go. Who finds none is not
// wanted, and waits for good, with its MMU off.
// In: nothing. Out: secondary_entry, with x0. Loads with the MMU off the mailbox, and of records the line that only CPUs
// with their MMU off read; the primary cleaned both to the point of coherency. MMU: off.
ROUTINE spin_table_entry, .idmap.text
    mrs x0, CurrentEL
    cmp x0, #(2 << 2)
    b.ne .Llooks_for_its_record         // secondary_entry refuses, once the record is known where that is said
    FIRST_VECTORS
    mrs x0, sctlr_el2
    tbnz x0, #{SCTLR_M_BIT}, .Llooks_for_its_record // its walks would change too; secondary_entry refuses
    tbz x0, #{SCTLR_EE_BIT}, .Llooks_for_its_record
    bic x0, x0, #{SCTLR_EE}
    msr sctlr_el2, x0
    isb                         // data is little-endian before any is accessed
.Llooks_for_its_record:
    mrs x3, mpidr_el1
    CONSTANT x1, {AFFINITY_MASK}
    and x3, x3, x1
    ADDRESS_OF x1, secondary_mailbox
    ldp x4, x5, [x1, #32]       // the records, and where they end: the primary stores both before it releases anyone
    mov x0, x4
.Lnext_record:
    cmp x0, x5
    b.hs .Lsecondary_parked
    ldr x2, [x0, #{CPU_RECORD_NAME}]
    cmp x2, x3
    b.eq secondary_entry
    add x0, x0, #{CPU_RECORD_BYTES}
    b .Lnext_record
END_ROUTINE spin_table_entry

// In: x0 physical address of this CPU's record (boot/src/el2/cpu.rs, CpuRecord), which lies in RAM, outside the image.
// Out: secondary_on_link_address, MMU and caches on. Loads with the MMU off only `secondary_mailbox`, which the primary
// cleaned to the point of coherency. MMU: off, then on.
ROUTINE secondary_entry, .idmap.text
    mov x20, x0
    mrs x0, CurrentEL
    cmp x0, #(2 << 2)
    b.ne .Lwrong_level
    mrs x0, sctlr_el2
    tbnz x0, #{SCTLR_M_BIT}, .Lsecondary_mmu_on
    FIRST_VECTORS               // data is little-endian: as PSCI's caller had it, and as spin_table_entry has made it
    SET_HCR .Lsecondary_e2h
    CLEAR_TCR2
    CHECK_GRANULE .Lsecondary_granule
    ADDRESS_OF x2, secondary_mailbox
    ldp x3, x4, [x2]            // root, TCR_EL2
    ldp x5, x6, [x2, #16]       // link address - physical address, and the directmap's, in which the record is
    and x0, x0, #0xf            // PARange
    ubfx x1, x4, #{PS_SHIFT}, #3        // PS that the tables were built for
    cmp x0, x1
    b.lo .Lsecondary_parange

    CONSTANT64 x0, {MAIR}
    msr mair_el2, x0
    msr tcr_el2, x4
    msr ttbr0_el2, x3
    CONSTANT x0, {SCTLR_OFF}
    msr sctlr_el2, x0           // WXN while M is still 0
    isb                         // the four writes are in force before the invalidation
    tlbi alle2                  // broadcasts reached this PE, but its reset state is unknown (RXQBCL)
    dsb nsh                     // the invalidation is complete on this PE
    isb                         // ... and nothing prefetched under the old state survives
    ADDRESS_OF x1, secondary_on_link_address
    add x1, x1, x5
    add x20, x20, x6            // this CPU's record, as the directmap shows it
    CONSTANT x0, {SCTLR_ON}     // M, C and I together
    msr sctlr_el2, x0
    isb                         // the next instruction is fetched through the identity page
    br x1

.Lwrong_level:
    mov x0, #{CAUSE_EL1}
    b .Lsecondary_refuse
.Lsecondary_mmu_on:
    mov x0, #{CAUSE_MMU_ON}
    b .Lsecondary_refuse
.Lsecondary_e2h:
    mov x0, #{CAUSE_E2H}
    b .Lsecondary_refuse
.Lsecondary_granule:
    mov x0, #{CAUSE_GRANULE}
    b .Lsecondary_refuse
.Lsecondary_parange:
    mov x0, #{CAUSE_PARANGE}
.Lsecondary_refuse:
    str w0, [x20, #{CPU_RECORD_REFUSED}]    // the primary invalidates this line before it reads it
    dsb sy                      // the cause has left this CPU before it stops
    ADDRESS_OF x0, secondary_mailbox
    ldr x0, [x0, #48]           // whether PSCI may be called: other firmware need not survive an SMC
    cbz x0, .Lsecondary_parked
    CONSTANT x0, {PSCI_CPU_OFF}
    smc #0
.Lsecondary_parked:
    wfe
    b .Lsecondary_parked
END_ROUTINE secondary_entry

// First code of a secondary at the link address. In: x20 its record. MMU: on, in the runtime tables.
ROUTINE secondary_on_link_address, .text.boot
    ADDRESS_OF x0, vectors
    msr vbar_el2, x0
    isb                         // the vectors' new address is in force before a load may fault
    ldp x1, x2, [x20]           // tops of its stack and of its exception stack
    msr sp_el0, x2
    mov sp, x1
    mov x0, x20
    mov x29, #0
    mov x30, #0
    bl breakwater_secondary
    brk #0                      // breakwater_secondary does not return
END_ROUTINE secondary_on_link_address
