//! Prompts of exact lengths, each different from the others.
//!
//! They are text and not random tokens: random tokens would route to experts that no real text uses.

use crate::engine::{Token, TokenEngine};

/// Prompts consist of these, in random order.
const SENTENCES: [&str; 20] = [
    " The ferry left the harbour an hour late because the fog had not lifted.",
    " To compute the sum, keep the carry in a separate register and add it last.",
    " She asked the gardener which of the roses would survive the winter.",
    " A contract that is signed under pressure can be declared void by a court.",
    " fn area(width: u32, height: u32) -> u32 { width * height }",
    " Light takes a little more than eight minutes from the sun to the earth.",
    " \"Nobody lives there any more,\" said the old man, and closed the window.",
    " Heat the oil, add the onions, and stir until they begin to turn brown.",
    " In 1848 the railway reached the valley, and the mills along the river grew.",
    " SELECT name, COUNT(*) FROM orders WHERE paid = 1 GROUP BY name;",
    " If the pump makes a loud noise, switch it off and check the filter first.",
    " The committee will meet on Thursday at half past nine in room 204.",
    " Der Zug nach Hamburg hat heute ungefähr zwanzig Minuten Verspätung.",
    " Most birds of this family build their nests in hollow trees near water.",
    " The dragon looked at the knight, yawned, and went back to its book.",
    " Interest is paid at the end of each quarter on the average balance.",
    " La bibliothèque municipale est ouverte tous les jours sauf le lundi.",
    " A graph without cycles in which every pair of nodes is connected is a tree.",
    " He counted the steps again: thirty-one, thirty-two, thirty-three.",
    " Please answer in one short paragraph, and say how sure you are.",
];

/// Words at the beginning of each [`text`].
const RANDOM_WORDS: usize = 4;

/// The sentences as tokens of a model.
#[derive(Debug)]
pub(super) struct Prompts {
    /// Tokens at the start of every prompt of the model (BOS).
    beginning: Vec<Token>,
    /// None is empty, and there is at least one.
    sentences: Vec<Vec<Token>>,
}

impl Prompts {
    pub(super) async fn of(engine: &dyn TokenEngine) -> anyhow::Result<Self> {
        let beginning = engine.tokenize(String::new(), true, false).await?;
        let mut sentences = Vec::new();
        for sentence in SENTENCES {
            let tokens = engine.tokenize(sentence.to_owned(), false, false).await?;
            if !tokens.is_empty() {
                sentences.push(tokens);
            }
        }
        if sentences.is_empty() {
            // The vocabulary cannot encode the sentences: use any token.
            let vocabulary = Token::try_from(engine.info().vocabulary).unwrap_or(Token::MAX);
            sentences.extend((0..vocabulary).map(|token| vec![token]));
        }
        Ok(Self { beginning, sentences })
    }

    /// A prompt of exactly `tokens` tokens, determined by `seed`.
    pub(super) fn prompt(&self, tokens: u32, seed: u64) -> Vec<Token> {
        let tokens = tokens as usize;
        let mut random = fastrand::Rng::with_seed(seed);
        let mut prompt = self.beginning.clone();
        // Starts inside a sentence, so that there are more different beginnings than sentences.
        let first = &self.sentences[random.usize(0..self.sentences.len())];
        prompt.extend_from_slice(&first[random.usize(0..first.len())..]);
        while prompt.len() < tokens {
            prompt.extend_from_slice(&self.sentences[random.usize(0..self.sentences.len())]);
        }
        prompt.truncate(tokens);
        prompt
    }
}

/// The seed of the prompt of one stream in one round.
pub(super) fn seed(round: u32, stream: u32) -> u64 {
    (u64::from(round) << 32) | u64::from(stream)
}

/// A text of exactly `characters` characters, determined by `seed`; a shorter text is the beginning of a longer one with
/// the same seed. It begins with random words, so that two texts hardly ever share a beginning that a prompt cache could
/// reuse.
pub(super) fn text(characters: usize, seed: u64) -> String {
    let mut random = fastrand::Rng::with_seed(seed);
    let words: Vec<&str> = SENTENCES
        .iter()
        .flat_map(|sentence| sentence.split_whitespace())
        .collect();
    let mut text = String::new();
    for _ in 0..RANDOM_WORDS {
        text.push_str(words[random.usize(0..words.len())]);
        text.push(' ');
    }
    // Every sentence begins with a space.
    text.pop();
    let mut length = text.chars().count();
    while length < characters {
        let sentence = SENTENCES[random.usize(0..SENTENCES.len())];
        text.push_str(sentence);
        length += sentence.chars().count();
    }
    if let Some((end, _)) = text.char_indices().nth(characters) {
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_have_their_length_and_differ() {
        let prompts = Prompts {
            beginning: vec![1],
            sentences: (0..20)
                .map(|sentence| (sentence * 10..sentence * 10 + 9).collect())
                .collect(),
        };
        for tokens in [1, 2, 7, 100, 1000] {
            assert_eq!(prompts.prompt(tokens, 5).len(), tokens as usize);
        }
        assert_eq!(prompts.prompt(50, 5), prompts.prompt(50, 5));
        assert_ne!(prompts.prompt(50, 5), prompts.prompt(50, 6));
        assert_eq!(prompts.prompt(50, 6)[0], 1);
    }

    #[test]
    fn texts_have_their_length_and_begin_differently() {
        for characters in [0, 1, 20, 1000] {
            assert_eq!(text(characters, 7).chars().count(), characters);
        }
        assert!(text(500, 7).starts_with(&text(100, 7)));
        let beginnings: std::collections::HashSet<String> = (0..8)
            .flat_map(|round| (0..8).map(move |stream| text(30, seed(round, stream))))
            .collect();
        assert_eq!(beginnings.len(), 64);
    }
}
