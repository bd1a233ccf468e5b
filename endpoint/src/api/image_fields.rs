//! Fields of an image's inspection that only older API versions have, or have with their default.

use super::version::ApiVersion;
use serde_json::{Map, Value, json};

/// Before it, an image's `Config` had all fields of a container's, most of them with their default.
const SPARSE_CONFIG: ApiVersion = ApiVersion(1, 50);
/// Before it, there was the container that an image was committed from.
const NO_CONTAINER: ApiVersion = ApiVersion(1, 45);
/// Before it, there was a second size.
const ONE_SIZE: ApiVersion = ApiVersion(1, 44);

/// What `Config` holds where the image says nothing.
fn defaults() -> Map<String, Value> {
    let defaults = json!({
        "Hostname": "", "Domainname": "", "User": "", "AttachStdin": false, "AttachStdout": false,
        "AttachStderr": false, "Tty": false, "OpenStdin": false, "StdinOnce": false, "Env": null,
        "Cmd": null, "Image": "", "Volumes": null, "WorkingDir": "", "Entrypoint": null,
        "OnBuild": null, "Labels": null,
    });
    match defaults {
        Value::Object(defaults) => defaults,
        _ => Map::new(),
    }
}

/// An inspection as a client of this version expects it.
pub(super) fn of_version(mut image: Value, version: ApiVersion) -> Value {
    let Some(fields) = image.as_object_mut() else {
        return image;
    };
    fields.retain(|name, value| name != "Variant" || *value != "");
    if version >= ONE_SIZE {
        fields.remove("VirtualSize");
    }
    if version < SPARSE_CONFIG {
        let mut config = defaults();
        if let Some(Value::Object(own)) = fields.remove("Config") {
            config.extend(own);
        }
        fields.insert("Config".to_owned(), Value::Object(config));
    }
    if version < NO_CONTAINER {
        fields.insert("Container".to_owned(), json!(""));
        fields.insert("ContainerConfig".to_owned(), Value::Object(defaults()));
    }
    image
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_versions_get_every_field_and_new_ones_what_there_is() {
        let image =
            json!({ "Variant": "", "Config": { "Cmd": ["sh"] }, "Size": 1, "VirtualSize": 1 });
        let old = of_version(image.clone(), ApiVersion(1, 41));
        assert_eq!(old["Config"]["Cmd"], json!(["sh"]));
        assert_eq!(old["Config"]["Labels"], Value::Null);
        assert_eq!(old["ContainerConfig"]["Tty"], false);
        assert_eq!((&old["VirtualSize"], old.get("Variant")), (&json!(1), None));
        let new = of_version(image, ApiVersion(1, 50));
        assert_eq!(new, json!({ "Config": { "Cmd": ["sh"] }, "Size": 1 }));
    }
}
