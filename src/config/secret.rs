//! Keys: hashed when they are read, and in no message.

use std::fmt;

use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use toml::Spanned;
use toml::de::DeValue;

use super::diagnostic::Origin;
use super::kind::{Kind, Report};
use super::setting::Setting;
use super::value::Fault;

/// A key, of which only the SHA-256 sum is in memory.
#[derive(Clone)]
pub struct ApiKey([u8; 32]);

/// What stands for a key where the configuration is shown.
const HIDDEN: &str = "<hidden>";
/// What stands before a sum.
const SUM: &str = "sha256:";
/// Bytes of a key. Headers of requests have a limit, too.
const MAX_BYTES: usize = 512;

impl ApiKey {
    /// The key with this text.
    #[must_use]
    pub fn of(text: &[u8]) -> Self {
        Self(Sha256::digest(text).into())
    }
}

/// In a time that does not depend on where they differ.
impl PartialEq for ApiKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for ApiKey {}

impl fmt::Debug for ApiKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(HIDDEN)
    }
}

/// A key, or its sum. No message repeats it.
pub(super) fn api_key(text: &str) -> Result<ApiKey, Fault> {
    let fault = |message: &str, hint: &str| Fault {
        message: message.to_owned(),
        hint: Some(hint.to_owned()),
    };
    if text == HIDDEN {
        return Err(fault(
            "is what `hearth config show` has in the place of a key",
            "write the key itself, or \"sha256:\" and its sum",
        ));
    }
    if let Some(sum) = text.strip_prefix(SUM) {
        return sum_of(sum).map(ApiKey).ok_or_else(|| {
            fault(
                "has \"sha256:\", but not 64 hexadecimal digits behind it",
                "printf %s \"$KEY\" | sha256sum tells them",
            )
        });
    }
    let visible = |c: char| c.is_ascii_graphic() && c != ',';
    if text.is_empty() || text.len() > MAX_BYTES || !text.chars().all(visible) {
        return Err(fault(
            "must be a key of 1 to 512 letters, digits and signs, without blanks and commas",
            "openssl rand -hex 32 makes a good one",
        ));
    }
    Ok(ApiKey::of(text.as_bytes()))
}

fn sum_of(text: &str) -> Option<[u8; 32]> {
    let mut sum = [0; 32];
    let digits = text.as_bytes();
    if digits.len() != 2 * sum.len() {
        return None;
    }
    for (byte, pair) in sum.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        *byte = u8::try_from(16 * digit(pair[0])? + digit(pair[1])?).ok()?;
    }
    Some(sum)
}

/// A key from the file, which no message repeats, whatever it is.
fn read(value: &Spanned<DeValue<'_>>) -> Result<ApiKey, Fault> {
    match value.get_ref() {
        DeValue::String(text) => api_key(text),
        _ => Err(Fault {
            message: "must be a string".to_owned(),
            hint: Some("put the key in quotes".to_owned()),
        }),
    }
}

/// A key.
pub(super) struct Secret;

impl Kind for Secret {
    type Value = ApiKey;

    fn read(&self, _: &str, value: &Spanned<DeValue<'_>>, report: Report<'_>) -> Option<Setting<ApiKey>> {
        let origin = Origin::File(value.span());
        match read(value) {
            Ok(key) => Some(Setting::new(key, &origin)),
            Err(fault) => {
                report(origin, fault);
                None
            }
        }
    }

    fn parse(&self, text: &str) -> Result<ApiKey, Fault> {
        api_key(text.trim())
    }

    fn show(&self, _: &ApiKey) -> Option<Json> {
        Some(HIDDEN.into())
    }

    fn schema(&self) -> Json {
        json!({"type": "string"})
    }
}

/// Keys: a list of them, or one.
pub(super) struct Secrets;

impl Kind for Secrets {
    type Value = Vec<ApiKey>;

    fn read(&self, key: &str, value: &Spanned<DeValue<'_>>, report: Report<'_>) -> Option<Setting<Vec<ApiKey>>> {
        let DeValue::Array(entries) = value.get_ref() else {
            return Some(Secret.read(key, value, report)?.map(|key| vec![key]));
        };
        let read = entries.iter().filter_map(|entry| Secret.read(key, entry, report));
        let (values, items) = read.filter_map(|item| Some((item.value?, item.origin))).unzip();
        let mut list = Setting::new(values, &Origin::File(value.span()));
        list.items = items;
        Some(list)
    }

    fn parse(&self, text: &str) -> Result<Vec<ApiKey>, Fault> {
        text.split(',').map(|key| Secret.parse(key)).collect()
    }

    fn show(&self, keys: &Vec<ApiKey>) -> Option<Json> {
        Some(keys.iter().map(|_| HIDDEN).collect())
    }

    fn schema(&self) -> Json {
        json!({"anyOf": [{"type": "array", "items": Secret.schema()}, Secret.schema()]})
    }
}

/// The text of a configuration with asterisks for what may be a key, byte for byte, so that places stay the same. The text
/// may be no TOML at all: what stands behind the `=` of a name with "key" in it is hidden, to the end of the line or of the list.
pub(super) fn hidden(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_list = false;
    for line in text.split_inclusive('\n') {
        // It ends a list that nobody closed.
        in_list &= !begins_table(line);
        let start = if in_list { Some(0) } else { secret_value(line) };
        let Some(start) = start else {
            out.push_str(line);
            continue;
        };
        out.push_str(&line[..start]);
        for c in line[start..].chars() {
            match c {
                '[' => in_list = true,
                ']' => in_list = false,
                _ => {}
            }
            if c.is_ascii_whitespace() || "[]{},=\"'".contains(c) {
                out.push(c);
            } else {
                out.extend(std::iter::repeat_n('*', c.len_utf8()));
            }
        }
    }
    out
}

/// Where the value begins, if a line sets a key.
fn secret_value(line: &str) -> Option<usize> {
    // These name where keys are.
    const PLACES: [&str; 2] = ["api_key_env", "api_key_file"];
    line.match_indices('=').find_map(|(at, _)| {
        let name = line[..at].trim_end().trim_end_matches(['"', '\'']);
        let name = name.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-');
        let name = name.take(1).collect::<String>().to_ascii_lowercase();
        (name.contains("key") && !PLACES.contains(&name.as_str())).then_some(at + 1)
    })
}

/// Whether a line is the head of a table.
fn begins_table(line: &str) -> bool {
    let head = line.trim_start().trim_start_matches('[');
    line.trim_start().starts_with('[') && head.starts_with(|c: char| c.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_their_sums_are_the_same() {
        // The sum of "abc", from FIPS 180-2.
        let sum = "sha256:BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD";
        assert!(api_key(sum).unwrap() == api_key("abc").unwrap());
        assert!(api_key("abc").unwrap() != api_key("abd").unwrap());
        for wrong in [
            "",
            " ",
            "a b",
            "a,b",
            "schlüssel",
            "sha256:12",
            "sha256:zz",
            HIDDEN,
            &"x".repeat(513),
        ] {
            let fault = api_key(wrong).unwrap_err();
            assert!(
                wrong.trim().len() < 3 || !fault.message.contains(wrong),
                "{}",
                fault.message
            );
        }
    }

    #[test]
    fn nothing_shows_a_key() {
        let key = api_key("canary").unwrap();
        assert_eq!(format!("{key:?}"), HIDDEN);
        assert_eq!(Secrets.show(&vec![key]).unwrap(), json!([HIDDEN]));
    }

    #[test]
    fn keys_are_hidden_wherever_they_stand() {
        let text = "[server]\nport = 8080\napi_keys = [\"canary\", # canary\n  \"canary\",\n]\nadmin_key=\"canary\n\
                    key_env = \"canary\"\nupstream = { url = \"x\", api_key = \"canary\" }\n\"key\" = canary\n\
                    api_keys = [\"canary\"\n[[model]]\nname = \"m\"\nAPI_KEYS = 'cänary'\nnote = \"key\"\n";
        let shown = hidden(text);
        assert_eq!(shown.len(), text.len());
        assert!(!shown.contains("anary"), "{shown}");
        for kept in [
            "port = 8080",
            "url = \"x\"",
            "[[model]]\nname = \"m\"",
            "note = \"key\"",
        ] {
            assert!(shown.contains(kept), "{kept} in\n{shown}");
        }
    }
}
