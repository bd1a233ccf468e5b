//! Words of a Dockerfile's instruction: quotes, backslashes, variables.

use crate::errors::{Error, Result};

/// What a variable may stand for in all, in bytes.
const EXPANDED_MAX: usize = 1 << 20;

/// Cuts text at white space, but for quoted parts; quotes and backslashes stay.
pub fn split(text: &str) -> Vec<String> {
    let (mut words, mut word) = (Vec::new(), String::new());
    let (mut quote, mut any) = (None, false);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' if quote != Some('\'') => {
                word.push(c);
                word.extend(chars.next());
                any = true;
            }
            '"' | '\'' if quote.is_none() => {
                quote = Some(c);
                word.push(c);
                any = true;
            }
            c if quote == Some(c) => {
                quote = None;
                word.push(c);
            }
            c if c.is_whitespace() && quote.is_none() => {
                if std::mem::take(&mut any) {
                    words.push(std::mem::take(&mut word));
                }
            }
            c => {
                word.push(c);
                any = true;
            }
        }
    }
    if any {
        words.push(word);
    }
    words
}

/// Takes quotes and backslashes off a word, and puts in variables: `$NAME`, `${NAME}`, `${NAME:-else}`, `${NAME:+then}`;
/// none of it in single quotes.
///
/// # Errors
/// 400 for a form that there is not, or where too much comes of it.
pub fn expand(word: &str, env: &[String]) -> Result<String> {
    let chars: Vec<char> = word.chars().collect();
    let (mut out, mut at) = (String::new(), 0);
    let mut double = false;
    while let Some(&c) = chars.get(at) {
        at += 1;
        match c {
            '\\' => {
                let next = chars.get(at).copied();
                // In double quotes only what would mean something else is escaped.
                if double && !matches!(next, Some('"' | '$' | '\\')) {
                    out.push('\\');
                }
                out.extend(next);
                at += 1;
            }
            '"' => double = !double,
            '\'' if !double => {
                let end = chars[at..].iter().position(|c| *c == '\'');
                let end = end.map_or(chars.len(), |n| at + n);
                out.extend(&chars[at..end]);
                at = end + 1;
            }
            '$' => {
                let (value, next) = variable(&chars, at, word, env)?;
                out.push_str(&value);
                at = next;
            }
            c => out.push(c),
        }
        if out.len() > EXPANDED_MAX {
            return Err(Error::bad(format!(
                "a word of a change has more than {EXPANDED_MAX} bytes with its variables put in"
            )));
        }
    }
    Ok(out)
}

/// What stands for the variable whose name begins at `at`, and where it ends.
fn variable(chars: &[char], at: usize, word: &str, env: &[String]) -> Result<(String, usize)> {
    let is_name = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
    let value = |name: &str| {
        let found = env.iter().rev().filter_map(|entry| entry.split_once('='));
        let mut found = found.filter(|(key, _)| *key == name);
        found.next().map(|(_, value)| value.to_owned())
    };
    if chars.get(at) != Some(&'{') {
        let count = chars[at..].iter().take_while(|c| is_name(c)).count();
        if count == 0 {
            return Ok(("$".to_owned(), at));
        }
        let name: String = chars[at..at + count].iter().collect();
        return Ok((value(&name).unwrap_or_default(), at + count));
    }
    let wrong = || {
        Error::bad(format!(
            "failed to process {word:?}: unsupported modifier or missing }} in substitution"
        ))
    };
    let end = chars[at..]
        .iter()
        .position(|c| *c == '}')
        .ok_or_else(wrong)?
        + at;
    let inner: String = chars[at + 1..end].iter().collect();
    let name: String = inner.chars().take_while(is_name).collect();
    let set = value(&name).filter(|value| !value.is_empty());
    let text = match inner[name.len()..].split_at_checked(2) {
        None if inner.len() == name.len() => value(&name).unwrap_or_default(),
        Some((":-", or)) => set.unwrap_or_else(|| or.to_owned()),
        Some((":+", then)) => set.map(|_| then.to_owned()).unwrap_or_default(),
        _ => return Err(wrong()),
    };
    Ok((text, end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_cut_outside_of_quotes() {
        assert_eq!(
            split(r#" a="b c" d\ e 'f g'h "" "#),
            [r#"a="b c""#, r"d\ e", "'f g'h", r#""""#]
        );
        assert_eq!(split("  "), Vec::<String>::new());
    }

    #[test]
    fn quotes_go_and_variables_are_put_in() {
        let env = ["A=1".to_owned(), "E=".to_owned()];
        for (word, want) in [
            (r#"x"$A y"z"#, "x1 yz"),
            ("'$A'", "$A"),
            (r"\$A", "$A"),
            ("${A}b$", "1b$"),
            ("${E:-else}${N:-more}${A:+then}", "elsemorethen"),
            ("$N", ""),
            (r#""a\nb""#, r"a\nb"),
            (r"a\ b", "a b"),
        ] {
            assert_eq!(expand(word, &env).unwrap(), want, "{word}");
        }
        for wrong in ["${A", "${A!}", "${A:?x}"] {
            assert!(expand(wrong, &env).is_err(), "{wrong}");
        }
    }
}
