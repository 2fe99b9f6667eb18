//! Contiguous runs: one descriptor may be taken for all of its run (RQTRPM), so that an inconsistent run translates as no descriptor
//! of it says. Invalid descriptors may stand among set ones (IPGVGZ); they translate nothing.

use super::element::{Context, Element, Regime};
use super::entry::Translation;
use super::harm::{HarmKind, What};
use super::memory::Memory;
use super::path::{Path, Read};
use super::permission::Permission;
use super::walk::{Walker, overlapping};

/// Whether the run of which `leaf` is one translates as its descriptors say.
fn is_aligned(leaf: &Translation, regime: &Regime) -> bool {
    let bytes = regime.format.run_entries(leaf.level) << leaf.shift;
    leaf.va % bytes == leaf.output % bytes
}

impl Walker<'_> {
    /// A leaf comes to be held: entries of one run that disagree translate, each for all of the run, as no descriptor says. Rights are no part
    /// of that while they are being changed entry by entry.
    pub(super) fn compare_run(&mut self, leaf: &Translation) {
        if !self.element.features.contiguous || !self.permissions.has(Permission::CacheContiguousRun) {
            return;
        }
        let Some(regime) = self.element.regime() else { return };
        if leaf.contiguous && !is_aligned(leaf, &regime) {
            self.find(HarmKind::Contiguous, leaf.va, "the output addresses of a contiguous run are not aligned to it");
        }
        let bytes = regime.format.run_entries(leaf.level) << leaf.shift;
        let first = leaf.va & !(bytes - 1);
        for other in overlapping(&self.element.leaves, first, first + (bytes - 1)) {
            let is_of_run = other.shift == leaf.shift && (leaf.contiguous || other.contiguous);
            if is_of_run && other.va != leaf.va && self.disagrees(leaf, &other) {
                let what = What::Leaves("a run may translate as no descriptor says", other, *leaf);
                self.find(HarmKind::Contiguous, other.va, what);
            }
        }
    }

    fn disagrees(&self, one: &Translation, other: &Translation) -> bool {
        let base = |leaf: &Translation| leaf.output.wrapping_sub(leaf.va);
        let attributes = |leaf: &Translation| (base(leaf), leaf.memory, leaf.shareability);
        // Setting or clearing the bit one by one is what BBM level 1 and 2 allow: judged when it is over.
        attributes(one) != attributes(other) || (one.contiguous != other.contiguous && self.exclusion.bbm < 1)
    }
}

/// Whether a held leaf that is current belongs to a run whose valid descriptors do not all say the same of bit and rights.
pub(super) fn is_mixed(element: &Element, memory: &Memory, leaf: &Translation, path: &Path) -> bool {
    let Some(regime) = element.regime() else { return false };
    let table = path.slot & !(regime.format.granule.page_bytes() - 1);
    let entries = regime.format.entries(leaf.level);
    let va = leaf.va & !((entries << leaf.shift) - 1);
    let context = Context { level: leaf.level, va, table, no_write: false, no_execute: false, doom: 0 };
    let said = |slot: u64, word: u64| {
        let va = context.va_of(slot, &regime)?;
        let Read::Leaf(leaf) = context.read(slot, va, regime.value(word), &regime) else { return None };
        Some((leaf.contiguous, leaf.writable, leaf.executable, leaf.guarded))
    };
    let bytes = (8 * regime.format.run_entries(leaf.level)).min(context.bytes(&regime));
    let first = table + (path.slot - table) / bytes * bytes;
    let mut of_run: Vec<_> = memory.words(first, bytes, |_| true).filter_map(|(slot, word)| said(slot, word)).collect();
    of_run.sort_unstable();
    of_run.dedup();
    of_run.len() > 1 && of_run.iter().any(|said| said.0)
}
