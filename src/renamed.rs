//! Fields of JSON that were renamed: for `#[serde(flatten, serialize_with = "...")]`, written under their name and under
//! their old one, which programs out there may read.

use serde::ser::{Serialize, SerializeMap, Serializer};

/// `capacity`, formerly `slots`.
///
/// # Errors
/// Those of the serializer.
pub fn capacity<T: Serialize, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    both(["capacity", "slots"], value, serializer)
}

/// `experts_per_token`, formerly `active` in profiles.
///
/// # Errors
/// Those of the serializer.
pub fn active<T: Serialize, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    both(["experts_per_token", "active"], value, serializer)
}

/// `experts_per_token`, formerly `experts_used` in what `inspect` prints.
///
/// # Errors
/// Those of the serializer.
pub fn experts_used<T: Serialize, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    both(["experts_per_token", "experts_used"], value, serializer)
}

fn both<T: Serialize, S: Serializer>(names: [&str; 2], value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(names.len()))?;
    for name in names {
        map.serialize_entry(name, value)?;
    }
    map.end()
}
