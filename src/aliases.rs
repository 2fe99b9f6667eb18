//! Which frames may be writable and which executable, by physical address: a coarse answer that errs on the side of a closer look.
//!
//! Why it exists: W^X by virtual address is not enough. A page that is executable at one address and writable at another can be
//! changed while it runs. A request that would make such a pair is refused, and to know that without a map from frames back to pages, each
//! request notes where it lets memory be written or executed. What is noted only grows, and spans are joined when there are too many: a
//! request that meets neither list has no alias, one that does makes the mapper read the tables ([`crate::mapper`]).

#![forbid(unsafe_code)]

use crate::addr::PhysSpan;
use crate::descriptor::Rights;

/// Spans that each list holds before some are joined.
const SPANS: usize = 4;

/// Spans of frames, which cover all that was ever noted, and perhaps more. Places that are free hold an empty span.
#[derive(Debug)]
struct Cover {
    /// The one that met the last note comes first: requests side by side note frames side by side.
    spans: [PhysSpan; SPANS],
    /// From the first to the last.
    whole: PhysSpan,
}

impl Cover {
    const fn none() -> Self {
        Self { spans: [PhysSpan::EMPTY; SPANS], whole: PhysSpan::EMPTY }
    }

    #[inline(always)]
    fn meets(&self, span: PhysSpan) -> bool {
        self.whole.intersection(span).is_some() && self.meets_one(span)
    }

    #[inline(never)]
    fn meets_one(&self, span: PhysSpan) -> bool {
        self.spans.iter().any(|noted| noted.intersection(span).is_some())
    }

    /// Notes `span`: in a span that touches it, else in a free place, else in the one that grows the least.
    #[inline(always)]
    fn note(&mut self, span: PhysSpan) {
        if !self.spans[0].covers(span) {
            self.note_beyond(span);
        }
    }

    #[inline(never)]
    fn note_beyond(&mut self, span: PhysSpan) {
        let (mut best, mut least) = (0, u64::MAX);
        for (index, noted) in self.spans.iter().enumerate() {
            let growth = growth(*noted, span);
            if growth < least {
                (best, least) = (index, growth);
            }
        }
        self.spans[best] = self.spans[best].joined(span);
        self.spans.swap(0, best);
        self.whole = self.whole.joined(span);
    }
}

/// How much `noted` would grow by `span`: not at all where they touch, and by next to nothing where the place is free.
#[inline(always)]
fn growth(noted: PhysSpan, span: PhysSpan) -> u64 {
    let (start, end) = (noted.start().min(span.start()).raw(), noted.end_exclusive().max(span.end_exclusive()).raw());
    match noted {
        noted if noted.is_empty() => 1,
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
}

impl Aliases {
    /// Nothing yet.
    pub(crate) const fn none() -> Self {
        Self { writable: Cover::none(), executable: Cover::none() }
    }

    /// Whether `span`, mapped with `rights`, may be writable through one address and executable through another.
    #[must_use]
    #[inline(always)]
    pub fn may_conflict(&self, span: PhysSpan, rights: Rights) -> bool {
        rights.contains(Rights::WRITE) && self.executable.meets(span)
            || rights.contains(Rights::EXECUTE) && self.writable.meets(span)
    }

    /// Notes that `span` is mapped with `rights`.
    #[inline(always)]
    pub(crate) fn note(&mut self, span: PhysSpan, rights: Rights) {
        if rights.contains(Rights::WRITE) {
            self.writable.note(span);
        }
        if rights.contains(Rights::EXECUTE) {
            self.executable.note(span);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::PhysAddr;

    const W: Rights = Rights::WRITE;
    const X: Rights = Rights::EXECUTE;

    fn span(start: u64, bytes: u64) -> PhysSpan {
        PhysSpan::of(PhysAddr::at(start), bytes).unwrap()
    }

    #[test]
    fn good_frames_apart_have_no_alias() {
        let mut aliases = Aliases::none();
        aliases.note(span(0x1000, 0x1000), X);
        aliases.note(span(0x2000, 0x1000), W);
        assert!(!aliases.may_conflict(span(0x2000, 0x1000), W));
        assert!(!aliases.may_conflict(span(0x1000, 0x1000), X), "executable twice is no conflict");
    }

    #[test]
    fn bad_written_and_executed() {
        let mut aliases = Aliases::none();
        aliases.note(span(0x1000, 0x3000), X);
        assert!(aliases.may_conflict(span(0x2000, 0x1000), W));
        aliases.note(span(0x8000, 0x1000), W);
        assert!(aliases.may_conflict(span(0, 0x10_0000), X));
    }

    #[test]
    fn good_nothing_noted_is_ever_lost() {
        let mut aliases = Aliases::none();
        let noted: Vec<_> = (0..100_u64).map(|index| span(index * 0x7919_3000 % (1 << 40), 0x1000)).collect();
        noted.iter().for_each(|&span| aliases.note(span, W));
        assert!(noted.iter().all(|&span| aliases.may_conflict(span, X)));
    }
}
