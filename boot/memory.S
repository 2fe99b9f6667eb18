// Memory that the image brings along beside its tables: none of it is in the file, none of it is zeroed at entry.
// Stacks get their sizes in linker.ld. And the numbers that Rust and the linker script tell each other.

    .section .pool.frames, "aw", %nobits
    .balign 4096
    .skip {POOL_BYTES}

    .section .firmware, "aw", %nobits           // boot/src/el2/firmware.rs
    .balign 8
    .global firmware_map
firmware_map:
    .skip {FIRMWARE_MAP_BYTES}
    .global firmware_options
firmware_options:
    .skip {FIRMWARE_OPTIONS_BYTES}

    .section .log.head, "aw", %progbits         // src/log.rs, Log: what the image says, for a debugger
    .balign 64
    .global breakwater_log
breakwater_log:
    .ascii "breakwater log 1"       // MAGIC
    .quad {LOG_TEXT_BYTES}
    .quad 0, 0, 0, 0, 0

    .section .log.text, "aw", %nobits
    .balign 64
    .skip {LOG_TEXT_BYTES}
    .global breakwater_log_end_exclusive
breakwater_log_end_exclusive:

    .section .stack.boot, "aw", %nobits
    .balign 4096

    .section .stack_exception.boot, "aw", %nobits
    .balign 4096

    .global link_address
    .set link_address, {LINK_ADDRESS}

    .section .rodata.settings, "a", %progbits   // boot/src/el2/image.rs, Settings
    .balign 8
    .type breakwater_settings, %object
    .global breakwater_settings
breakwater_settings:
    .quad cpu_stack_bytes
    .quad livepatch
    .size breakwater_settings, 16

    // No garbage collection takes this away, so that a link without linker.ld fails and says what is missing.
    .section .breakwater.linked, "aR", %progbits
    .quad "build.rs lacks the line: breakwater_boot::link();"
