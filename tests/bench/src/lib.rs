//! The manager beside a peer, on one host, on the same requests: `cargo xtask bench`.
//!
//! Why it exists: that safety costs little is a claim, and claims are measured. Ours validates all of a request before it does any of it,
//! supplies every frame beforehand and does all maintenance; the peer does some of that. It is timed as it is and with the invalidation
//! that it omits, and all against a loop that does nothing but store.
//!
//! What must hold: everyone gets the same requests, memory that behaves the same, and instructions of maintenance that cost the same;
//! everyone's tables say the same at the end (tests/same_tables.rs). What is reported are ratios, taken round by round.
//!
//! What it does not say: what a TLBI or a barrier costs. Here they are a counter; on a real machine one broadcast TLBI outweighs hundreds of
//! stores. The counts are in the report for that reason.
//!
//! * `request` is what is asked, `candidate` who is asked: `ours`, `paging`, or nobody.
//! * `arena` is memory and maintenance.
//! * `rounds` runs, sums up, and reads what came of it.

pub mod arena;
pub mod candidate;
pub mod ours;
pub mod paging;
pub mod request;
pub mod rounds;
