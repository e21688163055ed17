//! What a prompt teaches: which experts have a copy when its answer begins.

use std::path::Path;

use hearth::experts::policy::{LayerCounts, PolicyKind};
use hearth::experts::{Device, ExpertCache, MAX_QUEUED_TOKENS};
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::LlamaContextParams;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::token::LlamaToken;

use super::cached::{cache_device, cache_with_heat, llama, load};

/// Tokens of an answer that are looked at.
const ANSWER: usize = 32;

/// Questions and answers of several kinds; conversations are made of those of one.
const TURNS: [[[&str; 2]; 4]; 3] = [
    [
        ["What is 12 + 30?", "12 + 30 = 42."],
        ["And 41 + 17?", "41 + 17 = 58."],
        ["(3 + 4) * 5", "(3 + 4) * 5 = 35."],
        ["What is 96 - 37?", "96 - 37 = 59."],
    ],
    [
        ["Repeat after me: red green blue", "red green blue"],
        ["Repeat after me: Lena Oslo 17 Lena", "Lena Oslo 17 Lena"],
        ["Repeat after me: one two three four", "one two three four"],
        ["Repeat after me: green 9 red 4 blue", "green 9 red 4 blue"],
    ],
    [
        [
            "Extract the person and place as JSON: Anna lives in Rome.",
            r#"{"person": "Anna", "place": "Rome"}"#,
        ],
        [
            "Extract the person and place as JSON: Peter lives in Oslo.",
            r#"{"person": "Peter", "place": "Oslo"}"#,
        ],
        [
            "Extract the person and place as JSON: Lena lives in Paris.",
            r#"{"person": "Lena", "place": "Paris"}"#,
        ],
        [
            "Extract the person and place as JSON: Simon lives in Bern.",
            r#"{"person": "Simon", "place": "Bern"}"#,
        ],
    ],
];

/// A conversation of one kind that ends with a question, of so many tokens at least.
fn prompt(model: &LlamaModel, turns: &[[&str; 2]; 4], least: usize) -> Vec<LlamaToken> {
    let mut text = String::new();
    for [question, answer] in turns.iter().cycle() {
        text += &format!("<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n");
        let tokens = model.vocab().tokenize(text.as_bytes(), false, true);
        if tokens.len() > least {
            return tokens;
        }
        text += &format!("{answer}<|im_end|>\n");
    }
    unreachable!("conversations have no end")
}

/// Computes tokens in one batch; the one that is most likely to follow.
fn compute(context: &mut LlamaContext<'_>, tokens: &[LlamaToken], from: usize) -> LlamaToken {
    let mut batch = LlamaBatch::new(tokens.len(), 1);
    for (place, token) in tokens.iter().enumerate() {
        let position = i32::try_from(from + place).unwrap();
        batch.add(*token, position, &[0], place + 1 == tokens.len()).unwrap();
    }
    context.decode(&mut batch).unwrap();
    let logits = context.get_logits_ith(batch.n_tokens() - 1);
    let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
    LlamaToken(i32::try_from(best.unwrap()).unwrap())
}

/// What the cache did for an answer, whose first token is there.
fn answer(context: &mut LlamaContext<'_>, cache: &ExpertCache, first: LlamaToken, from: usize) -> LayerCounts {
    let before = cache.stats().total();
    let mut token = first;
    for place in 0..ANSWER {
        cache.begin(1);
        token = compute(context, &[token], from + place);
        cache.settle();
    }
    cache.stats().total().since(before)
}

/// A conversation, and what is known of experts before it.
#[derive(Debug, Clone, Copy)]
struct Case<'a> {
    path: &'a Path,
    turns: &'a [[&'a str; 2]; 4],
    tokens: usize,
    share: f32,
    /// The cache is full when the prompt comes: all experts were liked alike.
    full: bool,
}

impl Case<'_> {
    /// What the cache did for the answer. The prompt is computed with it, or the state behind the prompt comes from a file.
    fn answer(self, state: Option<&Path>) -> LayerCounts {
        let liked = if self.full { Some(1) } else { None };
        let cache = cache_with_heat(self.path, self.share, PolicyKind::Benefit, liked);
        let model = load(self.path, Some(&cache));
        let mut context = model.new_context(llama(), params()).unwrap();
        let tokens = prompt(&model, self.turns, self.tokens);
        let (last, before) = tokens.split_last().unwrap();
        if let Some(state) = state {
            context.state_seq_load_file(state, 0, tokens.len()).unwrap();
        } else {
            cache.begin(0);
            compute(&mut context, before, 0);
            cache.prompt_ended();
        }
        cache.settle();
        cache.begin(1);
        let first = compute(&mut context, &[*last], before.len());
        cache.settle();
        answer(&mut context, &cache, first, tokens.len())
    }

    /// The same if the cache has seen its prompt, and if somebody else has computed it.
    fn compare(self, folder: &Path) -> [LayerCounts; 2] {
        let state = folder.join("state");
        {
            let model = load(self.path, None);
            let mut context = model.new_context(llama(), params()).unwrap();
            let tokens = prompt(&model, self.turns, self.tokens);
            let before = &tokens[..tokens.len() - 1];
            compute(&mut context, before, 0);
            context.state_seq_save_file(&state, 0, before).unwrap();
        }
        [self.answer(None), self.answer(Some(&state))]
    }
}

fn params() -> LlamaContextParams {
    let tokens = 2048;
    LlamaContextParams::default()
        .with_n_ctx(std::num::NonZeroU32::new(tokens))
        .with_n_batch(tokens)
        .with_n_threads_batch(2)
}

#[test]
fn prompts_teach_the_cache() {
    let path = hearth::demo::DemoModel::Reasoner.unpack().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let waited = matches!(cache_device(), Device::Gpu(_)) && std::env::var_os("HEARTH_EXPERT_HANDOVER").is_some();
    for (tokens, full) in [
        (MAX_QUEUED_TOKENS + 16, false),
        (MAX_QUEUED_TOKENS + 16, true),
        (1024, true),
    ] {
        for share in [0.125, 0.25, 0.5] {
            let [mut seen, mut unseen] = [LayerCounts::default(); 2];
            for turns in &TURNS {
                let case = Case {
                    path: &path,
                    turns,
                    tokens,
                    share,
                    full,
                };
                let [one, other] = case.compare(folder.path());
                seen += one;
                unseen += other;
            }
            let [seen, unseen] = [seen, unseen].map(|counts| counts.hit_rate().unwrap_or_default());
            println!(
                "{tokens} tokens, full: {full}, {share}: {seen:.3} of the first {ANSWER} tokens' selections, {unseen:.3}"
            );
            // The way that waits sees no prompts.
            assert!(waited || seen > unseen + 0.02, "{share}: {seen} {unseen}");
        }
    }
}

/// Copies are those of experts that nearly every batch selects: of what a prompt needs, more has a copy than the share of all
/// experts that do. Whole layers on a GPU, of the same size, would save just that share.
#[test]
#[ignore = "scripts/test-gpu-path runs it; without a GPU nothing is fetched"]
fn copies_spare_a_prompt_more_than_their_share() {
    let waited = std::env::var_os("HEARTH_EXPERT_HANDOVER").is_some();
    if cache_device() == Device::Cpu || waited {
        // Nothing is fetched there.
        return;
    }
    let path = hearth::demo::DemoModel::Reasoner.unpack().unwrap();
    for share in [0.125, 0.25, 0.5] {
        let cache = cache_with_heat(&path, share, PolicyKind::Benefit, None);
        let model = load(&path, Some(&cache));
        let mut context = model.new_context(llama(), params()).unwrap();
        let mut converse = |turns| {
            let tokens = prompt(&model, turns, MAX_QUEUED_TOKENS + 16);
            context.clear_kv_cache();
            cache.begin(0);
            let before = cache.work();
            let first = compute(&mut context, &tokens, 0);
            let work = cache.work().since(before);
            cache.prompt_ended();
            cache.settle();
            answer(&mut context, &cache, first, tokens.len());
            [work.resident, work.fetched]
        };
        // What is hot is known after some conversations.
        for turns in TURNS.iter().cycle().take(6) {
            converse(turns);
        }
        let [mut resident, mut fetched] = [0, 0];
        for turns in &TURNS {
            let [copies, others] = converse(turns);
            resident += copies;
            fetched += others;
        }
        #[expect(clippy::cast_precision_loss, reason = "a ratio of small numbers")]
        let spared = resident as f64 / (resident + fetched) as f64;
        println!(
            "copies of {share}: {spared:.3} of {} experts were not fetched",
            resident + fetched
        );
        assert!(spared > f64::from(share) * 1.05, "{share}: {spared}");
    }
}
