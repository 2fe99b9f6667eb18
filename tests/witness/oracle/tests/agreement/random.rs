//! Histories drawn at random, longer than any exhaustive search reaches; a difference is shrunk before it is shown.

use breakwater_trace::Record;

use crate::explore::Pair;
use crate::worlds_of::World;

/// A small generator of pseudo-random numbers (SplitMix64): the same seed gives the same history on every machine.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}

/// What came of many histories.
#[derive(Default)]
pub(crate) struct Drawn {
    pub(crate) steps: usize,
    pub(crate) judged_bad: usize,
    pub(crate) difference: Option<String>,
}

/// The seed of every test, its histories, and their most events.
const SEED: u64 = 0x5eed;
const HISTORIES: usize = 2_000;
const LONGEST: usize = 40;

/// Draws histories. An event to which both object is taken back, so that histories grow as long as lawful ones are.
pub(crate) fn draw(world: &World, start: &Pair) -> Drawn {
    let mut random = Random(SEED);
    let mut drawn = Drawn::default();
    for _ in 0..HISTORIES {
        let mut pair = start.clone();
        let mut history = Vec::new();
        for _ in 0..LONGEST {
            let event = random.below(world.alphabet.len());
            let mut after = pair.clone();
            after.step(history.len() as u64 + 100, world, event);
            drawn.steps += 1;
            match after.verdicts() {
                (false, false) if matches!(world.alphabet[event], Record::End(_)) => {}
                (false, false) => {
                    history.push(event);
                    pair = after;
                }
                (true, true) => drawn.judged_bad += 1,
                _ => {
                    history.push(event);
                    drawn.difference = Some(shrunk(world, start, history));
                    return drawn;
                }
            }
        }
    }
    drawn
}

/// Whether the two differ somewhere along a history, and what they then say.
fn differ(world: &World, start: &Pair, history: &[usize]) -> Option<String> {
    let mut pair = start.clone();
    for (index, &event) in history.iter().enumerate() {
        pair.step(index as u64 + 100, world, event);
        match pair.verdicts() {
            (false, false) => {}
            (true, true) => return None,
            _ => return Some(world.trace(&history[..=index]) + &pair.said()),
        }
    }
    None
}

/// Takes events away as long as the two still differ.
fn shrunk(world: &World, start: &Pair, mut history: Vec<usize>) -> String {
    let mut index = 0;
    while index < history.len() {
        let mut shorter = history.clone();
        shorter.remove(index);
        if differ(world, start, &shorter).is_some() {
            history = shorter;
            index = 0;
        } else {
            index += 1;
        }
    }
    differ(world, start, &history).unwrap_or_default()
}
