//! Following grammars, as a whole.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::vocabulary::Token;
use super::*;

/// A vocabulary of single bytes, some words, and an end token; control tokens last.
fn vocabulary() -> Arc<Vocabulary> {
    let bytes = (0..=255u8).map(|byte| (vec![byte], Kind::Text));
    let words = ["ab", "abc", "true", "\": ", "é", "日本", "{\"", "  ", "aaaa"];
    let words = words.map(|word| (word.as_bytes().to_vec(), Kind::Text));
    let control = [("<end>", Kind::End), ("<tool>", Kind::Control), ("<x>", Kind::Control)];
    let control = control.map(|(text, kind)| (text.as_bytes().to_vec(), kind));
    Arc::new(Vocabulary::new(bytes.chain(words).chain(control)))
}

const END: Token = 265;
const TOOL: Token = 266;

fn matcher(grammar: &str) -> Matcher {
    let compiled = Compiled::new(grammar, None, vocabulary());
    Matcher::new(
        Arc::new(compiled.unwrap_or_else(|error| panic!("{grammar}: {error}"))),
        Vec::new(),
        false,
    )
}

/// Feeds bytes one by one; `None` if one is refused, else whether the text may end.
fn feed(matcher: &mut Matcher, text: &[u8]) -> Option<bool> {
    for byte in text {
        if !matcher.accept(Token::from(*byte)).unwrap() {
            return None;
        }
    }
    Some(matcher.allowed(|_| {}).unwrap())
}

fn allowed(matcher: &mut Matcher) -> Vec<Token> {
    let mut tokens = Vec::new();
    matcher.allowed(|token| tokens.push(token)).unwrap();
    tokens.sort_unstable();
    tokens
}

#[track_caller]
fn check(grammar: &str, whole: &[&str], begun: &[&str], wrong: &[&str]) {
    for (texts, expect) in [(whole, Some(true)), (begun, Some(false)), (wrong, None)] {
        for text in texts {
            assert_eq!(
                feed(&mut matcher(grammar), text.as_bytes()),
                expect,
                "{grammar}: {text:?}"
            );
        }
    }
}

#[test]
fn texts_follow_grammars() {
    check(
        "root ::= \"a\" \"b\"* | [c-e]{2,3}",
        &["a", "abbb", "cd", "cde"],
        &["", "c"],
        &["b", "ac", "cdec"],
    );
    check(
        "root ::= \"(\" root \")\" | ",
        &["", "()", "((()))"],
        &["(", "(((", "((("],
        &[")", "())"],
    );
    check(
        "root ::= a a a \"!\"\na ::= \"x\"?",
        &["!", "x!", "xxx!"],
        &["x", "xx", "xxx"],
        &["xxxx", "!x"],
    );
    check(
        "root ::= (\"a\" | \"ab\") (\"c\" | \"bcd\")",
        &["ac", "abc", "abcd", "abbcd"],
        &["ab"],
        &["abd", "acd"],
    );
    // Right recursion to the end of the text, written by hand.
    check(
        "root ::= word\nword ::= [a-z] word | \"\"",
        &["", "abcdefgh"],
        &[],
        &["abc1"],
    );
    check(
        "root ::= (\"a\"*)*  (\"b\"?){3}",
        &["", "aaab", "bbb"],
        &[],
        &["bbbb", "ba"],
    );
    check("root ::= .{2} [^a]", &["éé€", "ab\n"], &["é"], &["xya"]);
}

#[test]
fn characters_come_in_bytes() {
    check(
        "root ::= [а-я]+ | \"é\" | [\u{10000}-\u{10FFFF}]",
        &["привет", "é", "🦙"],
        &[""],
        &["a", "è", "日"],
    );
    // No half characters, no overlong forms, nothing beyond the last character.
    for bytes in [
        &[0x80][..],
        &[0xC0, 0x80],
        &[0xE0, 0x80],
        &[0xED, 0xA0],
        &[0xF0, 0x80],
        &[0xF4, 0x90],
        &[0xF5],
        &[0xE3, 0x41],
    ] {
        assert_eq!(feed(&mut matcher("root ::= .*"), bytes), None, "{bytes:x?}");
    }
    let mut matcher = matcher("root ::= \"日本\"");
    let first = "日".as_bytes();
    assert_eq!(feed(&mut matcher, &first[..2]), Some(false));
    assert_eq!(allowed(&mut matcher), [Token::from(first[2])]);
}

#[test]
fn only_a_complete_text_may_end() {
    let mut matcher = matcher("root ::= \"ab\"");
    assert!(!matcher.accept(END).unwrap());
    assert_eq!(allowed(&mut matcher), [97, 256]);
    assert!(matcher.accept(256).unwrap());
    assert!(!matcher.accept(97).unwrap());
    assert!(matcher.accept(END).unwrap());
    assert_eq!(allowed(&mut matcher), [] as [Token; 0]);
}

#[test]
fn control_tokens_are_text_only_when_they_are_printed() {
    let compiled = |grammar| Arc::new(Compiled::new(grammar, None, vocabulary()).unwrap());
    let text = compiled("root ::= \"<tool>\" \"a\"");
    assert!(!Matcher::new(text.clone(), vec![], false).accept(TOOL).unwrap());
    let mut preserved = Matcher::new(text, vec![TOOL], false);
    assert_eq!(allowed(&mut preserved), [60, TOOL]);
    assert!(preserved.accept(TOOL).unwrap());
    assert_eq!(allowed(&mut preserved), [97]);
    // A grammar that names it reads it in any case, but not its text.
    let mut named = Matcher::new(compiled("root ::= <tool> | <[97]>"), vec![], false);
    assert_eq!(allowed(&mut named), [97, TOOL]);
    assert!(named.accept(TOOL).unwrap());
    let mut others = Matcher::new(compiled("root ::= !<tool> \"b\""), vec![], false);
    assert_eq!(allowed(&mut others).len(), 255 + 10 + 1);
    assert!(!others.accept(TOOL).unwrap() && others.accept(TOOL + 1).unwrap());
    assert_eq!(allowed(&mut others), [98]);
}

#[test]
fn lazy_grammars_begin_at_their_trigger() {
    let triggers = [Trigger::Word("<tool>".into())];
    let compiled = Arc::new(Compiled::new("root ::= \"<tool>\" [0-9]+ \".\"", Some(&triggers), vocabulary()).unwrap());
    let mut matcher = Matcher::new(compiled.clone(), vec![], false);
    assert_eq!(feed(&mut matcher, b"any text <tool"), Some(true));
    assert!(matcher.is_waiting() && matcher.accept(END).unwrap());
    assert!(matcher.accept(62).unwrap() && !matcher.is_waiting());
    assert_eq!(allowed(&mut matcher), (48..58).collect::<Vec<_>>());
    assert_eq!(feed(&mut matcher, b"12."), Some(true));
    // The control token's text is the trigger, too.
    let mut matcher = Matcher::new(compiled, vec![], false);
    assert!(matcher.accept(TOOL).unwrap());
    assert_eq!(allowed(&mut matcher), (48..58).collect::<Vec<_>>());
}

#[test]
fn a_token_that_goes_wrong_behind_the_trigger_is_refused() {
    let triggers = [Trigger::Word("a".into())];
    let compiled = Compiled::new("root ::= \"a\" \"!\"", Some(&triggers), vocabulary()).unwrap();
    let mut matcher = Matcher::new(Arc::new(compiled), vec![], false);
    assert!(!matcher.accept(256).unwrap());
    assert!(matcher.is_waiting() && matcher.accept(97).unwrap());
    assert_eq!(allowed(&mut matcher), [33]);
}

#[test]
fn a_prompt_may_have_begun_the_text() {
    let mut matcher = matcher("root ::= \"<tool>ab\" [0-9]");
    assert!(matcher.begin_with("<tool>ab", &[TOOL, 256]).unwrap());
    assert_eq!(allowed(&mut matcher), (48..58).collect::<Vec<_>>());
    // Tokens that begin with a space of their own.
    let mut matcher = self::matcher("root ::= \"ab\" [0-9]");
    assert!(matcher.begin_with("ab", &[32, 256]).unwrap());
    assert_eq!(feed(&mut matcher, b"7"), Some(true));
    assert!(!self::matcher("root ::= \"b\"").begin_with("ab", &[256]).unwrap());
}

#[test]
fn regular_expressions_are_grammars() {
    for (pattern, whole, wrong) in [
        ("[0-9]{3}-[a-z]+", &["123-abc"][..], &["12-a", "123-A"][..]),
        ("^(yes|no|may\\.be)$", &["yes", "no", "may.be"], &["maybe", "y"]),
        ("\\d+(\\.\\d{2})?", &["1", "10.25"], &[".1", "1,0"]),
        ("(?i)ab", &["aB", "AB"], &["b"]),
        ("[^\"\\\\]*", &["", "日 \n"], &["\"", "\\"]),
        ("a|", &["", "a"], &["b"]),
    ] {
        let grammar = regex_to_grammar(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
        for text in whole {
            assert_eq!(
                feed(&mut matcher(&grammar), text.as_bytes()),
                Some(true),
                "{grammar}: {text}"
            );
        }
        for text in wrong {
            assert_ne!(
                feed(&mut matcher(&grammar), text.as_bytes()),
                Some(true),
                "{grammar}: {text}"
            );
        }
    }
    for pattern in [
        "(",
        "a\\b",
        "(?=a)b",
        "x$y",
        "(a)\\1",
        &"(".repeat(1000),
        &"a".repeat(20_000),
    ] {
        assert!(regex_to_grammar(pattern).is_err(), "{pattern}");
    }
    let grammar = choice_to_grammar(&["a\"b".into(), "é\n".into()]);
    assert_eq!(feed(&mut matcher(&grammar), "é\n".as_bytes()), Some(true));
    assert_eq!(feed(&mut matcher(&grammar), b"a\"b"), Some(true));
}

/// JSON, as llama.cpp's converter writes it.
const JSON: &str = r#"
root ::= object
value ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws (string ":" ws value ("," ws string ":" ws value)*)? "}" ws
array ::= "[" ws (value ("," ws value)*)? "]" ws
string ::= "\"" char* "\"" ws
char ::= [^"\\\x7F\x00-\x1F] | [\\] (["\\bfnrt] | "u" [0-9a-fA-F]{4})
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9]{1,2})? ws
ws ::= | " " | "\n" [ \t]{0,20}
"#;

proptest! {
    /// Whatever is allowed is accepted, whatever is not is refused, and any way through ends as JSON.
    #[test]
    fn random_walks_are_json(choices in prop::collection::vec(any::<prop::sample::Index>(), 1..120)) {
        let mut matcher = matcher(JSON);
        let vocabulary = vocabulary();
        let mut text = Vec::new();
        for choice in choices {
            let tokens = allowed(&mut matcher);
            if tokens.is_empty() {
                break;
            }
            for token in (0..END).step_by(7) {
                if tokens.binary_search(&token).is_err() {
                    prop_assert!(!matcher.accept(token).unwrap());
                }
            }
            let token = tokens[choice.index(tokens.len())];
            prop_assert!(matcher.accept(token).unwrap());
            text.extend_from_slice(vocabulary.piece(token));
        }
        // The shortest way out: what closes is tried first.
        for _ in 0..2000 {
            let mut tokens = Vec::new();
            if matcher.allowed(|token| tokens.push(token)).unwrap() {
                let parsed: Result<serde_json::Value, _> = serde_json::from_slice(&text);
                // Half a pair of surrogates is allowed by the grammar, and no JSON for Rust.
                prop_assert!(parsed.is_ok() || text.windows(2).any(|pair| pair == b"\\u"), "{}", String::from_utf8_lossy(&text));
                return Ok(());
            }
            let exits = b"\"}]:0n1t";
            let exit = exits.iter().map(|byte| Token::from(*byte)).find(|token| tokens.contains(token));
            let token = exit.or(tokens.first().copied()).unwrap();
            prop_assert!(matcher.accept(token).unwrap());
            text.extend_from_slice(vocabulary.piece(token));
        }
        prop_assert!(false, "no end: {}", String::from_utf8_lossy(&text));
    }
}

#[test]
fn the_same_place_is_found_again() {
    let compiled = Arc::new(Compiled::new(JSON, None, vocabulary()).unwrap());
    let object = br#"{"name": "x\n", "list": [1, {"deep": [true, null]}, "y"]}, "#;
    let mut text = b"{\"all\": [".to_vec();
    let mut matcher = Matcher::new(compiled.clone(), vec![], false);
    assert_eq!(feed(&mut matcher, &text), Some(false));
    assert_eq!(feed(&mut matcher, object), Some(false));
    assert_eq!(feed(&mut matcher, object), Some(false));
    let bytes = compiled.bytes();
    for _ in 0..500 {
        assert_eq!(feed(&mut matcher, object), Some(false));
    }
    text.extend_from_slice(object);
    assert_eq!(compiled.bytes(), bytes);
}

#[test]
fn what_was_forgotten_is_found_anew() {
    // Each character is a place of its own, so the tables fill up.
    let compiled = Arc::new(Compiled::new("root ::= \"a\"{40000} \"b\"", None, vocabulary()).unwrap());
    let mut first = Matcher::new(compiled.clone(), vec![], false);
    let mut second = Matcher::new(compiled, vec![], false);
    assert_eq!(feed(&mut second, b"aaa"), Some(false));
    assert_eq!(feed(&mut first, &[b'a'; 40_000]), Some(false));
    assert_eq!(allowed(&mut first), [98]);
    assert_eq!(feed(&mut second, &[b'a'; 39_997]), Some(false));
    assert_eq!(allowed(&mut second), [98]);
}

#[test]
fn hostile_grammars_end_in_time() {
    let nested = |count: usize| format!("root ::= {}\"a\"{}", "(".repeat(count), ")*".repeat(count));
    let ambiguous = "root ::= (\"a\"? \"a\"? [a-b]? . ?){0,3000} \"c\"".to_owned();
    let doubling: String = (0..30).map(|n| format!("r{n} ::= r{} r{}\n", n + 1, n + 1)).collect();
    let doubling = format!("root ::= r0\n{doubling}r30 ::= \"a\"?");
    let palindromes =
        "root ::= \"a\" root \"a\" | \"b\" root \"b\" | root2\nroot2 ::= \"a\" root2 \"a\" | \"a\"".to_owned();
    for grammar in [
        nested(99),
        ambiguous,
        doubling,
        palindromes,
        "root ::= \"a\" root root | ".to_owned(),
    ] {
        let started = Instant::now();
        let Ok(compiled) = Compiled::new(&grammar, None, vocabulary()) else {
            continue;
        };
        let mut matcher = Matcher::new(Arc::new(compiled), vec![], false);
        // Either it is followed, or it is given up.
        for _ in 0..500 {
            if !matcher.accept(97).unwrap_or(false) || matcher.allowed(|_| {}).is_err() {
                break;
            }
        }
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "{grammar}: {:?}",
            started.elapsed()
        );
    }
}
