//! What a profile is recorded with: prompts of many kinds, or those of a file.

use std::path::Path;

use anyhow::{Context, bail};

use crate::cli::generate::{self, Item};

/// Of many kinds, since each kind uses other experts.
const PROMPTS: [&str; 48] = [
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
    "Will it rain in Oslo on Thursday, and do I need an umbrella?",
    "Why do ships of steel float? Explain it to a child of eight.",
    "Write a shell command that finds the ten largest files below a folder, and say what each part does.",
    "A shop lowers a price of 80 euros by 15 %, and then by another 10 %. What does it cost now?",
    "Translate into Spanish: I would like to change my appointment from the third to the ninth of May.",
    "Continue: The last train had left, and somebody was still playing the piano in the waiting room.",
    "What is 93 plus 48, and what is half of that?",
    "Explain the difference between a patent, a trademark and a copyright.",
    "Send a message to Clara: I will be twenty minutes late, please start without me.",
    "You are a guide in a museum of clocks. Greet the visitors, and show them the oldest one.",
    "Make a packing list for three days in the mountains in October.",
    "{\"name\": \"Ada\", \"born\": 1815, \"tags\": [\"math\", \"engines\"]} Describe this object in a sentence.",
    "Schreibe ein kurzes Gedicht über den ersten Schnee in der Stadt.",
    "Compare keeping bees with keeping chickens: cost, time, and what can go wrong.",
    "def mean(numbers): return sum(numbers) / len(numbers) When does this fail, and how would you fix it?",
    "How does a vaccine teach the body to recognise a virus?",
    "Plan a dinner for six people of whom two eat no meat, with what to do when.",
    "The detective looked at the empty birdcage and smiled. What had she understood?",
    "How do I undo the last commit in git without losing my changes?",
    "Put these into order, the oldest first: the telephone, the bicycle, the printing press, the radio.",
    "All birds have feathers. Some animals with feathers cannot fly. Does it follow that some birds cannot fly?",
    "Write a review of a hotel that was quiet and clean, but far from everything.",
    "How many minutes are there in a leap year? Show each step.",
    "Explain to a grandfather how to send a photo from his telephone.",
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
