// Granules of 64 KiB on a part with 52-bit addresses: level 1 has blocks of 4 TiB, bits 15:12 of a descriptor are bits
// 51:48 of its output, and a TLBI's level hint names levels of this granule. FEAT_LPA and FEAT_TTL.

.set TCR,          0x80867510           // 64 KiB, 48-bit input from level 1 on, 52-bit output
.set GRANULE,      0x10000
.set DEVICE_BLOCK, 0x40000000000705
.set BLOCK_VA,     0x40000000000        // level 1 slot 1
.set OUTPUT,       0x40000000000        // nothing is there, and nothing is read there
.set OTHER_OUTPUT, 0x80000000000
.set HIGH_OUTPUT,  0x1000               // bit 48 of the output, beside what OUTPUT has
.set TTL,          44                   // bits 47:44
.set BLOCK_HINT,   0xd                  // 64 KiB, level 1
.set BLOCK_OF_4K,  0x5                  // 4 KiB, level 1
.set LOWER_BLOCK,  0xe                  // 64 KiB, level 2

start:
    enable  root
    adr     x10, root
    constant x11, (OTHER_OUTPUT + DEVICE_BLOCK)
    only    bad_high_bits_changed_in_place, constant x11, (OUTPUT + HIGH_OUTPUT + DEVICE_BLOCK)
    constant x12, ((BLOCK_VA >> 12) + (BLOCK_HINT << TTL))
    only    bad_hint_of_the_small_granule, constant x12, ((BLOCK_VA >> 12) + (BLOCK_OF_4K << TTL))
    only    bad_hint_of_a_lower_level, constant x12, ((BLOCK_VA >> 12) + (LOWER_BLOCK << TTL))
.ifndef bad_block_of_4_tib_changed_in_place
.ifndef bad_high_bits_changed_in_place
break:
    str     xzr, [x10, #8]
    dsb     ishst                       // the invalid descriptor is seen before the TLBI relies on it
invalidate:
    tlbi    vale2is, x12
    dsb     ish                         // no CPU can use the old descriptor any more
.endif
.endif
make:
    str     x11, [x10, #8]
    dsb     ish                         // the new descriptor is seen by every walk
    isb
    b       exit

    // One granule of code, then what is written, then tables that fill a granule each.
    .org    head + GRANULE
table root
    entry   0, level_2 + TABLE
    entry   1, OUTPUT + DEVICE_BLOCK
    .org    head + 2 * GRANULE
level_2:
    .org    level_2 + 8 * 2             // 0x4000_0000, by 512 MiB
    .quad   level_3 + TABLE
    .org    level_2 + GRANULE
level_3:
    .org    level_3 + 8 * 8             // 0x4008_0000, by 64 KiB
    .quad   IMAGE + RX
    .quad   IMAGE + GRANULE + RW
    .quad   IMAGE + 2 * GRANULE + RW
    .quad   IMAGE + 3 * GRANULE + RW
    .org    level_3 + GRANULE
image_end_exclusive:
