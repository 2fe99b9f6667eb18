//! The adversary does what each permitting row of the architecture permits, and the canonical bad sequences come to harm by it.
//!
//! A small machine in text: 39-bit addresses of 4 KiB pages, so that walks begin at level 1.
//!
//! The root at 0x10000 maps, through the table at 0x11000: a block of code and data at 0x4000_0000 (R-X), and at 0x4020_0000 the level 3
//! table at 0x12000 with two pages, RW at 0x4020_0000 and RW at 0x4020_1000.

#[path = "adversary/boot.rs"]
mod boot;
#[path = "adversary/canonical.rs"]
mod canonical;
#[path = "adversary/permits.rs"]
mod permits;
#[path = "adversary/random.rs"]
mod random;

use breakwater_oracle::adversary::{Adversary, Harm, HarmKind, Permission};
use breakwater_trace::text;

/// A page descriptor's attributes: RW-, Normal, Inner Shareable, AF.
pub(crate) const RW: u64 = 0x0040_0000_0000_0703;
/// R-X.
pub(crate) const RX: u64 = 0x0783;
/// R--.
pub(crate) const RO: u64 = 0x0040_0000_0000_0783;
/// Device, RW-.
pub(crate) const DEVICE: u64 = 0x0040_0000_0000_0707;
/// As a block.
pub(crate) const BLOCK: u64 = 2;

/// The level 2 slot of 0x4020_0000, and the level 3 slots of its first two pages.
pub(crate) const L2: u64 = 0x11008;
pub(crate) const L3A: u64 = 0x12000;
pub(crate) const L3B: u64 = 0x12008;

/// PE 0 and PE 1 with the MMU on.
pub(crate) fn tables() -> String {
    let words = [
        (0x10008, 0x11003),
        (0x11000, 0x4000_0000 | RX & !BLOCK),
        (L2, 0x12003),
        (0x11010, 0),
        (L3A, 0x5000_0000 | RW),
        (L3B, 0x5000_1000 | RW),
        (0x12010, 0),
        (0x13000, 0),
        (0x13008, 0),
    ];
    words.iter().map(|(pa, value)| format!("word {pa:x} {value:x}\n")).collect()
}

pub(crate) fn on(pe: u32) -> String {
    let found = |name, value: u64| format!("{pe} 1 40000000 found {name} {value:x}\n");
    found("hcr_el2", 0)
        + &found("mair_el2", 0x04ff)
        + &found("tcr_el2", 0x8080_3519)
        + &found("ttbr0_el2", 0x10000)
        + &found("sctlr_el2", 0x30cd_183d)
}

/// Both PEs, MMU on, and what `features` says.
pub(crate) fn pair(features: &str) -> String {
    let features: String = features.split_whitespace().map(|name| format!("feature all {name}\n")).collect();
    features + &tables() + &on(0) + &on(1)
}

/// `events` as whole records, to stand in a world.
pub(crate) fn events_as_records(events: &str) -> String {
    let lines = events.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(|line| line.replacen(' ', " 2 40000000 ", 1) + "\n").collect()
}

/// Runs the world and then `events`, a line each: `PE event...`.
pub(crate) fn run_in(mut adversary: Adversary, world: &str, events: &str) -> Adversary {
    let mut line = 0;
    let mut feed = |text: &str| {
        line += 1;
        match text::parse(line, text) {
            Ok(Some(record)) => adversary.step(line, &record),
            Ok(None) => {}
            Err(error) => panic!("{error}: {text}"),
        }
    };
    world.lines().for_each(&mut feed);
    for event in events.lines().map(str::trim).filter(|event| !event.is_empty()) {
        let is_record = ["end", "word", "feature", "memory"].iter().any(|record| event.starts_with(record));
        match event.split_once(' ') {
            Some((pe, rest)) if !is_record => feed(&format!("{pe} 2 40000000 {rest}")),
            _ => feed(event),
        }
    }
    adversary
}

pub(crate) fn run(world: &str, events: &str) -> Adversary {
    run_in(Adversary::new(), world, events)
}

/// A store of `value` at `pa` by PE 0.
pub(crate) fn store(pa: u64, value: u64) -> String {
    format!("0 store 8 {pa:x} {pa:x} {value:x}\n")
}

/// A break of `pa`, its TLBI of `va`, and the barriers.
pub(crate) fn broken(pa: u64, va: u64) -> String {
    store(pa, 0) + &format!("0 dsb ishst\n0 tlbi vae2is {:x}\n0 dsb ish\n", va >> 12)
}

pub(crate) const SETTLE: &str = "0 dsb ish\n0 isb\n0 settled\n";

pub(crate) fn kinds(adversary: &Adversary) -> Vec<HarmKind> {
    let mut kinds: Vec<_> = adversary.harms().iter().map(|harm| harm.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

#[track_caller]
pub(crate) fn good(world: &str, events: &str) {
    let adversary = run(world, events);
    let harms: Vec<String> = adversary.harms().iter().map(Harm::to_string).collect();
    assert!(harms.is_empty(), "{events}\n{}", harms.join("\n"));
}

#[track_caller]
pub(crate) fn bad(world: &str, events: &str, kind: HarmKind) {
    let adversary = run(world, events);
    let harms: Vec<String> = adversary.harms().iter().map(Harm::to_string).collect();
    assert!(kinds(&adversary).contains(&kind), "{kind:?} expected of\n{events}\n{}", harms.join("\n"));
}

/// Harm that hardware with `permission` does, and hardware without it does not.
#[track_caller]
pub(crate) fn by(permission: Permission, world: &str, events: &str, kind: HarmKind) {
    bad(world, events, kind);
    let tamer = run_in(Adversary::without(permission), world, events);
    assert!(!kinds(&tamer).contains(&kind), "{kind:?} without {permission:?}: {:?}", tamer.harms());
}
