//! How many clone + step + hash the adversary does a second in a tiny world, and how many states that world has.

use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::time::Instant;

use breakwater_model::adversary::Adversary;
use breakwater_trace::{Record, text};

/// Multiplies and rotates: quick, and good enough for a count.
#[derive(Default)]
struct Quick(u64);

impl Hasher for Quick {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 29
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn write_u8(&mut self, word: u8) {
        self.write_u64(word.into());
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(word.into());
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }
}

const WORLD: &str = "word 10008 11003
word 11008 12003
word 12000 40000050000703
word 12008 40000050001703
word 50000000 1
word 50001000 1
0 1 0 found mair_el2 ff
0 1 0 found hcr_el2 0
0 1 0 found tcr_el2 80803519
0 1 0 found ttbr0_el2 10000
0 1 0 found sctlr_el2 30cd183d
1 1 0 found mair_el2 ff
1 1 0 found hcr_el2 0
1 1 0 found tcr_el2 80803519
1 1 0 found ttbr0_el2 10000
1 1 0 found sctlr_el2 30cd183d";

const ALPHABET: &str = "store 8 12000 12000 0
store 8 12000 12000 40000050000703
store 8 12000 12000 40000050000783
store 8 12000 12000 40000050001703
store 8 12008 12008 0
store 8 12008 12008 40000050001703
store 8 11008 11008 0
store 8 11008 11008 12003
dsb ish
dsb ishst
dsb nsh
dmb ish
isb
tlbi vae2is 40200
tlbi vae2is 40201
tlbi vale2is 40200
tlbi vae2 40200
tlbi alle2is 0
load 8 40200000 50000000 1
fetch 1
settled";

fn record(pe: u32, event: &str) -> Record {
    let pc = if event.starts_with("fetch") { "40201000" } else { "40300000" };
    text::parse(1, &format!("{pe} 2 {pc} {event}")).expect("an event").expect("an event")
}

fn main() {
    let mut start = Adversary::new();
    for line in WORLD.lines() {
        start.step(0, &text::parse(0, line).expect("a record").expect("a record"));
    }
    let alphabet: Vec<Record> = ALPHABET.lines().flat_map(|event| (0..2).map(move |pe| record(pe, event))).collect();
    let (begun, hasher) = (Instant::now(), BuildHasherDefault::<Quick>::default());
    let (mut seen, mut steps) = (HashSet::new(), 0_u64);
    let mut frontier = vec![start];
    for depth in 1..=9 {
        let mut next = Vec::new();
        for state in &frontier {
            for record in &alphabet {
                let mut after = state.clone();
                after.step(1, record);
                steps += 1;
                if after.harms().is_empty() && seen.insert(hasher.hash_one(&after)) {
                    next.push(after);
                }
            }
        }
        let rate = steps as f64 / begun.elapsed().as_secs_f64();
        println!("depth {depth}: {} states, {} new, {steps} steps, {rate:.0} a second", seen.len(), next.len());
        if next.len() > 200_000 {
            break;
        }
        frontier = next;
    }
}
