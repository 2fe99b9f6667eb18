//! What our variant of Xen changes in its sources.
//!
//! Why it exists: the repository holds no text of Xen, so what is taken out is named and what is put in is ours. What
//! must hold: the list is applied in order, and each edit matches as often as it says, or the build ends with its name.

use crate::edit::Edit;

/// The edits, in their order.
#[must_use]
pub fn all() -> Vec<Edit> {
    Vec::new()
}
