//! A record of requests, from which the audit gets its declarations.
//!
//! Why it exists: the audit holds the tables against what is declared. A hypervisor whose map is no fixed layout, but
//! whatever was asked for on the way, has no declarations; and a dump of the tables held against the tables finds
//! nothing. So whoever makes requests notes each one that was granted here, too, and the audit compares two accounts
//! that share no code: what was asked for, and what a walk finds.
//!
//! What must hold: what is noted is told as it was noted, page by page, or nothing is told at all. A record that had no
//! room for something says of what, and gives no declarations from then on: what it could not hold is never clean.

#![forbid(unsafe_code)]

use crate::addr::{PhysAddr, VirtAddr, VirtSpan};
use crate::audit::Declared;
use crate::descriptor::{Access, Attributes};
use core::fmt;

/// What is mapped, as it was asked for, in at most `N` parts: sorted, apart from each other, and as few as there can
/// be.
#[derive(Clone, Debug)]
pub struct Record<const N: usize> {
    /// What each part is called.
    name: &'static str,
    parts: [Declared; N],
    count: usize,
    /// The first request that found no room.
    lost: Option<VirtSpan>,
}

/// The record had no room for a request, and knows no longer what is mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full {
    /// The span of that request, the first one.
    pub virt: VirtSpan,
    /// The parts that there is room for.
    pub capacity: usize,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no room in {} parts for what was asked for at {}", self.capacity, self.virt)
    }
}

impl core::error::Error for Full {}

impl<const N: usize> Record<N> {
    /// Nothing is mapped. Findings call what is noted here by `name`.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        let nothing =
            Declared { name, virt: VirtSpan::EMPTY, output: None, attributes: Attributes::Normal(Access::ReadOnly) };
        Self { name, parts: [nothing; N], count: 0, lost: None }
    }

    /// Notes that `virt` is mapped to as many bytes from `output` on, whatever was there before: of a map or a remap.
    pub fn map(&mut self, virt: VirtSpan, output: PhysAddr, attributes: Attributes) {
        self.replace(virt, Some(Declared { name: self.name, virt, output: Some(output), attributes }));
    }

    /// Notes that nothing of `virt` is mapped: of an unmap or a clear.
    pub fn unmap(&mut self, virt: VirtSpan) {
        self.replace(virt, None);
    }

    /// Notes that what is mapped of `virt` has these attributes. Holes stay holes.
    pub fn protect(&mut self, virt: VirtSpan, attributes: Attributes) {
        // First what needs no room, then the parts that are cut: the record is full only where it is full in the end.
        for part in &mut self.parts[..self.count] {
            if virt.covers(part.virt) {
                part.attributes = attributes;
            }
        }
        self.join_all();
        for end in [virt.start(), virt.end_exclusive()] {
            let is_cut = |part: &&Declared| part.virt.start() < end && end < part.virt.end_exclusive();
            let cut = self.as_parts().iter().find(is_cut).and_then(|part| within(part, virt));
            if let Some(inside) = cut {
                self.replace(inside.virt, Some(Declared { attributes, ..inside }));
            }
        }
    }

    /// What was noted, as declarations, in ascending order.
    ///
    /// # Errors
    /// [`Full`] once there was no room for something, and for ever.
    pub fn as_declared(&self) -> Result<&[Declared], Full> {
        match self.lost {
            Some(virt) => Err(Full { virt, capacity: N }),
            None => Ok(self.as_parts()),
        }
    }

    fn as_parts(&self) -> &[Declared] {
        &self.parts[..self.count]
    }

    /// Puts `new` in the place of all that is in `virt`.
    fn replace(&mut self, virt: VirtSpan, new: Option<Declared>) {
        if virt.is_empty() {
            return;
        }
        let parts = self.as_parts();
        let first = parts.partition_point(|part| part.virt.end_exclusive() <= virt.start());
        let end = parts.partition_point(|part| part.virt.start() < virt.end_exclusive());
        let met = &parts[first..end];
        // With the neighbours, which `new` may continue.
        let (from, to) = (first.saturating_sub(1), (end + 1).min(self.count));
        let below = VirtSpan::new(VirtAddr::at(0), virt.start());
        let above = met.last().and_then(|last| VirtSpan::new(virt.end_exclusive(), last.virt.end_exclusive()));
        let left = met.first().zip(below).and_then(|(part, below)| within(part, below));
        let right = met.last().zip(above).and_then(|(part, above)| within(part, above));
        let (before, behind) = (parts[from..first].first().copied(), parts[end..to].first().copied());

        let mut pieces: [Option<Declared>; 5] = [None; 5];
        let mut count = 0;
        for piece in [before, left, new, right, behind].into_iter().flatten() {
            match pieces[..count].last_mut() {
                Some(Some(last)) if continues(last, &piece) => *last = joined(last, &piece),
                _ => {
                    pieces[count] = Some(piece);
                    count += 1;
                }
            }
        }
        let total = self.count - (to - from) + count;
        if total > N {
            self.lost.get_or_insert(virt);
            return;
        }
        self.parts.copy_within(to..self.count, from + count);
        for (place, piece) in self.parts[from..].iter_mut().zip(pieces.into_iter().flatten()) {
            *place = piece;
        }
        self.count = total;
    }

    /// Makes neighbours that continue each other one.
    fn join_all(&mut self) {
        let mut kept = 0;
        for index in 0..self.count {
            let part = self.parts[index];
            match self.parts[..kept].last_mut() {
                Some(last) if continues(last, &part) => *last = joined(last, &part),
                _ => {
                    self.parts[kept] = part;
                    kept += 1;
                }
            }
        }
        self.count = kept;
    }
}

/// What of `part` lies in `span`.
fn within(part: &Declared, span: VirtSpan) -> Option<Declared> {
    let virt = part.virt.intersection(span)?;
    let output = part.output?.checked_add(virt.start().raw() - part.virt.start().raw())?;
    Some(Declared { virt, output: Some(output), ..*part })
}

/// Whether `next` goes on where `part` ends, in every respect.
fn continues(part: &Declared, next: &Declared) -> bool {
    let output = part.output.and_then(|output| output.checked_add(part.virt.bytes()));
    part.virt.end_exclusive() == next.virt.start() && output == next.output && part.attributes == next.attributes
}

/// Both, of which the second continues the first.
fn joined(part: &Declared, next: &Declared) -> Declared {
    Declared { virt: part.virt.joined(next.virt), ..*part }
}
