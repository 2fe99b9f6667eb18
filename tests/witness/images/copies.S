// A page of code that a second CPU executes too moves to a copy, in place: read-only here and there, with equal contents.

.set CODE_VA,      0x40402000           // page 2

start:
    enable  root
    start_second
    await   1
    adr     x10, pages
    constant x11, (IMAGE + 0x3000 + RX)
    constant x12, (CODE_VA >> 12)
move:
    str     x11, [x10, #16]
    dsb     ishst                       // the new descriptor is seen before the TLBI relies on it
    unless  bad_no_tlbi_after_move, tlbi vale2is, x12
    dsb     ish                         // no CPU can use the old code any more
    isb
    tell    2
    await   3
    b       exit

secondary:
    enable  root
    constant x9, CODE_VA
    blr     x9
    tell    1
    await   2
    unless  bad_no_isb_before_moved_code, isb
    blr     x9
    tell    3
    b       park

.balign 4096
    ret
    .space  0xff8
    .long   0x1234

.balign 4096
    ret
    .space  0xff8
    unless  bad_copy_differs, .long 0x1234
    only    bad_copy_differs, .long 0x1235

.balign 4096
table root
    entry   1, level_2 + TABLE
table level_2
    entry   0, level_3 + TABLE
    entry   2, pages + TABLE
table level_3
    entry   0x80, IMAGE + RX
    entry   0x81, IMAGE + 0x1000 + RX
    .set    page_number, 0x84
    .org    table_base + 8 * 0x84
.rept 8
    .quad   0x40000000 + page_number * 0x1000 + RW
    .set    page_number, page_number + 1
.endr
table pages
    entry   2, IMAGE + 0x2000 + RX
flags_page
