// Pages and a block are filled in: data, code, a device, a second name for the data, and the last 2 MiB of memory.

.set CODE_VA,      0x40402000           // page 2
.set DEVICE_FRAME, 0x09000000
.set READ_ONLY,    1 << 7
.set LAST_BLOCK,   0x4fe00000           // memory ends with it

routine:
    ret

start:
    enable  root
    adr     x10, pages
    constant x11, (FRAME + RW)
    only    bad_writable_and_executable, bic x11, x11, #NEVER
    only    bad_writable_alias_of_code, constant x11, (IMAGE + 0x2000 + RW)
fill_data:
    str     x11, [x10, #8]
    constant x11, (IMAGE + 0x1000 + RX)
    str     x11, [x10, #16]
    constant x11, (DEVICE_FRAME + DEVICE + READ_ONLY)
    only    bad_device_executable, bic x11, x11, #NEVER
fill_device:
    str     x11, [x10, #24]
    constant x11, (FRAME + RW)
    only    bad_writable_alias_of_code, constant x11, (IMAGE + 0x2000 + RW)
    only    bad_frame_cached_here_and_not_there, constant x11, (FRAME + UNCACHED)
    only    bad_frame_of_two_shareabilities, constant x11, (FRAME + OUTER)
fill_alias:
    str     x11, [x10, #32]
    adr     x10, level_2
    constant x11, (LAST_BLOCK + RW_BLOCK)
    only    bad_block_beyond_memory, constant x11, (LAST_BLOCK + 0x200000 + RW_BLOCK)
fill_block:
    str     x11, [x10, #8 * 127]
    only    bad_isb_before_dsb, isb
.ifdef bad_fill_and_dsb_of_loads
    dsb     ishld
.else
    unless  bad_fill_without_dsb, dsb ishst // what was filled in is seen by every walk
.endif
    unless  bad_fill_without_isb, unless bad_isb_before_dsb, isb
    constant x9, (PAGE_VA + 0x800)
use:
    str     xzr, [x9]
    constant x9, CODE_VA
    blr     x9
    b       exit

small_tables
flags_page
