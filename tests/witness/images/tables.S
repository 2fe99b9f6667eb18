// Tables are linked, unlinked, used again, limited, and exchanged for a block.
//
// Level 2 slots of 0x4000_0000: 2 holds page 1, which is the plain frame; 3 gets that frame as a new table; 4 is unlinked; 5 gets its table
// again; 6 is limited to reading; 7 is a block that becomes a table and a block again.

.set NEW_VA,      0x40601000
.set OLD_VA,      0x40801000
.set LIMITED_VA,  0x40c01000
.set BLOCK_VA,    0x40e00000
.set NO_WRITE,    1 << 62               // APTable: nothing writable below

.macro link_new_table at
    constant x11, (FRAME + TABLE)
\at:
    str     x11, [x10, #24]
.endm

start:
    enable  root
    adr     x10, level_2

    // A new table: zeroed, filled, seen, linked.
    constant x9, PAGE_VA
    only    bad_linked_before_filled, link_new_table link_early
    mov     x13, #512
    only    bad_zeroed_in_part, mov x13, #511
zero:
    sub     x13, x13, #1
    str     xzr, [x9, x13, lsl #3]
    cbnz    x13, zero
    constant x11, (OTHER_FRAME + RW)
fill:
    str     x11, [x9, #8]
.ifdef good_linked_behind_dmb
    dmb     ishst                       // whoever sees the link sees the new table's contents
.else
    unless  bad_linked_without_dsb, dsb ishst // the new table's contents are seen before its link
.endif
    unless  bad_linked_before_filled, link_new_table link
    dsb     ishst                       // the link is seen by every walk
    isb
    constant x9, NEW_VA
    str     xzr, [x9]

    // A table is unlinked, and used again.
    adr     x9, old_pages
    constant x11, (OTHER_FRAME + RW)
unlink:
.ifdef bad_table_replaced_in_place
    adr     x13, same_pages
    orr     x13, x13, #TABLE
replace:
    str     x13, [x10, #32]
.else
    str     xzr, [x10, #32]
.endif
    dsb     ishst                       // the missing link is seen before the TLBIs rely on it
    constant x12, (OLD_VA >> 12)
.ifdef bad_table_reused_early
reuse_early:
    str     x11, [x9, #8]
.endif
invalidate:
.ifdef bad_last_level_tlbi
    tlbi    vale2is, x12
    add     x12, x12, #1
    tlbi    vale2is, x12
.else
    tlbi    vae2is, x12
    add     x12, x12, #1
    unless  bad_leaf_forgotten, tlbi vae2is, x12
.endif
    dsb     ish                         // no CPU can walk through the old table any more
    isb
reuse:
    unless  bad_table_reused_early, str x11, [x9, #8]
    dsb     ishst                       // the table's contents are seen before its link
    add     x11, x9, #TABLE
    str     x11, [x10, #40]
    dsb     ishst                       // the link is seen by every walk
    isb

    // A table in use is limited to reading.
    adr     x11, limited_pages
    add     x11, x11, #TABLE
    orr     x11, x11, #NO_WRITE
limit:
    unless  bad_hierarchy_changed_in_place, str xzr, [x10, #48]
    only    bad_hierarchy_changed_in_place, str x11, [x10, #48]
    dsb     ishst                       // the missing link is seen before the TLBI relies on it
    constant x12, (LIMITED_VA >> 12)
    tlbi    vae2is, x12
    dsb     ish                         // no CPU can use the old rights any more
    str     x11, [x10, #48]
    dsb     ish                         // the link is seen by every walk
    isb

    // A block becomes a table of pages that say the same.
    adr     x11, small_pages
    add     x11, x11, #TABLE
    constant x12, (BLOCK_VA >> 12)
split:
    unless  bad_shattered_in_place, str xzr, [x10, #56]
    only    bad_shattered_in_place, str x11, [x10, #56]
    dsb     ishst                       // the missing block is seen before the TLBI relies on it
    tlbi    vae2is, x12
    dsb     ish                         // no CPU can use the block any more
    str     x11, [x10, #56]
    dsb     ish                         // the link is seen by every walk
    isb
    constant x9, BLOCK_VA
    str     xzr, [x9]

    // And a block again.
    constant x11, (BLOCK_VA + RW_BLOCK)
merge:
    unless  bad_merged_in_place, str xzr, [x10, #56]
    only    bad_merged_in_place, str x11, [x10, #56]
    dsb     ishst                       // the missing link is seen before the TLBI relies on it
    mov     x13, #512
    only    bad_merged_after_one_tlbi, mov x13, #1
.Linvalidate_pages:
    tlbi    vae2is, x12
    add     x12, x12, #1
    subs    x13, x13, #1
    b.ne    .Linvalidate_pages
    dsb     ish                         // no CPU can use any of the pages any more
remake:
    str     x11, [x10, #56]
    dsb     ish                         // the block is seen by every walk
    isb
    str     xzr, [x9]
    b       exit

writable
table root
    entry   1, level_2 + TABLE
table level_2
    entry   0, level_3 + TABLE
    entry   2, pages + TABLE
    entry   4, old_pages + TABLE
    entry   6, limited_pages + TABLE
    entry   7, BLOCK_VA + RW_BLOCK
table level_3
    image_pages
table pages
    entry   1, FRAME + RW
table old_pages
    entry   1, 0x40602000 + RW
    entry   2, 0x40603000 + RW
table same_pages
    entry   1, 0x40602000 + RW
    entry   2, 0x40603000 + RW
table limited_pages
    entry   1, 0x40604000 + RW
table small_pages
    .set    page_address, BLOCK_VA + RW
.rept 512
    .quad   page_address
    .set    page_address, page_address + 0x1000
.endr
flags_page
