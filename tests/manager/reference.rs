//! The independent map: which pages are mapped to what, kept as the requests say it. It knows of no tables.

use super::bits::attribute_bits;
use super::raw::merged;
use breakwater::descriptor::Attributes;
use std::collections::BTreeMap;

/// Pages side by side that map to frames side by side in the same way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Extent {
    pub(crate) bytes: u64,
    pub(crate) output: u64,
    pub(crate) bits: u64,
}

/// By first address.
pub(crate) type Extents = BTreeMap<u64, Extent>;

impl Extent {
    /// Whether `next` at `next_virt` goes on where this one, at `virt`, ends.
    pub(crate) fn continues(self, virt: u64, next_virt: u64, next: Self) -> bool {
        virt + self.bytes == next_virt && self.output + self.bytes == next.output && self.bits == next.bits
    }
}

/// The map.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reference {
    extents: Extents,
}

impl Reference {
    /// The extents, neighbours together.
    pub(crate) fn merged(&self) -> Extents {
        merged(self.extents.iter().map(|(&virt, &extent)| (virt, extent)))
    }

    /// What `virt` translates to.
    pub(crate) fn translate(&self, virt: u64) -> Option<(u64, u64)> {
        let (&start, extent) = self.extents.range(..=virt).next_back()?;
        (virt - start < extent.bytes).then(|| (extent.output + (virt - start), extent.bits))
    }

    /// Whether every page of the span is mapped.
    pub(crate) fn is_mapped(&self, virt: u64, bytes: u64) -> bool {
        let mut at = virt;
        while let Some((&start, extent)) = self.extents.range(..=at).next_back()
            && at - start < extent.bytes
        {
            at = start + extent.bytes;
            if at >= virt + bytes {
                return true;
            }
        }
        false
    }

    /// Whether no page of the span is mapped.
    pub(crate) fn is_free(&self, virt: u64, bytes: u64) -> bool {
        let before = self.extents.range(..virt).next_back().is_some_and(|(&at, extent)| at + extent.bytes > virt);
        !before && self.extents.range(virt..virt + bytes).next().is_none()
    }

    /// Maps a span that is free.
    pub(crate) fn map(&mut self, virt: u64, bytes: u64, output: u64, attributes: Attributes) {
        assert!(self.is_free(virt, bytes), "{virt:#x} is mapped already");
        self.extents.insert(virt, Extent { bytes, output, bits: attribute_bits(attributes) });
    }

    /// Unmaps a span.
    pub(crate) fn unmap(&mut self, virt: u64, bytes: u64) {
        self.cut(virt);
        self.cut(virt + bytes);
        self.extents.retain(|&at, _| at < virt || at >= virt + bytes);
    }

    /// Gives a span other attributes.
    pub(crate) fn protect(&mut self, virt: u64, bytes: u64, attributes: Attributes) {
        self.cut(virt);
        self.cut(virt + bytes);
        for (_, extent) in self.extents.range_mut(virt..virt + bytes) {
            extent.bits = attribute_bits(attributes);
        }
    }

    /// Makes `at` the start of an extent, if it lies within one.
    fn cut(&mut self, at: u64) {
        let Some((&start, &extent)) = self.extents.range(..at).next_back() else { return };
        if start + extent.bytes > at {
            let below = at - start;
            self.extents.insert(start, Extent { bytes: below, ..extent });
            let above = Extent { bytes: extent.bytes - below, output: extent.output + below, ..extent };
            self.extents.insert(at, above);
        }
    }
}
