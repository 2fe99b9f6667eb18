// Memory that the image brings along beside its tables: none of it is in the file, none of it is zeroed at entry.

    .section .pool.frames, "aw", %nobits
    .balign 4096
    .skip {POOL_BYTES}

    .section .stack.boot, "aw", %nobits
    .balign 4096
    .skip {BOOT_STACK_BYTES}

    .section .stack_exception.boot, "aw", %nobits
    .balign 4096
    .skip {BOOT_EXCEPTION_STACK_BYTES}
