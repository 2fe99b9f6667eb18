//! All CPUs at once make random requests on shared tables and read through them: a reader's fault is legal only on a page that is not
//! mapped, or inside a span being broken at that moment, and is then tried again; nobody ever reads a wrong value; at the end the
//! tables are as the requests say, and no frame is lost. [`breakwater_boot_tests::stress`] says how.

#![cfg_attr(target_os = "none", no_std, no_main)]

breakwater_boot_tests::fact!(|booted| { breakwater_boot_tests::stress::run(booted) });
