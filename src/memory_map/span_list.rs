//! Sorted spans in a fixed space.

#![forbid(unsafe_code)]

use crate::addr::{PhysAddr, PhysSpan};

/// The list has no room for another span.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

/// A sorted list of at most `N` spans of which no two overlap or touch and none is empty.
#[derive(Clone, Debug)]
pub struct SpanList<const N: usize> {
    spans: [PhysSpan; N],
    len: usize,
}

/// No bytes, at 0.
pub(super) const EMPTY: PhysSpan = match PhysSpan::of(PhysAddr::at(0), 0) {
    Some(span) => span,
    None => unreachable!(),
};

impl<const N: usize> SpanList<N> {
    /// The list of no spans.
    #[must_use]
    pub const fn new() -> Self {
        Self { spans: [EMPTY; N], len: 0 }
    }

    /// The spans in ascending order.
    #[must_use]
    pub fn as_slice(&self) -> &[PhysSpan] {
        self.spans.get(..self.len).unwrap_or(&[])
    }

    /// The spans in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = PhysSpan> + Clone + '_ {
        self.as_slice().iter().copied()
    }

    /// Whether the list holds no span.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes in all spans together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.iter().map(PhysSpan::bytes).sum()
    }

    /// Whether `address` lies in one of the spans.
    #[must_use]
    pub fn contains(&self, address: PhysAddr) -> bool {
        self.iter().any(|span| span.contains(address))
    }

    /// Whether one span holds all of `other`.
    #[must_use]
    pub fn covers(&self, other: PhysSpan) -> bool {
        self.iter().any(|span| span.covers(other))
    }

    /// The lowest span that shares a byte with `other`.
    #[must_use]
    pub fn overlap(&self, other: PhysSpan) -> Option<PhysSpan> {
        self.iter().find(|span| span.intersection(other).is_some())
    }

    /// Adds `span`, merged with those that it overlaps or touches. An empty span changes nothing.
    ///
    /// # Errors
    /// [`Full`] when it touches none and there are `N` already; the list is then unchanged.
    pub fn insert(&mut self, span: PhysSpan) -> Result<(), Full> {
        if span.is_empty() {
            return Ok(());
        }
        // The spans from `first` up to `past` overlap or touch the new one.
        let first = self.iter().take_while(|old| old.end_exclusive() < span.start()).count();
        let past = first + self.iter().skip(first).take_while(|old| old.start() <= span.end_exclusive()).count();
        let merged = self.iter().skip(first).take(past - first).fold(span, hull);
        self.replace(first, past, &[merged])
    }

    /// Takes the bytes of `span` out of the list.
    ///
    /// # Errors
    /// [`Full`] when it would cut one of `N` spans in two; the list is then unchanged.
    pub fn remove(&mut self, span: PhysSpan) -> Result<(), Full> {
        if span.is_empty() {
            return Ok(());
        }
        // The spans from `first` up to `past` lose bytes.
        let first = self.iter().take_while(|old| old.end_exclusive() <= span.start()).count();
        let past = first + self.iter().skip(first).take_while(|old| old.start() < span.end_exclusive()).count();
        let cut = self.as_slice().get(first..past).unwrap_or(&[]);
        let (Some(low), Some(high)) = (cut.first(), cut.last()) else {
            return Ok(());
        };
        let below = PhysSpan::new(low.start(), span.start()).filter(|left| !left.is_empty());
        let above = PhysSpan::new(span.end_exclusive(), high.end_exclusive()).filter(|left| !left.is_empty());
        match (below, above) {
            (Some(below), Some(above)) => self.replace(first, past, &[below, above]),
            (Some(left), None) | (None, Some(left)) => self.replace(first, past, &[left]),
            (None, None) => self.replace(first, past, &[]),
        }
    }

    /// Puts `new` where the spans from `first` up to `past` are; changes nothing when there is no room.
    fn replace(&mut self, first: usize, past: usize, new: &[PhysSpan]) -> Result<(), Full> {
        let new_past = first + new.len();
        let new_len = self.len + new.len() - (past - first);
        if new_len > N {
            return Err(Full);
        }
        self.spans.copy_within(past..self.len, new_past);
        self.spans[first..new_past].copy_from_slice(new);
        self.len = new_len;
        Ok(())
    }
}

impl<const N: usize> Default for SpanList<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// The smallest span that covers both.
fn hull(a: PhysSpan, b: PhysSpan) -> PhysSpan {
    PhysSpan::new(a.start().min(b.start()), a.end_exclusive().max(b.end_exclusive())).unwrap_or(a)
}
