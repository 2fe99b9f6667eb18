// One fault is met at 120,000 addresses before the next one happens, which must not be lost for it.

.set BLOCK_VA,     0x40600000           // level 2 slot 3

start:
    enable  root
    adr     x10, level_2 + 8 * 3
    constant x11, (FRAME + RW_BLOCK)
fill:
    str     x11, [x10]
    dsb     ish                         // the new descriptor is seen by every walk
    unless  bad_flood, isb
    constant x9, BLOCK_VA
    constant x12, 120000
flood:
    str     x12, [x9], #8
    subs    x12, x12, #1
    b.ne    flood
    isb
    adr     x10, pages + 8
    constant x11, (OTHER_FRAME + RW)
    constant x12, PAGE_OPERAND
    unless  bad_flood, str xzr, [x10]
    unless  bad_flood, dsb ishst        // the invalid descriptor is seen before the TLBI relies on it
    unless  bad_flood, tlbi vae2is, x12
    unless  bad_flood, dsb ish          // no CPU can use the old descriptor any more
make:
    str     x11, [x10]
    dsb     ish                         // the new descriptor is seen by every walk
    isb
    constant x9, PAGE_VA
    str     xzr, [x9]
    b       exit

small_tables
    entry   1, FRAME + RW
flags_page
