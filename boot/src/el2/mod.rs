//! The target: EL2 of an Arm64 CPU. The only module with `unsafe`, one instruction a function, and the glue to boot/.
//!
//! What must hold, and what every `SAFETY` comment here leans on:
//! - boot/ enters Rust once on the boot CPU ([`entry`]) and once on each other CPU ([`cpu`]), on a stack of its own, at the link address;
//! - physical memory is reached through [`phys_to_virt::PhysToVirt`] alone, which yields only addresses of the image's data or of the
//!   directmap, both mapped as Normal, writable, never executable;
//! - tables are edited through [`breakwater::bbm::Protocol`] alone, of which the image makes one.

mod assembly;
mod control;
pub mod cpu;
mod efi;
pub mod entry;
mod exception;
pub(crate) mod firmware;
pub(crate) mod footing;
mod guarded;
mod image;
mod instruction;
mod memory;
mod phys_to_virt;
pub mod power;
mod registers;
mod room;
mod uart;

pub use cpu::Cpus;
pub use entry::Start;
pub use guarded::{Faulted, load_or_fault, store_or_fault};
pub(crate) use image::{FirmwareTree, Known, log, on_demand, platform, regions};
pub use image::{ImageMap, Settings, image_map, settings};
pub use memory::El2;
pub(crate) use phys_to_virt::tables_in_force;
pub use power::{Status, leave, leave_refused, park, say_to_debugger, say_what_is_kept};
pub use registers::{Translation, id_registers, instructions_retired, own_affinity, translation};
pub(crate) use room::Room;
pub(crate) use uart::{earlycon_page, is_earlycon, use_uart};
