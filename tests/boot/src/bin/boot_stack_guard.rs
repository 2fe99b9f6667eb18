//! An overflow of the boot CPU's stack is reported as one, on a stack of its own.

#![cfg_attr(target_os = "none", no_std, no_main)]

breakwater_boot_tests::fact!(|booted| {
    say!("fact: endless recursion on CPU 0");
    let depth = breakwater_boot_tests::overflow_stack(0);
    booted.failed(format_args!("endless recursion ended: {depth}"));
});
