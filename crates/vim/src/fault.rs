//! Faults as typed errors.

use crate::types::{ManagedObjectReference, PowerState};
use crate::value::{DecodeError, Field, Value};
use crate::xml::Element;

/// A fault: what kind, and the server's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} ({})", message, kind.name())]
pub struct Fault {
    /// Which fault, with its members.
    pub kind: FaultKind,
    /// What the server says about it.
    pub message: String,
}

macro_rules! faults {
    ($($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident : $type:ty = $wire:literal),* $(,)? })*) => {
        /// The faults of the API that are told apart.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum FaultKind {
            $($(#[$meta])* $name { $($(#[$field_meta])* $field: $type,)* },)*
            /// Any other, by its name.
            Other {
                /// The name in the API.
                name: String,
            },
        }

        impl FaultKind {
            /// The name in the API.
            pub fn name(&self) -> &str {
                match self {
                    $(FaultKind::$name { .. } => stringify!($name),)*
                    FaultKind::Other { name } => name,
                }
            }

            fn write_members(&self, out: &mut Vec<Element>) {
                // `out` stays unused for faults without members.
                let _ = &out;
                match self {
                    $(FaultKind::$name { $($field,)* } => { $($field.write($wire, out);)* })*
                    FaultKind::Other { .. } => {}
                }
            }

            fn read(name: &str, element: &Element) -> Result<FaultKind, DecodeError> {
                let _ = element;
                Ok(match name {
                    $(stringify!($name) => FaultKind::$name { $($field: Field::read(element, $wire)?,)* },)*
                    _ => FaultKind::Other { name: name.to_owned() },
                })
            }
        }
    };
}

faults! {
    /// Wrong user or password.
    InvalidLogin {}
    /// No session, or none any more.
    NotAuthenticated {
        /// What was asked for.
        object: Option<ManagedObjectReference> = "object",
        /// The privilege that it takes.
        privilege_id: Option<String> = "privilegeId",
    }
    /// The account may not do this.
    NoPermission {
        /// What was asked for.
        object: Option<ManagedObjectReference> = "object",
        /// The privilege that it takes.
        privilege_id: Option<String> = "privilegeId",
    }
    /// The object is in no state for this.
    InvalidState {}
    /// The VM's power state is not right for this.
    InvalidPowerState {
        /// State that it takes.
        requested_state: Option<PowerState> = "requestedState",
        /// State that it has.
        existing_state: PowerState = "existingState",
    }
    /// An argument is wrong.
    InvalidArgument {
        /// Which.
        invalid_property: Option<String> = "invalidProperty",
    }
    /// A name is not allowed.
    InvalidName {
        /// The name.
        name: String = "name",
    }
    /// Something of this name exists.
    DuplicateName {
        /// The name.
        name: String = "name",
        /// What has it.
        object: ManagedObjectReference = "object",
    }
    /// Something exists already.
    AlreadyExists {
        /// Its name.
        name: Option<String> = "name",
    }
    /// Something was not found.
    NotFound {}
    /// The object does not exist (any more).
    ManagedObjectNotFound {
        /// Which.
        obj: ManagedObjectReference = "obj",
    }
    /// Another task works on the object.
    TaskInProgress {
        /// Which.
        task: ManagedObjectReference = "task",
    }
    /// Something is in use.
    ResourceInUse {
        /// Its type.
        kind: Option<String> = "type",
        /// Its name.
        name: Option<String> = "name",
    }
    /// A file does not exist.
    FileNotFound {
        /// Datastore path.
        file: String = "file",
    }
    /// A file exists.
    FileAlreadyExists {
        /// Datastore path.
        file: String = "file",
    }
    /// A file is in use.
    FileLocked {
        /// Datastore path.
        file: String = "file",
    }
    /// A file cannot be read.
    CannotAccessFile {
        /// Datastore path.
        file: String = "file",
    }
    /// A file cannot be deleted.
    CannotDeleteFile {
        /// Datastore path.
        file: String = "file",
    }
    /// A folder is not empty.
    DirectoryNotEmpty {
        /// Datastore path.
        file: String = "file",
    }
    /// Something is wrong with a file.
    FileFault {
        /// Datastore path.
        file: String = "file",
    }
    /// A datastore is full.
    NoDiskSpace {
        /// Datastore path of what was written.
        file: String = "file",
        /// Name of the datastore.
        datastore: String = "datastore",
    }
    /// A datastore has not the space for what is asked.
    InsufficientStorageSpace {}
    /// No datastore path.
    InvalidDatastorePath {
        /// The text.
        datastore_path: String = "datastorePath",
    }
    /// The server cannot do this.
    NotSupported {}
    /// The server does not know the method.
    MethodNotFound {
        /// The object.
        receiver: ManagedObjectReference = "receiver",
        /// The method.
        method: String = "method",
    }
    /// The request cannot be understood.
    InvalidRequest {}
    /// The request was cancelled.
    RequestCanceled {}
    /// The server failed.
    SystemError {
        /// Why.
        reason: String = "reason",
    }
    /// A device to change does not exist.
    DeviceNotFound {
        /// Member of the specification.
        property: Option<String> = "property",
        /// Index in `deviceChange`.
        device_index: i32 = "deviceIndex",
    }
    /// A device is wrong.
    InvalidDeviceSpec {
        /// Member of the specification.
        property: Option<String> = "property",
        /// Index in `deviceChange`.
        device_index: i32 = "deviceIndex",
    }
    /// A device's backing is wrong.
    InvalidDeviceBacking {
        /// Member of the specification.
        property: Option<String> = "property",
        /// Index in `deviceChange`.
        device_index: i32 = "deviceIndex",
    }
    /// More devices than a VM can have.
    TooManyDevices {
        /// Member of the specification.
        property: Option<String> = "property",
    }
    /// A VM's configuration is wrong.
    GenericVmConfigFault {
        /// Why.
        reason: String = "reason",
    }
    /// The guest has no Tools that could do this.
    ToolsUnavailable {}
    /// The version passed to WaitForUpdatesEx is none of this collector's.
    InvalidCollectorVersion {}
    /// The type has no such property.
    InvalidProperty {
        /// The path.
        name: String = "name",
    }
}

impl Default for Fault {
    fn default() -> Fault {
        Fault::new(
            FaultKind::Other {
                name: "MethodFault".to_owned(),
            },
            "",
        )
    }
}

impl Fault {
    /// A fault.
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Fault {
        Fault {
            kind,
            message: message.into(),
        }
    }

    /// An `InvalidArgument` that names the property.
    pub fn invalid_argument(property: impl Into<String>, message: impl Into<String>) -> Fault {
        let kind = FaultKind::InvalidArgument {
            invalid_property: Some(property.into()),
        };
        Fault::new(kind, message)
    }

    /// Whether the session is gone, so that a new log-in helps.
    pub fn is_not_authenticated(&self) -> bool {
        matches!(self.kind, FaultKind::NotAuthenticated { .. })
    }

    /// Whether what was asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(
            self.kind,
            FaultKind::NotFound {}
                | FaultKind::FileNotFound { .. }
                | FaultKind::ManagedObjectNotFound { .. }
        )
    }

    /// The fault's own element, with its type, without the message.
    pub(crate) fn method_fault(&self) -> Element {
        let mut element = Element::new("fault");
        element.xsi_type = Some(self.kind.name().to_owned().into());
        self.kind.write_members(&mut element.children);
        element
    }

    /// From `<Fault>` of a SOAP body. What cannot be understood becomes `Other`, never an error.
    pub(crate) fn from_soap(body: &Element) -> Fault {
        let message = body
            .child("faultstring")
            .map(|e| e.text.trim().to_owned())
            .unwrap_or_default();
        let Some(detail) = body.child("detail").and_then(|d| d.children.first()) else {
            let name = body
                .child("faultcode")
                .map(|e| e.text.trim().to_owned())
                .unwrap_or_default();
            return Fault::new(FaultKind::Other { name }, message);
        };
        let by_name = detail.name.strip_suffix("Fault").unwrap_or(&detail.name);
        let name = detail.xsi_type.as_deref().unwrap_or(by_name);
        let kind = FaultKind::read(name, detail).unwrap_or_else(|_| FaultKind::Other {
            name: name.to_owned(),
        });
        Fault::new(kind, message)
    }
}

/// A fault in data travels as `LocalizedMethodFault`.
impl Value for Fault {
    const TYPE: &'static str = "LocalizedMethodFault";
    fn to_element(&self, name: &'static str) -> Element {
        let mut element = Element::new(name);
        element.children.push(self.method_fault());
        self.message
            .write("localizedMessage", &mut element.children);
        element
    }
    fn from_element(element: &Element) -> Result<Self, DecodeError> {
        let message: Option<String> = Field::read(element, "localizedMessage")?;
        let inner = element.child("fault");
        let name = inner
            .and_then(|f| f.xsi_type.as_deref())
            .unwrap_or("MethodFault");
        let kind = inner
            .and_then(|f| FaultKind::read(name, f).ok())
            .unwrap_or_else(|| FaultKind::Other {
                name: name.to_owned(),
            });
        Ok(Fault {
            kind,
            message: message.unwrap_or_default(),
        })
    }
}
