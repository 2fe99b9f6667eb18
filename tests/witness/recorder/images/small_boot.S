// A boot in small, for testing the recorder and the measurement: first tables, MMU on, runtime tables, strict root switch, a
// second CPU, exit. Whoever assembles it puts `.set FAULT, n` in front; each fault breaks one promise, 0 none.
//
//   1  the data block of the first tables is executable too
//   2  a store in the switch's window
//   3  a slot of the runtime tables stored twice
//   4  a live descriptor moved without break-before-make
//   5  WXN set together with M
//   6  the root written with the MMU on
//   7  an exception: a store to the code, caught
//
// Position independent. Memory: code in the 2 MiB at 0x4000_0000 (QEMU's virt loads it at 0x4008_0000), tables and flag in the next 2 MiB.
// Walks have 39-bit input addresses and begin at level 1.

.set FIRST_ROOT,   0x40201000
.set RUNTIME_ROOT, 0x40203000
.set FLAG,         0x40205000
.set CODE_BLOCK,   0x40000781           // Normal, read-only, executable
.set DATA_BLOCK,   0x40200701           // Normal, writable; bit 54 makes it never execute
.set TCR,          0x80803519
.set MAIR,         0xff
.set SCTLR,        0x30c51838
.set WXN,          1 << 19
.set SYS_EXIT,     0x18
.set CPU_ON,       0xc4000003
.set LOOPS,        1000

.macro constant register, value
    movz    \register, #((\value) & 0xffff)
    movk    \register, #((\value) >> 16), lsl #16
.endm

// Builds a root at \root with one level 2 table on the next frame.
//   Clobbers x0, x1. MMU state: any, if both blocks are mapped.
.macro tables root, data_is_executable
    constant x0, \root
    constant x1, (\root + 0x1003)
    str     x1, [x0, #8]
    add     x0, x0, #0x1000
    constant x1, CODE_BLOCK
    str     x1, [x0]
    constant x1, DATA_BLOCK
.if \data_is_executable == 0
    orr     x1, x1, #(1 << 54)
.endif
    str     x1, [x0, #8]
.endm

// Turns the MMU on over \root, WXN before M.
//   Clobbers x0. MMU state: off before, on after.
.macro enable root
    mov     x0, #MAIR
    msr     mair_el2, x0
    constant x0, TCR
    msr     tcr_el2, x0
    constant x0, \root
    msr     ttbr0_el2, x0
    constant x0, SCTLR
.if FAULT != 5
    orr     x0, x0, #WXN
.endif
    msr     sctlr_el2, x0
    isb                                 // the new regime before the invalidation
    tlbi    alle2
    dsb     nsh
    isb
    orr     x0, x0, #WXN
    orr     x0, x0, #1
    msr     sctlr_el2, x0
    isb
.endm

.balign 4
start:
    tables  FIRST_ROOT, (FAULT == 1)
    dsb     sy
    enable  FIRST_ROOT

    mov     x2, #LOOPS
.Lspend_instructions:
    subs    x2, x2, #1
    b.ne    .Lspend_instructions

    tables  RUNTIME_ROOT, 0
.if FAULT == 3
    str     x1, [x0, #8]
.endif
.if FAULT == 4
    constant x0, (FIRST_ROOT + 0x1000)
    constant x1, (DATA_BLOCK + 0x200000)
    orr     x1, x1, #(1 << 54)
    str     x1, [x0, #16]
    add     x1, x1, #0x200000
    str     x1, [x0, #16]
.endif

switch:
    constant x0, (SCTLR | WXN)
    constant x1, RUNTIME_ROOT
    constant x3, FLAG
    dsb     sy                          // the new tables before the switch
    isb
.if FAULT == 6
    msr     ttbr0_el2, x1
    isb
    tlbi    alle2
    dsb     nsh
    isb
.else
    msr     sctlr_el2, x0
    isb                                 // no walk of the old root may begin after this
    tlbi    alle2
    dsb     nsh
    isb
.if FAULT == 2
    str     xzr, [x3]
.endif
    msr     ttbr0_el2, x1
    orr     x0, x0, #1
    msr     sctlr_el2, x0
    isb
.endif

.if FAULT == 7
    adr     x0, vectors
    msr     vbar_el2, x0
    isb
    str     xzr, [x0]
.endif

    // The second CPU, if there is one; PSCI refuses otherwise.
    constant x0, CPU_ON
    mov     x1, #1
    adr     x2, secondary
    mov     x3, #0
    smc     #0
    cbnz    x0, exit
    constant x3, FLAG
.Lwait_for_flag:
    ldr     x0, [x3]
    cbz     x0, .Lwait_for_flag

exit:
    constant x1, FLAG
    constant x0, 0x20026                // ADP_Stopped_ApplicationExit
    str     x0, [x1, #16]
    str     xzr, [x1, #24]
    add     x1, x1, #16
    mov     x0, #SYS_EXIT
    hlt     #0xf000
    b       .

secondary:
    enable  RUNTIME_ROOT
    mov     x2, #LOOPS
.Lspend_instructions_too:
    subs    x2, x2, #1
    b.ne    .Lspend_instructions_too
    constant x3, FLAG
    mov     x0, #1
    str     x0, [x3]
    dsb     sy
.Lpark:
    wfi
    b       .Lpark

.balign 2048
vectors:
.rept 16
    b       exit
    .balign 128
.endr
