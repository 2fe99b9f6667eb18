//! The image: boot, then hand over.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod image {
    use breakwater_boot::Handover;
    use breakwater_boot::el2::Start;

    breakwater_boot::entry!(main);

    fn main(start: Start) -> ! {
        hand_over(breakwater_boot::boot(start))
    }

    /// Where a hypervisor takes over. This image has none: it leaves as the command line asks.
    fn hand_over(handover: Handover) -> ! {
        handover.leave()
    }
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("breakwater is a bare-metal image: `cargo xtask boot` builds and boots it");
    std::process::exit(2);
}
