//! What a newcomer reads, counted: README, and the thirty minutes of src/README.md, which is a list of files (`boot/mmu.S`) or of items
//! in them (`src/mapper.rs#Mapper::unmap`, `src/bbm.rs#head` for what a module says of itself). A word is what white space separates.

use crate::{paths, ui};
use anyhow::{Context, Result, bail};
use proc_macro2::Span;
use std::ops::RangeInclusive;
use std::path::Path;
use syn::spanned::Spanned;
use syn::{ImplItem, Item, TraitItem, Type};

/// Words that README may have.
const README: usize = 1200;
/// Words that can be read in thirty minutes.
const THIRTY_MINUTES: usize = 8000;
/// Where the list stands: from this line of src/README.md to the next heading.
const HEADING: &str = "## Thirty minutes";

/// Counts both, says so, and returns what is too long or names nothing.
///
/// # Errors
/// A file cannot be read.
pub(crate) fn findings() -> Result<Vec<String>> {
    let readme = words(&read("README.md")?);
    let mut findings = Vec::new();
    let mut thirty = 0;
    for place in list(&read("src/README.md")?) {
        match text(&place) {
            Ok(text) => thirty += words(&text),
            Err(error) => findings.push(format!("src/README.md: `{place}`: {error:#}")),
        }
    }
    ui::step("Counted", &format!("{readme} words of README.md, {thirty} of the thirty minutes"));
    let mut bound = |what: &str, count: usize, most: usize| {
        if count > most {
            findings.push(format!("{what}: {count} words, more than {most}"));
        }
    };
    bound("README.md", readme, README);
    bound("src/README.md: the thirty minutes", thirty, THIRTY_MINUTES);
    if thirty == 0 {
        findings.push(format!("src/README.md: nothing is listed under `{HEADING}`"));
    }
    Ok(findings)
}

fn read(name: &str) -> Result<String> {
    std::fs::read_to_string(paths::root().join(name)).with_context(|| format!("cannot read {name}"))
}

fn words(text: &str) -> usize {
    text.split_whitespace().count()
}

/// What the list names: everything between backquotes in its lines that begin with a dash.
fn list(readme: &str) -> Vec<String> {
    let lines = readme.lines().skip_while(|line| *line != HEADING).skip(1).take_while(|line| !line.starts_with("## "));
    let listed = lines.filter(|line| line.trim_start().starts_with("- "));
    listed.flat_map(|line| line.split('`').skip(1).step_by(2).map(str::to_owned)).collect()
}

/// The text of a file, or of one item in it.
fn text(place: &str) -> Result<String> {
    let (file, item) = place.split_once('#').map_or((place, None), |(file, item)| (file, Some(item)));
    let text = read(file)?;
    match item {
        None => Ok(text),
        Some("head") => Ok(text.lines().take_while(|line| line.starts_with("//!")).collect::<Vec<_>>().join("\n")),
        Some(item) if Path::new(file).extension().is_some_and(|kind| kind == "rs") => item_of(&text, item),
        Some(_) => bail!("only Rust files have items"),
    }
}

/// An item with its documentation: `function`, `Type` (its definition alone), `Type::method`, `Trait::method`.
fn item_of(text: &str, wanted: &str) -> Result<String> {
    let file = syn::parse_file(text).context("this is no Rust")?;
    let lines = file.items.iter().find_map(|item| find(item, wanted)).context("there is no such item")?;
    Ok(text.lines().skip(lines.start() - 1).take(lines.end() - lines.start() + 1).collect::<Vec<_>>().join("\n"))
}

fn find(item: &Item, wanted: &str) -> Option<RangeInclusive<usize>> {
    let (outer, inner) = wanted.split_once("::").map_or((wanted, None), |(outer, inner)| (outer, Some(inner)));
    let named = match item {
        Item::Fn(item) => Some(&item.sig.ident),
        Item::Struct(item) => Some(&item.ident),
        Item::Enum(item) => Some(&item.ident),
        Item::Trait(item) => Some(&item.ident),
        Item::Const(item) => Some(&item.ident),
        Item::Type(item) => Some(&item.ident),
        _ => None,
    };
    match (item, inner) {
        (_, None) => named.filter(|name| **name == outer).map(|_| lines(item.span())),
        (Item::Impl(block), Some(inner)) => {
            let Type::Path(kind) = &*block.self_ty else { return None };
            kind.path.segments.last().filter(|last| last.ident == outer)?;
            block.items.iter().find_map(|member| match member {
                ImplItem::Fn(method) if method.sig.ident == inner => Some(lines(method.span())),
                _ => None,
            })
        }
        (Item::Trait(block), Some(inner)) if block.ident == outer => {
            block.items.iter().find_map(|member| match member {
                TraitItem::Fn(method) if method.sig.ident == inner => Some(lines(method.span())),
                _ => None,
            })
        }
        _ => None,
    }
}

fn lines(span: Span) -> RangeInclusive<usize> {
    span.start().line..=span.end().line
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "//! Head.\n\n/// A type.\nstruct Thing {\n    field: u8,\n}\n\nimpl Thing {\n    /// Does it.\n    fn act(&self) {}\n}\n\n/// Free.\nfn act() {}\n";

    #[test]
    fn good_items_are_found_with_their_documentation() {
        assert_eq!(item_of(TEXT, "Thing").expect("it stands there"), "/// A type.\nstruct Thing {\n    field: u8,\n}");
        assert_eq!(item_of(TEXT, "Thing::act").expect("a method"), "    /// Does it.\n    fn act(&self) {}");
        assert_eq!(item_of(TEXT, "act").expect("a function"), "/// Free.\nfn act() {}");
    }

    #[test]
    fn bad_names_of_nothing() {
        assert!(item_of(TEXT, "Thing::rest").is_err());
        assert!(item_of(TEXT, "rest").is_err());
        assert!(item_of("not rust", "rest").is_err());
    }

    #[test]
    fn good_the_list_is_what_stands_between_backquotes_below_its_heading() {
        let readme =
            "`no`\n## Thirty minutes\nProse with `no`.\n1. One:\n   - `a.rs#B`, then `c.S`\n- `d`\n## Next\n- `no`\n";
        assert_eq!(list(readme), ["a.rs#B", "c.S", "d"]);
    }
}
