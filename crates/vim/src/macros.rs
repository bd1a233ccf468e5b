//! Compact descriptions of data objects, enumerations and methods.

/// Describes a data object: Rust name, name in the API, members with their names in the API, in
/// the order of the API's schema.
#[macro_export]
macro_rules! data_object {
    ($($(#[$meta:meta])* $name:ident = $wire:literal {
        $($(#[$field_meta:meta])* $field:ident : $type:ty = $field_wire:literal),* $(,)?
    })*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Default)]
        #[allow(
            clippy::derive_partial_eq_without_eq,
            reason = "some objects hold floating-point numbers"
        )]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
        }

        impl $name {
            /// Appends the members to an element, in the schema's order.
            #[allow(unused_variables, reason = "an object may have no member")]
            pub fn write_members(&self, out: &mut Vec<$crate::xml::Element>) {
                $($crate::value::Field::write(&self.$field, $field_wire, out);)*
            }
            /// Reads the members from an element.
            ///
            /// # Errors
            /// Names the member that is missing or wrong.
            #[allow(unused_variables, reason = "an object may have no member")]
            pub fn read_members(
                element: &$crate::xml::Element,
            ) -> Result<Self, $crate::value::DecodeError> {
                Ok($name { $($field: $crate::value::Field::read(element, $field_wire)?,)* })
            }
        }

        impl $crate::value::Value for $name {
            const TYPE: &'static str = $wire;
            fn to_element(&self, name: &'static str) -> $crate::xml::Element {
                let mut element = $crate::xml::Element::new(name);
                self.write_members(&mut element.children);
                element
            }
            fn from_element(
                element: &$crate::xml::Element,
            ) -> Result<Self, $crate::value::DecodeError> {
                Self::read_members(element)
            }
            #[allow(unused_variables, reason = "an object may have no member")]
            fn property(&self, path: &str) -> Option<$crate::value::Any> {
                let (first, rest) = path.split_once('.').unwrap_or((path, ""));
                match first {
                    $($field_wire => $crate::value::Field::property(&self.$field, rest),)*
                    _ => None,
                }
            }
        }
    )*};
}

/// Describes an enumeration whose values travel as text. The first is the default.
#[macro_export]
macro_rules! string_enum {
    ($($(#[$meta:meta])* $name:ident = $wire:literal {
        $(#[$first_meta:meta])* $first:ident = $first_wire:literal
        $(, $(#[$variant_meta:meta])* $variant:ident = $variant_wire:literal)* $(,)?
    })*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
        pub enum $name {
            $(#[$first_meta])* #[default] $first,
            $($(#[$variant_meta])* $variant,)*
        }

        impl $name {
            /// The text that travels.
            pub fn as_str(self) -> &'static str {
                match self {
                    $name::$first => $first_wire,
                    $($name::$variant => $variant_wire,)*
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl $crate::value::Value for $name {
            const TYPE: &'static str = $wire;
            fn to_element(&self, name: &'static str) -> $crate::xml::Element {
                $crate::xml::Element::with_text(name, self.as_str())
            }
            fn from_element(
                element: &$crate::xml::Element,
            ) -> Result<Self, $crate::value::DecodeError> {
                match element.text.trim() {
                    $first_wire => Ok($name::$first),
                    $($variant_wire => Ok($name::$variant),)*
                    _ => Err($crate::value::DecodeError::text(element, $wire)),
                }
            }
        }
    )*};
}

/// Describes methods: a data object of the arguments with the object called in `this`, the
/// method's name, and what it returns.
macro_rules! methods {
    ($($(#[$meta:meta])* $name:ident = $wire:literal {
        $($(#[$field_meta:meta])* $field:ident : $type:ty = $field_wire:literal),* $(,)?
    } -> $output:ty;)*) => {$(
        $crate::data_object! {
            $(#[$meta])*
            $name = $wire {
                /// The object that is called.
                this: $crate::types::ManagedObjectReference = "_this",
                $($(#[$field_meta])* $field: $type = $field_wire,)*
            }
        }
        impl Method for $name {
            const NAME: &'static str = $wire;
            type Output = $output;
            fn this(&self) -> &$crate::types::ManagedObjectReference {
                &self.this
            }
        }
    )*};
}
