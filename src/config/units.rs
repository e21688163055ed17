//! Amounts of memory and time as people write them.

use std::str::FromStr;
use std::time::Duration;

use super::MemoryLimit;

const UNITS: [(&str, u64); 8] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// Reads `16GiB`, `1.5 GB`, `512MiB`.
///
/// # Errors
/// What is wrong, with a proposal.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = (&text[..split], text[split..].trim());
    let Ok(number) = number.parse::<f64>() else {
        return Err(format!(
            "`{text}` is not an amount of memory; write for example `16GiB`"
        ));
    };
    if unit.is_empty() {
        return Err(format!("`{text}` has no unit; write for example `{text}GiB`"));
    }
    let Some((_, factor)) = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)) else {
        return Err(format!(
            "`{unit}` is not a unit of memory; use KiB, MiB, GiB, TiB, kB, MB, GB or TB"
        ));
    };
    #[expect(clippy::cast_precision_loss, reason = "amounts of memory, to the byte or not")]
    let bytes = number * *factor as f64;
    if bytes > 1e15 {
        return Err(format!("`{text}` is more memory than any machine has"));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked: 0 to 1e15"
    )]
    Ok(bytes as u64)
}

/// Reads `30s`, `500ms`, `2min`.
///
/// # Errors
/// What is wrong, with a proposal.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: Option<u64> = text[..split].parse().ok().filter(|number| *number <= 1_000_000);
    match (number, text[split..].trim()) {
        (Some(number), "ms") => Ok(Duration::from_millis(number)),
        (Some(number), "s") => Ok(Duration::from_secs(number)),
        (Some(number), "min") => Ok(Duration::from_secs(60 * number)),
        _ => Err(format!(
            "`{text}` is not a time; write for example `30s`, `500ms` or `2min`"
        )),
    }
}

impl FromStr for MemoryLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim().eq_ignore_ascii_case("auto") {
            Ok(Self::Auto)
        } else {
            bytes(text).map(Self::Bytes)
        }
    }
}

impl std::fmt::Display for MemoryLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Bytes(bytes) => {
                let unit = UNITS[..4]
                    .iter()
                    .rev()
                    .find(|(_, factor)| *bytes >= *factor && bytes.is_multiple_of(*factor));
                match unit {
                    Some((name, factor)) => write!(f, "{}{name}", bytes / factor),
                    #[expect(clippy::cast_precision_loss, reason = "exact enough to be read back")]
                    None => write!(f, "{}KiB", *bytes as f64 / 1024.0),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_need_a_unit() {
        assert_eq!(bytes("16GiB"), Ok(16 << 30));
        assert_eq!(bytes("1.5 GB"), Ok(1_500_000_000));
        assert_eq!(bytes("64mib"), Ok(64 << 20));
        assert!(bytes("16").unwrap_err().contains("write for example `16GiB`"));
        assert!(bytes("16 G").unwrap_err().contains("is not a unit"));
        assert!(bytes("many GiB").is_err());
        assert!(bytes("99999999TiB").is_err());
        assert_eq!("AUTO".parse(), Ok(MemoryLimit::Auto));
    }

    #[test]
    fn times_need_a_unit() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("2 min"), Ok(Duration::from_secs(120)));
        assert!(duration("30").is_err());
        assert!(duration("-1s").is_err());
    }

    #[test]
    fn limits_are_printed_as_they_are_read() {
        for text in ["auto", "16GiB", "512MiB", "3KiB", "0.5KiB"] {
            assert_eq!(text.parse::<MemoryLimit>().unwrap().to_string(), text);
        }
    }
}
