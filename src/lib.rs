//! Breakwater: the boot-time MMU core of an Arm64 hypervisor.
//!
//! Xen 4.11 stopped booting on one board and kept booting on another: its boot code replaced live translations without
//! break-before-make, and whether a TLB conflict struck depended on code layout and on what each core happened to
//! cache. Here the wrong order does not compile. An assembly stub enters at EL2 with the MMU off and builds first
//! tables that are W^X from the first translated instruction; a manager in safe Rust then builds Xen's initial
//! mappings, switches to them with the MMU off in between, maps RAM by fills alone, starts the other CPUs straight into
//! the result, frees what was only needed on the way, and audits what is left.
//!
//! This crate is the manager and all that is true of any machine. It touches no memory and no register, and runs on a
//! host as it does at EL2. The package `breakwater-boot` (boot/) is the machine: assembly, the instructions, the phases
//! of boot, the image.
//!
//! # Words
//!
//! As the Arm Architecture Reference Manual has them. *Descriptor*: a 64-bit entry of a translation table. *Walk*:
//! reading descriptors level by level. *Leaf*: a block or page descriptor, where a walk ends. *Break*: make a valid
//! descriptor invalid. *Invalidate*: TLBI and its DSB. *Make*: make it valid again. *Fill*: make a descriptor valid
//! that never was; needs no invalidation. *Frame*: 4 KiB of physical memory; *page*: of virtual. *Root*: the table that
//! TTBR0_EL2 names. *Identity page*: mapped where its virtual and physical addresses agree, so that the MMU can be
//! turned on and off while it executes.
//!
//! # Reading order, thirty minutes
//!
//! [`layout`]; boot/head.S, tables.S, mmu.S; boot/src/main.rs and [`bringup`] with boot/src/phases.rs; [`mapper`];
//! [`bbm`]; [`machine`]; then [`descriptor`] and [`change`].
//!
//! # Who may depend on whom
//!
//! `addr <- descriptor <- change`; `machine <- bbm <- mapper <- regions <- bringup`;
//! `breakwater <- breakwater-boot <- images`. The `el2` of `breakwater-boot` implements [`machine::Machine`], and only
//! it holds unsafe code.

#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]

pub mod acpi;
pub mod addr;
pub mod aliases;
pub mod audit;
pub mod bbm;
pub mod bringup;
pub mod change;
pub mod command_line;
pub mod descriptor;
pub mod device_tree;
pub mod earlycon;
pub mod errata;
pub mod fault;
pub mod features;
pub mod frames;
pub mod geometry;
pub mod layout;
pub mod ledger;
pub mod log;
pub mod machine;
pub mod mapper;
pub mod memory_map;
pub mod record;
pub mod refusal;
pub mod regions;
pub mod report;
pub mod starting;
pub mod uart;
pub mod uefi;
pub mod walk;
