//! Breakwater on the machine: what a hypervisor links.
//!
//! [`breakwater`] decides what is mapped and in which order; this crate does it. Assembly (`*.S`) enters at EL2 with
//! the MMU off and puts W^X tables in force; `el2` holds every instruction that touches memory or a system register;
//! `boot` runs the phases of the machine's boot; a `Handover` is what is left at the end.
//!
//! On a host there is nothing to boot: only the console is there, for its tests.

#![cfg_attr(target_os = "none", no_std)]
#![deny(unsafe_code)]

pub mod console;
#[cfg(target_os = "none")]
#[allow(unsafe_code)]
pub mod el2;
#[cfg(not(target_os = "none"))]
pub mod link;
#[cfg(target_os = "none")]
mod phases;

#[cfg(target_os = "none")]
pub use phases::{Console, Handover, boot};

#[cfg(not(target_os = "none"))]
pub use link::{Link, link};

/// Names the function that an image runs once assembly has done its part: `entry!(main)` with `fn main(start: Start) ->
/// !`. On a host, where there is nothing to boot, it leaves a `main` that says so.
#[macro_export]
macro_rules! entry {
    ($function:path) => {
        #[cfg(target_os = "none")]
        const _: () = {
            #[unsafe(no_mangle)]
            extern "Rust" fn breakwater_main(start: $crate::el2::Start) -> ! {
                let function: fn($crate::el2::Start) -> ! = $function;
                function(start)
            }
        };
        #[cfg(not(target_os = "none"))]
        fn main() {
            eprintln!("this is a bare-metal image: `cargo xtask test boot` builds and boots it");
            std::process::exit(2);
        }
    };
}
