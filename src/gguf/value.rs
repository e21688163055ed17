//! Metadata values: where they lie in the file, and how they read.

use std::fmt;
use std::ops::Range;

use super::cursor::Cursor;
use super::error::{Damage, printable};

/// Vocabularies have some hundred thousand entries; the bound keeps a sparse file from costing minutes.
const MAX_ELEMENTS: usize = 1 << 24;

/// The type of a metadata value, with the numbers that GGUF gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum ValueType {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    String = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl ValueType {
    const ALL: [Self; 13] = [
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::F32,
        Self::Bool,
        Self::String,
        Self::Array,
        Self::U64,
        Self::I64,
        Self::F64,
    ];

    fn from_id(id: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(id).ok()?).copied()
    }

    /// Bytes of one value; `None` for strings and arrays, which say their own length.
    fn size(self) -> Option<usize> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::String | Self::Array => None,
        }
    }

    /// The name that GGUF's description uses.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::F32 => "f32",
            Self::Bool => "bool",
            Self::String => "string",
            Self::Array => "array",
            Self::U64 => "u64",
            Self::I64 => "i64",
            Self::F64 => "f64",
        }
    }
}

/// Where a value lies. It was checked, so that reading it cannot fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Scalar(ValueType, Range<usize>),
    Array {
        element: ValueType,
        count: usize,
        /// The elements; strings each with their length before them.
        range: Range<usize>,
    },
}

impl Place {
    /// Checks the value at the cursor, and moves behind it.
    pub(super) fn read(cursor: &mut Cursor<'_>, bytes: &[u8], key: &str) -> Result<Self, Damage> {
        let kind = value_type(cursor, key)?;
        if kind != ValueType::Array {
            return Ok(Self::Scalar(kind, scalar(cursor, bytes, kind, key)?));
        }
        let at = cursor.at();
        let element = value_type(cursor, key)?;
        if element == ValueType::Array {
            return Err(Damage::new(
                key,
                at,
                "is an array of arrays, which llama.cpp does not read",
            ));
        }
        let count = cursor.count(key, element.size().unwrap_or(8))?;
        if count > MAX_ELEMENTS {
            let problem = format!("has {count} elements; more than {MAX_ELEMENTS} are not plausible");
            return Err(Damage::new(key, at, problem));
        }
        let start = cursor.at();
        match element.size() {
            Some(size) if element != ValueType::Bool => {
                cursor.skip(count, size, key)?;
            }
            _ => {
                for index in 0..count {
                    // Tokens of a vocabulary need not be UTF-8 one by one.
                    if element == ValueType::String {
                        cursor.raw_string(key)?;
                    } else {
                        scalar(cursor, bytes, element, &format!("{key}[{index}]"))?;
                    }
                }
            }
        }
        Ok(Self::Array {
            element,
            count,
            range: start..cursor.at(),
        })
    }
}

fn value_type(cursor: &mut Cursor<'_>, key: &str) -> Result<ValueType, Damage> {
    let at = cursor.at();
    let id = cursor.u32(key)?;
    ValueType::from_id(id).ok_or_else(|| Damage::new(key, at, format!("has the unknown type {id}")))
}

fn scalar(cursor: &mut Cursor<'_>, bytes: &[u8], kind: ValueType, key: &str) -> Result<Range<usize>, Damage> {
    let Some(size) = kind.size() else {
        return cursor.string(key);
    };
    let range = cursor.skip(1, size, key)?;
    if kind == ValueType::Bool && bytes[range.start] > 1 {
        let problem = format!("is neither true nor false, but {}", bytes[range.start]);
        return Err(Damage::new(key, range.start, problem));
    }
    Ok(range)
}

/// A metadata value, borrowed from the file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// Any unsigned or signed whole number.
    Integer(i128),
    Float(f64),
    Bool(bool),
    String(&'a str),
    Array(Array<'a>),
}

/// An array in the file: its elements are read when they are asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Array<'a> {
    /// Type of the elements; never `Array`.
    pub element: ValueType,
    /// Number of elements.
    pub len: usize,
    bytes: &'a [u8],
}

impl<'a> Value<'a> {
    pub(super) fn at(place: &Place, bytes: &'a [u8]) -> Self {
        match place {
            Place::Scalar(kind, range) => decode(*kind, &bytes[range.clone()]),
            Place::Array { element, count, range } => Self::Array(Array {
                element: *element,
                len: *count,
                bytes: &bytes[range.clone()],
            }),
        }
    }

    /// A whole number that is not negative, or a true/false.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Integer(number) => u64::try_from(*number).ok(),
            Self::Bool(value) => Some(u64::from(*value)),
            _ => None,
        }
    }

    /// Any number.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "numbers for people and for geometry, far below 2^53"
    )]
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Float(number) => Some(*number),
            Self::Integer(number) => Some(*number as f64),
            _ => None,
        }
    }

    #[must_use]
    pub fn as_str(&self) -> Option<&'a str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    #[must_use]
    pub fn as_array(&self) -> Option<Array<'a>> {
        match self {
            Self::Array(array) => Some(*array),
            _ => None,
        }
    }
}

/// A number or a text as it reads, a longer text shortened; an array by its type and length.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(number) => number.fmt(f),
            Self::Float(number) => number.fmt(f),
            Self::Bool(value) => value.fmt(f),
            Self::String(text) => write!(f, "`{}`", printable(text)),
            Self::Array(array) => write!(f, "{}[{}]", array.element.name(), array.len),
        }
    }
}

impl<'a> Array<'a> {
    /// The elements, in order. A string that is not UTF-8 reads as empty: [`Array::strings`] has its bytes.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let (element, len) = (self.element, self.len);
        let mut cursor = Cursor::new(self.bytes, 0);
        let bytes = self.bytes;
        (0..len).map_while(move |_| {
            let range = match element.size() {
                Some(size) => cursor.skip(1, size, ""),
                None => cursor.raw_string(""),
            };
            range.ok().map(|range| decode(element, &bytes[range]))
        })
    }

    /// The raw bytes of each string; nothing for an array of something else.
    pub fn strings(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let len = if self.element == ValueType::String { self.len } else { 0 };
        let mut cursor = Cursor::new(self.bytes, 0);
        let bytes = self.bytes;
        (0..len).map_while(move |_| cursor.raw_string("").ok().map(|range| &bytes[range]))
    }
}

/// Reads a value of `kind` from exactly its bytes.
fn decode(kind: ValueType, bytes: &[u8]) -> Value<'_> {
    // Shorter slices do not occur: the places were checked. Zeros stand in for what cannot be missing.
    let mut word = [0; 8];
    for (to, from) in word.iter_mut().zip(bytes) {
        *to = *from;
    }
    let raw = u64::from_le_bytes(word);
    #[expect(clippy::cast_possible_truncation, reason = "the low bytes are the value")]
    #[expect(
        clippy::cast_possible_wrap,
        reason = "two's complement is how GGUF stores signed numbers"
    )]
    match kind {
        ValueType::U8 | ValueType::U16 | ValueType::U32 | ValueType::U64 => Value::Integer(i128::from(raw)),
        ValueType::I8 => Value::Integer(i128::from(raw as i8)),
        ValueType::I16 => Value::Integer(i128::from(raw as i16)),
        ValueType::I32 => Value::Integer(i128::from(raw as i32)),
        ValueType::I64 => Value::Integer(i128::from(raw as i64)),
        ValueType::F32 => Value::Float(f64::from(f32::from_bits(raw as u32))),
        ValueType::F64 => Value::Float(f64::from_bits(raw)),
        ValueType::Bool => Value::Bool(raw != 0),
        ValueType::String | ValueType::Array => Value::String(std::str::from_utf8(bytes).unwrap_or_default()),
    }
}
