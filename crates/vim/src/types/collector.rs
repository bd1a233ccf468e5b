//! The property collector and its filters.

use crate::fault::Fault;
use crate::types::ManagedObjectReference;
use crate::value::{Any, DecodeError, Field, Value};
use crate::xml::Element;
use std::borrow::Cow;

data_object! {
    /// Which properties of which objects.
    PropertyFilterSpec = "PropertyFilterSpec" {
        /// Properties by type of object.
        prop_set: Vec<PropertySpec> = "propSet",
        /// Objects, and how to go on from them.
        object_set: Vec<ObjectSpec> = "objectSet",
        /// Report vanished objects instead of failing.
        report_missing: Option<bool> = "reportMissingObjectsInResults",
    }

    /// Properties of one type of objects.
    PropertySpec = "PropertySpec" {
        /// Type, also a base type (`ManagedEntity`).
        kind: String = "type",
        /// All properties.
        all: Option<bool> = "all",
        /// Dotted paths.
        path_set: Vec<String> = "pathSet",
    }

    /// A start of a traversal.
    ObjectSpec = "ObjectSpec" {
        /// The object.
        obj: ManagedObjectReference = "obj",
        /// Do not report the object itself.
        skip: Option<bool> = "skip",
        /// Where to go on.
        select_set: Vec<SelectionSpec> = "selectSet",
    }

    /// An object with properties.
    ObjectContent = "ObjectContent" {
        /// The object.
        obj: ManagedObjectReference = "obj",
        /// Its properties.
        prop_set: Vec<DynamicProperty> = "propSet",
        /// What could not be read.
        missing_set: Vec<MissingProperty> = "missingSet",
    }

    /// A property with its value.
    DynamicProperty = "DynamicProperty" {
        /// Dotted path.
        name: String = "name",
        /// Value.
        val: Any = "val",
    }

    /// A property that could not be read.
    MissingProperty = "MissingProperty" {
        /// Dotted path.
        path: String = "path",
        /// Why.
        fault: Fault = "fault",
    }

    /// Options of RetrievePropertiesEx.
    RetrieveOptions = "RetrieveOptions" {
        /// Objects in one answer.
        max_objects: Option<i32> = "maxObjects",
    }

    /// An answer of RetrievePropertiesEx.
    RetrieveResult = "RetrieveResult" {
        /// There is more: pass it to ContinueRetrievePropertiesEx.
        token: Option<String> = "token",
        /// Objects.
        objects: Vec<ObjectContent> = "objects",
    }

    /// Options of WaitForUpdatesEx.
    WaitOptions = "WaitOptions" {
        /// Seconds until an empty answer; 0: at once; none: the server's choice.
        max_wait_seconds: Option<i32> = "maxWaitSeconds",
        /// Object updates in one answer.
        max_object_updates: Option<i32> = "maxObjectUpdates",
    }

    /// What has changed in a collector's filters.
    UpdateSet = "UpdateSet" {
        /// Pass it to the next call.
        version: String = "version",
        /// Changes by filter.
        filter_set: Vec<PropertyFilterUpdate> = "filterSet",
        /// There is more at once.
        truncated: Option<bool> = "truncated",
    }

    /// What has changed in one filter.
    PropertyFilterUpdate = "PropertyFilterUpdate" {
        /// The filter.
        filter: ManagedObjectReference = "filter",
        /// Changes by object.
        object_set: Vec<ObjectUpdate> = "objectSet",
    }

    /// What has changed in one object.
    ObjectUpdate = "ObjectUpdate" {
        /// Came, changed or went.
        kind: ObjectUpdateKind = "kind",
        /// The object.
        obj: ManagedObjectReference = "obj",
        /// Changes by property; for `enter` all of them.
        change_set: Vec<PropertyChange> = "changeSet",
        /// What could not be read.
        missing_set: Vec<MissingProperty> = "missingSet",
    }

    /// A change of one property.
    PropertyChange = "PropertyChange" {
        /// Dotted path.
        name: String = "name",
        /// What happened to it.
        op: PropertyChangeOp = "op",
        /// Its new value.
        val: Option<Any> = "val",
    }
}

string_enum! {
    /// What happened to an object.
    ObjectUpdateKind = "ObjectUpdateKind" {
        /// It is new in the filter.
        Enter = "enter",
        /// Properties changed.
        Modify = "modify",
        /// It is gone.
        Leave = "leave",
    }

    /// What happened to a property.
    PropertyChangeOp = "PropertyChangeOp" {
        /// It has this value now.
        Assign = "assign",
        /// Something was added to a collection.
        Add = "add",
        /// Something was removed from a collection.
        Remove = "remove",
        /// It is no longer set.
        IndirectRemove = "indirectRemove",
    }
}

/// How to go on from an object: a traversal, or a reference to one by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SelectionSpec {
    /// The traversal of this name, given elsewhere in the same specification.
    Named(String),
    /// A traversal.
    Traversal(TraversalSpec),
}

/// From objects of a type through a property to others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TraversalSpec {
    /// Name, for [`SelectionSpec::Named`].
    pub name: Option<String>,
    /// Type of the objects that it starts from.
    pub kind: String,
    /// Property that holds references.
    pub path: String,
    /// Do not report what is found.
    pub skip: Option<bool>,
    /// Where to go on from what is found.
    pub select_set: Vec<SelectionSpec>,
}

impl SelectionSpec {
    /// A traversal without name and continuation.
    pub fn traversal(kind: &str, path: &str) -> SelectionSpec {
        SelectionSpec::Traversal(TraversalSpec {
            kind: kind.into(),
            path: path.into(),
            ..TraversalSpec::default()
        })
    }
}

impl Value for SelectionSpec {
    const TYPE: &'static str = "SelectionSpec";
    fn to_element(&self, name: &'static str) -> Element {
        let mut element = Element::new(name);
        let out = &mut element.children;
        match self {
            SelectionSpec::Named(spec) => spec.write("name", out),
            SelectionSpec::Traversal(spec) => {
                spec.name.write("name", out);
                spec.kind.write("type", out);
                spec.path.write("path", out);
                spec.skip.write("skip", out);
                spec.select_set.write("selectSet", out);
                element.xsi_type = Some(Cow::Borrowed("TraversalSpec"));
            }
        }
        element
    }
    fn from_element(element: &Element) -> Result<Self, DecodeError> {
        if element.xsi_type.as_deref() != Some("TraversalSpec") {
            return Ok(SelectionSpec::Named(Field::read(element, "name")?));
        }
        Ok(SelectionSpec::Traversal(TraversalSpec {
            name: Field::read(element, "name")?,
            kind: Field::read(element, "type")?,
            path: Field::read(element, "path")?,
            skip: Field::read(element, "skip")?,
            select_set: Field::read(element, "selectSet")?,
        }))
    }
}

impl PropertyFilterSpec {
    /// Properties of one object.
    pub fn object(obj: &ManagedObjectReference, paths: &[&str]) -> PropertyFilterSpec {
        PropertyFilterSpec {
            prop_set: vec![PropertySpec::paths(&obj.kind, paths)],
            object_set: vec![ObjectSpec {
                obj: obj.clone(),
                ..ObjectSpec::default()
            }],
            report_missing: None,
        }
    }

    /// Properties of all objects of type `kind` in a view.
    pub fn view(view: &ManagedObjectReference, kind: &str, paths: &[&str]) -> PropertyFilterSpec {
        PropertyFilterSpec {
            prop_set: vec![PropertySpec::paths(kind, paths)],
            object_set: vec![ObjectSpec {
                obj: view.clone(),
                skip: Some(true),
                select_set: vec![SelectionSpec::traversal(&view.kind, "view")],
            }],
            report_missing: None,
        }
    }
}

impl PropertySpec {
    /// Named properties of a type.
    pub fn paths(kind: &str, paths: &[&str]) -> PropertySpec {
        PropertySpec {
            kind: kind.to_owned(),
            all: Some(false),
            path_set: paths.iter().map(|&p| p.to_owned()).collect(),
        }
    }
}

impl ObjectContent {
    /// The value of a property; `None` where it is not set.
    ///
    /// # Errors
    /// [`DecodeError`] where it is no `T`.
    pub fn get<T: Value>(&self, path: &str) -> Result<Option<T>, DecodeError> {
        self.prop_set
            .iter()
            .find(|p| p.name == path)
            .map(|p| p.val.get())
            .transpose()
    }

    /// The items of a property that is an array; empty where it is not set.
    ///
    /// # Errors
    /// [`DecodeError`] where an item is no `T`.
    pub fn items<T: Value>(&self, path: &str) -> Result<Vec<T>, DecodeError> {
        self.prop_set
            .iter()
            .find(|p| p.name == path)
            .map_or(Ok(Vec::new()), |p| p.val.items())
    }
}

impl ObjectUpdate {
    /// The new value of a property; `None` where it has not changed or is no longer set.
    ///
    /// # Errors
    /// [`DecodeError`] where it is no `T`.
    pub fn get<T: Value>(&self, path: &str) -> Result<Option<T>, DecodeError> {
        let change = self.change_set.iter().find(|c| c.name == path);
        change
            .and_then(|c| c.val.as_ref())
            .map(Any::get)
            .transpose()
    }

    /// The items of a changed property that is an array.
    ///
    /// # Errors
    /// [`DecodeError`] where an item is no `T`.
    pub fn items<T: Value>(&self, path: &str) -> Result<Option<Vec<T>>, DecodeError> {
        let change = self.change_set.iter().find(|c| c.name == path);
        change
            .and_then(|c| c.val.as_ref())
            .map(Any::items)
            .transpose()
    }
}
