//! Arbitrary texts as answers to templates of many styles, in arbitrary parts: no crash, and what is told is in order.
//!
//! The first byte is the style, the second how often is parsed; 0x1f ends a part.
#![no_main]

mod model;

use std::sync::{Arc, LazyLock};

use hearth::generation::fuzzing::Answers;
use hearth::generation::{Conversation, Ending, Message, OutputFormat, Piece, ReasoningFormat, Role, ToolChoice};
use hearth::llama::chat;
use libfuzzer_sys::{Corpus, fuzz_target};
use model::{TEMPLATES, block_on, info, question};

/// More parts than that are not parsed one by one: each parse reads the whole text.
const PARTS: usize = 64;

static STYLES: LazyLock<Vec<Arc<Answers>>> = LazyLock::new(|| {
    let continued = Conversation {
        messages: vec![
            Message::new(Role::User, "hi"),
            Message::new(Role::Assistant, "So <b> it"),
        ],
        ending: Ending::FinalMessage,
        ..question()
    };
    let conversations = [
        question(),
        Conversation {
            tool_choice: ToolChoice::Required,
            ..question()
        },
        Conversation {
            tools: Vec::new(),
            ..question()
        },
        Conversation {
            reasoning_format: ReasoningFormat::InContent,
            thinking: Some(false),
            ..question()
        },
        continued,
    ];
    let mut styles = Vec::new();
    for template in TEMPLATES.iter() {
        for conversation in &conversations {
            match block_on(Answers::new(&info(template), conversation.clone(), &OutputFormat::Text)) {
                Ok(answers) => styles.push(Arc::new(answers)),
                Err(error) => eprintln!(
                    "not a style: {error}: {}",
                    template.chars().take(60).collect::<String>()
                ),
            }
        }
    }
    eprintln!("{} styles", styles.len());
    styles
});

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let [style, every, text @ ..] = bytes else {
        return Corpus::Reject;
    };
    let text = String::from_utf8_lossy(text);
    let parts: Vec<String> = match text.contains('\x1f') {
        true => text
            .split('\x1f')
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect(),
        // Parts of different sizes.
        false => {
            let characters: Vec<char> = text.chars().collect();
            let size = usize::from(*every / 8).max(characters.len() / PARTS).max(1);
            characters.chunks(size).map(|part| part.iter().collect()).collect()
        }
    };
    let answers = STYLES[usize::from(*style) % STYLES.len()].clone();
    let (every, cut) = ((usize::from(*every) % 4 + 1).max(parts.len() / PARTS), every & 4 != 0);
    let pieces = block_on(chat::run(move || answers.read(&parts, every, cut))).expect("it ends");
    let mut calls = 0;
    for piece in pieces {
        match piece {
            Piece::Reasoning { text } | Piece::Content { text, .. } => assert!(!text.is_empty()),
            Piece::ToolCallStart { index, id, name } => {
                assert!(index == calls && !id.is_empty() && !name.is_empty());
                calls += 1;
            }
            Piece::ToolCallArguments { index, text } => assert!(index < calls && !text.is_empty()),
            Piece::Progress(_) | Piece::RoutedExperts(_) | Piece::Finished { .. } => unreachable!("the engine tells of these"),
        }
    }
    Corpus::Keep
});
