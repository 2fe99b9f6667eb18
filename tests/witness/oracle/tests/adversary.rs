//! The adversary does what each permitting row of the architecture permits, and the canonical bad sequences come to harm by it.

#[path = "adversary/boot.rs"]
mod boot;
#[path = "adversary/canonical.rs"]
mod canonical;
#[path = "adversary/permits.rs"]
mod permits;
#[path = "adversary/random.rs"]
mod random;
#[path = "adversary/world.rs"]
mod world;
