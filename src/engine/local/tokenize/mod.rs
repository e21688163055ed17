//! From text to tokens.
//!
//! A prompt is tokenized message by message, and what was tokenized before stays known: a conversation comes again with each
//! turn ([`Tokenizer`]).

mod runs;
mod specials;

use std::sync::{Arc, LazyLock};

use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::token_type::LlamaTokenAttr;
use llama_cpp_2::vocab::{LlamaVocab, VocabType};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio::sync::Semaphore;

use self::specials::{Special, Specials};
use crate::engine::{EngineError, Token};

/// Texts up to this size are tokenized where they arrive; longer ones would block an async worker for too long.
const INLINE_TEXT: usize = 16 * 1024;

/// Bytes of a piece of a prompt that is worth keeping.
const SHORTEST_PIECE: usize = 256;
/// Bytes of the pieces that are kept, text and tokens; a context of 262,144 tokens takes about 2 MiB.
const KNOWN_BYTES: u64 = 16 << 20;

/// Long texts are tokenized a few at a time: they must not take all cores from the models.
static LONG_TEXTS: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(4))));

/// Tokenizes, away from the async workers when it may take long.
pub(super) async fn split(
    model: Arc<LlamaModel>,
    text: String,
    add_special: bool,
    parse_special: bool,
) -> Result<Vec<Token>, EngineError> {
    here_or_aside(text, move |text| {
        tokenize(&model.vocab(), text, add_special, parse_special)
    })
    .await
}

/// Tokenizes a prompt with control tokens, away from the async workers when it may take long.
pub(super) async fn split_prompt(
    model: Arc<LlamaModel>,
    tokenizer: Arc<Tokenizer>,
    text: String,
    add_special: bool,
) -> Result<Vec<Token>, EngineError> {
    here_or_aside(text, move |text| tokenizer.tokens(&model.vocab(), text, add_special)).await
}

/// Here if the text is short.
async fn here_or_aside(
    text: String,
    work: impl FnOnce(&str) -> Vec<Token> + Send + 'static,
) -> Result<Vec<Token>, EngineError> {
    if text.len() <= INLINE_TEXT {
        return Ok(work(&text));
    }
    aside(move || work(&text)).await
}

/// Runs long work on text away from the async workers, when it is its turn.
pub(super) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, EngineError> {
    // Never closed.
    let turn = LONG_TEXTS.acquire().await.ok();
    // What it logs belongs to who asked.
    let span = tracing::Span::current();
    let done = tokio::task::spawn_blocking(move || (span.in_scope(work), turn)).await;
    let (result, _) = done.map_err(|error| EngineError::Compute {
        model: String::new(),
        reason: format!("tokenizing failed: {error}"),
    })?;
    Ok(result)
}

pub(super) fn tokenize(vocab: &LlamaVocab<'_>, text: &str, add_special: bool, parse_special: bool) -> Vec<Token> {
    if vocab.vocab_type() == VocabType::BPE {
        return framed(vocab, add_special, |tokens| {
            append(vocab, text, parse_special, tokens);
        });
    }
    // Other kinds of vocabularies use no regular expressions, and some begin every text with a space.
    let mut tokens = raw(vocab, text, add_special, parse_special).collect();
    drop_second_bos(vocab, add_special, &mut tokens);
    tokens
}

fn raw(
    vocab: &LlamaVocab<'_>,
    text: &str,
    add_special: bool,
    parse_special: bool,
) -> impl Iterator<Item = Token> + use<> {
    let tokens = vocab.tokenize(text.as_bytes(), add_special, parse_special);
    tokens.into_iter().map(|token| token.0)
}

/// What `fill` appends, with the tokens that begin and end every text if they are wanted. For byte-level vocabularies.
fn framed(vocab: &LlamaVocab<'_>, add_special: bool, fill: impl FnOnce(&mut Vec<Token>)) -> Vec<Token> {
    let mut tokens = Vec::new();
    if add_special && vocab.should_add_bos() {
        tokens.push(vocab.bos().0);
    }
    fill(&mut tokens);
    if add_special && vocab.should_add_eos() {
        tokens.push(vocab.eos().0);
    }
    drop_second_bos(vocab, add_special, &mut tokens);
    tokens
}

/// Chat templates often write the BOS that the tokenizer adds as well.
fn drop_second_bos(vocab: &LlamaVocab<'_>, add_special: bool, tokens: &mut Vec<Token>) {
    let bos = vocab.bos().0;
    if add_special && tokens.len() > 1 && tokens[0] == bos && tokens[1] == bos {
        tokens.remove(0);
    }
}

/// Appends the tokens of a text for a byte-level vocabulary.
fn append(vocab: &LlamaVocab<'_>, text: &str, parse_special: bool, tokens: &mut Vec<Token>) {
    let mut start = 0;
    let cuts = runs::cuts(text, || special_texts(vocab));
    for end in cuts.into_iter().chain([text.len()]) {
        tokens.extend(raw(vocab, &text[start..end], false, parse_special));
        start = end;
    }
}

/// Texts that are one token wherever they stand.
fn special_texts(vocab: &LlamaVocab<'_>) -> Vec<String> {
    let specials = specials(vocab);
    specials
        .map(|special| special.text)
        .filter(|text| text.len() > 1)
        .collect()
}

/// The tokens that llama.cpp finds before it tokenizes what lies between them.
fn specials(vocab: &LlamaVocab<'_>) -> impl Iterator<Item = Special> {
    vocab.tokens().filter_map(|token| {
        let attributes = vocab.attr(token);
        let of_any = [
            LlamaTokenAttr::Control,
            LlamaTokenAttr::UserDefined,
            LlamaTokenAttr::Unknown,
        ];
        if !of_any.into_iter().any(|kind| attributes.contains(kind)) {
            return None;
        }
        Some(Special {
            text: vocab.text(token)?.to_str().ok()?.to_owned(),
            begins_piece: attributes.contains(LlamaTokenAttr::Control) && !attributes.contains(LlamaTokenAttr::LStrip),
        })
    })
}

/// The special tokens of a byte-level vocabulary, and the tokens of pieces of earlier prompts.
#[derive(Debug)]
pub(super) struct Tokenizer {
    /// `None` for other kinds of vocabularies.
    specials: Option<Specials>,
    known: Cache<Box<str>, Arc<[Token]>, Bytes>,
    longest_piece: Option<usize>,
}

impl Tokenizer {
    /// Reads the vocabulary, which takes some milliseconds.
    pub(super) fn new(vocab: &LlamaVocab<'_>) -> Self {
        let is_bytes = vocab.vocab_type() == VocabType::BPE;
        Self {
            specials: is_bytes.then(|| Specials::new(specials(vocab))).flatten(),
            known: Cache::with_weighter(1, KNOWN_BYTES, Bytes),
            longest_piece: longest_piece(vocab),
        }
    }

    /// The most bytes of text that one token stands for; `None` where a token may stand for any number of them.
    pub(super) fn longest_piece(&self) -> Option<usize> {
        self.longest_piece
    }

    /// The tokens of a prompt, those of [`tokenize`] with control tokens.
    pub(super) fn tokens(&self, vocab: &LlamaVocab<'_>, text: &str, add_special: bool) -> Vec<Token> {
        let Some(specials) = &self.specials else {
            return tokenize(vocab, text, add_special, true);
        };
        framed(vocab, add_special, |tokens| {
            let mut start = 0;
            for cut in specials.cuts(text) {
                if cut - start >= SHORTEST_PIECE {
                    tokens.extend_from_slice(&self.piece(vocab, &text[start..cut]));
                    start = cut;
                }
            }
            // Where the next prompt goes on.
            append(vocab, &text[start..], true, tokens);
        })
    }

    fn piece(&self, vocab: &LlamaVocab<'_>, text: &str) -> Arc<[Token]> {
        if let Some(known) = self.known.get(text) {
            return known;
        }
        let mut tokens = Vec::new();
        append(vocab, text, true, &mut tokens);
        let tokens: Arc<[Token]> = tokens.into();
        self.known.insert(text.into(), tokens.clone());
        tokens
    }
}

/// The most bytes of text that one token stands for; `None` where a token may stand for any number of them.
fn longest_piece(vocab: &LlamaVocab<'_>) -> Option<usize> {
    // Other kinds drop or fold white space.
    if !matches!(vocab.vocab_type(), VocabType::BPE | VocabType::SPM) {
        return None;
    }
    let mut piece = Vec::new();
    let lengths = vocab.tokens().map(|token| {
        piece.clear();
        vocab.token_to_piece_into(token, &mut piece, true, None);
        piece.len()
    });
    lengths.max()
}

/// Weighs pieces of prompts.
#[derive(Debug, Clone)]
struct Bytes;

impl Weighter<Box<str>, Arc<[Token]>> for Bytes {
    fn weight(&self, text: &Box<str>, tokens: &Arc<[Token]>) -> u64 {
        (text.len() + size_of_val(&**tokens)) as u64
    }
}
