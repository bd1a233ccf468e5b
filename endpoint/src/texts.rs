//! Texts by name in JSON, as labels and options are.

use serde_json::Value;
use std::collections::BTreeMap;

/// Reads an object of texts; null stands for an empty one. As a value, null is the empty text, since that is how Go's
/// `encoding/json` reads a `map[string]string`. `None`: it is something else.
#[must_use]
pub fn by_name(value: &Value) -> Option<BTreeMap<String, String>> {
    let object = match value {
        Value::Null => return Some(BTreeMap::new()),
        Value::Object(object) => object,
        _ => return None,
    };
    let text = |(name, value): (&String, &Value)| match value {
        Value::Null => Some((name.clone(), String::new())),
        Value::String(text) => Some((name.clone(), text.clone())),
        _ => None,
    };
    object.iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn null_is_empty_and_other_kinds_are_none() {
        let texts = by_name(&json!({"a": null, "b": "x"})).unwrap();
        assert_eq!(texts["a"], "");
        assert_eq!(texts["b"], "x");
        assert_eq!(by_name(&Value::Null), Some(BTreeMap::new()));
        for wrong in [json!({"a": 1}), json!({"a": {}}), json!([]), json!("a")] {
            assert_eq!(by_name(&wrong), None, "{wrong}");
        }
    }
}
