//! JSON as lines, so that a difference shows the field in which it is.

use serde_json::Value;

/// Output as lines: JSON as one line for each field, with its path; everything else as it is.
pub fn lines(text: &str) -> Vec<String> {
    if let Some(value) = structure(text) {
        let mut out = Vec::new();
        flatten("", &value, &mut out);
        return out;
    }
    let mut out = Vec::new();
    for line in text.lines() {
        match structure(line) {
            Some(value) => flatten("", &value, &mut out),
            None => out.push(line.to_owned()),
        }
    }
    out
}

/// An object or a list; a bare number or string is text as any other.
fn structure(text: &str) -> Option<Value> {
    if !text.trim_start().starts_with(['{', '[']) {
        return None;
    }
    serde_json::from_str(text).ok()
}

fn flatten(path: &str, value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                flatten(&format!("{path}.{key}"), value, out);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            for (at, value) in list.iter().enumerate() {
                // Plain values without their number: one more would shift all that follow.
                match value {
                    Value::Object(_) | Value::Array(_) => {
                        flatten(&format!("{path}[{at}]"), value, out);
                    }
                    plain => out.push(format!("{path}[] = {plain}")),
                }
            }
        }
        other => out.push(format!("{path} = {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_become_lines_and_text_stays() {
        assert_eq!(
            lines("[\n{\"a\":{\"b\":1},\"c\":[]}]"),
            ["[0].a.b = 1", "[0].c = []"]
        );
        assert_eq!(lines("{\"a\":[1,2]}"), [".a[] = 1", ".a[] = 2"]);
        assert_eq!(lines("{\"a\":1}\n{\"a\":2}"), [".a = 1", ".a = 2"]);
        assert_eq!(lines("{not json\n12\n[x] y"), ["{not json", "12", "[x] y"]);
    }
}
