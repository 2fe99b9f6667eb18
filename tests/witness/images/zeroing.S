// What lies behind a live descriptor is zeroed, on a core whose DC ZVA zeroes 256 bytes.

start:
    enable  root
    mrs     x12, dczid_el0              // BS is 6
    constant x9, PAGE_VA
    str     xzr, [x9]                   // page 1 is in use
    adr     x10, pages
    add     x11, x10, #0x100            // the next block
    only    bad_block_taken_for_64_bytes, add x11, x10, #0x40
zero:
    dc      zva, x11
    dsb     ish
    isb
    b       exit

small_tables
    entry   1, FRAME + RW
flags_page
