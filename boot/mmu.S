// Turning the MMU on, the first time; and the strict root switch. The few instructions that run while M changes live in
// the identity page (`.idmap.text`): its virtual and physical addresses agree in every root that may be in force then.

// First enable. In: x19, x23-x26. Out: goes on in start_on_link_address, MMU and caches on. Clobbers x0, x1. MMU: off.
ROUTINE enable_first_mmu, .init.text.boot
    CONSTANT64 x0, {MAIR}
    msr mair_el2, x0
    msr tcr_el2, x23
    msr ttbr0_el2, x26
    msr sctlr_el2, x25          // WXN while M is still 0: in force from the first translated instruction
    isb                         // the four writes are in force before the invalidation
    tlbi alle2                  // what reset or a loader left; RVNRFW: TCR, MAIR and WXN may be cached, even with M=0
    dsb nsh                     // the invalidation is complete on this PE, the only one that runs
    isb                         // ... and nothing prefetched under the old state survives
    COUNT_ISB
    COUNT_TLBI
    COUNT_DSB
    COUNT_ISB
    CONSTANT x25, {SCTLR_ON}    // M, C and I together
    CONSTANT x0, {LINK_ADDRESS}
    sub x1, x0, x19             // from a physical address of the image to the one it is linked at
    ADDRESS_OF x0, start_on_link_address
    add x0, x0, x1
    COUNT_ISB
    b enable_mmu
END_ROUTINE enable_first_mmu

// In: x0 where to go on, x25 SCTLR_EL2 with M, C and I. Out: at x0. Keeps everything. MMU: off, then on.
ROUTINE enable_mmu, .idmap.text
    msr sctlr_el2, x25
    isb                         // the next instruction is fetched through the identity page
    br x0
END_ROUTINE enable_mmu

// Puts another root in force, strictly: MMU off in between, no data access while it is (memory would be Device against
// dirty lines; C is left alone, so that the walker's view does not change). In: x0 root, x1 link address - physical
// address. Out: x0 maintenance done, counted as in macros.S x28. Clobbers x2-x7. Called at the link address by Rust;
// interrupts masked. MMU: on, off, on.
ROUTINE switch_root, .text.boot
    adr x2, .Lswitched
    ADDRESS_OF x3, switch_root_window
    sub x3, x3, x1              // the identity page's address of the window
    mrs x4, sctlr_el2
    bic x5, x4, #{SCTLR_M}
    dsb sy                      // every store to the new tables is visible to its walks; the old ones' users are done
    br x3
.Lswitched:
    mov x0, #0x205              // the DSB above and the window's, five ISBs
    movk x0, #1, lsl #16
    ret
END_ROUTINE switch_root

// In: x0 root, x2 where to go on, x4 SCTLR_EL2, x5 the same with M clear. Keeps everything else.
ROUTINE switch_root_window, .idmap.text
    isb                         // Falkor E1041: before M goes 1 -> 0
    msr sctlr_el2, x5
    isb                         // M is 0: no walk may refill what is invalidated now
    tlbi alle2
    dsb nsh                     // complete on this PE, the only one that has used these tables
    isb                         // ... and nothing fetched through the old root survives
    msr ttbr0_el2, x0
    isb                         // the new root is in force before a walk may start
    msr sctlr_el2, x4
    isb                         // the next fetch is translated by the new root
    br x2
END_ROUTINE switch_root_window
