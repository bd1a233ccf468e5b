//! A small XML tree and its bounded parser: what SOAP messages need and no more.
//!
//! Prefixes are dropped (a SOAP body of vim25 has one namespace), as are comments and processing
//! instructions. A document type declaration is refused: no entity is ever expanded but the five
//! of XML itself and character references.

use quick_xml::events::{BytesStart, Event};
use std::borrow::Cow;
use std::fmt::Write as _;

/// Limits of one message.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Nested elements. vSphere's own limit is 100.
    pub depth: usize,
    /// Bytes of the message.
    pub bytes: usize,
    /// Elements in all.
    pub elements: usize,
}

impl Limits {
    /// What a server takes from a client.
    pub const REQUEST: Limits = Limits {
        depth: 100,
        bytes: 8 << 20,
        elements: 200_000,
    };
    /// What a client takes from a server (an inventory of 10,000 VMs).
    pub const RESPONSE: Limits = Limits {
        depth: 128,
        bytes: 256 << 20,
        elements: 8_000_000,
    };
}

/// Why a text is no acceptable message.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum XmlError {
    /// Deeper than [`Limits::depth`]; the wording is vSphere's.
    #[error("XML element depth exceeds configured maximum {0}")]
    Depth(usize),
    /// More than [`Limits::bytes`].
    #[error("XML message of {got} bytes exceeds the maximum of {max} bytes")]
    Bytes {
        /// Bytes received.
        got: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// More than [`Limits::elements`].
    #[error("XML message has more than {0} elements")]
    Elements(usize),
    /// Not well-formed, or with a part that is refused.
    #[error("XML is not acceptable at byte {at}: {what}")]
    Syntax {
        /// Offset in the message.
        at: u64,
        /// What is wrong.
        what: String,
    },
}

/// An element: name, the two attributes that vim25 knows, and either text or children.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Element {
    /// Local name.
    pub name: Cow<'static, str>,
    /// `xsi:type` without prefix (`VirtualDisk`, `string`).
    pub xsi_type: Option<Cow<'static, str>>,
    /// Attribute `type`: the kind of managed object of a reference.
    pub object_type: Option<Cow<'static, str>>,
    /// Character data, entities resolved.
    pub text: String,
    /// Child elements in order.
    pub children: Vec<Element>,
}

impl Element {
    /// An empty element.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Element {
        Element {
            name: name.into(),
            ..Element::default()
        }
    }

    /// An element with text.
    pub fn with_text(name: impl Into<Cow<'static, str>>, text: impl Into<String>) -> Element {
        Element {
            name: name.into(),
            text: text.into(),
            ..Element::default()
        }
    }

    /// The first child of this name.
    pub fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|c| c.name == name)
    }

    /// All children of this name, in order.
    pub fn children_named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.children.iter().filter(move |c| c.name == name)
    }

    /// Parses a whole message.
    ///
    /// # Errors
    /// [`XmlError`] where it is not well-formed or breaks a limit; nothing is allocated beyond the limits.
    pub fn parse(message: &[u8], limits: Limits) -> Result<Element, XmlError> {
        if message.len() > limits.bytes {
            return Err(XmlError::Bytes {
                got: message.len(),
                max: limits.bytes,
            });
        }
        let mut reader = quick_xml::Reader::from_reader(message);
        reader.config_mut().check_end_names = true;
        let mut open: Vec<Element> = Vec::new();
        let mut root: Option<Element> = None;
        let mut count = 0usize;
        loop {
            let at = reader.buffer_position();
            let syntax = |what: String| XmlError::Syntax { at, what };
            let event = reader.read_event().map_err(|e| syntax(e.to_string()))?;
            match event {
                Event::Start(start) => {
                    count += 1;
                    check_new(&root, &open, count, limits, at)?;
                    open.push(element_of(&start).map_err(syntax)?);
                }
                Event::Empty(start) => {
                    count += 1;
                    check_new(&root, &open, count, limits, at)?;
                    close(element_of(&start).map_err(syntax)?, &mut open, &mut root);
                }
                Event::End(_) => {
                    let mut done = open
                        .pop()
                        .ok_or_else(|| syntax("end tag without a start tag".into()))?;
                    // Blanks between the children of a structure are layout, not text.
                    if !done.children.is_empty() {
                        done.text = String::new();
                    }
                    close(done, &mut open, &mut root);
                }
                Event::Text(text) => {
                    let text = text.decode().map_err(|e| syntax(e.to_string()))?;
                    add_text(&text, &mut open).map_err(syntax)?;
                }
                Event::CData(data) => {
                    let text = data.decode().map_err(|e| syntax(e.to_string()))?;
                    add_text(&text, &mut open).map_err(syntax)?;
                }
                Event::GeneralRef(reference) => {
                    let text = resolve(&reference).map_err(syntax)?;
                    add_text(&text, &mut open).map_err(syntax)?;
                }
                Event::DocType(_) => {
                    return Err(syntax("a document type declaration is refused".into()));
                }
                Event::Decl(_) | Event::Comment(_) | Event::PI(_) => {}
                Event::Eof => break,
            }
        }
        if let Some(left) = open.last() {
            return Err(XmlError::Syntax {
                at: reader.buffer_position(),
                what: format!("<{}> is not closed", left.name),
            });
        }
        root.ok_or(XmlError::Syntax {
            at: 0,
            what: "no element".into(),
        })
    }

    /// Appends the element as XML.
    pub fn write(&self, out: &mut String) {
        out.push('<');
        out.push_str(&self.name);
        if let Some(kind) = &self.object_type {
            out.push_str(" type=\"");
            escape(kind, out);
            out.push('"');
        }
        if let Some(kind) = &self.xsi_type {
            let prefix = if crate::value::is_xsd(kind) {
                "xsd:"
            } else {
                ""
            };
            let _ = write!(out, " xsi:type=\"{prefix}");
            escape(kind, out);
            out.push('"');
        }
        if self.children.is_empty() && self.text.is_empty() {
            out.push_str("/>");
            return;
        }
        out.push('>');
        escape(&self.text, out);
        for child in &self.children {
            child.write(out);
        }
        out.push_str("</");
        out.push_str(&self.name);
        out.push('>');
    }
}

fn check_new(
    root: &Option<Element>,
    open: &[Element],
    count: usize,
    limits: Limits,
    at: u64,
) -> Result<(), XmlError> {
    if root.is_some() {
        return Err(XmlError::Syntax {
            at,
            what: "a second root element".into(),
        });
    }
    if open.len() >= limits.depth {
        return Err(XmlError::Depth(limits.depth));
    }
    if count > limits.elements {
        return Err(XmlError::Elements(limits.elements));
    }
    Ok(())
}

fn close(done: Element, open: &mut [Element], root: &mut Option<Element>) {
    match open.last_mut() {
        Some(parent) => parent.children.push(done),
        None => *root = Some(done),
    }
}

fn add_text(text: &str, open: &mut [Element]) -> Result<(), String> {
    check_characters(text)?;
    match open.last_mut() {
        Some(element) => element.text.push_str(text),
        None if text
            .trim_matches([' ', '\t', '\r', '\n', '\u{feff}'])
            .is_empty() => {}
        None => return Err("text outside of the root element".into()),
    }
    Ok(())
}

fn resolve(reference: &quick_xml::events::BytesRef<'_>) -> Result<String, String> {
    if let Some(c) = reference.resolve_char_ref().map_err(|e| e.to_string())? {
        return Ok(c.to_string());
    }
    let name = reference.decode().map_err(|e| e.to_string())?;
    match quick_xml::escape::resolve_predefined_entity(&name) {
        Some(text) => Ok(text.to_owned()),
        None => Err(format!("unknown entity &{name};")),
    }
}

fn element_of(start: &BytesStart<'_>) -> Result<Element, String> {
    let local = start.local_name();
    let name = std::str::from_utf8(local.as_ref()).map_err(|e| e.to_string())?;
    // What is kept of an unknown element is written again: its name must be one.
    if name.is_empty() || !name.chars().all(is_of_name) {
        return Err(format!("{name:?} is no name of an element"));
    }
    let mut element = Element::new(name.to_owned());
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|e| e.to_string())?;
        let key = attribute.key;
        if key.local_name().as_ref() != b"type" {
            continue;
        }
        let value = attribute.unescape_value().map_err(|e| e.to_string())?;
        check_characters(&value)?;
        if key.prefix().is_some() {
            let local = value.rsplit(':').next().unwrap_or_default().trim();
            element.xsi_type = Some(Cow::Owned(local.to_owned()));
        } else {
            element.object_type = Some(Cow::Owned(value.into_owned()));
        }
    }
    Ok(element)
}

/// Whether XML 1.0 cannot carry it, not even as a reference (2.2 "Characters").
fn is_forbidden(c: char) -> bool {
    matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}')
}

fn check_characters(text: &str) -> Result<(), String> {
    match text.chars().find(|&c| is_forbidden(c)) {
        Some(c) => Err(format!("the character {c:?} is none of XML's")),
        None => Ok(()),
    }
}

/// A character of a local name; of those outside of ASCII nobody makes use here.
fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')
}

/// Appends `text` with the characters escaped that XML reserves. Characters that XML 1.0 cannot
/// carry at all are replaced by U+FFFD, so that no value can make a message unreadable.
pub fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\r' => out.push_str("&#13;"),
            c if is_forbidden(c) => out.push('\u{fffd}'),
            _ => out.push(c),
        }
    }
}
