//! Arbitrary texts as grammars, regular expressions and JSON schemas: no panic, bounded work, and what is said to be allowed
//! is accepted.
#![no_main]

// The module depends on no other, and is compiled by itself.
#[allow(dead_code, unused_imports)]
#[path = "../../src/grammar/mod.rs"]
mod grammar;

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use grammar::{Compiled, Kind, Matcher, Trigger, Vocabulary, prepare_schema, regex_to_grammar};
use libfuzzer_sys::fuzz_target;

const END: i32 = 260;

static VOCABULARY: LazyLock<Arc<Vocabulary>> = LazyLock::new(|| {
    let bytes = (0..=255u8).map(|byte| (vec![byte], Kind::Text));
    let words = ["ab", "\": ", "日本", "aaaa"].map(|word| (word.as_bytes().to_vec(), Kind::Text));
    let control = [(b"<end>".to_vec(), Kind::End), (b"<tool>".to_vec(), Kind::Control)];
    Arc::new(Vocabulary::new(bytes.chain(words).chain(control)))
});

fn follow(text: &str, triggers: Option<&[Trigger]>, tokens: &[u8]) {
    let started = Instant::now();
    if let Ok(compiled) = Compiled::new(text, triggers, VOCABULARY.clone()) {
        let mut matcher = Matcher::new(Arc::new(compiled), vec![END + 1], false);
        for (step, token) in tokens.iter().take(200).enumerate() {
            let mut allowed = Vec::new();
            let Ok(may_end) = matcher.allowed(|token| allowed.push(token)) else { return };
            // Mostly along the grammar, now and then straight from the input.
            let token = match (step % 4, allowed.len()) {
                (0, _) | (_, 0) => i32::from(*token),
                (_, count) => allowed[usize::from(*token) % count],
            };
            let expected = matcher.is_waiting() || allowed.contains(&token);
            let Ok(accepted) = matcher.accept(token) else { return };
            assert!(accepted == expected || triggers.is_some(), "{text:?} {token}");
            if let Ok(ends) = matcher.accept(END) {
                assert!(!may_end || ends || accepted, "{text:?}");
            }
        }
    }
    assert!(started.elapsed() < Duration::from_secs(20), "{text:?}");
}

fuzz_target!(|input: (&str, &str, &[u8])| {
    let (text, other, tokens) = input;
    follow(text, None, tokens);
    follow(&format!("root ::= {text}\n"), Some(&[Trigger::Word(other.to_owned()), Trigger::Pattern(other.to_owned())]), tokens);
    if let Ok(grammar) = regex_to_grammar(other) {
        follow(&grammar, None, tokens);
    }
    if let Ok(schema) = serde_json::from_str(other) {
        let _ = prepare_schema(&schema, text.len() % 2 == 0);
    }
});
