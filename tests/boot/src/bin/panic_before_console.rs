//! A panic before the console is known reaches the debugger that the image was built for, with all that was said before.

#![cfg_attr(target_os = "none", no_std, no_main)]

breakwater_boot::entry!(main);

#[cfg(target_os = "none")]
fn main(start: breakwater_boot::el2::Start) -> ! {
    breakwater_boot::line!("fact: said before the console is known");
    assert!(start.entry_level() != 2, "a promise was broken before the console, entered at EL{}", start.entry_level());
    breakwater_boot_tests::Booted::after_boot(start).failed("the assertion held")
}
