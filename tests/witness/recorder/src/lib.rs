//! The recorder: a QEMU plugin that writes down what a booting EL2 image does to its translation regime.
//!
//! It has a small job and knows no rules. Per CPU and in order it reports stores, the loads done with the MMU off, writes and
//! reads of the registers that decide how EL2 translates, TLBI, DSB, DMB, ISB, DC, IC, AT, ERET, calls and exceptions, each with
//! the ordinal of its instruction; everything else it only counts. What any of it means is for the readers of the trace
//! (`breakwater-trace`, documented in tests/witness/oracle/README.md).
//!
//! Counting is exact: every instruction adds one to its CPU's counter, inside the translated code, before it executes. Counting by
//! translation block would be wrong wherever an exception leaves a block early.
//!
//! `ffi` is the only unsafe code: QEMU's plugin interface, version 4, declared by hand. `recorder` decides what is
//! written, and `log` writes it, with the help of `atomics` (did this store happen?), `blocks` (how much
//! does DC ZVA zero?), `shared` (does this load say
//! anything about other CPUs?) and `repeats` (a CPU that waits does the same again and again; can this fetch find
//! anything new?); `options` reads the plugin's arguments.

#![deny(unsafe_code)]

mod atomics;
mod blocks;
mod ffi;
mod log;
mod options;
mod recorder;
mod repeats;
mod shared;
