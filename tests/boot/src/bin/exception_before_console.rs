//! An exception in the first tables, before the console is known, is reported with its walk.

#![cfg_attr(target_os = "none", no_std, no_main)]

breakwater::entry!(main);

#[cfg(target_os = "none")]
fn main(_: breakwater::el2::Start) -> ! {
    breakwater::line!("fact: read of address 0 before boot");
    let value = breakwater_boot_tests::probe::read(0);
    breakwater::line!("FACT FAILED: address 0 was read in the first tables: {value:#x}");
    breakwater::el2::leave(breakwater::command_line::Exit::Semihosting, breakwater::el2::Status::Panic)
}
