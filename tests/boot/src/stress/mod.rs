//! Every CPU edits shared tables and reads through them, at random, at once; what readers see is judged access by access.
//!
//! Why it exists: one request after the other is judged elsewhere, step by step. Here requests of several CPUs meet readers that take no lock,
//! on tables in force, and TLBs that keep what nobody has invalidated.
//!
//! How: `area` is some MiB of virtual addresses, and twice as many frames, each word of which says where it is. `editor` makes a
//! random request under the locks and keeps the [`shadow`] true: what each page is, and what is being done to it.
//! `reader` loads and stores through the pages without a lock and holds what it saw against the shadow. `run` starts it all and ends it;
//! `settle` holds the final tables against the shadow, by the hardware's own translation and by the audit.
//!
//! What must hold: a wrong value, rights that the page does not have, a fault of a page that is mapped and in no span being broken, a fault of
//! another kind, and anything that the audit finds ends the run with one line. A fault inside a span being broken is tried again until it is gone, and counted.

pub mod shadow;

#[cfg(target_os = "none")]
mod area;
#[cfg(target_os = "none")]
mod counts;
#[cfg(target_os = "none")]
mod editor;
#[cfg(target_os = "none")]
mod reader;
#[cfg(target_os = "none")]
mod run;
#[cfg(target_os = "none")]
mod settle;

#[cfg(target_os = "none")]
pub use run::run;
