//! Random requests, in units that make collisions likely, and what must be true of each answer.

use super::bits::attribute_bits;
use super::raw;
use super::reference::Reference;
use super::rig::{Answer, CODE, CONSTANTS, DATA, DEVICE, Rig, request, virt};
use super::world::World;
use breakwater::addr::{Level, PhysAddr, VirtAddr};
use breakwater::bbm::{Live, State};
use breakwater::descriptor::{Access, Attributes, DataAccess, DeviceKind};
use breakwater::features::Features;
use breakwater::geometry::{Geometry, Granule4K, HighBits};
use breakwater::mapper::{Error, Mapper};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

const TIB: u64 = 1 << 40;

/// A request, to tables of any geometry.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wish {
    Map { at: Place, output: u8, attributes: Attributes, largest: Level, contiguous: bool },
    Populate { at: Place, deepest: Level },
    Unmap(Place),
    Clear(Place),
    Protect(Place, Attributes),
    Remap { at: Place, output: u8, attributes: Attributes },
    Split(Place, Level),
    Merge { at: Place, largest: Level, contiguous: bool },
}

/// What requests ask for, by [`Wish::kind`].
pub(crate) const KINDS: [&str; 8] = ["map", "populate", "unmap", "protect", "remap", "split", "merge", "clear"];

/// What a place is counted in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unit {
    Page,
    /// A contiguous run of pages.
    Run,
    /// A leaf of level 2.
    Block,
    /// A contiguous run of those.
    BlockRun,
    /// The largest leaf there is.
    Giant,
}

/// Whole units near the centre, with some pages at both ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    unit: Unit,
    from: i64,
    count: u64,
    before: u64,
    after: u64,
}

/// Whole pages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pages {
    pub(crate) start: u64,
    pub(crate) bytes: u64,
}

/// Where wishes come true: `distance` slots of the root away from the centre, which is a boundary of all levels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Distance(pub(crate) u64);

impl Unit {
    fn bytes<G: Geometry>(self) -> u64 {
        match self {
            Self::Page => G::PAGE_BYTES,
            Self::Run => G::PAGE_BYTES * G::run_slots(Level::L3),
            Self::Block => G::slot_bytes(Level::L2),
            Self::Giant if G::LARGEST < Level::L2 => G::slot_bytes(G::LARGEST),
            Self::BlockRun | Self::Giant => G::slot_bytes(Level::L2) * G::run_slots(Level::L2),
        }
    }
}

/// The middle of the span that requests fall into before they are moved.
fn centre<G: Geometry>() -> u64 {
    G::slot_bytes(G::ROOT) * if G::slots(G::ROOT) > 2 { 2 } else { 1 }
}

impl Place {
    /// The place in tables of a geometry, before it is moved.
    fn fixed<G: Geometry>(&self) -> Pages {
        let unit = self.unit.bytes::<G>();
        let start = centre::<G>().wrapping_add_signed(self.from * unit as i64) - self.before * G::PAGE_BYTES;
        Pages { start, bytes: self.count * unit + (self.before + self.after) * G::PAGE_BYTES }
    }

    /// The place in tables of a geometry.
    pub(crate) fn pages<G: Geometry>(&self, distance: Distance) -> Pages {
        let Pages { start, bytes } = self.fixed::<G>();
        let slots = distance.0.min(G::slots(G::ROOT).saturating_sub(4));
        Pages { start: start + slots * G::slot_bytes(G::ROOT), bytes }
    }

    /// Whether it has so many pages that leaves for each are too many.
    fn is_large<G: Geometry>(&self) -> bool {
        self.fixed::<G>().bytes > 3 * G::slot_bytes(Level::L2)
    }

    /// What it may map to: aligned alike for blocks, for smaller blocks, for pages only, or across the highest bits of an address where a
    /// descriptor keeps those elsewhere. So far apart that no two places ever share a frame, which with different memory types would be an
    /// error of whoever asks (mismatched attributes).
    pub(crate) fn output<G: Geometry>(&self, which: u8) -> u64 {
        let (start, block) = (self.fixed::<G>().start, G::slot_bytes(Level::L2));
        let which = if self.is_large::<G>() { which & 2 } else { which % 4 };
        match (G::HIGH_BITS, which) {
            (_, 0) => start,
            (HighBits::None, 1) => start + 16 * TIB + block,
            (HighBits::None, 2) => start + 48 * TIB + 5 * block * G::run_slots(Level::L2),
            (HighBits::None, _) => start + 32 * TIB + G::PAGE_BYTES,
            (_, 1) => start + (1 << 50) + 64 * TIB + block,
            (_, 2) => start + (11 << 48) - centre::<G>(),
            _ => start + (3 << 50) + 128 * TIB + G::PAGE_BYTES,
        }
    }
}

impl Wish {
    /// What it asks for, as an index.
    pub(crate) fn kind(&self) -> usize {
        match self {
            Self::Map { .. } => 0,
            Self::Populate { .. } => 1,
            Self::Unmap(_) => 2,
            Self::Protect(..) => 3,
            Self::Remap { .. } => 4,
            Self::Split(..) => 5,
            Self::Merge { .. } => 6,
            Self::Clear(_) => 7,
        }
    }

    /// The place that it is about.
    pub(crate) fn place(&self) -> Place {
        match *self {
            Self::Map { at, .. } | Self::Populate { at, .. } | Self::Remap { at, .. } | Self::Merge { at, .. } => at,
            Self::Unmap(at) | Self::Clear(at) | Self::Protect(at, _) | Self::Split(at, _) => at,
        }
    }
}

fn attributes() -> impl Strategy<Value = Attributes> {
    let access = prop::sample::select(vec![DataAccess::ReadOnly, DataAccess::ReadWrite]);
    let devices = prop::sample::select(vec![DeviceKind::NGnRnE, DeviceKind::NGnRE, DeviceKind::Gre]);
    prop_oneof![
        8 => prop::sample::select(vec![DATA, CONSTANTS, CODE, DEVICE]),
        1 => access.clone().prop_map(Attributes::NonCacheable),
        1 => (devices, access.clone()).prop_map(|(kind, access)| Attributes::Device(kind, access)),
        1 => access.prop_map(Attributes::Tagged),
        1 => Just(Attributes::Normal(Access::ReadExecuteGuarded)),
    ]
}

/// Pages near the centre; whole runs and blocks; both with pages at their ends.
pub(crate) fn place() -> impl Strategy<Value = Place> {
    let whole = |unit, span: i64, most: u64| {
        (-span..span, 1..most).prop_map(move |(from, count)| Place { unit, from, count, before: 0, after: 0 })
    };
    let ragged = |places: BoxedStrategy<Place>| {
        (places, 0..3_u64, 0..3_u64).prop_map(|(place, before, after)| Place { before, after, ..place })
    };
    let runs = whole(Unit::Run, 4, 4).boxed();
    let blocks = whole(Unit::Block, 3, 4).boxed();
    prop_oneof![
        6 => whole(Unit::Page, 24, 40),
        2 => runs.clone(),
        1 => ragged(runs),
        3 => blocks.clone(),
        2 => ragged(blocks),
        1 => whole(Unit::BlockRun, 1, 2),
        1 => whole(Unit::Giant, 2, 3),
    ]
}

/// A request.
pub(crate) fn wish() -> impl Strategy<Value = Wish> {
    let level = prop::sample::select(vec![Level::L0, Level::L1, Level::L2, Level::L3]);
    let map = (place(), any::<u8>(), attributes(), level.clone(), any::<bool>()).prop_map(
        |(at, output, attributes, largest, contiguous)| Wish::Map { at, output, attributes, largest, contiguous },
    );
    let remap = (place(), any::<u8>(), attributes()).prop_map(|(at, output, attributes)| Wish::Remap {
        at,
        output,
        attributes,
    });
    let populate = (place(), level.clone()).prop_map(|(at, deepest)| Wish::Populate { at, deepest });
    let merge = (place(), level.clone(), any::<bool>()).prop_map(|(at, largest, contiguous)| Wish::Merge {
        at,
        largest,
        contiguous,
    });
    prop_oneof![
        8 => map,
        1 => populate,
        4 => place().prop_map(Wish::Unmap),
        2 => place().prop_map(Wish::Clear),
        4 => (place(), attributes()).prop_map(|(at, attributes)| Wish::Protect(at, attributes)),
        3 => remap,
        2 => (place(), level).prop_map(|(at, largest)| Wish::Split(at, largest)),
        3 => merge,
    ]
}

/// Makes a request that fills; one that is refused is refused for a reason. Whether it was granted.
pub(crate) fn filled<S: State, G: Geometry>(
    rig: &mut Rig<S, G>,
    wish: Wish,
    distance: Distance,
) -> Result<bool, TestCaseError> {
    let Pages { start, bytes } = wish.place().pages::<G>(distance);
    let was_free = rig.reference.is_free(start, bytes);
    match wish {
        Wish::Map { at, output, attributes, largest, contiguous } => {
            // Pages alone stay few.
            let largest = if at.is_large::<G>() { largest.min(Level::L2) } else { largest };
            let plain = request(start, bytes, at.output::<G>(output), attributes, largest);
            let answer = rig.map(if contiguous { plain.with_contiguous() } else { plain });
            match answer {
                Ok(_) => {
                    prop_assert!(was_free);
                    return Ok(true);
                }
                Err(error) if is_reason(rig, error, attributes) => {}
                // Not even an empty table is in the way of pages.
                Err(Error::Occupied { slot, descriptor, .. }) => {
                    prop_assert!(!was_free || largest < Level::L3);
                    prop_assert_eq!(rig.world().word(slot.address().raw()), descriptor);
                }
                Err(error) => prop_assert!(false, "{}", error),
            }
        }
        Wish::Populate { at, deepest } => {
            let deepest = if at.is_large::<G>() { deepest.min(Level::L2) } else { deepest };
            match rig.populate(start, bytes, deepest) {
                Ok(_) => return Ok(true),
                Err(error) => prop_assert!(is_reason(rig, error, DATA) || !was_free, "{}", error),
            }
        }
        _ => {}
    }
    Ok(false)
}

/// Whether a refusal is true that has nothing to do with what is mapped.
fn is_reason<S: State, G: Geometry>(rig: &Rig<S, G>, error: Error, attributes: Attributes) -> bool {
    match error {
        Error::OutOfFrames { needed, available } => needed > available && available == rig.frames.available(),
        Error::Unsupported { attributes: refused, feature, .. } => {
            let needed = match attributes {
                Attributes::Tagged(_) => Features::MTE,
                Attributes::Normal(Access::ReadExecuteGuarded) => Features::BTI,
                _ => return false,
            };
            (refused, feature) == (attributes, needed) && !rig.protocol.features().contains(needed)
        }
        _ => false,
    }
}

/// Whether a change was granted where it could be; one that was refused, for the right reason.
fn changed<G: Geometry>(
    rig: &Rig<Live, G>,
    at: Pages,
    was_mapped: bool,
    attributes: Attributes,
    answer: Answer,
) -> Result<bool, TestCaseError> {
    match answer {
        Ok(_) => {
            prop_assert!(was_mapped);
            return Ok(true);
        }
        Err(Error::NotMapped { slot }) => {
            let first = slot.virt().raw().max(at.start);
            prop_assert!(!was_mapped && first < at.start + at.bytes && rig.reference.translate(first).is_none());
            prop_assert_eq!(rig.world().word(slot.address().raw()) & 1, 0);
        }
        Err(error) => prop_assert!(is_reason(rig, error, attributes), "{}", error),
    }
    Ok(false)
}

/// Makes a request on live tables; whatever the answer is, it has a reason. Whether it was granted.
pub(crate) fn asked<G: Geometry>(
    rig: &mut Rig<Live, G>,
    wish: Wish,
    distance: Distance,
) -> Result<bool, TestCaseError> {
    let at = wish.place().pages::<G>(distance);
    let was_mapped = rig.reference.is_mapped(at.start, at.bytes);
    let answer = match wish {
        Wish::Map { .. } | Wish::Populate { .. } => return filled(rig, wish, distance),
        Wish::Unmap(_) => rig.unmap(at.start, at.bytes),
        // A hole is no reason.
        Wish::Clear(_) => {
            let answer = rig.clear(at.start, at.bytes);
            return changed(rig, at, true, DATA, answer);
        }
        Wish::Protect(_, attributes) => {
            let answer = rig.protect(at.start, at.bytes, attributes);
            return changed(rig, at, was_mapped, attributes, answer);
        }
        Wish::Remap { at: place, output, attributes } => {
            let answer = rig.remap(at.start, at.bytes, place.output::<G>(output), attributes);
            return changed(rig, at, was_mapped, attributes, answer);
        }
        Wish::Split(place, largest) => {
            let largest = if place.is_large::<G>() { largest.min(Level::L2) } else { largest };
            let answer = rig.split(at.start, at.bytes, largest);
            if answer.is_ok() {
                assert_split(rig, at, largest)?;
            }
            answer
        }
        Wish::Merge { largest, contiguous, .. } => rig.merge(at.start, at.bytes, largest, contiguous),
    };
    changed(rig, at, was_mapped, DATA, answer)
}

/// No leaf of a place is larger than `largest`, nor one of a contiguous run.
fn assert_split<G: Geometry>(rig: &Rig<Live, G>, at: Pages, largest: Level) -> Result<(), TestCaseError> {
    let shape = World::<G>::SHAPE;
    let leaves = raw::leaves(rig.world(), rig.root());
    let of_place =
        |leaf: &&raw::Leaf| leaf.virt < at.start + at.bytes && at.start < leaf.virt + shape.slot_bytes(leaf.level);
    for leaf in leaves.iter().filter(of_place) {
        prop_assert!(leaf.level >= largest as i8 && leaf.descriptor & super::bits::CONTIGUOUS == 0, "{:x?}", leaf);
    }
    Ok(())
}

/// The manager's own answer, for pages at both ends of a place, in its middle and beside it, is what was asked for.
pub(crate) fn queried<S: State, G: Geometry>(rig: &mut Rig<S, G>, at: Pages) -> Result<(), TestCaseError> {
    let (first, end, page) = (at.start, at.start + at.bytes, G::PAGE_BYTES);
    let middle = first + at.bytes / 2 / page * page;
    for virt in [first.saturating_sub(page), first, middle, end - page, end] {
        let found = rig.mapper().query(VirtAddr::at(virt + 8)).map(|(level, leaf)| {
            let ahead = virt & (G::slot_bytes(level) - 1);
            (leaf.output().raw() + ahead, attribute_bits(leaf.attributes()))
        });
        prop_assert_eq!(found, rig.reference.translate(virt), "{:#x}", virt);
    }
    Ok(())
}

/// Makes requests through one manager, which may remember where it has been, and looks at nothing in between.
pub(crate) fn together(rig: &mut Rig<Live>, wishes: &[Wish]) {
    let distance = Distance(0);
    let mut mapper = rig.mapper();
    let answers: Vec<Answer> = wishes.iter().map(|wish| at_once(&mut mapper, *wish, distance)).collect();
    for (wish, _) in wishes.iter().zip(answers).filter(|(_, answer)| answer.is_ok()) {
        note(&mut rig.reference, *wish, distance);
    }
}

fn at_once(mapper: &mut Mapper<'_, World, Live>, wish: Wish, distance: Distance) -> Answer {
    let Pages { start, bytes } = wish.place().pages::<Granule4K>(distance);
    let span = virt(start, bytes);
    match wish {
        Wish::Map { at, output, attributes, largest, contiguous } => {
            let plain = request(start, bytes, at.output::<Granule4K>(output), attributes, largest.min(Level::L2));
            mapper.map(if contiguous { plain.with_contiguous() } else { plain })
        }
        Wish::Populate { deepest, .. } => mapper.populate(span, deepest.min(Level::L2)),
        Wish::Unmap(_) => mapper.unmap(span).map(|unmapped| unmapped.cost),
        Wish::Clear(_) => mapper.clear(span).map(|unmapped| unmapped.cost),
        Wish::Protect(_, attributes) => mapper.protect(span, attributes),
        Wish::Remap { at, output, attributes } => {
            mapper.remap(span, PhysAddr::at(at.output::<Granule4K>(output)), attributes)
        }
        Wish::Split(_, largest) => mapper.split(span, largest.min(Level::L2)),
        Wish::Merge { largest, contiguous, .. } => mapper.merge(span, largest, contiguous),
    }
}

/// Notes a request that was granted.
fn note(reference: &mut Reference, wish: Wish, distance: Distance) {
    let Pages { start, bytes } = wish.place().pages::<Granule4K>(distance);
    match wish {
        Wish::Map { at, output, attributes, .. } => {
            reference.map(start, bytes, at.output::<Granule4K>(output), attributes);
        }
        Wish::Unmap(_) | Wish::Clear(_) => reference.unmap(start, bytes),
        Wish::Protect(_, attributes) => reference.protect(start, bytes, attributes),
        Wish::Remap { at, output, attributes } => {
            reference.unmap(start, bytes);
            reference.map(start, bytes, at.output::<Granule4K>(output), attributes);
        }
        Wish::Populate { .. } | Wish::Split(..) | Wish::Merge { .. } => {}
    }
}
