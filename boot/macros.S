// Words shared by the assembly files. Nothing here emits code by itself.
//
// Register names that hold for the whole of the primary's MMU-off path (head.S, tables.S, mmu.S):
//   x19  physical address of the image's first byte (_head)
//   x20  CurrentEL as it was at entry
//   x21  x0 as it was at entry: the device tree, if the loader keeps the protocol
//   x22  SCTLR_EL2 as it was at entry (0 when entered at EL3)
//   x23  TCR_EL2 to be
//   x24  physical address of the identity page
//   x25  SCTLR_EL2 to be, M, C and I clear
//   x26  physical address of the first root
//   x27  descriptor stores so far
//   x28  maintenance so far: ISBs in bits 7:0, DSBs in 15:8, TLBIs in 23:16

// What runs, or is read, before the MMU is on: no absolute address may be in it, which breakwater-image checks. The
// list is not loaded.
.macro BEFORE_MMU name
    .pushsection .breakwater.before_mmu, "", %progbits
    .quad \name
    .popsection
.endm

// A routine in a section of its own, so that a layout seed can move it. It may run before the MMU is on.
.macro ROUTINE name, section
    .section \section\().\name, "ax", %progbits
    .balign 4
    .type \name, %function
    .global \name
    BEFORE_MMU \name
\name\():
.endm

.macro END_ROUTINE name
    .size \name, . - \name
.endm

// reg = run-time address of symbol, wherever the image was loaded (4 KiB alignment of image and link address keeps ADRP
// right).
.macro ADDRESS_OF reg, symbol
    adrp \reg, \symbol
    add \reg, \reg, :lo12:\symbol
.endm

// reg = a 48-bit constant.
.macro CONSTANT reg, value
    movz \reg, #((\value) & 0xffff)
    movk \reg, #(((\value) >> 16) & 0xffff), lsl #16
    movk \reg, #(((\value) >> 32) & 0xffff), lsl #32
.endm

// reg = a 64-bit constant.
.macro CONSTANT64 reg, value
    CONSTANT \reg, (\value)
    movk \reg, #(((\value) >> 48) & 0xffff), lsl #48
.endm

.macro COUNT_ISB
    add x28, x28, #1
.endm
.macro COUNT_DSB
    add x28, x28, #0x100
.endm
.macro COUNT_TLBI
    add x28, x28, #0x10, lsl #12
.endm

// Vectors that are live from here on, without a stack for exceptions yet. Clobbers x0. At EL2, MMU: any.
.macro FIRST_VECTORS
    msr spsel, #1               // the stack is SP_EL2's: SP_EL0 is where exceptions are taken
    ADDRESS_OF x0, vectors
    msr vbar_el2, x0
    msr sp_el0, xzr
    isb
.endm

// HCR_EL2.E2H must be 0: every descriptor, TCR and TLBI of this image is of the EL2 regime, not EL2&0.
// Jumps to \stuck when the CPU keeps E2H at 1 (no FEAT_E2H0). Clobbers x0, x1.
.macro SET_HCR stuck
    mov x0, #{HCR}
    dsb sy                      // AC04_CPU_23: accesses before are complete before the regime may change
    msr hcr_el2, x0
    isb                         // ... and what follows runs in the new regime
    mrs x1, hcr_el2
    tbnz x1, #34, \stuck
.endm

// TCR2_EL2.PIE would redefine AP and XN and make WXN RES0 (RULES.md: what has no verdict). Clobbers x0.
.macro CLEAR_TCR2
    mrs x0, id_aa64mmfr3_el1
    tst x0, #0xf                // TCRX: is there a TCR2_EL2 at all
    b.eq .Lno_tcr2\@
    msr S3_4_C2_C0_3, xzr       // TCR2_EL2
.Lno_tcr2\@:
.endm

// Jumps to \unsupported when the 4 KiB granule is missing. Leaves ID_AA64MMFR0_EL1 in x0.
.macro CHECK_GRANULE unsupported
    mrs x0, id_aa64mmfr0_el1
    tbnz x0, #31, \unsupported  // TGran4, bits 31:28, is signed: negative is none (features.rs decodes the same)
.endm
