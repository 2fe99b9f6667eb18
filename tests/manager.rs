//! Claims about the manager as a whole: the unmodified code on a host machine that records every step, judged by the model of the
//! architecture (tests/witness/oracle), which knows nothing of it.
//!
//! Why it exists: the manager's own tests ask whether it does what its author meant. These ask whether what it does is allowed: each
//! store, barrier and TLBI is a record that the model's obligations judge ([`manager::world`]), and after each request a raw walk must
//! agree with an independent map. `deletion` then takes every barrier, TLBI and break away, one at a time, and swaps every two neighbours: the
//! model must complain each time. `properties` does all of it at random, `matrix` one request at a time on everything that a slot may hold.

mod manager {
    mod adopt;
    mod aliases;
    mod bench;
    mod bits;
    mod booted;
    mod bringup;
    mod change;
    mod churn;
    mod clear;
    mod deletion;
    mod demand;
    mod directmap;
    mod does_not_compile;
    mod errors;
    #[allow(dead_code)] // xtask compares more of boot/ than the host machine does in its place
    mod expansion;
    mod fixmap;
    mod footing;
    mod judged;
    mod late;
    mod levels;
    mod linear;
    mod machine;
    mod map;
    mod matrix;
    mod mutation;
    mod out_of_frames;
    mod peers;
    mod picture;
    mod places;
    mod properties;
    mod raw;
    mod record;
    mod reference;
    mod regions;
    mod resize;
    mod rig;
    mod start;
    mod step;
    mod supply;
    mod tokens;
    mod vmap;
    mod window;
    mod wish;
    mod world;
    mod xen;
}
