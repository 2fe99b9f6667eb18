// The PE/COFF header, in the same file as the Linux header and the raw binary. File offset and address agree
// throughout: the file is one flat piece. UEFI runs it at `efi_entry` (efi.S). The `_pe_*` names are sizes and offsets
// that linker.ld computes.

    .section .head.text, "ax", %progbits
    .balign 8
pe_header:
    .ascii "PE\0\0"
    .short 0xaa64               // machine: AArch64
    .short 2                    // sections
    .long 0, 0, 0
    .short .Lsection_table - .Loptional_header
    .short 0x206                // debug stripped, executable, line numbers stripped
.Loptional_header:
    .short 0x20b                // PE32+
    .byte 0, 0
    .long _pe_text_bytes
    .long _pe_data_bytes
    .long 0
    .long _pe_entry
    .long 0x1000                // base of code
    .quad 0                     // image base
    .long 0x1000, 0x1000        // section and file alignment
    .short 0, 0, 0, 0, 0, 0
    .long 0
    .long _image_bytes
    .long 0x1000                // header bytes
    .long 0
    .short 10, 0x100            // subsystem: EFI application; NX compatible: no section is writable and executable
    .quad 0, 0, 0, 0
    .long 0, 6
    .quad 0, 0, 0, 0, 0, 0
.Lsection_table:
    .ascii ".text\0\0\0"
    .long _pe_text_bytes, 0x1000, _pe_text_bytes, 0x1000
    .long 0, 0
    .short 0, 0
    .long 0x60000020            // code, readable, executable
    .ascii ".data\0\0\0"
    .long _pe_data_bytes, _pe_data_start, _pe_data_file_bytes, _pe_data_start
    .long 0, 0
    .short 0, 0
    .long 0xc0000040            // initialised data, readable, writable
