//! The smallest XML tree that a domain needs: names, attributes, children, text.

use std::collections::BTreeMap;
use std::io::Cursor;

use quick_xml::events::{BytesEnd, BytesStart, BytesText, Event};
use quick_xml::{Reader, Writer, XmlVersion};

use super::ReadError;

/// Depth a document may have. libvirt's domains nest 8 deep at most; the bound keeps a hostile document off the stack.
const MAX_DEPTH: usize = 64;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Element {
    pub(super) name: String,
    pub(super) attributes: BTreeMap<String, String>,
    /// In the order they are written; golden files read better so.
    order: Vec<String>,
    pub(super) children: Vec<Element>,
    pub(super) text: String,
}

impl Element {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    pub(super) fn attribute(mut self, name: &str, value: impl ToString) -> Self {
        self.order.push(name.to_owned());
        self.attributes.insert(name.to_owned(), value.to_string());
        self
    }

    pub(super) fn child(mut self, child: Element) -> Self {
        self.children.push(child);
        self
    }

    pub(super) fn children(mut self, children: impl IntoIterator<Item = Element>) -> Self {
        self.children.extend(children);
        self
    }

    pub(super) fn text(mut self, text: impl ToString) -> Self {
        self.text = text.to_string();
        self
    }

    pub(super) fn get(&self, attribute: &str) -> Option<&str> {
        self.attributes.get(attribute).map(String::as_str)
    }

    pub(super) fn first(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name == name)
    }

    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// The element at the end of a path of names.
    pub(super) fn at(&self, path: &[&str]) -> Option<&Element> {
        path.iter().try_fold(self, |element, name| element.first(name))
    }

    pub(super) fn to_xml(&self) -> String {
        let mut writer = Writer::new_with_indent(Cursor::new(Vec::new()), b' ', 2);
        self.write(&mut writer).expect("writing to memory does not fail");
        let mut xml = String::from_utf8(writer.into_inner().into_inner()).expect("only text was written");
        xml.push('\n');
        xml
    }

    fn write(&self, writer: &mut Writer<Cursor<Vec<u8>>>) -> std::io::Result<()> {
        let mut start = BytesStart::new(self.name.as_str());
        for name in &self.order {
            start.push_attribute((name.as_str(), self.attributes[name].as_str()));
        }
        if self.children.is_empty() && self.text.is_empty() {
            return writer.write_event(Event::Empty(start));
        }
        writer.write_event(Event::Start(start))?;
        if !self.text.is_empty() {
            writer.write_event(Event::Text(BytesText::new(&self.text)))?;
        }
        for child in &self.children {
            child.write(writer)?;
        }
        writer.write_event(Event::End(BytesEnd::new(self.name.as_str())))
    }

    pub(super) fn parse(xml: &str) -> Result<Self, ReadError> {
        let mut reader = Reader::from_str(xml);
        let mut open: Vec<Element> = vec![Element::default()];
        loop {
            match reader.read_event().map_err(|error| ReadError::Xml(error.to_string()))? {
                Event::Start(start) => {
                    if open.len() > MAX_DEPTH {
                        return Err(ReadError::Xml(format!("elements nest deeper than {MAX_DEPTH}")));
                    }
                    open.push(Self::begin(&start)?);
                }
                Event::Empty(start) => {
                    let element = Self::begin(&start)?;
                    open.last_mut().expect("the root is always open").children.push(element);
                }
                Event::End(_) => {
                    let mut done = open.pop().expect("the reader matches ends to starts");
                    if !done.children.is_empty() {
                        // Between children there is only the layout.
                        done.text.clear();
                    }
                    open.last_mut().expect("the root is always open").children.push(done);
                }
                Event::Text(text) => {
                    let text = text.xml10_content();
                    open.last_mut().expect("the root is always open").text.push_str(&text);
                }
                Event::CData(data) => {
                    let text = data.xml10_content();
                    open.last_mut().expect("the root is always open").text.push_str(&text);
                }
                Event::GeneralRef(reference) => {
                    let escaped = format!("&{};", reference.xml10_content());
                    let text =
                        quick_xml::escape::unescape(&escaped).map_err(|error| ReadError::Xml(error.to_string()))?;
                    open.last_mut().expect("the root is always open").text.push_str(&text);
                }
                Event::Eof => break,
                Event::Decl(_) | Event::Comment(_) | Event::PI(_) | Event::DocType(_) => {}
            }
        }
        if open.len() != 1 {
            return Err(ReadError::Xml("the document ends inside an element".to_owned()));
        }
        open.pop().and_then(|root| root.children.into_iter().next()).ok_or(ReadError::Missing("domain"))
    }

    fn begin(start: &BytesStart<'_>) -> Result<Self, ReadError> {
        let mut element = Element::new(start.name().as_ref());
        for attribute in start.attributes() {
            let attribute = attribute.map_err(|error| ReadError::Xml(error.to_string()))?;
            let value = attribute
                .normalized_value(XmlVersion::Implicit1_0)
                .map_err(|error| ReadError::Xml(error.to_string()))?
                .into_owned();
            element = element.attribute(attribute.key.as_ref(), value);
        }
        Ok(element)
    }
}
