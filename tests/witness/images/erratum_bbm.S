// A part on which every change of a valid descriptor is by break-before-make (3683289): rights too.

start:
    enable  root
    adr     x10, pages
    constant x11, (FRAME + RO)
    constant x12, PAGE_OPERAND
protect:
    unless  bad_rights_in_place, str xzr, [x10, #8]
    only    bad_rights_in_place, str x11, [x10, #8]
    dsb     ishst                       // the invalid descriptor is seen before the TLBI relies on it
    tlbi    vae2is, x12
    dsb     ish                         // no CPU can use the old descriptor any more
    str     x11, [x10, #8]
    dsb     ish                         // the new descriptor is seen by every walk
    isb
    b       exit

small_tables
    entry   1, FRAME + RW
flags_page
