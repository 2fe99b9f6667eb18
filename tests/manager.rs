//! Claims about the manager as a whole: the unmodified code on a host machine that remembers every step, under a judge that was
//! written from the architecture alone.
//!
//! Why it exists: the manager's own tests ask whether it does what its author meant. These ask whether what it does is allowed: each
//! store, barrier and TLBI goes past [`manager::judge`], and after each request a raw walk must agree with an independent map.
//! `deletion` then takes every barrier, TLBI and break away, one at a time, and the judge must complain each time.

mod manager {
    mod bits;
    mod booted;
    mod bringup;
    mod change;
    mod deletion;
    mod directmap;
    mod does_not_compile;
    mod errors;
    mod event;
    mod judge;
    mod judge_bites;
    mod map;
    mod pool;
    mod properties;
    mod raw;
    mod reference;
    mod regions;
    mod rig;
    mod tokens;
    mod world;
}
