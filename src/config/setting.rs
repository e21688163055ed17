//! A value together with where it came from.

use super::diagnostic::Origin;

/// A value and its origin.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Setting<T> {
    /// `None` where nobody gave a value to a key that has no default, or it was a mistake that has been reported.
    pub value: Option<T>,
    pub origin: Origin,
    /// Where the items of a list stand, for messages about single ones. Empty where they have no places of their own.
    pub items: Vec<Origin>,
}

impl<T> Setting<T> {
    pub fn new(value: T, origin: &Origin) -> Self {
        Self {
            value: Some(value),
            origin: origin.clone(),
            items: Vec::new(),
        }
    }

    pub fn default_of(value: T) -> Self {
        Self::new(value, &Origin::Default)
    }

    /// A key that must be given, and is not yet.
    pub fn missing() -> Self {
        Self {
            value: None,
            origin: Origin::Default,
            items: Vec::new(),
        }
    }

    pub fn get(&self) -> Option<&T> {
        self.value.as_ref()
    }

    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Setting<U> {
        Setting {
            value: self.value.map(change),
            origin: self.origin,
            items: self.items,
        }
    }

    /// Where an item of a list stands.
    pub fn item_origin(&self, index: usize) -> &Origin {
        self.items.get(index).unwrap_or(&self.origin)
    }
}
