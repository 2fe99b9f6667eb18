//! Debian's Xen, built from its source twice: as it is, and with this core in place of its own boot tables and
//! page-table editor.
//!
//! Why it exists: the core is there because Xen on Arm's boot code breaks the architecture. The proof is Xen itself,
//! with the core in it, beside what it was. What must hold: none of Xen's text is in this repository, only names and
//! the edits that our variant needs; everything fetched and built stays below one directory; nothing is built as root.
//!
//! * [`edit`] changes a tree of sources by names, [`edits`] is what our variant changes.

#![forbid(unsafe_code)]

pub mod edit;
pub mod edits;
