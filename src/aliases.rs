//! Which frames may be writable and which executable, by physical address: a coarse answer that errs on the side of a closer look.
//!
//! Why it exists: W^X by virtual address is not enough. A page that is executable at one address and writable at
//! another can be changed while it runs. A request that would make such a pair is refused, and to know that without a
//! map from frames back to pages, each request notes which frames it lets be written or executed, and where. What is
//! noted only grows, and notes are joined when there are too many: a request that meets neither list has no alias, one
//! that does makes the mapper read the tables that translate where those frames were noted ([`crate::mapper`]), and no
//! others.

#![forbid(unsafe_code)]

use crate::addr::{PhysSpan, VirtSpan};
use crate::descriptor::Rights;

/// Notes that each list holds before some are joined.
const NOTES: usize = 4;

/// Frames, and addresses: all at which one of them was noted lie between the first and the last.
#[derive(Clone, Copy, Debug)]
struct Note {
    frames: PhysSpan,
    virt: VirtSpan,
}

impl Note {
    #[inline(always)]
    fn covers(&self, frames: PhysSpan, virt: VirtSpan) -> bool {
        self.frames.covers(frames) && self.virt.covers(virt)
    }
}

/// Notes, which cover all that was ever noted, and perhaps more. Options, because none of them is one store: boot makes
/// two lists, and counts instructions.
#[derive(Debug)]
struct Cover {
    notes: [Option<Note>; NOTES],
    /// The one that met the last request, once more: requests side by side note frames side by side.
    last: Note,
    /// From the first frame to the last.
    whole: PhysSpan,
}

impl Cover {
    const fn none() -> Self {
        Self {
            notes: [None; NOTES],
            last: Note { frames: PhysSpan::EMPTY, virt: VirtSpan::EMPTY },
            whole: PhysSpan::EMPTY,
        }
    }

    #[inline(always)]
    fn meets(&self, span: PhysSpan) -> bool {
        self.whole.intersection(span).is_some() && self.meets_one(span)
    }

    #[inline(never)]
    fn meets_one(&self, span: PhysSpan) -> bool {
        self.places(span).next().is_some()
    }

    /// Where frames of `span` may have been noted.
    fn places(&self, span: PhysSpan) -> impl Iterator<Item = VirtSpan> + '_ {
        let meets = move |noted: &&Note| noted.frames.intersection(span).is_some();
        self.notes.iter().flatten().filter(meets).map(|noted| noted.virt)
    }

    /// Notes that `virt` maps `span`: in a note whose frames touch it, else in a free place, else in the one whose
    /// frames grow the least.
    #[inline(always)]
    fn note(&mut self, span: PhysSpan, virt: VirtSpan) {
        if !self.last.covers(span, virt) {
            self.note_beyond(span, virt);
        }
    }

    #[inline(never)]
    fn note_beyond(&mut self, span: PhysSpan, virt: VirtSpan) {
        let (mut best, mut least) = (0, u64::MAX);
        for (index, noted) in self.notes.iter().enumerate() {
            let growth = noted.as_ref().map_or(1, |noted| growth(noted.frames, span));
            if growth < least {
                (best, least) = (index, growth);
            }
        }
        let (frames, virt) = match &self.notes[best] {
            Some(noted) => (noted.frames.joined(span), noted.virt.joined(virt)),
            None => (span, virt),
        };
        self.last = Note { frames, virt };
        self.notes[best] = Some(self.last);
        self.whole = self.whole.joined(span);
    }
}

/// How much `noted` would grow by `span`: not at all where they touch. By next to nothing, 1, grows a place that is
/// free.
#[inline(always)]
fn growth(noted: PhysSpan, span: PhysSpan) -> u64 {
    let (start, end) = (noted.start().min(span.start()).raw(), noted.end_exclusive().max(span.end_exclusive()).raw());
    match noted {
        noted if touches(noted, span) => 0,
        noted => end - start - noted.bytes(),
    }
}

#[inline(always)]
fn touches(one: PhysSpan, other: PhysSpan) -> bool {
    one.start() <= other.end_exclusive() && other.start() <= one.end_exclusive()
}

/// What was noted of the tables of one protocol.
#[derive(Debug)]
pub struct Aliases {
    writable: Cover,
    executable: Cover,
    /// Where frames may be written, by declaration, although they are executed elsewhere.
    declared: Option<(VirtSpan, PhysSpan)>,
}

impl Aliases {
    /// Nothing yet.
    pub(crate) const fn none() -> Self {
        Self { writable: Cover::none(), executable: Cover::none(), declared: None }
    }

    /// Whether `span`, mapped with `rights`, may be writable through one address and executable through another.
    #[must_use]
    #[inline(always)]
    pub fn may_conflict(&self, span: PhysSpan, rights: Rights) -> bool {
        rights.contains(Rights::WRITE) && self.executable.meets(span)
            || rights.contains(Rights::EXECUTE) && self.writable.meets(span)
    }

    /// Where frames of `span` may be mapped with the right that makes `rights` an alias of it: to be executed, where
    /// `rights` are to write; to be written, where they are to execute.
    pub(crate) fn opposite(&self, span: PhysSpan, rights: Rights) -> impl Iterator<Item = VirtSpan> + '_ {
        let cover = if rights.contains(Rights::EXECUTE) { &self.writable } else { &self.executable };
        cover.places(span)
    }

    /// The alias that is declared, if one is.
    #[must_use]
    pub fn declared(&self) -> Option<(VirtSpan, PhysSpan)> {
        self.declared
    }

    /// Declares one, or none.
    pub(crate) fn declare(&mut self, alias: Option<(VirtSpan, PhysSpan)>) {
        self.declared = alias;
    }

    /// Whether `virt`, which maps `span`, may be written by declaration.
    pub(crate) fn is_declared(&self, span: PhysSpan, virt: VirtSpan) -> bool {
        self.declared.is_some_and(|(place, frames)| place.covers(virt) && frames.covers(span))
    }

    /// Notes that `virt` maps `span` with `rights`.
    #[inline(always)]
    pub(crate) fn note(&mut self, span: PhysSpan, virt: VirtSpan, rights: Rights) {
        if rights.contains(Rights::WRITE) {
            self.writable.note(span, virt);
        }
        if rights.contains(Rights::EXECUTE) {
            self.executable.note(span, virt);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{PhysAddr, VirtAddr};

    const W: Rights = Rights::WRITE;
    const X: Rights = Rights::EXECUTE;

    fn span(start: u64, bytes: u64) -> PhysSpan {
        PhysSpan::of(PhysAddr::at(start), bytes).unwrap()
    }

    fn virt(start: u64, bytes: u64) -> VirtSpan {
        VirtSpan::of(VirtAddr::at(start), bytes).unwrap()
    }

    #[test]
    fn good_frames_apart_have_no_alias() {
        let mut aliases = Aliases::none();
        aliases.note(span(0x1000, 0x1000), virt(0x1000, 0x1000), X);
        aliases.note(span(0x2000, 0x1000), virt(0x2000, 0x1000), W);
        assert!(!aliases.may_conflict(span(0x2000, 0x1000), W));
        assert!(!aliases.may_conflict(span(0x1000, 0x1000), X), "executable twice is no conflict");
    }

    #[test]
    fn bad_written_and_executed() {
        let mut aliases = Aliases::none();
        aliases.note(span(0x1000, 0x3000), virt(0x7000, 0x3000), X);
        assert!(aliases.may_conflict(span(0x2000, 0x1000), W));
        assert_eq!(aliases.opposite(span(0x2000, 0x1000), W).collect::<Vec<_>>(), [virt(0x7000, 0x3000)]);
        assert_eq!(aliases.opposite(span(0x2000, 0x1000), X).count(), 0);
        aliases.note(span(0x8000, 0x1000), virt(0, 0x1000), W);
        assert!(aliases.may_conflict(span(0, 0x10_0000), X));
        assert_eq!(aliases.opposite(span(0, 0x10_0000), X).collect::<Vec<_>>(), [virt(0, 0x1000)]);
    }

    #[test]
    fn good_nothing_noted_is_ever_lost() {
        let mut aliases = Aliases::none();
        let at = |index: u64| {
            let place = index * 0x1235_7000 % (1 << 44);
            (span(index * 0x7919_3000 % (1 << 40), 0x1000), virt(place, 0x1000))
        };
        let noted: Vec<_> = (0..100).map(at).collect();
        noted.iter().for_each(|&(span, virt)| aliases.note(span, virt, W));
        for (span, virt) in noted {
            assert!(aliases.may_conflict(span, X));
            assert!(aliases.opposite(span, X).any(|place| place.covers(virt)), "{span} at {virt}");
        }
    }

    /// The same frames at a second address: the note that has them learns of it.
    #[test]
    fn good_known_frames_at_another_address() {
        let mut aliases = Aliases::none();
        aliases.note(span(0x1000, 0x1000), virt(0x10_0000, 0x1000), W);
        aliases.note(span(0x1000, 0x1000), virt(0x5000, 0x1000), W);
        assert_eq!(aliases.opposite(span(0x1000, 0x1000), X).collect::<Vec<_>>(), [virt(0x5000, 0xf_c000)]);
    }
}
