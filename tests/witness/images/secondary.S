// A second CPU turns its MMU on, over tables of its own. What the first has invalidated by broadcast is not enough.

start:
    enable  root
    adr     x1, root
    only    bad_common_but_different, orr x1, x1, #1
    msr     ttbr0_el2, x1
    isb
    tlbi    alle2is
    dsb     ish
    isb
    start_second
    await   1
    b       exit

secondary:
    adr     x0, vectors
    msr     vbar_el2, x0
    controls second_root
    adr     x1, second_root
    only    bad_common_but_different, orr x1, x1, #1 // CnP: the first CPU's tables are these too
name_root:
    msr     ttbr0_el2, x1
    isb                                 // the new regime before the invalidation
    unless  bad_secondary_not_invalidated, tlbi alle2
    dsb     nsh                         // nothing of before reset is left
    isb
    constant x2, ON
turn_on:
    msr     sctlr_el2, x2
turned_on:
    isb
    constant x9, PAGE_VA
    str     xzr, [x9]
    tell    1
    b       park

small_tables
    entry   1, FRAME + RW
table second_root
    entry   1, second_level_2 + TABLE
table second_level_2
    entry   0, level_3 + TABLE
    entry   2, second_pages + TABLE
table second_pages
    entry   1, OTHER_FRAME + RW
flags_page
