//! Events.

use crate::types::ManagedObjectReference;
use crate::value::{DateTime, DecodeError, Field, Value};
use crate::xml::Element;

/// An event.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Event {
    /// Type, `VmPoweredOffEvent`.
    pub kind: String,
    /// Number, rising.
    pub key: i32,
    /// Number of the first event of its chain.
    pub chain_id: i32,
    /// When.
    pub created_time: DateTime,
    /// Who; empty: the server.
    pub user_name: String,
    /// The host.
    pub host: Option<HostEventArgument>,
    /// The VM.
    pub vm: Option<VmEventArgument>,
    /// As text.
    pub full_formatted_message: Option<String>,
}

data_object! {
    /// The VM of an event.
    VmEventArgument = "VmEventArgument" {
        /// Its name at that time.
        name: String = "name",
        /// The VM.
        vm: ManagedObjectReference = "vm",
    }

    /// The host of an event.
    HostEventArgument = "HostEventArgument" {
        /// Its name.
        name: String = "name",
        /// The host.
        host: ManagedObjectReference = "host",
    }

    /// Which events to find.
    EventFilterSpec = "EventFilterSpec" {
        /// Of this entity.
        entity: Option<EventFilterSpecByEntity> = "entity",
        /// In this time.
        time: Option<EventFilterSpecByTime> = "time",
        /// Of these types (by name).
        kind: Vec<String> = "type",
        /// Of these types (by ID, `vim.event.VmPoweredOffEvent`).
        event_type_id: Vec<String> = "eventTypeId",
        /// At most this many, the latest.
        max_count: Option<i32> = "maxCount",
    }

    /// Events of an entity.
    EventFilterSpecByEntity = "EventFilterSpecByEntity" {
        /// The entity.
        entity: ManagedObjectReference = "entity",
        /// `self`, `children` or `all`.
        recursion: String = "recursion",
    }

    /// Events in a time.
    EventFilterSpecByTime = "EventFilterSpecByTime" {
        /// From.
        begin_time: Option<DateTime> = "beginTime",
        /// To.
        end_time: Option<DateTime> = "endTime",
    }
}

impl Value for Event {
    const TYPE: &'static str = "Event";
    fn to_element(&self, name: &'static str) -> Element {
        let mut element = Element::new(name);
        element.xsi_type = Some(self.kind.clone().into());
        let out = &mut element.children;
        self.key.write("key", out);
        self.chain_id.write("chainId", out);
        self.created_time.write("createdTime", out);
        self.user_name.write("userName", out);
        self.host.write("host", out);
        self.vm.write("vm", out);
        self.full_formatted_message
            .write("fullFormattedMessage", out);
        if self.kind.starts_with("Vm") {
            false.write("template", out);
        }
        element
    }
    fn from_element(element: &Element) -> Result<Self, DecodeError> {
        Ok(Event {
            kind: element.xsi_type.as_deref().unwrap_or("Event").to_owned(),
            key: Field::read(element, "key")?,
            chain_id: Field::read(element, "chainId")?,
            created_time: Field::read(element, "createdTime")?,
            user_name: Field::read(element, "userName")?,
            host: Field::read(element, "host")?,
            vm: Field::read(element, "vm")?,
            full_formatted_message: Field::read(element, "fullFormattedMessage")?,
        })
    }
}
