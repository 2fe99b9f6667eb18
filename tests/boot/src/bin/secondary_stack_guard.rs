//! An overflow of another CPU's stack is reported as one, by that CPU, on its own exception stack.

#![cfg_attr(target_os = "none", no_std, no_main)]

breakwater_boot_tests::fact!(|booted| {
    say!("fact: endless recursion on CPU 1");
    let overflow = |depth| {
        let _ = breakwater_boot_tests::overflow_stack(depth as u64);
    };
    booted.on_cpu(1, overflow, 0);
    booted.failed("endless recursion on CPU 1 ended");
});
