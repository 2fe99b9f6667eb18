// What the oracle does not follow, or cannot know: there is no verdict, and the report says why.

.set E2H,          1 << 34
.set RW_OF_EL1,    1 << 31
.set FW_CFG_DMA,   0x09020010           // of QEMU's machine: a device that writes memory

start:
.ifdef bad_regime_of_hosts
    constant x0, (E2H + RW_OF_EL1)
    msr     hcr_el2, x0
    isb
.endif
    adr     x10, pages
.ifdef bad_device_writes_a_table
    // The device reads four bytes of its item 0 into page 2's descriptor; what it is told is big-endian.
    adr     x9, data
    constant x11, 0x040000000a000000    // select and read, four bytes
    str     x11, [x9]
    add     x11, x10, #16
    rev     x11, x11
    str     x11, [x9, #8]
    dsb     sy
    rev     x9, x9
    constant x11, FW_CFG_DMA
    str     x9, [x11]
    dsb     sy
.endif
    ldr     x11, [x10, #16]             // as the CPU sees it
    enable  root
    constant x9, PAGE_VA
    str     xzr, [x9]
    only    bad_block_that_nobody_asked_for, dc zva, x9 // DCZID_EL0 is not read
    b       exit

small_tables
    entry   1, FRAME + RW
flags_page
