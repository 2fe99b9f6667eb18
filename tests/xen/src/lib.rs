//! Breakwater's core in the place of Xen's own arm64 boot tables and page-table editor, behind a C interface.
//!
//! Why it exists: the core was made because Xen's boot breaks the architecture; here Debian's Xen itself is started by
//! it. README.md says what was wrong, what replaces it and how to run it. `host` is tested by tests/manager, under the
//! oracle.

#![cfg_attr(target_os = "none", no_std)]
#![deny(unsafe_code)]

#[cfg(target_os = "none")]
#[allow(unsafe_code)]
mod c;
#[cfg(target_os = "none")]
#[allow(unsafe_code)]
mod el2;
#[cfg(target_os = "none")]
mod flags;
#[cfg(target_os = "none")]
mod host;
#[cfg(test)]
#[path = "el2/phys_to_virt.rs"]
#[allow(dead_code, reason = "the rest of it is asked by `Machine`")]
mod phys_to_virt;
