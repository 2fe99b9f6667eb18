//! The recording as a picture: `--timeline FILE.svg`.
//!
//! Why it exists: a log of ten million lines says everything and shows nothing. The picture has a lane for each CPU: whether its MMU is on,
//! by which root, where tables are stored and broken, invalidations, barriers, exceptions, memory both writable and executable, and
//! loudest of all what breaks a rule. What must hold: memory and file stay bounded however long the recording is; what is merged says so.
//! What it refuses: to judge. It is told what was found.
//!
//! * `record` takes the recording in: `mark` folds what one CPU did into runs, `lane` is one CPU, `follow` watches the tables, `findings` are told.
//! * `picture` draws it: `axis` gives every line of the trace its place on the `sheet`; `row`, `label` and `legend` are its parts, on `canvas`.

mod axis;
mod canvas;
mod findings;
mod follow;
mod label;
mod lane;
mod legend;
mod mark;
mod picture;
mod record;
mod row;
mod sheet;
#[cfg(test)]
mod tests;

use std::path::Path;

use anyhow::{Context, Result};

pub use findings::Standing;
pub use record::Timeline;

impl Timeline {
    /// Draws the recording under `title` into `file`, and makes its directory.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, file: &Path, title: &str) -> Result<()> {
        if let Some(dir) = file.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        std::fs::write(file, self.svg(title)).with_context(|| format!("cannot write {}", file.display()))
    }

    /// The picture.
    fn svg(&self, title: &str) -> String {
        picture::draw(self, title)
    }
}
