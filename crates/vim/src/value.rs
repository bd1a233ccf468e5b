//! How Rust values become elements and back: the traits that the macros fill in.

use crate::xml::Element;
use std::borrow::Cow;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Why an element does not hold the value that is wanted.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    /// A required element is missing.
    #[error("<{parent}> has no <{name}>")]
    Missing {
        /// The element it should be in.
        parent: String,
        /// Its name.
        name: &'static str,
    },
    /// The text is no value of the type.
    #[error("<{name}> holds {text:?}, which is no {wanted}")]
    Text {
        /// The element.
        name: String,
        /// Its text, shortened.
        text: String,
        /// The type.
        wanted: &'static str,
    },
    /// Two or more where one may be.
    #[error("<{parent}> has more than one <{name}>")]
    Repeated {
        /// The element they are in.
        parent: String,
        /// Their name.
        name: &'static str,
    },
}

impl DecodeError {
    /// The element that is wrong, for `InvalidArgument.invalidProperty`.
    pub fn property(&self) -> &str {
        match self {
            DecodeError::Missing { name, .. } | DecodeError::Repeated { name, .. } => name,
            DecodeError::Text { name, .. } => name,
        }
    }

    #[doc(hidden)]
    pub fn text(element: &Element, wanted: &'static str) -> DecodeError {
        DecodeError::Text {
            name: element.name.to_string(),
            text: element.text.chars().take(80).collect(),
            wanted,
        }
    }
}

/// One value: a primitive, an enumeration or a data object.
pub trait Value: Sized {
    /// Its name in the API (`string`, `VirtualMachineConfigSpec`).
    const TYPE: &'static str;
    /// As an element of this name.
    fn to_element(&self, name: &'static str) -> Element;
    /// From an element, whatever its name.
    ///
    /// # Errors
    /// [`DecodeError`] naming the element that is missing or wrong.
    fn from_element(element: &Element) -> Result<Self, DecodeError>;
    /// A property below this one by its dotted path, as the property collector names it.
    fn property(&self, path: &str) -> Option<Any> {
        let _ = path;
        None
    }
}

/// A member of a data object: a [`Value`] once, perhaps (`Option`), or any number of times (`Vec`).
pub trait Field: Sized {
    /// Appends it to its data object.
    fn write(&self, name: &'static str, out: &mut Vec<Element>);
    /// Finds it in its data object.
    ///
    /// # Errors
    /// [`DecodeError`] naming the element that is missing or wrong.
    fn read(parent: &Element, name: &'static str) -> Result<Self, DecodeError>;
    /// This member (empty path) or what is below it.
    fn property(&self, path: &str) -> Option<Any>;
}

fn only<'a>(parent: &'a Element, name: &'static str) -> Result<Option<&'a Element>, DecodeError> {
    let mut found = parent.children_named(name);
    let first = found.next();
    if found.next().is_some() {
        return Err(DecodeError::Repeated {
            parent: parent.name.to_string(),
            name,
        });
    }
    Ok(first)
}

impl<T: Value> Field for T {
    fn write(&self, name: &'static str, out: &mut Vec<Element>) {
        out.push(self.to_element(name));
    }
    fn read(parent: &Element, name: &'static str) -> Result<T, DecodeError> {
        match only(parent, name)? {
            Some(element) => T::from_element(element),
            None => Err(DecodeError::Missing {
                parent: parent.name.to_string(),
                name,
            }),
        }
    }
    fn property(&self, path: &str) -> Option<Any> {
        if path.is_empty() {
            Some(Any::of(self))
        } else {
            Value::property(self, path)
        }
    }
}

impl<T: Value> Field for Option<T> {
    fn write(&self, name: &'static str, out: &mut Vec<Element>) {
        if let Some(value) = self {
            out.push(value.to_element(name));
        }
    }
    fn read(parent: &Element, name: &'static str) -> Result<Option<T>, DecodeError> {
        only(parent, name)?.map(T::from_element).transpose()
    }
    fn property(&self, path: &str) -> Option<Any> {
        self.as_ref().and_then(|value| Field::property(value, path))
    }
}

impl<T: Value> Field for Vec<T> {
    fn write(&self, name: &'static str, out: &mut Vec<Element>) {
        out.extend(self.iter().map(|value| value.to_element(name)));
    }
    fn read(parent: &Element, name: &'static str) -> Result<Vec<T>, DecodeError> {
        parent.children_named(name).map(T::from_element).collect()
    }
    fn property(&self, path: &str) -> Option<Any> {
        path.is_empty().then(|| Any::list(self))
    }
}

impl Field for () {
    fn write(&self, _: &'static str, _: &mut Vec<Element>) {}
    fn read(_: &Element, _: &'static str) -> Result<(), DecodeError> {
        Ok(())
    }
    fn property(&self, _: &str) -> Option<Any> {
        None
    }
}

impl<T: Value> Value for Box<T> {
    const TYPE: &'static str = T::TYPE;
    fn to_element(&self, name: &'static str) -> Element {
        (**self).to_element(name)
    }
    fn from_element(element: &Element) -> Result<Self, DecodeError> {
        T::from_element(element).map(Box::new)
    }
    fn property(&self, path: &str) -> Option<Any> {
        Value::property(&**self, path)
    }
}

/// Whether a type name is one of XML Schema's own, which travel with the prefix `xsd`.
pub(crate) fn is_xsd(name: &str) -> bool {
    matches!(
        name,
        "string"
            | "boolean"
            | "byte"
            | "short"
            | "int"
            | "long"
            | "float"
            | "double"
            | "dateTime"
            | "anyURI"
            | "base64Binary"
    )
}

macro_rules! number {
    ($($type:ty = $name:literal),*) => {$(
        impl Value for $type {
            const TYPE: &'static str = $name;
            fn to_element(&self, name: &'static str) -> Element {
                Element::with_text(name, self.to_string())
            }
            fn from_element(element: &Element) -> Result<Self, DecodeError> {
                element.text.trim().parse().map_err(|_| DecodeError::text(element, $name))
            }
        }
    )*};
}
number!(
    i8 = "byte",
    i16 = "short",
    i32 = "int",
    i64 = "long",
    f64 = "double"
);

impl Value for bool {
    const TYPE: &'static str = "boolean";
    fn to_element(&self, name: &'static str) -> Element {
        Element::with_text(name, if *self { "true" } else { "false" })
    }
    fn from_element(element: &Element) -> Result<Self, DecodeError> {
        match element.text.trim() {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(DecodeError::text(element, "boolean")),
        }
    }
}

impl Value for String {
    const TYPE: &'static str = "string";
    fn to_element(&self, name: &'static str) -> Element {
        Element::with_text(name, self.as_str())
    }
    fn from_element(element: &Element) -> Result<Self, DecodeError> {
        Ok(element.text.clone())
    }
}

/// A point in time (`xsd:dateTime`), in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DateTime(pub OffsetDateTime);

impl DateTime {
    /// Now, to the microsecond, as vSphere gives it.
    pub fn now() -> DateTime {
        let now = OffsetDateTime::now_utc();
        DateTime(now.replace_microsecond(now.microsecond()).unwrap_or(now))
    }
}

impl Default for DateTime {
    fn default() -> DateTime {
        DateTime(OffsetDateTime::UNIX_EPOCH)
    }
}

impl std::fmt::Display for DateTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Years outside 0..=9999 cannot come from `now` nor from the parser.
        f.write_str(&self.0.format(&Rfc3339).map_err(|_| std::fmt::Error)?)
    }
}

impl Value for DateTime {
    const TYPE: &'static str = "dateTime";
    fn to_element(&self, name: &'static str) -> Element {
        Element::with_text(name, self.0.format(&Rfc3339).unwrap_or_default())
    }
    fn from_element(element: &Element) -> Result<Self, DecodeError> {
        let text = element.text.trim();
        // xsd:dateTime may lack the offset; vSphere means UTC then.
        OffsetDateTime::parse(text, &Rfc3339)
            .or_else(|_| OffsetDateTime::parse(&format!("{text}Z"), &Rfc3339))
            .map(|t| DateTime(t.to_offset(time::UtcOffset::UTC)))
            .map_err(|_| DecodeError::text(element, "dateTime"))
    }
}

/// A value whose type travels with it (`xsd:anyType`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Any(pub Element);

impl Any {
    /// Wraps a value.
    pub fn of<T: Value>(value: &T) -> Any {
        let mut element = value.to_element("val");
        if element.xsi_type.is_none() {
            element.xsi_type = Some(Cow::Borrowed(T::TYPE));
        }
        Any(element)
    }

    /// Wraps an array (`ArrayOfVirtualDevice`).
    pub fn list<T: Value>(values: &[T]) -> Any {
        let (array, item) = array_names(T::TYPE);
        let mut element = Element::new("val");
        element.xsi_type = Some(Cow::Owned(array));
        element.children = values
            .iter()
            .map(|value| {
                let mut child = value.to_element("val");
                child.name = Cow::Owned(item.clone());
                child
            })
            .collect();
        Any(element)
    }

    /// The type's name, `string` where the sender left it out.
    pub fn type_name(&self) -> &str {
        self.0.xsi_type.as_deref().unwrap_or("string")
    }

    /// The value as a `T`.
    ///
    /// # Errors
    /// [`DecodeError`] where it is no `T`.
    pub fn get<T: Value>(&self) -> Result<T, DecodeError> {
        T::from_element(&self.0)
    }

    /// The values of an array; nothing where it is none.
    ///
    /// # Errors
    /// [`DecodeError`] where an item is no `T`.
    pub fn items<T: Value>(&self) -> Result<Vec<T>, DecodeError> {
        self.0.children.iter().map(T::from_element).collect()
    }
}

/// Names of an array type and of its items: primitives are `ArrayOfString` with items `string`.
fn array_names(item: &'static str) -> (String, String) {
    let mut name = String::from("ArrayOf");
    let mut chars = item.chars();
    name.extend(chars.next().map(|c| c.to_ascii_uppercase()));
    name.push_str(chars.as_str());
    (name, item.to_owned())
}

impl Value for Any {
    const TYPE: &'static str = "anyType";
    fn to_element(&self, name: &'static str) -> Element {
        let mut element = self.0.clone();
        element.name = Cow::Borrowed(name);
        element
    }
    fn from_element(element: &Element) -> Result<Self, DecodeError> {
        let mut element = element.clone();
        element.name = Cow::Borrowed("val");
        Ok(Any(element))
    }
}

impl From<&str> for Any {
    fn from(text: &str) -> Any {
        Any::of(&text.to_owned())
    }
}

impl From<String> for Any {
    fn from(text: String) -> Any {
        Any::of(&text)
    }
}
