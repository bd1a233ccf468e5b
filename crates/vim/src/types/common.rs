//! Object references, the service's content, sessions, options.

use crate::value::{Any, DateTime, DecodeError, Value};
use crate::xml::Element;
use std::borrow::Cow;

/// A reference to a managed object: its kind (`VirtualMachine`) and its ID on this server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ManagedObjectReference {
    /// Kind of the object.
    pub kind: Cow<'static, str>,
    /// ID, unique on one server.
    pub id: String,
}

impl ManagedObjectReference {
    /// A reference.
    pub fn new(
        kind: impl Into<Cow<'static, str>>,
        id: impl Into<String>,
    ) -> ManagedObjectReference {
        ManagedObjectReference {
            kind: kind.into(),
            id: id.into(),
        }
    }

    /// The one well-known object of every server.
    pub fn service_instance() -> ManagedObjectReference {
        ManagedObjectReference::new("ServiceInstance", "ServiceInstance")
    }
}

impl std::fmt::Display for ManagedObjectReference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.kind, self.id)
    }
}

impl Value for ManagedObjectReference {
    const TYPE: &'static str = "ManagedObjectReference";
    fn to_element(&self, name: &'static str) -> Element {
        let mut element = Element::with_text(name, self.id.as_str());
        element.object_type = Some(self.kind.clone());
        element
    }
    fn from_element(element: &Element) -> Result<Self, DecodeError> {
        // Some clients name the kind in xsi:type instead of type.
        let kind = element
            .object_type
            .as_ref()
            .or(element.xsi_type.as_ref())
            .map_or("", AsRef::as_ref);
        let id = element.text.trim();
        if id.is_empty() {
            return Err(DecodeError::text(element, "ManagedObjectReference"));
        }
        let kind = kind.rsplit(':').next().unwrap_or_default().to_owned();
        Ok(ManagedObjectReference::new(kind, id))
    }
}

data_object! {
    /// What a server is and where its managers are.
    ServiceContent = "ServiceContent" {
        /// Root of the inventory.
        root_folder: ManagedObjectReference = "rootFolder",
        /// The session's default property collector.
        property_collector: ManagedObjectReference = "propertyCollector",
        /// Maker of views.
        view_manager: Option<ManagedObjectReference> = "viewManager",
        /// Product and version.
        about: AboutInfo = "about",
        /// Options of the server.
        setting: Option<ManagedObjectReference> = "setting",
        /// Log-in and log-out.
        session_manager: Option<ManagedObjectReference> = "sessionManager",
        /// Events.
        event_manager: Option<ManagedObjectReference> = "eventManager",
        /// Tasks.
        task_manager: Option<ManagedObjectReference> = "taskManager",
        /// Look-up of entities.
        search_index: Option<ManagedObjectReference> = "searchIndex",
        /// Files on datastores.
        file_manager: Option<ManagedObjectReference> = "fileManager",
        /// Virtual disks on datastores.
        virtual_disk_manager: Option<ManagedObjectReference> = "virtualDiskManager",
    }

    /// Product and version of a server.
    AboutInfo = "AboutInfo" {
        /// Short name of the product.
        name: String = "name",
        /// Name with version and build.
        full_name: String = "fullName",
        /// Maker.
        vendor: String = "vendor",
        /// Version of the product, `8.0.1`.
        version: String = "version",
        /// Build number.
        build: String = "build",
        /// Operating system, `vmnix-x86`.
        os_type: String = "osType",
        /// `embeddedEsx` or `vpx`.
        product_line_id: String = "productLineId",
        /// `HostAgent` (ESXi) or `VirtualCenter`.
        api_type: String = "apiType",
        /// Version of the API, `8.0.1.0`.
        api_version: String = "apiVersion",
        /// UUID of a vCenter.
        instance_uuid: Option<String> = "instanceUuid",
        /// Product name for licences.
        license_product_name: Option<String> = "licenseProductName",
        /// Product version for licences.
        license_product_version: Option<String> = "licenseProductVersion",
    }

    /// A session, as the log-in returns it.
    UserSession = "UserSession" {
        /// Key of the session, no secret.
        key: String = "key",
        /// Account.
        user_name: String = "userName",
        /// Full name of the account.
        full_name: String = "fullName",
        /// Time of the log-in.
        login_time: DateTime = "loginTime",
        /// Time of the last call.
        last_active_time: DateTime = "lastActiveTime",
        /// Locale.
        locale: String = "locale",
        /// Locale of messages.
        message_locale: String = "messageLocale",
        /// Address of the client.
        ip_address: Option<String> = "ipAddress",
        /// User agent of the client.
        user_agent: Option<String> = "userAgent",
        /// Number of calls made.
        call_count: Option<i64> = "callCount",
    }

    /// An option: of a server (OptionManager) or of a VM (extraConfig).
    OptionValue = "OptionValue" {
        /// Its key.
        key: String = "key",
        /// Its value; in extraConfig a string, and an empty one removes the key.
        value: Any = "value",
    }

    /// Label and summary of a device.
    Description = "Description" {
        /// `Hard disk 1`.
        label: String = "label",
        /// `4,194,304 KB`.
        summary: String = "summary",
    }

    /// A ticket for one HTTP request without the session's cookie.
    GenericServiceTicket = "SessionManagerGenericServiceTicket" {
        /// The ticket, sent as cookie `vmware_cgi_ticket`.
        id: String = "id",
        /// Host to use it at; empty: where it came from.
        host_name: Option<String> = "hostName",
        /// SHA-1 thumbprint of that host.
        ssl_thumbprint: Option<String> = "sslThumbprint",
        /// What it is for.
        ticket_type: Option<String> = "ticketType",
    }
}

impl OptionValue {
    /// An option with a text as value.
    pub fn text(key: impl Into<String>, value: impl Into<String>) -> OptionValue {
        OptionValue {
            key: key.into(),
            value: Any::from(value.into()),
        }
    }

    /// The value as text (numbers and booleans in their usual form).
    pub fn as_text(&self) -> &str {
        &self.value.0.text
    }
}

/// The request that a [`GenericServiceTicket`] is good for. Encoded as
/// `SessionManagerHttpServiceRequestSpec`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HttpServiceRequestSpec {
    /// `httpGet`, `httpPut`, …; none: any.
    pub method: Option<String>,
    /// The whole URL.
    pub url: String,
}

impl Value for HttpServiceRequestSpec {
    const TYPE: &'static str = "SessionManagerHttpServiceRequestSpec";
    fn to_element(&self, name: &'static str) -> Element {
        use crate::value::Field;
        let mut element = Element::new(name);
        element.xsi_type = Some(Cow::Borrowed(Self::TYPE));
        self.method.write("method", &mut element.children);
        self.url.write("url", &mut element.children);
        element
    }
    fn from_element(element: &Element) -> Result<Self, DecodeError> {
        use crate::value::Field;
        Ok(HttpServiceRequestSpec {
            method: Field::read(element, "method")?,
            url: Field::read(element, "url")?,
        })
    }
}
