//! Changes to a text as a list of byte ranges with what takes their place: all that they do not name
//! stays byte for byte. What is put in comes right after a `>`, behind the white space that stands
//! before its neighbour; so taking out an element with the white space before it takes out exactly that.

use std::ops::Range;

use crate::rules::xml::Node;

/// Edits that have not been made yet.
#[derive(Debug)]
pub(super) struct Splices<'t> {
    text: &'t str,
    edits: Vec<(Range<usize>, String)>,
}

impl<'t> Splices<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, edits: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.edits.is_empty()
    }

    pub(super) fn replace(&mut self, range: Range<usize>, by: impl Into<String>) {
        self.edits.push((range, by.into()));
    }

    /// The white space right before an element; none where that does not follow a tag.
    pub(super) fn space_before(&self, at: usize) -> &'t str {
        let before = &self.text[..at];
        let start = before.trim_end_matches([' ', '\t', '\r', '\n']).len();
        if before[..start].ends_with('>') { &self.text[start..at] } else { "" }
    }

    /// Takes an element out, with the white space before it.
    pub(super) fn remove(&mut self, element: Range<usize>) {
        let start = element.start - self.space_before(element.start).len();
        self.replace(start..element.end, "");
    }

    /// Puts an element first into `parent`, which may be written `<x/>`. `make` gets the white space
    /// that will stand before it. True where the parent had to be opened.
    pub(super) fn insert_first(&mut self, parent: Node<'_>, make: impl FnOnce(&str) -> String) -> bool {
        let place = parent.element();
        let outer = self.space_before(place.span.start);
        let first = parent.children().next();
        let space =
            first.map_or_else(|| deeper(outer), |child| self.space_before(child.element().span.start).to_owned());
        let element = make(&space);
        if place.self_closing {
            let slash = self.text[place.start_tag.clone()]
                .rfind('/')
                .map_or(place.start_tag.end, |at| place.start_tag.start + at);
            self.replace(
                slash..place.start_tag.end,
                format!(">{space}{element}{}</{}>", outer_end(outer), parent.name()),
            );
        } else {
            self.replace(place.start_tag.end..place.start_tag.end, space + &element);
        }
        place.self_closing
    }

    /// Puts an element right after `neighbour`.
    pub(super) fn insert_after(&mut self, neighbour: Node<'_>, make: impl FnOnce(&str) -> String) {
        let span = &neighbour.element().span;
        let space = self.space_before(span.start);
        self.replace(span.end..span.end, format!("{space}{}", make(space)));
    }

    /// Whether nothing but white space is left in an element after what was removed from it so far.
    pub(super) fn leaves_empty(&self, element: Node<'_>) -> bool {
        let content = element.element().content.clone();
        let mut rest = content.clone().filter(|at| !self.text.as_bytes()[*at].is_ascii_whitespace());
        let gone = |at: usize| self.edits.iter().any(|(range, by)| by.is_empty() && range.contains(&at));
        rest.all(gone)
    }

    /// Writes an element as `<x/>` again; edits inside it are dropped.
    pub(super) fn close(&mut self, element: Node<'_>) {
        let place = element.element();
        let range = place.start_tag.end - 1..place.span.end;
        self.edits.retain(|(edit, _)| edit.start < range.start || edit.end > range.end);
        self.replace(range, "/>");
    }

    /// Takes a whole element out; edits inside it are dropped.
    pub(super) fn remove_all(&mut self, element: Node<'_>) {
        let span = element.element().span.clone();
        self.edits.retain(|(edit, _)| edit.start < span.start || edit.end > span.end);
        self.remove(span);
    }

    /// The text with all edits made. `None` if two of them overlap: nothing sensible could come out.
    pub(super) fn finish(mut self) -> Option<String> {
        self.edits.sort_by_key(|(range, _)| (range.start, range.end));
        let mut out = String::with_capacity(self.text.len() + 512);
        let mut at = 0;
        for (range, by) in self.edits {
            out.push_str(self.text.get(at..range.start)?);
            out.push_str(&by);
            at = range.end;
        }
        out.push_str(self.text.get(at..)?);
        Some(out)
    }
}

/// The white space before a child of an element that stands behind `space`.
pub(super) fn deeper(space: &str) -> String {
    match space.rfind('\n') {
        None => String::new(),
        Some(_) if space.ends_with('\t') => format!("{space}\t"),
        Some(_) => format!("{space}  "),
    }
}

/// The white space before the end tag of an element that stands behind `space`.
fn outer_end(space: &str) -> &str {
    if space.contains('\n') { space } else { "" }
}
