//! C and assembly as far as an editor has to understand them: what is code, where a function or a routine begins and
//! ends.
//!
//! Why it exists: names are all that an edit says of the text that it changes, and a name also stands in comments, in
//! strings and in other functions. What must hold: a found span is whole lines, of one definition with its comment.
//! What it refuses: nothing; who finds too many spans or too few says so itself.

use std::ops::Range;

/// Stands for a byte of a comment.
const COMMENT: u8 = 1;
/// Stands for a byte of a string or of a character.
const QUOTED: u8 = 2;
/// Stands for a byte of a directive of the preprocessor, its continued lines included.
const DIRECTIVE: u8 = 3;

/// A file's text, and the same with what is no code hidden; both have the same length and the same lines.
pub(super) struct Source<'a> {
    text: &'a str,
    /// Comments are hidden.
    lines: Vec<u8>,
    /// Comments, strings and directives are.
    code: Vec<u8>,
}

/// How comments begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Language {
    /// C, its headers, assembly and linker scripts that go through its preprocessor.
    C,
    /// Makefiles and Kconfig.
    Make,
}

impl Language {
    /// By the file's name.
    pub(super) fn of(file: &str) -> Self {
        if [".c", ".h", ".S"].iter().any(|end| file.ends_with(end)) { Self::C } else { Self::Make }
    }
}

impl<'a> Source<'a> {
    pub(super) fn new(text: &'a str, language: Language) -> Self {
        let lines = match language {
            Language::C => without_comments(text.as_bytes()),
            Language::Make => without_hashes(text.as_bytes()),
        };
        let code = without_directives(&without_strings(&lines));
        Self { text, lines, code }
    }

    /// The definitions of C functions of this name: each a span of whole lines, with the comment that stands right
    /// above.
    pub(super) fn functions(&self, name: &str) -> Vec<Range<usize>> {
        let (mut found, mut depth, mut after) = (Vec::new(), 0_u32, 0);
        for (at, byte) in self.code.iter().copied().enumerate() {
            match byte {
                b'{' => depth += 1,
                b'}' => depth = depth.saturating_sub(1),
                _ if depth == 0 && is_word_at(&self.code, at, name) => {
                    let end = self.end_of_body(at + name.len());
                    found.extend(end.map(|end| self.function(after, end)));
                }
                _ => {}
            }
            if depth == 0 && matches!(byte, b';' | b'}' | DIRECTIVE) {
                after = at + 1;
            }
        }
        found
    }

    /// Where the braces after the arguments that begin at `at` end, if that is a definition: between them stand
    /// attributes alone.
    fn end_of_body(&self, at: usize) -> Option<usize> {
        let open = self.code_from(at).filter(|at| self.code[*at] == b'(')?;
        let mut next = self.code_from(closing(&self.code, open, b'(', b')')? + 1)?;
        while self.code[next] != b'{' {
            next = match self.code[next] {
                b'(' => self.code_from(closing(&self.code, next, b'(', b')')? + 1)?,
                byte if is_of_word(byte) => self.code_from(next + 1)?,
                _ => return None,
            };
        }
        Some(closing(&self.code, next, b'{', b'}')? + 1)
    }

    /// The first byte of code from `at` on.
    fn code_from(&self, at: usize) -> Option<usize> {
        let is_code = |byte: &u8| !byte.is_ascii_whitespace() && *byte != COMMENT;
        Some(at + self.code.get(at..)?.iter().position(is_code)?)
    }

    /// The one whose code begins anywhere after `after` and ends at `end`.
    fn function(&self, after: usize, end: usize) -> Range<usize> {
        let start = self.code_from(after).unwrap_or(after);
        self.with_comment(self.whole_lines(start..end))
    }

    /// Routines of assembly: from the line with this label, or the macro that makes one, to the line that ends it.
    pub(super) fn routines(&self, label: &str) -> Vec<Range<usize>> {
        let begins = [format!("{label}:"), format!("ENTRY({label})"), format!("GLOBAL({label})")];
        let ends = [format!("ENDPROC({label})"), format!("END({label})")];
        let mut found = Vec::new();
        let mut begun = None;
        for line in self.each_line() {
            let code: String = self.shown(&line).split_whitespace().collect();
            if begun.is_none() && begins.iter().any(|begin| code.starts_with(begin.as_str())) {
                begun = Some(line.start);
            } else if ends.contains(&code) {
                found.extend(begun.take().map(|start| self.with_comment(start..line.end)));
            }
        }
        found
    }

    /// The lines in `within` on which all these tokens stand, in this order.
    pub(super) fn lines_with(&self, within: &Range<usize>, tokens: &[&str]) -> Vec<Range<usize>> {
        let is_inside = |line: &Range<usize>| line.start >= within.start && line.end <= within.end;
        self.each_line().filter(is_inside).filter(|line| self.holds(line, tokens)).collect()
    }

    fn holds(&self, line: &Range<usize>, tokens: &[&str]) -> bool {
        let mut from = line.start;
        tokens.iter().all(|token| match self.token(from..line.end, token) {
            Some(at) => {
                from = at + token.len();
                true
            }
            None => false,
        })
    }

    /// Where a token first stands in `span`, if it does.
    pub(super) fn token(&self, span: Range<usize>, token: &str) -> Option<usize> {
        let fits = |at: &usize| at + token.len() <= span.end && is_word_at(&self.lines, *at, token);
        span.clone().find(fits)
    }

    /// Each line, with its end.
    fn each_line(&self) -> impl Iterator<Item = Range<usize>> {
        let mut start = 0;
        self.text.split_inclusive('\n').map(move |line| {
            let span = start..start + line.len();
            start = span.end;
            span
        })
    }

    /// A span of text without its comments.
    fn shown(&self, span: &Range<usize>) -> String {
        let bytes = self.lines[span.clone()].iter().map(|byte| if *byte == COMMENT { b' ' } else { *byte });
        String::from_utf8_lossy(&bytes.collect::<Vec<_>>()).into_owned()
    }

    fn whole_lines(&self, span: Range<usize>) -> Range<usize> {
        let start = self.text[..span.start].rfind('\n').map_or(0, |at| at + 1);
        let end = self.text[span.end..].find('\n').map_or(self.text.len(), |at| span.end + at + 1);
        start..end
    }

    /// With the comment on the lines right above, if there is one.
    fn with_comment(&self, mut span: Range<usize>) -> Range<usize> {
        let lines: Vec<_> = self.each_line().take_while(|line| line.end <= span.start).collect();
        for line in lines.into_iter().rev() {
            let hidden = &self.lines[line.clone()];
            let is_comment =
                hidden.contains(&COMMENT) && hidden.iter().all(|byte| *byte == COMMENT || byte.is_ascii_whitespace());
            if !is_comment {
                break;
            }
            span.start = line.start;
        }
        span
    }
}

const fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Whether `word` stands at `at`, and is not part of a longer one.
fn is_word_at(text: &[u8], at: usize, word: &str) -> bool {
    let (word, end) = (word.as_bytes(), at + word.len());
    let joins = |one: Option<&u8>, other: Option<&u8>| {
        one.zip(other).is_some_and(|(one, other)| is_of_word(*one) && is_of_word(*other))
    };
    let before = at.checked_sub(1).and_then(|before| text.get(before));
    text.get(at..end) == Some(word) && !joins(before, word.first()) && !joins(word.last(), text.get(end))
}

/// The bracket that closes the one at `open`.
fn closing(text: &[u8], open: usize, opens: u8, closes: u8) -> Option<usize> {
    let mut depth = 0_u32;
    for (at, byte) in text.iter().enumerate().skip(open) {
        depth += u32::from(*byte == opens);
        if *byte == closes {
            depth -= 1;
            if depth == 0 {
                return Some(at);
            }
        }
    }
    None
}

/// Hides `span`, but not its line ends.
fn hide(text: &mut [u8], span: Range<usize>, with: u8) {
    text[span].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = with);
}

/// The end of the string or character that begins at `at`; it ends on its line, or is none.
fn string_end(text: &[u8], at: usize) -> Option<usize> {
    let mut next = at + 1;
    while let Some(byte) = text.get(next).filter(|byte| **byte != b'\n') {
        match byte {
            b'\\' => next += 2,
            byte if *byte == text[at] => return Some(next + 1),
            _ => next += 1,
        }
    }
    None
}

fn position(text: &[u8], from: usize, wanted: &[u8]) -> Option<usize> {
    text.get(from..)?.windows(wanted.len()).position(|window| window == wanted).map(|at| from + at)
}

fn without_comments(text: &[u8]) -> Vec<u8> {
    let (mut hidden, mut at) = (text.to_vec(), 0);
    while at < text.len() {
        let end = match &text[at..] {
            [b'/', b'*', ..] => Some(position(text, at + 2, b"*/").map_or(text.len(), |end| end + 2)),
            [b'/', b'/', ..] => Some(position(text, at, b"\n").unwrap_or(text.len())),
            _ => None,
        };
        if let Some(end) = end {
            hide(&mut hidden, at..end, COMMENT);
        }
        let string = || matches!(text[at], b'"' | b'\'').then(|| string_end(text, at)).flatten();
        at = end.or_else(string).unwrap_or(at + 1);
    }
    hidden
}

fn without_hashes(text: &[u8]) -> Vec<u8> {
    let mut hidden = text.to_vec();
    let mut start = 0;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        if line.trim_ascii_start().starts_with(b"#") {
            hide(&mut hidden, start..start + line.len(), COMMENT);
        }
        start += line.len();
    }
    hidden
}

fn without_strings(text: &[u8]) -> Vec<u8> {
    let (mut hidden, mut at) = (text.to_vec(), 0);
    while at < text.len() {
        let end = matches!(text[at], b'"' | b'\'').then(|| string_end(text, at)).flatten();
        if let Some(end) = end {
            hide(&mut hidden, at..end, QUOTED);
        }
        at = end.unwrap_or(at + 1);
    }
    hidden
}

fn without_directives(text: &[u8]) -> Vec<u8> {
    let mut hidden = text.to_vec();
    let (mut start, mut goes_on) = (0, false);
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        if goes_on || line.trim_ascii_start().starts_with(b"#") {
            hide(&mut hidden, start..start + line.len(), DIRECTIVE);
            goes_on = line.trim_ascii_end().ends_with(b"\\");
        }
        start += line.len();
    }
    hidden
}
