//! A cache of translations as a concrete part builds it: so many places, found by input address, and a rule for who has
//! to leave.
//!
//! What must hold: an entry is found again by any address in its span until it is invalidated or replaced, and two runs
//! from the same seed replace the same entries. The order of the entries decides what "the third one" is, so they are
//! kept in order.

/// How many entries a cache has room for, and which of them makes room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    /// The part has no such cache.
    Absent,
    /// Any entry anywhere; nothing is ever replaced.
    Unbounded,
    /// Any entry anywhere, in this many places; a random one leaves.
    Random(usize),
    /// Any entry anywhere, in this many places; the one used longest ago leaves.
    LeastRecent(usize),
    /// For each size of entry this many places, the place decided by the address bits above the size.
    Direct(u64),
}

/// Splitmix64: as good as a replacement counter in hardware, and the same on every host.
#[derive(Clone, Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}

/// Log2 of a span, and its first address.
type Span = (u8, u64);

/// An entry, and when it was last used.
#[derive(Clone, Copy, Debug)]
struct CacheEntry<T> {
    span: Span,
    entry: T,
    used: u64,
}

/// Entries in the order of their spans, no span twice.
#[derive(Clone, Debug)]
pub(super) struct Cache<T> {
    shape: Shape,
    slots: Vec<CacheEntry<T>>,
    /// Which spans have ever been entered: bit n for 2^n bytes.
    spans: u64,
    clock: u64,
}

/// The first address of the span of 2^`shift` bytes that holds `va`.
pub(super) const fn base_of(va: u64, shift: u8) -> u64 {
    va >> shift << shift
}

impl<T: Copy> Cache<T> {
    pub(super) const fn new(shape: Shape) -> Self {
        Self { shape, slots: Vec::new(), spans: 0, clock: 0 }
    }

    /// Where the entry of `span` is, or would be.
    fn find(&self, span: Span) -> Result<usize, usize> {
        self.slots.binary_search_by_key(&span, |slot| slot.span)
    }

    /// The entries that match `va`, the smallest span first, with the log2 of their spans.
    pub(super) fn matching(&self, va: u64) -> impl Iterator<Item = (u8, T)> {
        let mut spans = if self.slots.is_empty() { 0 } else { self.spans };
        core::iter::from_fn(move || {
            while spans != 0 {
                let shift = spans.trailing_zeros() as u8;
                spans &= spans - 1;
                if let Ok(place) = self.find((shift, base_of(va, shift))) {
                    return Some((shift, self.slots[place].entry));
                }
            }
            None
        })
    }

    /// Notes that the entry of 2^`shift` bytes at `va` was used.
    pub(super) fn used(&mut self, va: u64, shift: u8) {
        if let Ok(place) = self.find((shift, base_of(va, shift))) {
            self.clock += 1;
            self.slots[place].used = self.clock;
        }
    }

    /// Enters what translates the 2^`shift` bytes around `va`.
    pub(super) fn enter(&mut self, va: u64, shift: u8, entry: T, random: &mut Random) {
        let span = (shift, base_of(va, shift));
        self.clock += 1;
        let slot = CacheEntry { span, entry, used: self.clock };
        if let Ok(place) = self.find(span) {
            self.slots[place] = slot;
        } else if self.make_room(span, random) {
            self.spans |= 1 << shift;
            let (Ok(place) | Err(place)) = self.find(span);
            self.slots.insert(place, slot);
        }
    }

    /// Removes whatever the shape says must leave for `span`; false if there is no place at all.
    fn make_room(&mut self, (shift, base): Span, random: &mut Random) -> bool {
        let held = self.slots.len();
        let leaving = match self.shape {
            Shape::Absent => return false,
            Shape::Random(places) if held >= places => Some(random.next() as usize % held),
            Shape::LeastRecent(places) if held >= places => (0..held).min_by_key(|place| self.slots[*place].used),
            Shape::Unbounded | Shape::Random(_) | Shape::LeastRecent(_) => None,
            Shape::Direct(places) => {
                let place_of = |base: u64| (base >> shift) % places;
                self.slots.iter().position(|slot| slot.span.0 == shift && place_of(slot.span.1) == place_of(base))
            }
        };
        if let Some(leaving) = leaving {
            self.slots.remove(leaving);
        }
        true
    }

    /// Drops the entries for which `is_meant` holds, given the first and last address of each and the entry.
    pub(super) fn invalidate(&mut self, is_meant: impl Fn(u64, u64, &T) -> bool) {
        self.slots.retain(|slot| {
            let (shift, base) = slot.span;
            !is_meant(base, base + ((1 << shift) - 1), &slot.entry)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(cache: &Cache<u32>, vas: &[u64]) -> Vec<bool> {
        vas.iter().map(|va| cache.matching(*va).next().is_some()).collect()
    }

    fn filled(shape: Shape, vas: &[u64]) -> Cache<u32> {
        let (mut cache, mut random) = (Cache::new(shape), Random(1));
        for (number, va) in vas.iter().enumerate() {
            cache.enter(*va, 12, number as u32, &mut random);
        }
        cache
    }

    #[test]
    fn good_each_shape_replaces_what_it_says() {
        let pages = [0x1000, 0x2000, 0x5000];
        assert_eq!(held(&filled(Shape::Absent, &pages), &pages), [false, false, false]);
        assert_eq!(held(&filled(Shape::Unbounded, &pages), &pages), [true, true, true]);
        assert_eq!(held(&filled(Shape::LeastRecent(2), &pages), &pages), [false, true, true]);
        assert_eq!(held(&filled(Shape::Direct(4), &pages), &pages), [false, true, true], "pages 1 and 5 share a place");
        let random = held(&filled(Shape::Random(2), &pages), &pages);
        assert!(random[2] && (random[0] != random[1]));
    }

    #[test]
    fn good_a_used_entry_outlives_an_unused_one() {
        let mut cache = filled(Shape::LeastRecent(2), &[0x1000, 0x2000]);
        cache.used(0x1fff, 12);
        cache.enter(0x3000, 12, 9, &mut Random(1));
        assert_eq!(held(&cache, &[0x1000, 0x2000, 0x3000]), [true, false, true]);
    }

    #[test]
    fn good_entries_of_two_sizes_both_match() {
        let (mut cache, mut random) = (Cache::new(Shape::Direct(4)), Random(1));
        cache.enter(0x20_3000, 12, 1, &mut random);
        cache.enter(0x20_5000, 21, 2, &mut random);
        assert_eq!(cache.matching(0x20_3abc).collect::<Vec<_>>(), [(12, 1), (21, 2)]);
        cache.invalidate(|first, last, _| (first..=last).contains(&0x20_4000));
        assert_eq!(cache.matching(0x20_3abc).collect::<Vec<_>>(), [(12, 1)]);
    }
}
