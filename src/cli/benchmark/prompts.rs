//! Prompts of exact lengths, each different from the others.
//!
//! They are text and no random tokens, since those would send a mixture of experts to experts that no text asks for.

use crate::engine::{Engine, Token};

/// What prompts are put together from, in random order.
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

/// The parts of prompts as a model's tokens.
#[derive(Debug)]
pub(super) struct Prompts {
    /// What every prompt of the model begins with.
    beginning: Vec<Token>,
    /// None is empty, and there is at least one.
    sentences: Vec<Vec<Token>>,
}

impl Prompts {
    pub(super) async fn of(engine: &dyn Engine) -> anyhow::Result<Self> {
        let beginning = engine.tokenize(String::new(), true, false).await?;
        let mut sentences = Vec::new();
        for sentence in SENTENCES {
            let tokens = engine.tokenize(sentence.to_owned(), false, false).await?;
            if !tokens.is_empty() {
                sentences.push(tokens);
            }
        }
        if sentences.is_empty() {
            // A vocabulary that cannot spell: any token will do.
            let vocabulary = Token::try_from(engine.card().vocabulary).unwrap_or(Token::MAX);
            sentences.extend((0..vocabulary).map(|token| vec![token]));
        }
        Ok(Self { beginning, sentences })
    }

    /// A prompt of exactly so many tokens. The same seed gives the same one.
    pub(super) fn prompt(&self, tokens: u32, seed: u64) -> Vec<Token> {
        let tokens = tokens as usize;
        let mut random = fastrand::Rng::with_seed(seed);
        let mut prompt = self.beginning.clone();
        // Not at the beginning of a sentence: there are more places to begin than sentences.
        let first = &self.sentences[random.usize(0..self.sentences.len())];
        prompt.extend_from_slice(&first[random.usize(0..first.len())..]);
        while prompt.len() < tokens {
            prompt.extend_from_slice(&self.sentences[random.usize(0..self.sentences.len())]);
        }
        prompt.truncate(tokens);
        prompt
    }
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
}
