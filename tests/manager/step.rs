//! The steps that the manager makes, as events of the trace format.

use super::expansion;
use breakwater::machine::{Reach, Scope, Tlbi};
use breakwater_trace::{Access, Event, Record, Step};

/// DSB ISHST.
pub(crate) const DSB_ISHST: Event = expansion::dsb(10);
/// DSB ISH.
pub(crate) const DSB_ISH: Event = expansion::dsb(11);
/// DSB NSH.
pub(crate) const DSB_NSH: Event = expansion::DSB_NSH;

/// The instruction that performs `operation`.
pub(crate) fn tlbi(operation: Tlbi) -> Event {
    let (name, operand) = match operation.scope {
        Scope::All => ("alle2", 0),
        Scope::Leaf(operand) => ("vale2", operand.raw()),
        Scope::Walk(operand) => ("vae2", operand.raw()),
        Scope::LeafRange(operand) => ("rvale2", operand.raw()),
        Scope::WalkRange(operand) => ("rvae2", operand.raw()),
    };
    match operation.reach {
        Reach::ThisPe => expansion::tlbi(name, operand),
        Reach::Domain => expansion::tlbi(&format!("{name}is"), operand),
    }
}

/// A store of one descriptor.
pub(crate) fn store_word(va: u64, pa: u64, value: u64) -> Event {
    Event::Store(Access { bytes: 8, va, pa, value: [value, 0], device: false, release: false })
}

/// A store of sixteen bytes of zeros: half of a line of boot/src/el2/memory.rs, `zero`.
pub(crate) fn store_zero_pair(va: u64, pa: u64) -> Event {
    Event::Store(Access { bytes: 16, va, pa, value: [0, 0], device: false, release: false })
}

/// The address and value of a descriptor that was stored.
pub(crate) fn stored_word(event: &Event) -> Option<(u64, u64)> {
    match event {
        Event::Store(Access { bytes: 8, pa, value, .. }) => Some((*pa, value[0])),
        _ => None,
    }
}

/// The address of sixteen zeroed bytes.
pub(crate) fn zeroed_pair(event: &Event) -> Option<u64> {
    match event {
        Event::Store(Access { bytes: 16, pa, .. }) => Some(*pa),
        _ => None,
    }
}

/// Whether it is a TLBI of any form.
pub(crate) fn is_tlbi(event: &Event) -> bool {
    matches!(event, Event::Maintain { operation, .. } if operation.invalidates_el2())
}

/// Whether it says something about what the software does, rather than being an instruction.
pub(crate) fn is_marker(event: &Event) -> bool {
    matches!(
        event,
        Event::Settled | Event::Take { .. } | Event::Give { .. } | Event::Start { .. } | Event::Found { .. }
    )
}

/// The event of a step.
pub(crate) fn event_of(record: &Record) -> Option<&Event> {
    match record {
        Record::Step(Step { event, .. }) => Some(event),
        _ => None,
    }
}
