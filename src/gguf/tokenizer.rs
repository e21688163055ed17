//! What a file says about its vocabulary, checked so that llama.cpp can load it.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Serialize;

use super::error::model;
use super::{Array, Gguf, GgufError, Value, ValueType};

/// What the file says about its vocabulary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tokenizer {
    /// llama.cpp's tokenizer model, such as `gpt2`.
    pub model: String,
    /// The pre-tokenizer, such as `qwen2`.
    pub pre: Option<String>,
    /// Number of tokens.
    pub vocabulary: u32,
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    /// Texts of the two; empty if there is none.
    pub bos_text: String,
    pub eos_text: String,
    /// Texts of the control tokens, which mean something else than they say.
    #[serde(skip)]
    pub control_texts: Vec<String>,
    /// Whether a prompt should begin with `bos`; `None` where the file leaves it to the tokenizer.
    pub add_bos: Option<bool>,
    /// Jinja source of the chat template.
    #[serde(skip)]
    pub chat_template: Option<String>,
    /// Of the template for conversations with tools, where the file has one of its own.
    #[serde(skip)]
    pub tool_template: Option<String>,
}

const TOKENS: &str = "tokenizer.ggml.tokens";

impl Tokenizer {
    pub(super) fn read(gguf: &Gguf) -> Result<Self, GgufError> {
        let key = "tokenizer.ggml.model";
        let Some(tokenizer) = gguf.get(key).and_then(|value| value.as_str()) else {
            return Err(model(gguf, key, "is missing: the file has no vocabulary"));
        };
        let Some(tokens) = gguf
            .get(TOKENS)
            .and_then(|value| value.as_array())
            .filter(|tokens| tokens.element == ValueType::String && tokens.len > 0)
        else {
            return Err(model(gguf, TOKENS, "is missing: the file has no vocabulary"));
        };
        check_companions(gguf, &tokens)?;
        check_texts(gguf, &tokens)?;
        if let Some(embedding) = gguf.tensors().iter().find(|tensor| tensor.name == "token_embd.weight")
            && embedding.shape[1] != tokens.len as u64
        {
            let problem = format!(
                "has {} tokens, but the embedding has {} rows",
                tokens.len, embedding.shape[1]
            );
            return Err(model(gguf, TOKENS, &problem));
        }
        for name in [
            "eot",
            "eom",
            "unknown",
            "seperator",
            "padding",
            "cls",
            "mask",
            "fim_pre",
            "fim_suf",
            "fim_mid",
            "fim_pad",
            "fim_rep",
            "fim_sep",
        ] {
            special(gguf, name, &tokens)?;
        }
        let (bos, eos) = (special(gguf, "bos", &tokens)?, special(gguf, "eos", &tokens)?);
        let add_bos = added(gguf, "bos", bos, default_bos(tokenizer), &tokens)?;
        added(gguf, "eos", eos, default_eos(tokenizer), &tokens)?;
        let token_text = |id: Option<u32>| {
            id.and_then(|id| tokens.strings().nth(id as usize))
                .map(|text| String::from_utf8_lossy(text).into_owned())
                .unwrap_or_default()
        };
        let text = |key: &str| gguf.get(key).and_then(|value| value.as_str()).map(str::to_owned);
        Ok(Self {
            model: tokenizer.to_owned(),
            pre: text("tokenizer.ggml.pre"),
            vocabulary: u32::try_from(tokens.len).unwrap_or(u32::MAX),
            bos,
            eos,
            bos_text: token_text(bos),
            eos_text: token_text(eos),
            control_texts: control_texts(gguf, &tokens, &[bos, eos]),
            add_bos,
            chat_template: text("tokenizer.chat_template"),
            tool_template: text("tokenizer.chat_template.tool_use"),
        })
    }
}

/// llama.cpp's number of the type `control`.
const CONTROL: u64 = 3;

/// Texts of the tokens that the file calls control tokens, and of `special` ones.
fn control_texts(gguf: &Gguf, tokens: &Array<'_>, special: &[Option<u32>]) -> Vec<String> {
    let types = gguf.get("tokenizer.ggml.token_type").and_then(|value| value.as_array());
    let types = types.map(|types| {
        types
            .iter()
            .map(|kind| kind.as_u64() == Some(CONTROL))
            .collect::<Vec<bool>>()
    });
    let is_control = |id: usize| {
        let named = special
            .iter()
            .any(|token| token.is_some_and(|token| token as usize == id));
        named || types.as_ref().is_some_and(|types| types.get(id) == Some(&true))
    };
    let texts = tokens.strings().enumerate().filter(|(id, _)| is_control(*id));
    texts
        .filter_map(|(_, text)| Some(std::str::from_utf8(text).ok()?.to_owned()))
        .collect()
}

/// Arrays beside the tokens have as many entries, of the type that llama.cpp reads them as.
fn check_companions(gguf: &Gguf, tokens: &Array<'_>) -> Result<(), GgufError> {
    let companions: [(&str, &[ValueType]); 2] = [
        ("tokenizer.ggml.scores", &[ValueType::F32, ValueType::I32]),
        ("tokenizer.ggml.token_type", &[ValueType::I32]),
    ];
    for (key, types) in companions {
        let Some(value) = gguf.get(key) else { continue };
        match value.as_array() {
            Some(array) if !types.contains(&array.element) => {
                let problem = format!("is an array of {}, not of {}", array.element.name(), types[0].name());
                return Err(model(gguf, key, &problem));
            }
            Some(array) if array.len != tokens.len => {
                let problem = format!("has {} entries, but there are {} tokens", array.len, tokens.len);
                return Err(model(gguf, key, &problem));
            }
            Some(_) => {}
            None => return Err(model(gguf, key, "is not an array")),
        }
    }
    let key = "tokenizer.ggml.merges";
    match gguf.get(key) {
        None => Ok(()),
        Some(Value::Array(merges)) if merges.element == ValueType::String => Ok(()),
        Some(_) => Err(model(gguf, key, "is not an array of strings")),
    }
}

/// No two tokens may be the same to llama.cpp, which aborts on that. To it a token ends at a zero byte, and an empty one
/// is called `[EMPTY_<number>]`.
fn check_texts(gguf: &Gguf, tokens: &Array<'_>) -> Result<(), GgufError> {
    let mut seen: HashMap<Cow<'_, [u8]>, usize> = HashMap::with_capacity(tokens.len);
    for (id, text) in tokens.strings().enumerate() {
        let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
        let text: Cow<'_, [u8]> = match &text[..end] {
            [] => format!("[EMPTY_{id}]").into_bytes().into(),
            text => text.into(),
        };
        if let Some(earlier) = seen.insert(text, id) {
            let problem = format!("has the same text for token {earlier} and token {id}");
            return Err(model(gguf, TOKENS, &problem));
        }
    }
    Ok(())
}

/// A special token, if the file names one.
fn special(gguf: &Gguf, name: &str, tokens: &Array<'_>) -> Result<Option<u32>, GgufError> {
    let key = format!("tokenizer.ggml.{name}_token_id");
    let Some(value) = gguf.get(&key) else { return Ok(None) };
    match value.as_u64().and_then(|id| u32::try_from(id).ok()) {
        Some(id) if (id as usize) < tokens.len => Ok(Some(id)),
        _ => Err(model(
            gguf,
            &key,
            &format!("is {value}, not one of the {} tokens", tokens.len),
        )),
    }
}

/// Whether the tokenizer should add a special token; llama.cpp aborts if it should and there is none.
fn added(
    gguf: &Gguf,
    name: &str,
    id: Option<u32>,
    default: Option<usize>,
    tokens: &Array<'_>,
) -> Result<Option<bool>, GgufError> {
    let key = format!("tokenizer.ggml.add_{name}_token");
    let add = match gguf.get(&key) {
        None => return Ok(None),
        Some(Value::Bool(add)) => add,
        Some(value) => return Err(model(gguf, &key, &format!("is {value}, neither true nor false"))),
    };
    if add && id.is_none() && default.is_none_or(|default| default >= tokens.len) {
        let problem = format!("is true, but the file has no tokenizer.ggml.{name}_token_id");
        return Err(model(gguf, &key, &problem));
    }
    Ok(Some(add))
}

/// The token that llama.cpp takes where the file names none.
fn default_bos(tokenizer: &str) -> Option<usize> {
    match tokenizer {
        "llama" | "plamo2" => Some(1),
        "gpt2" | "hybriddna" | "whitespace" => Some(11),
        "bert" => Some(101),
        _ => None,
    }
}

fn default_eos(tokenizer: &str) -> Option<usize> {
    match tokenizer {
        "llama" | "plamo2" => Some(2),
        "gpt2" | "hybriddna" | "whitespace" => Some(11),
        "t5" => Some(1),
        _ => None,
    }
}
