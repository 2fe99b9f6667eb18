//! The oracle: what the architecture says of each step of a boot, judged twice.
//!
//! Two engines judge the same [`Record`](breakwater_trace::Record)s. They share the event types of `breakwater-trace`, the parameters
//! ([`params`]) and the decoders ([`descriptor`], [`regime`], [`maintenance`], [`level`]), and nothing else.
//! [`tables`] follows tables by the same decoders, for whoever measures or draws.

#![forbid(unsafe_code)]

pub mod adversary;
pub mod descriptor;
pub mod level;
pub mod maintenance;
pub mod obligations;
pub mod params;
pub mod policy;
pub mod regime;
pub mod tables;
#[cfg(test)]
mod tests;
pub mod xen;
