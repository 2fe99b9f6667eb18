// Two CPUs run on one root. One unmaps a block there, goes over to a root of its own that maps the same, and then has the
// first root map another block. What the other CPU may still hold is no matter of the second root.

.set BLOCK_VA,      0x80000000          // level 1 slot 2
.set BLOCK_OPERAND, BLOCK_VA >> 12
.set OTHER_BLOCK,   0x40800000

start:
    enable  root
    start_second
    await   1
    constant x9, BLOCK_VA
    str     xzr, [x9]
    adr     x10, blocks
    constant x12, BLOCK_OPERAND
unmap:
    str     xzr, [x10]
    dsb     ish                         // the invalid descriptor is seen before the TLBI relies on it
    unless  bad_settled_by_another_root, tlbi vae2is, x12
    dsb     ish                         // no CPU can use the old descriptor any more
    isb
    constant x0, PAUSED
    msr     sctlr_el2, x0
    isb
leave:
    tlbi    alle2
    dsb     nsh                         // nothing of the first root is left here
    isb
    adr     x0, other_root
    msr     ttbr0_el2, x0
    isb
    constant x0, ON
    msr     sctlr_el2, x0
    isb
    adr     x10, other_blocks
    constant x11, (FRAME + RW_BLOCK)
    str     x11, [x10]
    dsb     ish                         // the new descriptor is seen by every walk
    isb
    str     xzr, [x9]
    adr     x10, blocks
    constant x11, (OTHER_BLOCK + RW_BLOCK)
make:
    str     x11, [x10]
    dsb     ish                         // and so is this one
    isb
    tell    2
    await   3
    b       exit

secondary:
    enable  root
    constant x9, BLOCK_VA
    str     xzr, [x9]
    tell    1
    await   2
    isb
    str     xzr, [x9]
    tell    3
    b       park

writable
table root
    entry   1, level_2 + TABLE
    entry   2, blocks + TABLE
table other_root
    entry   1, level_2 + TABLE
    entry   2, other_blocks + TABLE
table level_2
    entry   0, level_3 + TABLE
table level_3
    image_pages
table blocks
    entry   0, FRAME + RW_BLOCK
table other_blocks
flags_page
