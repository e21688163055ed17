//! What a table of `models.toml` is made of, and the macro that declares one.

use serde_json::{Map, Value as Json, json};

use super::diagnostic::Origin;
use super::kind::Kind;
use super::reader::Table;
use super::setting::Setting;
use super::value::Fault;

/// Everything there is to know about a key.
#[derive(Debug, Clone)]
pub struct Key {
    /// The table, as the user writes it: `[server]`.
    pub table: &'static str,
    pub name: &'static str,
    /// What it is for, in Markdown; as the doc comment says it.
    pub doc: String,
    /// As it stands in the file; `Err` says what having no value means.
    pub default: Result<Json, &'static str>,
    /// The environment variable that replaces it.
    pub variable: Option<&'static str>,
    /// The flag that replaces it, with its dashes, and what its value is called.
    pub flag: Option<(&'static str, &'static str)>,
    /// Which values are possible, if a few words can say it.
    pub range: Option<String>,
    pub(super) schema: Json,
}

impl Key {
    /// The key with its table, such as `server.port`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}.{}", self.table.trim_matches(['[', ']']), self.name)
    }
}

/// What is taken where nobody says anything.
pub(super) enum Fallback<T> {
    Value(T),
    /// The key must be there; the text says what to write.
    Required(&'static str),
    /// The key must be there, unless the table of this name is; the text says what to write.
    RequiredUnless(&'static str, &'static str),
}

/// A key of a configuration with its value and origin; without a value, what that means.
pub(super) struct Entry<'s> {
    pub key: &'static str,
    pub value: Result<Json, &'static str>,
    pub origin: &'s Origin,
}

/// A table of `models.toml` while the layers are put on top of each other.
pub(super) trait Section: Default {
    /// As the user writes it: `[server]`.
    const TITLE: &'static str;

    /// What it is for.
    const ABOUT: &'static str;

    /// Its keys, in the order of documentation.
    fn keys() -> Vec<Key>;

    /// Takes what the file says.
    fn read(&mut self, table: &mut Table<'_, '_>);

    /// Takes the text of a variable or a flag for a key of this table; an unknown one is ignored.
    fn set(&mut self, key: &str, text: &str, origin: &Origin) -> Result<(), Fault>;

    /// Its keys with their values.
    fn entries(&self) -> Vec<Entry<'_>>;

    /// The schema of the table, with further properties for what is below it.
    fn schema(below: Map<String, Json>) -> Json {
        let keys = Self::keys();
        let required: Vec<&str> = keys
            .iter()
            .filter(|key| key.default == Err(REQUIRED))
            .map(|key| key.name)
            .collect();
        let mut properties: Map<String, Json> = keys.iter().map(|key| (key.name.to_owned(), key.property())).collect();
        properties.extend(below);
        json!({
            "type": "object",
            "description": Self::ABOUT,
            "properties": properties,
            "required": required,
            "additionalProperties": false,
        })
    }
}

/// What documentation says of a key that must be there.
pub(super) const REQUIRED: &str = "required";
const REQUIRED_UNLESS: &str = "required without `upstream`";

impl Key {
    fn property(&self) -> Json {
        let mut property = self.schema.clone();
        property["description"] = self.doc.as_str().into();
        if let Ok(default) = &self.default {
            property["default"] = default.clone();
        }
        property
    }
}

pub(super) fn entry<'s, K: Kind>(key: &'static str, kind: &K, setting: &'s Setting<K::Value>) -> Entry<'s> {
    Entry {
        key,
        value: setting.get().and_then(|value| kind.show(value)).ok_or(kind.absent()),
        origin: &setting.origin,
    }
}

pub(super) fn default_text<K: Kind>(kind: &K, fallback: &Fallback<K::Value>) -> Result<Json, &'static str> {
    match fallback {
        Fallback::Value(value) => kind.show(value).ok_or(kind.absent()),
        Fallback::Required(_) => Err(REQUIRED),
        Fallback::RequiredUnless(..) => Err(REQUIRED_UNLESS),
    }
}

/// Reports a key that must be there and is not.
pub(super) fn require<T>(table: &Table<'_, '_>, key: &'static str, fallback: &Fallback<T>) {
    match fallback {
        Fallback::Value(_) => {}
        Fallback::Required(hint) => table.require(key, hint),
        Fallback::RequiredUnless(other, hint) => {
            if table.origin_of(other).is_none() {
                table.require(key, hint);
            }
        }
    }
}

/// Without the space that starts each line of a doc comment.
pub(super) fn doc_text(lines: &[&str]) -> String {
    let lines: Vec<&str> = lines.iter().map(|line| line.trim()).collect();
    lines.join(" ")
}

/// Declares a table: the checked configuration, the one that is being put together, and all that follows from its keys. A key
/// is one entry:
///
/// ```text
/// /// What it is for.
/// field: Type = default, kind, variable "HEARTH_X", flag "--x" "VALUE";
/// ```
///
/// `field as "key"` names the key where it differs, `required "hint"` stands in the place of a default. Tables below the table
/// follow: `below { field: Type = PartialType; }`.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $(#[derive($($derive:ident),+)])?
        $title:literal $config:ident, $partial:ident {
            $(
                $(#[doc = $doc:literal])+
                $field:ident $(as $key:literal)? : $type:ty = $fallback:expr, $kind:expr
                    $(, variable $variable:literal)? $(, flag $flag:literal $value_name:literal)?;
            )*
        }
        $(below {
            $(
                $(#[doc = $below_doc:literal])+
                $below:ident: $below_type:ty = $below_partial:ty;
            )*
        })?
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq $($(, $derive)+)?)]
        pub struct $config {
            $($(#[doc = $doc])+ pub $field: $type,)*
            $($($(#[doc = $below_doc])+ pub $below: $below_type,)*)?
        }

        #[derive(Debug, Clone)]
        pub(super) struct $partial {
            $(pub $field: Setting<$type>,)*
            $($(pub $below: $below_partial,)*)?
        }

        impl Default for $partial {
            fn default() -> Self {
                Self {
                    $($field: match $fallback {
                        Fallback::Value(value) => Setting::default_of(value),
                        Fallback::Required(_) | Fallback::RequiredUnless(..) => Setting::missing(),
                    },)*
                    $($($below: <$below_partial>::default(),)*)?
                }
            }
        }

        impl $partial {
            /// The checked table; `None` where a required key is missing or lost to a mistake.
            pub fn build(&self) -> Option<$config> {
                Some($config {
                    $($field: self.$field.get()?.clone(),)*
                    $($($below: self.$below.build()?,)*)?
                })
            }
        }

        impl Section for $partial {
            const TITLE: &'static str = $title;
            const ABOUT: &'static str = concat!($($about,)+).trim_ascii();

            fn keys() -> Vec<Key> {
                vec![$({
                    let kind = $kind;
                    Key {
                        table: $title,
                        name: key_name!($field $($key)?),
                        doc: doc_text(&[$($doc),+]),
                        default: {
                            let fallback: Fallback<$type> = $fallback;
                            default_text(&kind, &fallback)
                        },
                        variable: first!($($variable)?),
                        flag: first!($(($flag, $value_name))?),
                        range: Kind::range(&kind),
                        schema: Kind::schema(&kind),
                    }
                }),*]
            }

            fn read(&mut self, table: &mut Table<'_, '_>) {
                $(
                    let fallback: Fallback<$type> = $fallback;
                    require(table, key_name!($field $($key)?), &fallback);
                    if let Some(setting) = table.key(key_name!($field $($key)?), &$kind) {
                        self.$field = setting;
                    }
                )*
            }

            fn set(&mut self, key: &str, text: &str, origin: &Origin) -> Result<(), Fault> {
                $(
                    if key == key_name!($field $($key)?) {
                        self.$field = Setting::new(Kind::parse(&$kind, text)?, origin);
                    }
                )*
                Ok(())
            }

            fn entries(&self) -> Vec<Entry<'_>> {
                vec![$(entry(key_name!($field $($key)?), &$kind, &self.$field)),*]
            }
        }
    };
}

/// The name of a field, unless the key has another.
macro_rules! key_name {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident $key:literal) => {
        $key
    };
}

macro_rules! first {
    () => {
        None
    };
    ($value:expr) => {
        Some($value)
    };
}

pub(super) use {first, key_name, section};
