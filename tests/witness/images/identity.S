// The code that turns the MMU on has a page of its own, which is mapped to itself, or to a copy that reads the same.

.macro turn_on at
\at:
    msr     sctlr_el2, x2
\at\()_isb:
    isb
    br      x3
.endm

start:
    adr     x0, vectors
    msr     vbar_el2, x0
    controls root
    isb                                 // the new regime before the invalidation
    tlbi    alle2
    dsb     nsh                         // nothing of before reset is left
    isb
    constant x2, ON
    adr     x3, exit
    b       turn_on_here

.balign 4096
    turn_on turn_on_here
.balign 4096
    turn_on turn_on_copy

table root
    entry   1, level_2 + TABLE
table level_2
    entry   0, level_3 + TABLE
table level_3
    entry   0x80, IMAGE + RX
    entry   0x81, IMAGE + 0x1000 + RX
    unless  bad_not_mapped_to_itself, entry 0x82, IMAGE + 0x2000 + RX
    only    bad_not_mapped_to_itself, entry 0x82, IMAGE + 0x3000 + RX
flags_page
