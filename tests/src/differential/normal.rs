//! What must differ between two hosts, made equal: IDs, times, addresses of hardware, sizes.

use regex::Regex;
use std::sync::LazyLock;

/// Patterns and what stands in their place, in this order.
static RULES: LazyLock<Vec<(Regex, &'static str)>> = LazyLock::new(|| {
    [
        // IDs and digests, then what `docker ps` shows of them.
        (r"\b[0-9a-f]{64}\b", "<id>"),
        (r"\b[0-9a-f]{12}\b", "<short>"),
        // Times.
        (
            r"\b20\d\d-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?( ?(Z|[+-]\d\d:?\d\d))?( UTC)?",
            "<time>",
        ),
        (r"\b1[5-9]\d{17}\b", "<nanoseconds>"),
        (r"\b1[5-9]\d{8}(\.\d{9})?\b", "<seconds>"),
        (
            r"\b(\d+|About an?|Less than a) (second|minute|hour|day|week|month|year)s?( ago)?\b",
            "<a while>",
        ),
        // Hardware addresses.
        (r"\b([0-9a-f]{2}:){5}[0-9a-f]{2}\b", "<mac>"),
        // Whoever comes next on the default network, or on a new one.
        (r"\b172\.17\.0\.([2-9]|\d\d+)\b", "172.17.0.<n>"),
        (r"\b172\.(1[89]|2\d|3[01])\.", "172.<n>."),
        (r"/dockerd-\w+/", "/dockerd/"),
        // Sizes as the client shows them.
        (r"\b\d+(\.\d+)? ?([kMGT]i?)?B\b", "<size>"),
        (r"^(.*\.Pid) = [1-9]\d*$", "$1 = <pid>"),
        (r" +$", ""),
        // Columns of a table are as wide as their widest value.
        (r"  +", "  "),
    ]
    .into_iter()
    .filter_map(|(pattern, place)| Some((Regex::new(pattern).ok()?, place)))
    .collect()
});

/// Words of one host alone, and what stands in their place.
pub type Words = Vec<(String, &'static str)>;

/// A line as it is compared.
pub fn line(text: &str, words: &Words) -> String {
    let mut text = text.to_owned();
    for (word, place) in words {
        text = text.replace(word, place);
    }
    for (pattern, place) in RULES.iter() {
        if pattern.is_match(&text) {
            text = pattern.replace_all(&text, *place).into_owned();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_differ_is_made_equal() {
        assert_eq!(RULES.len(), 14, "every pattern is one");
        let id = "0123456789ab".repeat(5) + "cdef";
        let words = vec![("unix:///x/sock".to_owned(), "<host>")];
        for (text, should) in [
            (format!("sha256:{id}"), "sha256:<id>"),
            (
                "0123456789ab   Up 3 seconds".into(),
                "<short>  Up <a while>",
            ),
            ("at 2026-01-02T03:04:05.123456789Z".into(), "at <time>"),
            ("2026-01-02 03:04:05 +0000 UTC".into(), "<time>"),
            ("1.2MB (virtual 3GB)".into(), "<size> (virtual <size>)"),
            ("02:42:ac:11:00:02".into(), "<mac>"),
            ("172.17.0.12 172.17.0.1".into(), "172.17.0.<n> 172.17.0.1"),
            ("[0].State.Pid = 17".into(), "[0].State.Pid = <pid>"),
            ("[0].State.Pid = 0".into(), "[0].State.Pid = 0"),
            ("at unix:///x/sock.".into(), "at <host>."),
            ("exit 12".into(), "exit 12"),
        ] {
            assert_eq!(line(&text, &words), should);
        }
    }
}
