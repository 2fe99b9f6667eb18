// The image as a UEFI application: UEFI's way in, and the way from there to the ordinary entry. Runs in the firmware's
// tables, which map memory flat (UEFI, AArch64 platforms), at EL2 or EL1, at any 4 KiB page.

// In: x0 image handle, x1 system table, x30 where to return to, sp the firmware's stack. Out: primary_entry with the
// device tree in x0; or back to the firmware with an error status in x0, everything that AAPCS64 keeps kept. MMU: on,
// then off.
ROUTINE efi_entry, .init.text.boot
    stp x29, x30, [sp, #-16]!
    mov x29, sp
    bl {EFI_PREPARE}            // boot/src/el2/efi.rs: the tree, with boot services gone; or a status
    tbnz x0, #63, .Lback_to_firmware
    msr daifset, #0xf           // the firmware's handlers are gone
    mov x4, x0
    ldr w1, [x4, #4]            // totalsize, big endian; `prepare` has checked that it is at most 2 MiB
    rev w1, w1
    add x1, x4, x1
    bl clean_to_coherency
    ADDRESS_OF x0, _head        // with it the code below, which runs uncached, and what the firmware's loader zeroed
    ADDRESS_OF x1, _image_end_exclusive
    bl clean_to_coherency
    mov x0, x4
    b leave_firmware_tables
.Lback_to_firmware:
    ldp x29, x30, [sp], #16
    ret
END_ROUTINE efi_entry

// Cleans and invalidates lines to the point of coherency. In: x0 start, x1 end exclusive. Keeps x4. Clobbers x0, x2,
// x3. MMU: on.
ROUTINE clean_to_coherency, .init.text.boot
    mrs x2, ctr_el0
    ubfx x2, x2, #16, #4        // DminLine: log2 of words
    mov x3, #4
    lsl x2, x3, x2              // bytes in the smallest data-cache line
    sub x3, x2, #1
    bic x0, x0, x3
.Lclean_line:
    dc civac, x0
    add x0, x0, x2
    cmp x0, x1
    b.lo .Lclean_line
    dsb sy                      // the lines are in memory before anything looks there uncached
    ret
END_ROUTINE clean_to_coherency

// In: x0 device tree. Out: primary_entry, with x0. Clobbers x1-x3. No data access from here on: it would be Device
// against lines of the firmware's. MMU: on, then off, with the caches; the code is flat in the firmware's tables and
// clean to the point of coherency.
ROUTINE leave_firmware_tables, .init.text.boot
    mrs x1, sctlr_el2
    mov x2, #{SCTLR_MMU_AND_CACHES}
    bic x1, x1, x2
    isb                         // Falkor E1041: before M goes 1 -> 0
    msr sctlr_el2, x1
    isb                         // the next fetch is neither translated nor cached
    ic iallu                    // no stale line of what this memory held before the loader wrote it
    dsb nsh                     // the invalidation is complete on this PE, the only one that runs
    isb                         // ... and nothing prefetched before it survives
    msr spsel, #1               // the image takes its stack in SP_EL2; firmware may have used SP_EL0
    mov x1, xzr                 // as Linux's boot protocol has it
    mov x2, xzr
    mov x3, xzr
    b primary_entry
END_ROUTINE leave_firmware_tables
