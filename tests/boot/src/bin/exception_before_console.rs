//! An exception in the first tables, before the console is known, is reported with its walk.

#![cfg_attr(target_os = "none", no_std, no_main)]

breakwater_boot::entry!(main);

#[cfg(target_os = "none")]
fn main(start: breakwater_boot::el2::Start) -> ! {
    use breakwater_boot_tests::{Booted, probe};
    breakwater_boot::line!("fact: read of address 0 before boot");
    let value = probe::read(0);
    Booted::after_boot(start).failed(format_args!("address 0 was read in the first tables: {value:#x}"))
}
