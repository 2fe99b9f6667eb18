//! What is said before the console is known is shown once it is; when it is too much, the end of it.

#![cfg_attr(target_os = "none", no_std, no_main)]

breakwater_boot::entry!(main);

#[cfg(target_os = "none")]
fn main(start: breakwater_boot::el2::Start) -> ! {
    use breakwater_boot_tests::Booted;
    // 100 lines of 32 bytes: more than the ring buffer's 2048.
    for number in 0..100 {
        breakwater_boot::line!("fact: early line number {number:08}");
    }
    let booted = Booted::after_boot(start);
    booted.require(booted.handover.console().is_known, "the console is not known");
    booted.holds("early lines were kept")
}
