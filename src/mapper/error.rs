//! Why a request was refused, with the evidence: where, at which level, what is there, what was asked for, and the rule.

#![forbid(unsafe_code)]

use crate::addr::{PhysAddr, PhysSpan, VirtAddr, VirtSpan};
use crate::change::Why;
use crate::descriptor::Attributes;
use crate::features::Features;
use crate::geometry::Slot;
use crate::machine::Footing;
use core::fmt;

/// A refused request. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// The span holds no page.
    Empty {
        /// The span asked for.
        virt: VirtSpan,
    },
    /// A bound is not a multiple of a page.
    Misaligned {
        /// The span asked for.
        virt: VirtSpan,
        /// The output address asked for, where there is one.
        output: Option<PhysAddr>,
    },
    /// The span ends beyond the addresses that the tables translate.
    BeyondInput {
        /// The span asked for.
        virt: VirtSpan,
    },
    /// What the span maps to ends beyond the addresses that the CPUs can put out.
    BeyondAddressSize {
        /// The span asked for.
        virt: VirtSpan,
        /// The output address asked for.
        output: PhysAddr,
    },
    /// The attributes need a feature that not every CPU has.
    Unsupported {
        /// The span asked for.
        virt: VirtSpan,
        /// What was asked for.
        attributes: Attributes,
        /// What is missing.
        feature: Features,
    },
    /// Something is mapped where the request wants to map.
    Occupied {
        /// The slot in the way.
        slot: Slot,
        /// What it holds.
        descriptor: u64,
        /// What was to stand there; `None` for a table.
        requested: Option<u64>,
    },
    /// Nothing is mapped where the request wants to change or unmap: the walk ends in this slot, which holds nothing.
    NotMapped {
        /// The first such slot.
        slot: Slot,
    },
    /// The manager does not change this slot.
    Refused {
        /// The slot.
        slot: Slot,
        /// What it holds.
        descriptor: u64,
        /// Why not.
        why: Why,
    },
    /// The request would break, if only for a moment, what CPUs or the manager itself stand on, or take rights from it.
    WouldBreakSelf {
        /// What would be broken, or lose rights.
        virt: VirtSpan,
        /// What lies there.
        footing: Footing,
    },
    /// The manager reaches memory through the span, and would find other memory there than it goes for.
    Misdirected {
        /// The span asked for.
        virt: VirtSpan,
        /// The output address asked for.
        output: PhysAddr,
        /// Where the manager reaches what, of the span.
        shows: (VirtAddr, PhysSpan),
    },
    /// The span holds a page that is never mapped, because a CPU relies on its fault.
    Guarded {
        /// The span asked for.
        virt: VirtSpan,
        /// The page, and whose it is.
        guard: Footing,
    },
    /// A frame would be writable through one address and executable through another.
    Aliased {
        /// The span asked for.
        virt: VirtSpan,
        /// The frames that both map.
        frames: PhysSpan,
        /// The other mapping's slot.
        slot: Slot,
        /// What it holds.
        descriptor: u64,
        /// What was asked for.
        attributes: Attributes,
    },
    /// A declared alias is open where another was to be opened; or what was declared is still mapped, where it was to
    /// be closed.
    AliasOpen {
        /// Where it is declared.
        virt: VirtSpan,
        /// Of what.
        frames: PhysSpan,
        /// The slot that still maps some of them there, and what it holds.
        mapped: Option<(Slot, u64)>,
    },
    /// Frames that were to be free again are mapped.
    InUse {
        /// Which.
        frames: PhysSpan,
        /// The slot that maps the first of them.
        slot: Slot,
        /// What it holds.
        descriptor: u64,
    },
    /// The supply has fewer frames than the request needs.
    OutOfFrames {
        /// Frames needed.
        needed: u64,
        /// Frames that there are, those that the supply got by asking included.
        available: u64,
    },
}

impl Error {
    /// The rule that the request would break: the architecture's name for it, or ours.
    #[must_use]
    pub const fn rule(&self) -> &'static str {
        match self {
            Self::Empty { .. } | Self::Misaligned { .. } => "whole pages",
            Self::BeyondInput { .. } => "input address size",
            Self::BeyondAddressSize { .. } => "output address size",
            Self::Unsupported { .. } => "features of every CPU",
            Self::Occupied { .. } => "RDDMVT: valid over valid needs a break",
            Self::NotMapped { .. } => "only what is mapped changes",
            Self::Refused { why: Why::InvalidationOwed, .. } => "RDDMVT: make after invalidation",
            Self::Refused { why: Why::Foreign, .. } => "only what the manager wrote changes",
            Self::WouldBreakSelf { .. } => "nothing that a CPU stands on is broken",
            Self::Misdirected { .. } => "the window shows what the manager takes it for",
            Self::Guarded { .. } => "guard pages fault",
            Self::Aliased { .. } => "W^X by physical address",
            Self::AliasOpen { .. } => "one declared alias, and nothing is left of it",
            Self::InUse { .. } => "what is mapped is not free",
            Self::OutOfFrames { .. } => "every frame before the first store",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty { virt } => write!(f, "{virt} holds no page")?,
            Self::Misaligned { virt, output: None } => write!(f, "{virt} is not made of whole pages")?,
            Self::Misaligned { virt, output: Some(output) } => {
                write!(f, "{virt} -> {output} is not made of whole pages")?;
            }
            Self::BeyondInput { virt } => write!(f, "{virt} ends beyond what the tables translate")?,
            Self::BeyondAddressSize { virt, output } => write!(f, "{virt} -> {output} ends beyond the address size")?,
            Self::Unsupported { virt, attributes, feature } => {
                write!(f, "{virt} cannot be {attributes}: no {feature}")?;
            }
            Self::Occupied { slot, descriptor, requested: Some(requested) } => {
                write!(f, "{slot} already holds {descriptor:#x}, not {requested:#x}")?;
            }
            Self::Occupied { slot, descriptor, requested: None } => {
                write!(f, "{slot} already holds {descriptor:#x}, where a table was to be linked")?;
            }
            Self::NotMapped { slot } => write!(f, "nothing is mapped at {slot}")?,
            Self::Refused { slot, descriptor, why } => write!(f, "{slot} holds {descriptor:#x}: {why}")?,
            Self::WouldBreakSelf { virt, footing } => {
                write!(f, "{virt} cannot be broken, nor lose rights, while CPUs rely on {footing}")?;
            }
            Self::Misdirected { virt, output, shows: (at, frames) } => {
                write!(f, "{virt} -> {output} refused: the manager reaches {frames} at {at}")?;
            }
            Self::Guarded { virt, guard } => write!(f, "{virt} cannot be mapped: it holds the {guard}")?,
            Self::Aliased { virt, frames, slot, descriptor, attributes } => {
                write!(f, "{virt} cannot be {attributes}: {slot} maps {frames} by {descriptor:#x}")?;
            }
            Self::AliasOpen { virt, frames, mapped: Some((slot, descriptor)) } => {
                write!(f, "the alias of {frames} at {virt} is not over: {slot} maps it by {descriptor:#x}")?;
            }
            Self::AliasOpen { virt, frames, mapped: None } => write!(f, "an alias of {frames} at {virt} is open")?,
            Self::InUse { frames, slot, descriptor } => {
                write!(f, "{frames} cannot be free: {slot} maps it by {descriptor:#x}")?;
            }
            Self::OutOfFrames { needed, available } => write!(f, "{needed} frames needed, {available} left")?,
        }
        write!(f, " ({})", self.rule())
    }
}

impl core::error::Error for Error {}
