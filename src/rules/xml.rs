//! XML as a tree of byte ranges over the text it came from.
//!
//! Reading never changes anything: an edit is a splice of the original text, so what this project
//! does not understand (comments, foreign namespaces, quotes, entities) stays byte for byte.
//! Namespaces are resolved by quick-xml. Knows XML, and nothing of what libvirt means by it.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use quick_xml::name::{Namespace, NamespaceResolver, QName, ResolveResult};

/// The largest document that is read. libvirt's own limit for a domain is far above what guests have.
pub const LARGEST: usize = 4 << 20;
const DEEPEST: usize = 128;
/// The longest name of a namespace, in bytes: each element is compared with it.
const LONGEST_NAMESPACE: usize = 1024;

/// Why a text is not read as XML.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadXml {
    /// Malformed; the byte offset says where.
    #[error("not well-formed XML at byte {at}: {why}")]
    Malformed {
        /// Offset in bytes.
        at: usize,
        /// The parser's words.
        why: String,
    },
    /// The text ends inside an element, or holds none.
    #[error("the XML is truncated")]
    Truncated,
    /// A document type declaration: libvirt never prints one, and entities come from there.
    #[error("the XML has a DTD, which is refused")]
    Dtd,
    /// More than [`LARGEST`] bytes, or too deep.
    #[error("the XML is too large or too deeply nested")]
    TooLarge,
    /// Something stands after the root element.
    #[error("the XML has more than one root element")]
    SecondRoot,
}

/// An element's place in the text. Ranges are byte offsets into [`Document::text`].
#[derive(Debug, Clone)]
pub struct Element {
    /// From `<` to the last `>`.
    pub span: Range<usize>,
    /// The start tag alone, `<` to `>`.
    pub start_tag: Range<usize>,
    /// Between the tags; empty and at the start tag's end where there is no end tag.
    pub content: Range<usize>,
    /// Written as `<x/>`.
    pub self_closing: bool,
    /// The name as written.
    name: Range<usize>,
    namespace: Scope,
    attributes: Vec<Attribute>,
    children: Vec<usize>,
}

/// What namespace a name is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In none: where all of libvirt's own elements are.
    Plain,
    /// In the namespace of this name.
    Named(Arc<str>),
    /// Its prefix is declared nowhere.
    Undeclared,
}

/// An attribute's place: the whole `name='value'`, and the value between its quotes.
#[derive(Debug, Clone)]
pub struct Attribute {
    /// `name='value'` with both quotes.
    pub span: Range<usize>,
    /// Between the quotes, still escaped.
    pub raw: Range<usize>,
    name: Range<usize>,
    namespace: Scope,
    value: String,
}

/// A parsed document that borrows its text.
#[derive(Debug)]
pub struct Document<'t> {
    /// The text as given.
    pub text: &'t str,
    elements: Vec<Element>,
}

/// An element of a document; cheap to copy.
#[derive(Clone, Copy, Debug)]
pub struct Node<'d> {
    document: &'d Document<'d>,
    index: usize,
}

impl<'t> Document<'t> {
    /// Reads a whole document. Every tag must be closed, and nothing but one root may be there.
    pub fn parse(text: &'t str) -> Result<Self, BadXml> {
        if text.len() > LARGEST {
            return Err(BadXml::TooLarge);
        }
        let mut reader = Reader::from_str(text);
        let mut elements: Vec<Element> = Vec::new();
        let mut open: Vec<usize> = Vec::new();
        let mut scopes = Scopes::default();
        loop {
            let from = position(&reader);
            let event = reader.read_event().map_err(|why| malformed_or_truncated(&reader, text, &open, &why))?;
            let to = position(&reader);
            match event {
                Event::Start(tag) => {
                    let index = add(text, &mut elements, &open, &mut scopes, from..to, &tag)?;
                    open.push(index);
                    if open.len() > DEEPEST {
                        return Err(BadXml::TooLarge);
                    }
                }
                Event::Empty(tag) => {
                    let index = add(text, &mut elements, &open, &mut scopes, from..to, &tag)?;
                    elements[index].self_closing = true;
                    scopes.resolver.pop();
                }
                Event::End(_) => {
                    scopes.resolver.pop();
                    let index = open.pop().ok_or_else(|| malformed(from, &"an end tag without its start"))?;
                    elements[index].content = elements[index].start_tag.end..from;
                    elements[index].span.end = to;
                }
                Event::DocType(_) => return Err(BadXml::Dtd),
                Event::GeneralRef(entity) => {
                    let known = entity.is_char_ref() || quick_xml::escape::resolve_predefined_entity(&entity).is_some();
                    if !known {
                        return Err(malformed(from, &"an entity that XML does not define"));
                    }
                }
                Event::Text(words) if open.is_empty() && !words.trim().is_empty() => {
                    return Err(malformed(from, &"text outside the root element"));
                }
                Event::Eof if !open.is_empty() || elements.is_empty() => return Err(BadXml::Truncated),
                Event::Eof => return Ok(Self { text, elements }),
                _ => {}
            }
        }
    }

    /// The root element.
    #[must_use]
    pub fn root(&self) -> Node<'_> {
        Node { document: self, index: 0 }
    }
}

impl<'d> Node<'d> {
    /// Where the element is.
    #[must_use]
    pub fn element(self) -> &'d Element {
        &self.document.elements[self.index]
    }

    /// The name as written, prefix included.
    #[must_use]
    pub fn name(self) -> &'d str {
        &self.document.text[self.element().name.clone()]
    }

    /// The name without its prefix.
    #[must_use]
    pub fn local_name(self) -> &'d str {
        QName(self.name()).local_name().into_inner()
    }

    /// The namespace that the name is in, wherever it is declared.
    #[must_use]
    pub fn namespace(self) -> &'d Scope {
        &self.element().namespace
    }

    /// Whether the name is in that namespace.
    #[must_use]
    pub fn is_in(self, namespace: &str) -> bool {
        self.namespace().is(namespace)
    }

    /// Whether this is libvirt's own element of that name: in no namespace.
    #[must_use]
    pub fn is(self, name: &str) -> bool {
        *self.namespace() == Scope::Plain && self.name() == name
    }

    /// The child elements, in order.
    pub fn children(self) -> impl Iterator<Item = Node<'d>> {
        self.element().children.iter().map(move |index| Node { document: self.document, index: *index })
    }

    /// The children of that name in no namespace.
    pub fn all(self, name: &'d str) -> impl Iterator<Item = Node<'d>> {
        self.children().filter(move |child| child.is(name))
    }

    /// The first child of that name in no namespace.
    #[must_use]
    pub fn first(self, name: &str) -> Option<Node<'d>> {
        self.children().find(|child| child.is(name))
    }

    /// The attribute of that name, its entities resolved.
    #[must_use]
    pub fn attribute(self, name: &str) -> Option<&'d str> {
        self.attribute_at(name).map(|attribute| attribute.value.as_str())
    }

    /// The attribute of that name with its place.
    #[must_use]
    pub fn attribute_at(self, name: &str) -> Option<&'d Attribute> {
        let text = self.document.text;
        self.element().attributes.iter().find(|attribute| &text[attribute.name.clone()] == name)
    }

    /// The attributes in no namespace and in `namespace`, with their names in it and their values. Those of other
    /// namespaces and declarations of namespaces are left out; one whose prefix is declared nowhere keeps it.
    pub fn attributes_in(self, namespace: &str) -> impl Iterator<Item = (&'d str, &'d str)> {
        let text = self.document.text;
        self.element().attributes.iter().filter_map(move |attribute| {
            let name = QName(&text[attribute.name.clone()]);
            let shown = match &attribute.namespace {
                _ if name.as_namespace_binding().is_some() => return None,
                Scope::Named(_) if !attribute.namespace.is(namespace) => return None,
                Scope::Named(_) => name.local_name().into_inner(),
                Scope::Plain | Scope::Undeclared => name.into_inner(),
            };
            Some((shown, attribute.value.as_str()))
        })
    }

    /// The attribute that is written last.
    #[must_use]
    pub fn last_attribute(self) -> Option<&'d Attribute> {
        self.element().attributes.last()
    }

    /// The element's text without markup, entities resolved, white space at both ends taken off.
    #[must_use]
    pub fn text(self) -> String {
        let inside = &self.document.text[self.element().content.clone()];
        let mut reader = Reader::from_str(inside);
        let mut out = String::new();
        loop {
            match reader.read_event() {
                Ok(Event::Text(words)) => out.push_str(&words),
                Ok(Event::CData(words)) => out.push_str(&words),
                Ok(Event::GeneralRef(entity)) => {
                    if let Ok(Some(c)) = entity.resolve_char_ref() {
                        out.push(c);
                    } else if let Some(known) = quick_xml::escape::resolve_predefined_entity(&entity) {
                        out.push_str(known);
                    }
                }
                Ok(Event::Eof) | Err(_) => return out.trim().to_owned(),
                Ok(_) => {}
            }
        }
    }
}

impl Scope {
    /// Whether it is the namespace of that name.
    #[must_use]
    pub fn is(&self, namespace: &str) -> bool {
        matches!(self, Self::Named(name) if **name == *namespace)
    }
}

/// The declarations in force, and each namespace's name once.
#[derive(Default)]
struct Scopes {
    resolver: NamespaceResolver,
    names: HashSet<Arc<str>>,
}

impl Scopes {
    /// Takes in an element's own declarations. quick-xml takes their values as written: entities are resolved here.
    fn enter(&mut self, tag: &BytesStart<'_>, at: usize) -> Result<(), BadXml> {
        self.resolver.push(tag).map_err(|why| malformed(at, &why))?;
        for attribute in tag.attributes() {
            let attribute = attribute.map_err(|why| malformed(at, &why))?;
            let Some(prefix) = attribute.key.as_namespace_binding() else { continue };
            let name = quick_xml::escape::unescape(&attribute.value).map_err(|why| malformed(at, &why))?;
            if name.len() > LONGEST_NAMESPACE {
                return Err(BadXml::TooLarge);
            }
            if name != attribute.value {
                self.resolver.add(prefix, Namespace(&name)).map_err(|why| malformed(at, &why))?;
            }
        }
        Ok(())
    }

    fn of(&mut self, name: &str, is_element: bool) -> Scope {
        let bound = match self.resolver.resolve(QName(name), is_element).0 {
            ResolveResult::Unbound => return Scope::Plain,
            ResolveResult::Unknown(_) => return Scope::Undeclared,
            ResolveResult::Bound(Namespace(bound)) => bound,
        };
        if let Some(known) = self.names.get(bound) {
            return Scope::Named(Arc::clone(known));
        }
        let name = Arc::<str>::from(bound);
        self.names.insert(Arc::clone(&name));
        Scope::Named(name)
    }
}

fn add(
    text: &str,
    elements: &mut Vec<Element>,
    open: &[usize],
    scopes: &mut Scopes,
    tag_at: Range<usize>,
    tag: &BytesStart<'_>,
) -> Result<usize, BadXml> {
    if open.is_empty() && !elements.is_empty() {
        return Err(BadXml::SecondRoot);
    }
    scopes.enter(tag, tag_at.start)?;
    let index = elements.len();
    let mut attributes = Vec::new();
    for attribute in tag.attributes() {
        let attribute = attribute.map_err(|why| malformed(tag_at.start, &why))?;
        let name =
            place(text, attribute.key.as_ref()).ok_or_else(|| malformed(tag_at.start, &"an attribute out of place"))?;
        let raw = place(text, &attribute.value).ok_or_else(|| malformed(tag_at.start, &"a value out of place"))?;
        let value =
            quick_xml::escape::unescape(&attribute.value).map_err(|why| malformed(raw.start, &why))?.into_owned();
        let namespace = scopes.of(&text[name.clone()], false);
        attributes.push(Attribute { span: name.start..raw.end + 1, raw, name, namespace, value });
    }
    let name = place(text, tag.name().as_ref()).ok_or_else(|| malformed(tag_at.start, &"a tag out of place"))?;
    let namespace = scopes.of(&text[name.clone()], true);
    elements.push(Element {
        span: tag_at.clone(),
        content: tag_at.end..tag_at.end,
        start_tag: tag_at,
        self_closing: false,
        name,
        namespace,
        attributes,
        children: Vec::new(),
    });
    if let Some(parent) = open.last() {
        elements[*parent].children.push(index);
    }
    Ok(index)
}

/// Where a slice that borrows from `text` lies in it.
fn place(text: &str, part: &str) -> Option<Range<usize>> {
    let start = (part.as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
    let end = start.checked_add(part.len())?;
    (end <= text.len()).then_some(start..end)
}

fn position(reader: &Reader<&[u8]>) -> usize {
    usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX)
}

fn malformed(at: usize, why: &dyn std::fmt::Display) -> BadXml {
    BadXml::Malformed { at, why: why.to_string() }
}

fn malformed_or_truncated(reader: &Reader<&[u8]>, text: &str, open: &[usize], why: &quick_xml::Error) -> BadXml {
    let at = usize::try_from(reader.error_position()).unwrap_or(0);
    let unfinished = matches!(why, quick_xml::Error::Syntax(_)) && (!open.is_empty() || at <= text.len());
    if unfinished { BadXml::Truncated } else { malformed(at, why) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GUEST: &str = "<?xml version='1.0'?>\n<!-- a -->\n<domain type='qemu' xmlns:q=\"http://q\">\n  <name>a&amp;b<![CDATA[<c>]]></name>\n  <q:cmd><arg value='1'/></q:cmd>\n  <devices><serial  type = \"pty\" /></devices>\n</domain>\n";

    #[test]
    fn ranges_point_at_what_was_written() {
        let document = Document::parse(GUEST).unwrap();
        let domain = document.root();
        assert_eq!(domain.name(), "domain");
        assert_eq!(domain.first("name").unwrap().text(), "a&b<c>");
        let serial = domain.first("devices").unwrap().first("serial").unwrap();
        assert_eq!(&GUEST[serial.element().span.clone()], "<serial  type = \"pty\" />");
        assert_eq!(&GUEST[serial.attribute_at("type").unwrap().span.clone()], "type = \"pty\"");
        assert_eq!(&GUEST[serial.attribute_at("type").unwrap().raw.clone()], "pty");
        assert!(serial.element().self_closing);
    }

    #[test]
    fn an_element_of_another_namespace_is_not_libvirts() {
        let text = "<domain><devices xmlns='urn:x'><serial/></devices><a:serial xmlns:a='u'/></domain>";
        let document = Document::parse(text).unwrap();
        assert!(document.root().first("devices").is_none());
        assert!(document.root().first("serial").is_none());
    }

    #[test]
    fn a_namespace_counts_wherever_it_is_declared_and_whatever_its_prefix() {
        let inside = |root: &str, element: &str| {
            let text = format!("<r {root}>{element}</r>");
            let document = Document::parse(&text).unwrap();
            let node = document.root().children().next().unwrap();
            (node.namespace().clone(), node.local_name().to_owned())
        };
        let (ours, plain) = (|| Scope::Named("urn:a".into()), Scope::Plain);
        for (root, element, scope) in [
            ("xmlns:p='urn:a'", "<p:x/>", ours()),
            ("", "<p:x xmlns:p='urn:a'/>", ours()),
            ("", "<x xmlns='urn:a'/>", ours()),
            ("xmlns='urn:a'", "<x/>", ours()),
            ("xmlns:p='urn:b'", "<p:x xmlns:p='urn:a'/>", ours()),
            ("xmlns:p='urn:a'", "<p:x xmlns:p='urn:b'/>", Scope::Named("urn:b".into())),
            ("xmlns:p='urn&#58;a'", "<p:x/>", ours()),
            ("xmlns:p='urn:a'", "<x/>", plain.clone()),
            ("xmlns='urn:a'", "<x xmlns=''/>", plain.clone()),
            ("xmlns:p='urn:a '", "<p:x/>", Scope::Named("urn:a ".into())),
            ("", "<p:x/>", Scope::Undeclared),
            ("xmlns:p='urn:a'", "<p:x xmlns:p=''/>", Scope::Undeclared),
        ] {
            assert_eq!(inside(root, element), (scope, "x".to_owned()), "{root} {element}");
        }
        assert_eq!(inside("", "<p:x xmlns:p='urn:a'/><p:y/>").0, ours());
        let document = Document::parse("<r><a xmlns:p='urn:a'/><p:b/></r>").unwrap();
        assert_eq!(document.root().children().last().unwrap().namespace(), &Scope::Undeclared, "a sibling's is over");
    }

    #[test]
    fn attributes_are_seen_in_no_namespace_and_in_the_one_that_was_asked_for() {
        let text = "<r xmlns:o='urn:a' xmlns:f='urn:f' xmlns='urn:d' a='1' o:b='2' f:c='3' u:d='4'/>";
        let document = Document::parse(text).unwrap();
        let seen: Vec<_> = document.root().attributes_in("urn:a").collect();
        assert_eq!(seen, [("a", "1"), ("b", "2"), ("u:d", "4")]);
    }

    #[test]
    fn declarations_without_end_are_refused() {
        let long = format!("<a xmlns='{}'/>", "u".repeat(LONGEST_NAMESPACE + 1));
        assert_eq!(Document::parse(&long).unwrap_err(), BadXml::TooLarge);
        let many: String = (0..200).map(|n| format!(" xmlns:p{n}='u'")).collect();
        assert!(matches!(Document::parse(&format!("<a{many}/>")), Err(BadXml::Malformed { .. })));
    }

    #[test]
    fn a_dtd_an_unknown_entity_and_a_second_root_are_refused() {
        assert_eq!(Document::parse("<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>").unwrap_err(), BadXml::Dtd);
        assert!(matches!(Document::parse("<a>&b;</a>").unwrap_err(), BadXml::Malformed { .. }));
        assert!(matches!(Document::parse("<a b='&c;'/>").unwrap_err(), BadXml::Malformed { .. }));
        assert_eq!(Document::parse("<a/><b/>").unwrap_err(), BadXml::SecondRoot);
        assert!(Document::parse("<a/>words").is_err());
        assert!(Document::parse("<a></b>").is_err());
        assert!(Document::parse("<a b='1' b='2'/>").is_err());
    }

    #[test]
    fn a_text_cut_at_any_byte_before_its_last_tag_is_refused_without_a_panic() {
        let end = GUEST.trim_end().len();
        for cut in (0..end).filter(|cut| GUEST.is_char_boundary(*cut)) {
            assert!(Document::parse(&GUEST[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn too_deep_and_too_large_are_refused() {
        assert_eq!(Document::parse(&"<a>".repeat(100_000)).unwrap_err(), BadXml::TooLarge);
        assert_eq!(Document::parse(&" ".repeat(LARGEST + 1)).unwrap_err(), BadXml::TooLarge);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[<>/a='\"&;!\\-\\[\\] ?x]{0,60}") {
            let _ = Document::parse(&text);
        }
    }
}
