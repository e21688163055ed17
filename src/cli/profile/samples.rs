//! What a profile is recorded with: prompts of many kinds, or those of a file.

use std::path::Path;

use anyhow::{Context, bail};

use crate::cli::generate::{self, Item};

/// Of many kinds, since each kind uses other experts.
const PROMPTS: [&str; 24] = [
    "What is the weather in Paris on Monday at noon?",
    "Explain in three sentences why the sky is blue during the day and red in the evening.",
    "Write a function in Python that returns the longest word of a text, and say how fast it is.",
    "A train leaves at 9:40 and arrives at 13:05. How long did it take? Show each step.",
    "Translate into German: The meeting was moved to Thursday because nobody had read the report.",
    "Tell a short story about a lighthouse keeper who finds a letter in a bottle.",
    "Which is larger, 7/12 or 5/9, and by how much?",
    "Summarise in one paragraph what a contract is, and when a court declares it void.",
    "Set a reminder for tomorrow morning at eight: call the dentist.",
    "You are a tavern keeper in a mountain village. A stranger comes in out of the snow. What do you say?",
    "List five things to check before buying a used bicycle.",
    "SELECT name, COUNT(*) FROM orders WHERE paid = 1 GROUP BY name; What does this query do?",
    "Écris une invitation polie à un dîner d'anniversaire, en quatre phrases.",
    "Compare the lives of a baker and an astronomer, hour by hour, for one day.",
    "fn area(width: u32, height: u32) -> u32 { width * height } How could this go wrong?",
    "What are the main causes of inflation, and what can a central bank do about it?",
    "Give me a recipe for lentil soup for four people, with amounts in grams.",
    "The knight drew his sword, and the dragon yawned. Continue the scene.",
    "How do I find out which process listens on port 8080 on Linux?",
    "Name the planets in the order of their distance from the sun, with one fact about each.",
    "Is the following argument valid? All cats sleep. Socrates sleeps. So Socrates is a cat.",
    "Write a polite letter to a landlord about a broken heating, with a deadline of one week.",
    "What is 348 times 27? Think step by step, and check the result with a second way.",
    "Describe the smell of a library to somebody who has never been in one.",
];

/// So many built-in prompts, from the beginning again after the last one.
pub(super) fn built_in(count: usize) -> Vec<Item> {
    let prompts = PROMPTS.iter().cycle().take(count);
    prompts
        .map(|prompt| Item {
            prompt: (*prompt).to_owned(),
            ..Item::default()
        })
        .collect()
}

/// A prompt per line; the lines of a `.jsonl` file are those of `hearth generate --batch`.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<Item>> {
    let items = match path.extension().is_some_and(|extension| extension == "jsonl") {
        true => generate::read_batch(path)?,
        false => {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            let lines = text.lines().filter(|line| !line.trim().is_empty());
            lines
                .map(|line| Item {
                    prompt: line.to_owned(),
                    ..Item::default()
                })
                .collect()
        }
    };
    if items.is_empty() {
        bail!("there is no prompt in {}: write one per line", path.display());
    }
    Ok(items)
}
