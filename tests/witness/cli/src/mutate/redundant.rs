//! The reasons: what may be missing without anybody noticing, and why it is there all the same.
//!
//! What must hold: a reason is checked, not believed. What another instruction covers must be missed when both are gone; what is said to be a
//! pause must stand in a loop that does nothing; a reason that no site needs is an error, because it is out of date.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::sites::Site;

/// Which instructions may be missing, and why; and which are twins.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reasons {
    #[serde(default)]
    pub(super) redundant: Vec<Reason>,
    #[serde(default)]
    pub(super) twins: Twins,
}

/// Which files of the source an instruction has its reason in, whoever asks for it: two that come from the same lines there are twins.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Twins {
    /// Parts of those files' names.
    pub(super) within: Vec<String>,
    /// Files that stand between them and do not count.
    #[serde(default)]
    pub(super) between: Vec<String>,
}

/// Names one site or several, and says why.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reason {
    pub(super) site: Which,
    /// What it is for: a feature or an erratum that the machines here do not have, in words.
    pub(super) feature: Option<String>,
    /// It is a pause in a loop that waits.
    pub(super) pause: Option<String>,
    /// The site that covers it.
    pub(super) covered_by: Option<Which>,
    /// Why.
    pub(super) because: Option<String>,
}

/// Names sites by where they are, or by what they come from, or both. A `*` stands for anything.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// The function of the image.
    pub(super) function: Option<String>,
    /// A function of the source, wherever the compiler has inlined it to: one of those that [`Site::lines`] names.
    pub(super) from: Option<String>,
    pub(super) instruction: String,
    /// The nearest named instruction before it.
    pub(super) before: Option<String>,
    /// The nearest after it.
    pub(super) after: Option<String>,
}

impl Which {
    /// Whether `site` is meant.
    pub(super) fn names(&self, site: &Site) -> bool {
        let neighbour = |wanted: &Option<String>, found: &Option<String>| {
            wanted.as_ref().is_none_or(|wanted| found.as_ref().is_some_and(|found| matches(wanted, found)))
        };
        let comes_from = |wanted: &str| {
            site.lines.iter().filter_map(|line| line.rsplit_once(':')).any(|(function, _)| matches(wanted, function))
        };
        self.function.as_ref().is_none_or(|wanted| matches(wanted, &site.function))
            && self.from.as_ref().is_none_or(|wanted| comes_from(wanted))
            && matches(&self.instruction, &site.instruction)
            && neighbour(&self.before, &site.before)
            && neighbour(&self.after, &site.after)
    }
}

/// Whether `text` is as `pattern` says.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = text.find(part) else { return false };
        text = &text[at + part.len()..];
    }
    text.ends_with(last)
}

impl Reasons {
    /// Reads them from a file.
    ///
    /// # Errors
    /// It cannot be read or is malformed, or an entry gives no reason, or several.
    pub fn read(path: &Path) -> Result<Self> {
        let name = || path.display().to_string();
        Self::parse(&std::fs::read_to_string(path).with_context(name)?).with_context(name)
    }

    fn parse(text: &str) -> Result<Self> {
        let reasons: Self = toml::from_str(text)?;
        for Reason { site, feature, pause, covered_by, .. } in &reasons.redundant {
            let given = [feature.is_some(), pause.is_some(), covered_by.is_some()].into_iter().filter(|&given| given);
            ensure!(given.count() == 1, "{site:?}: give one reason, feature, pause or covered_by");
            for which in [Some(site), covered_by.as_ref()].into_iter().flatten() {
                ensure!(which.function.is_some() || which.from.is_some(), "{which:?}: say function or from");
            }
        }
        Ok(reasons)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_patterns() {
        for (pattern, text) in [("a", "a"), ("*", "anything"), ("a*", "abc"), ("*c", "abc"), ("a*b*c", "a-b-b-c")] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("a", "ab"), ("a*", "ba"), ("*c", "cb"), ("a*b*c", "acb"), ("ab*bc", "abc")] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn good_what_was_inlined_is_named_by_its_source() {
        let lines = ["<El2 as Machine>::dsb_ishst:117", "bbm::live::<impl Protocol>::replace_block:174", "commit:31"];
        let lines = lines.map(str::to_owned).to_vec();
        let site = Site { lines, ..Site::lone(0x1000, 0xd503_3a9f) };
        let which = |from: &str, instruction: &str| {
            toml::from_str::<Which>(&format!("from = '{from}'\ninstruction = '{instruction}'")).expect("it names sites")
        };
        assert!(which("bbm::*::replace_block", "dsb ishst").names(&site) && which("commit", "dsb ishst").names(&site));
        assert!(!which("bbm::*::replace_block", "dsb ish").names(&site), "another barrier of the same function");
        assert!(!which("bbm::*::fill", "dsb ishst").names(&site), "the same barrier of another function");
        assert!(!which("*", "dsb ishst").names(&Site::lone(0x1000, 0xd503_3a9f)), "assembly comes from no function");
    }

    #[test]
    fn bad_an_entry_without_one_reason() {
        let with = |reasons: &str| {
            Reasons::parse(&format!("[[redundant]]\nsite = {{ function = 'f', instruction = 'isb' }}\n{reasons}"))
        };
        assert!(with("pause = 'a lock'").is_ok());
        assert!(with("covered_by = { function = 'f', instruction = 'dsb sy' }").is_ok());
        assert!(with("").is_err());
        assert!(with("pause = 'a lock'\nfeature = 'another'").is_err());
        assert!(with("no_reason = 'because'").is_err());
        assert!(Reasons::parse("[[redundant]]\nsite = { instruction = 'isb' }\npause = 'a lock'").is_err());
    }
}
