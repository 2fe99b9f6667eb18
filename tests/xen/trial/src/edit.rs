//! Edits of somebody else's sources by the names that stand in them.
//!
//! Why it exists: a patch carries the text around what it changes; an edit here names a function, a label or a few
//! words of a line, and carries what we put in. What must hold: each edit matches as often as it says, once unless said
//! otherwise, or nothing of that file is written and the error names file and edit in one line. What it refuses: an
//! edit that matched something else, or twice.
//!
//! ```
//! use breakwater_xen_trial::edit::{append, cut_function, replace_line};
//! let edits = [
//!     cut_function("mm.c", "setup"),
//!     replace_line("mm.c", &["clear", "table"], "    ours();\n").in_function("main"),
//!     append("mm.c", "/* ours */\n"),
//! ];
//! # let _ = edits;
//! ```

mod text;

use std::borrow::Cow;
use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use text::{Language, Source};

/// Text that an edit puts in: a constant, or made for one build.
pub type Text = Cow<'static, str>;

/// One change of one file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Edit {
    file: Text,
    what: What,
    within: Option<Text>,
    /// Which match is meant, of how many.
    which: (usize, usize),
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum What {
    Function(Text),
    Label(Text),
    Lines { from: Vec<Text>, to: Vec<Text>, with: Text },
    Line { tokens: Vec<Text>, with: Text },
    Token { tokens: Vec<Text>, token: Text, with: Text },
    Before { tokens: Vec<Text>, text: Text },
    After { tokens: Vec<Text>, text: Text },
    Append(Text),
    Add(Text),
}

fn edit(file: impl Into<Text>, what: What) -> Edit {
    Edit { file: file.into(), what, within: None, which: (1, 1) }
}

fn owned(tokens: &[&'static str]) -> Vec<Text> {
    tokens.iter().map(|token| Cow::Borrowed(*token)).collect()
}

/// Takes the definition of a C function out, with the comment right above it.
pub fn cut_function(file: impl Into<Text>, name: impl Into<Text>) -> Edit {
    edit(file, What::Function(name.into()))
}

/// Takes a routine of assembly out, from its label to its `ENDPROC`, with the comment right above it.
pub fn cut_label(file: impl Into<Text>, label: impl Into<Text>) -> Edit {
    edit(file, What::Label(label.into()))
}

/// Takes lines out, from the one with the tokens `from` to the first after it with the tokens `to`; it may be the same.
pub fn cut_lines(file: impl Into<Text>, from: &[&'static str], to: &[&'static str]) -> Edit {
    replace_lines(file, from, to, "")
}

/// Puts `with`, whole lines, where those from the one with the tokens `from` to the first after it with the tokens `to`
/// stood.
pub fn replace_lines(file: impl Into<Text>, from: &[&'static str], to: &[&'static str], with: impl Into<Text>) -> Edit {
    edit(file, What::Lines { from: owned(from), to: owned(to), with: with.into() })
}

/// Puts `with`, whole lines, where the line stood on which all these tokens stand in this order, outside of comments.
pub fn replace_line(file: impl Into<Text>, tokens: &[&'static str], with: impl Into<Text>) -> Edit {
    edit(file, What::Line { tokens: owned(tokens), with: with.into() })
}

/// On the line with these tokens, puts `with` in the place of the first `token`.
pub fn replace_token(
    file: impl Into<Text>,
    tokens: &[&'static str],
    token: impl Into<Text>,
    with: impl Into<Text>,
) -> Edit {
    edit(file, What::Token { tokens: owned(tokens), token: token.into(), with: with.into() })
}

/// Puts `text`, whole lines, before the line with these tokens.
pub fn insert_before(file: impl Into<Text>, tokens: &[&'static str], text: impl Into<Text>) -> Edit {
    edit(file, What::Before { tokens: owned(tokens), text: text.into() })
}

/// Puts `text`, whole lines, after the line with these tokens.
pub fn insert_after(file: impl Into<Text>, tokens: &[&'static str], text: impl Into<Text>) -> Edit {
    edit(file, What::After { tokens: owned(tokens), text: text.into() })
}

/// Puts `text` at the end of a file.
pub fn append(file: impl Into<Text>, text: impl Into<Text>) -> Edit {
    edit(file, What::Append(text.into()))
}

/// Writes a file that is not there yet, and the directories above it.
pub fn add_file(file: impl Into<Text>, text: impl Into<Text>) -> Edit {
    edit(file, What::Add(text.into()))
}

impl Edit {
    /// Looks for lines in this C function or routine of assembly alone.
    #[must_use]
    pub fn in_function(self, name: impl Into<Text>) -> Self {
        Self { within: Some(name.into()), ..self }
    }

    /// Means the `nth` match of `count`, from 1: the branches of an `#if` may each have the function.
    #[must_use]
    pub fn nth(self, nth: usize, count: usize) -> Self {
        Self { which: (nth, count), ..self }
    }

    /// The file, from the top of the tree.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// `text`, changed.
    ///
    /// # Errors
    /// It matches another number of times than it says.
    fn apply(&self, text: &str) -> Result<String> {
        let source = Source::new(text, Language::of(&self.file));
        let (span, with) = match &self.what {
            What::Append(more) => (text.len()..text.len(), more.as_ref()),
            What::Add(_) => bail!("the file is there already"),
            What::Function(name) => (self.chosen(source.functions(name))?, ""),
            What::Label(label) => (self.chosen(source.routines(label))?, ""),
            What::Lines { from, to, with } => {
                let first = self.line(&source, from, text)?;
                let rest = first.start..self.where_to_look(&source, text)?.end;
                let last = source.lines_with(&rest, &borrowed(to)).into_iter().next();
                (first.start..last.context("its last line is not there")?.end, with.as_ref())
            }
            What::Line { tokens, with } => (self.line(&source, tokens, text)?, with.as_ref()),
            What::Token { tokens, token, with } => {
                let line = self.line(&source, tokens, text)?;
                let at = source.token(line, token).with_context(|| format!("{token} is not on that line"))?;
                (at..at + token.len(), with.as_ref())
            }
            What::Before { tokens, text: more } => {
                let start = self.line(&source, tokens, text)?.start;
                (start..start, more.as_ref())
            }
            What::After { tokens, text: more } => {
                let end = self.line(&source, tokens, text)?.end;
                (end..end, more.as_ref())
            }
        };
        Ok([&text[..span.start], with, &text[span.end..]].concat())
    }

    fn line(&self, source: &Source<'_>, tokens: &[Text], text: &str) -> Result<Range<usize>> {
        self.chosen(source.lines_with(&self.where_to_look(source, text)?, &borrowed(tokens)))
    }

    /// The function or routine that is named, or all of the file.
    fn where_to_look(&self, source: &Source<'_>, text: &str) -> Result<Range<usize>> {
        let Some(name) = &self.within else { return Ok(0..text.len()) };
        let all = [source.functions(name), source.routines(name)].concat();
        ensure!(all.len() == 1, "{} functions {name}, not 1", all.len());
        all.into_iter().next().context("one function")
    }

    fn chosen(&self, all: Vec<Range<usize>>) -> Result<Range<usize>> {
        let (nth, count) = self.which;
        ensure!(all.len() == count, "{} matches, not {count}", all.len());
        let chosen = nth.checked_sub(1).and_then(|index| all.into_iter().nth(index));
        chosen.with_context(|| format!("there is no match number {nth} of {count}"))
    }
}

fn borrowed(tokens: &[Text]) -> Vec<&str> {
    tokens.iter().map(AsRef::as_ref).collect()
}

impl fmt::Display for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spelled = |tokens: &[Text]| borrowed(tokens).join(" .. ");
        write!(f, "{}: ", self.file)?;
        match &self.what {
            What::Function(name) => write!(f, "cut function {name}"),
            What::Label(label) => write!(f, "cut routine {label}"),
            What::Lines { from, to, .. } => write!(f, "lines from `{}` to `{}`", spelled(from), spelled(to)),
            What::Line { tokens, .. } => write!(f, "replace line `{}`", spelled(tokens)),
            What::Token { tokens, token, .. } => write!(f, "replace `{token}` on line `{}`", spelled(tokens)),
            What::Before { tokens, .. } => write!(f, "insert before `{}`", spelled(tokens)),
            What::After { tokens, .. } => write!(f, "insert after `{}`", spelled(tokens)),
            What::Append(_) => write!(f, "append"),
            What::Add(_) => write!(f, "add the file"),
        }?;
        self.within.as_ref().map_or(Ok(()), |name| write!(f, " in {name}"))
    }
}

/// Applies `edits` in their order to the files below `tree`. A file that an edit adds may be changed by those after it.
///
/// # Errors
/// An edit matches another number of times than it says, in one line with its file; a file cannot be read or written.
pub fn apply(tree: &Path, edits: &[Edit]) -> Result<()> {
    for edit in edits {
        let path = tree.join(edit.file());
        if let What::Add(text) = &edit.what
            && !path.exists()
        {
            let dir = path.parent().with_context(|| edit.to_string())?;
            fs::create_dir_all(dir).and_then(|()| fs::write(&path, text.as_ref())).with_context(|| edit.to_string())?;
            continue;
        }
        let text = fs::read_to_string(&path).with_context(|| edit.to_string())?;
        let changed = edit.apply(&text).with_context(|| edit.to_string())?;
        fs::write(&path, changed).with_context(|| edit.to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
