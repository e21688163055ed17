//! How many hits a copy would bring.

use super::pairs::Pairs;
use super::{DecayingCounts, Policy, PolicyConfig};

/// An expert's value is the number of hits that a copy of it is expected to bring, where each token counts half of the one
/// before it. It takes an entry only where that is so much more than the expert that has it would bring; the less is left
/// of the budget of uploads, the more.
///
/// The expectation is a weighted sum of four things that are known about an expert: how often it was selected in the last
/// few tokens, in the last few hundred, in earlier runs (the heat map), and how often it followed soon after the experts of
/// the current token. The weights are learnt while tokens go by, by least squares on temporal differences: what is expected
/// now should be what comes next, and half of what is expected then (Bradtke and Barto, *Linear least-squares algorithms for
/// temporal difference learning*, Machine Learning 22, 1996). Until something was learnt the heat map decides alone, so where
/// routing holds nothing that could be foreseen, this does what `static` does.
#[derive(Debug)]
pub struct Benefit {
    /// What earlier runs know: a probability for each expert, for one selection.
    heat: Vec<f32>,
    /// Experts of a token; 0 before the first one.
    per_token: f64,
    /// The last element counts tokens, faded like the selections.
    recent: DecayingCounts,
    lately: DecayingCounts,
    pairs: Pairs,
    /// What is known about each expert now, and was known one token earlier.
    now: Evidence,
    before: Evidence,
    /// What of `before` is over, by expert: all but what is left of it one token later.
    over: Evidence,
    weights: [f64; KINDS],
    /// Sums over experts and tokens, the past fading: `before` x `over`, and `before` of the experts that were selected then.
    changes: [[f64; KINDS]; KINDS],
    rewards: [f64; KINDS],
    values: Vec<f32>,
    prompt_weight: f64,
}

/// Recent, lately, heat, pairs; each by expert, as probabilities that a token selects it.
type Evidence = [Vec<f32>; KINDS];

const KINDS: usize = 4;
const RECENT: usize = 0;
const LATELY: usize = 1;
const HEAT: usize = 2;

/// What a hit counts for each token that it is away.
const DISCOUNT: f32 = 0.5;
/// Tokens after which half of a selection's weight is gone.
const RECENT_HALF_LIFE: f64 = 6.0;
const LATELY_HALF_LIFE: f64 = 300.0;
/// What is left of the sums after a token.
const MEMORY: f64 = 0.9995;
/// How firmly the weights are held where they begin, in the unit of `changes`.
const FIRMNESS: f64 = 1.0;
/// What it counts if an expert follows another one by one token, by two, and by three.
const FOLLOWS: [f32; 3] = [1.0, 0.3, 0.09];
/// How many tokens' worth of plain frequency a pair starts with.
const PRIOR: f32 = 1.0;
/// What an upload must bring beyond what it evicts, in hits: with a full budget, and with an empty one.
const CHEAPEST: f64 = 0.03;
const DEAREST: f64 = 0.5;

impl Benefit {
    /// `heat` of earlier runs is where it begins, and stays one of the things that count.
    #[must_use]
    pub fn new(experts: usize, heat: &[f32], config: &PolicyConfig) -> Self {
        let mut heat: Vec<f32> = heat.iter().map(|heat| heat.max(0.0)).collect();
        heat.resize(experts, 0.0);
        let total: f32 = heat.iter().sum();
        let known = total > 0.0 && total.is_finite();
        for heat in &mut heat {
            *heat = if known { *heat / total } else { 0.0 };
        }
        let mut weights = [0.0; KINDS];
        // All hits that ever come, from an expert that each token selects.
        weights[if known { HEAT } else { LATELY }] = f64::from(1.0 / (1.0 - DISCOUNT));
        let evidence = || std::array::from_fn(|_| vec![0.0; experts]);
        Self {
            values: heat.clone(),
            heat,
            per_token: 0.0,
            recent: DecayingCounts::new(experts + 1, RECENT_HALF_LIFE),
            lately: DecayingCounts::new(experts + 1, LATELY_HALF_LIFE),
            pairs: Pairs::new(experts, &FOLLOWS),
            now: evidence(),
            before: evidence(),
            over: evidence(),
            weights,
            changes: std::array::from_fn(|row| {
                std::array::from_fn(|column| if row == column { FIRMNESS } else { 0.0 })
            }),
            rewards: weights.map(|weight| weight * FIRMNESS),
            prompt_weight: config.prompt_weight.max(1.0),
        }
    }

    /// The first token tells how many experts one selects.
    fn begin(&mut self, per_token: f64) {
        if self.per_token > 0.0 {
            return;
        }
        self.per_token = per_token;
        let experts = self.heat.len();
        #[expect(clippy::cast_possible_truncation, reason = "a small number")]
        let scale = per_token as f32;
        for kind in [&mut self.now, &mut self.before] {
            for (evidence, heat) in kind[HEAT].iter_mut().zip(&self.heat) {
                *evidence = heat * scale;
            }
        }
        if self.heat.iter().all(|heat| *heat == 0.0) {
            return;
        }
        for counts in [&mut self.recent, &mut self.lately] {
            for (expert, heat) in (0..).zip(&self.heat) {
                counts.add(expert, f64::from(*heat) * per_token * self.prompt_weight);
            }
            counts.add(last(experts), self.prompt_weight);
        }
        self.look();
    }

    /// Brings `now` up to date.
    fn look(&mut self) {
        let experts = self.heat.len();
        for (kind, counts) in [(RECENT, &self.recent), (LATELY, &self.lately)] {
            counts.shares(last(experts), &mut self.now[kind]);
        }
        let [_, lately, _, pairs] = &mut self.now;
        let current = self.pairs.current();
        if current.is_empty() {
            pairs.copy_from_slice(lately);
        } else {
            #[expect(clippy::cast_precision_loss, reason = "experts of one token")]
            let share = 1.0 / current.len() as f32;
            pairs.fill(0.0);
            for before in current {
                let (after, selected) = self.pairs.after(*before);
                let scale = share / (selected + PRIOR);
                for ((evidence, after), lately) in pairs.iter_mut().zip(after).zip(&*lately) {
                    *evidence += (after + PRIOR * lately) * scale;
                }
            }
        }
    }

    /// Brings the values up to date.
    fn rate(&mut self) {
        #[expect(clippy::cast_possible_truncation, reason = "half as many digits are enough")]
        let weights = self.weights.map(|weight| weight as f32);
        self.values.fill(0.0);
        for (evidence, weight) in self.now.iter().zip(weights) {
            for (value, evidence) in self.values.iter_mut().zip(evidence) {
                *value += weight * evidence;
            }
        }
    }

    /// Takes in what followed `before`: the experts of a token, and `now`.
    fn learn(&mut self, experts: &[u32]) {
        for (kind, over) in self.over.iter_mut().enumerate() {
            for ((over, before), now) in over.iter_mut().zip(&self.before[kind]).zip(&self.now[kind]) {
                *over = before - DISCOUNT * now;
            }
        }
        for (kind, before) in self.before.iter().enumerate() {
            for (sum, over) in self.changes[kind].iter_mut().zip(&self.over) {
                *sum = *sum * MEMORY + f64::from(dot(before, over));
            }
            let selected = experts.iter().filter_map(|expert| before.get(*expert as usize));
            self.rewards[kind] =
                self.rewards[kind] * MEMORY + selected.map(|evidence| f64::from(*evidence)).sum::<f64>();
        }
        if let Some(weights) = solve(self.changes, self.rewards) {
            self.weights = weights;
        }
    }
}

/// The number of the element that counts tokens.
fn last(experts: usize) -> u32 {
    u32::try_from(experts).unwrap_or(u32::MAX)
}

/// The sum of products, several at once.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0.0f32; LANES];
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

/// The solution of a few linear equations, by Gauss; `None` if there is not exactly one.
fn solve(mut rows: [[f64; KINDS]; KINDS], mut right: [f64; KINDS]) -> Option<[f64; KINDS]> {
    for column in 0..KINDS {
        let pivot = (column..KINDS).max_by(|a, b| rows[*a][column].abs().total_cmp(&rows[*b][column].abs()))?;
        rows.swap(column, pivot);
        right.swap(column, pivot);
        if rows[column][column].abs() < 1e-9 {
            return None;
        }
        let (row, value) = (rows[column], right[column]);
        for below in column + 1..KINDS {
            let factor = rows[below][column] / row[column];
            for (cell, above) in rows[below].iter_mut().zip(row) {
                *cell -= factor * above;
            }
            right[below] -= factor * value;
        }
    }
    let mut solution = [0.0; KINDS];
    for row in (0..KINDS).rev() {
        let known: f64 = (row + 1..KINDS)
            .map(|column| rows[row][column] * solution[column])
            .sum();
        solution[row] = (right[row] - known) / rows[row][row];
    }
    solution.iter().all(|number| number.is_finite()).then_some(solution)
}

impl Policy for Benefit {
    fn observe(&mut self, experts: &[u32]) {
        let count = self.heat.len();
        let known = experts.iter().filter(|expert| (**expert as usize) < count);
        #[expect(clippy::cast_precision_loss, reason = "experts of one token")]
        let per_token = known.clone().count() as f64;
        if per_token == 0.0 {
            return;
        }
        self.begin(per_token);
        std::mem::swap(&mut self.now, &mut self.before);
        for counts in [&mut self.recent, &mut self.lately] {
            counts.age(1.0);
            known.clone().for_each(|expert| counts.add(*expert, 1.0));
            counts.add(last(count), 1.0);
        }
        self.pairs.observe(experts);
        self.look();
        self.learn(experts);
        self.rate();
    }

    /// A prompt shifts the frequencies; what follows what is learnt from decoding alone.
    fn observe_prompt(&mut self, counts: &[u32], tokens: u32, last_token: &[u32]) {
        let experts = self.heat.len();
        let counts = counts.get(..experts).unwrap_or(counts);
        let selections: u32 = counts.iter().fold(0, |sum, count| sum.saturating_add(*count));
        if tokens == 0 || selections == 0 {
            return;
        }
        self.begin(f64::from(selections) / f64::from(tokens));
        for faded in [&mut self.recent, &mut self.lately] {
            faded.observe_prompt(counts, tokens, self.prompt_weight);
            faded.add(last(experts), self.prompt_weight.min(f64::from(tokens)));
        }
        self.pairs.restart(last_token);
        self.look();
        self.rate();
    }

    fn value(&self, expert: u32) -> f64 {
        self.values.get(expert as usize).map_or(0.0, |value| f64::from(*value))
    }

    fn pays(&self, newcomer: f64, resident: f64, left: f64) -> bool {
        newcomer - resident > DEAREST + (CHEAPEST - DEAREST) * left
    }

    fn looks_ahead(&self) -> bool {
        true
    }

    fn has_budget(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(experts: usize, heat: &[f32]) -> Benefit {
        Benefit::new(experts, heat, &PolicyConfig::default())
    }

    /// The experts of the highest values, in the order of their numbers.
    fn best(policy: &Benefit, count: usize) -> Vec<u32> {
        let mut all: Vec<u32> = (0..).take(policy.heat.len()).collect();
        all.sort_by(|a, b| policy.value(*b).total_cmp(&policy.value(*a)));
        all.truncate(count);
        all.sort_unstable();
        all
    }

    #[test]
    fn the_heat_map_decides_until_something_was_learnt() {
        let heat = [1.0, 5.0, 0.0, 9.0, f32::NAN, -3.0, 2.0, 1.5];
        let mut policy = policy(8, &heat);
        assert_eq!(best(&policy, 3), [1, 3, 6]);
        policy.observe_prompt(&[0, 0, 9, 0, 9, 0, 0, 0], 9, &[2, 4]);
        assert_eq!(best(&policy, 3), [1, 3, 6]);
        (0..32).for_each(|_| policy.observe(&[2, 4]));
        assert_eq!(best(&policy, 2), [2, 4]);
    }

    #[test]
    fn what_is_selected_is_worth_something_without_a_heat_map() {
        let mut policy = policy(8, &[]);
        assert_eq!(policy.value(5), 0.0);
        policy.observe(&[5, 7]);
        assert_eq!(best(&policy, 2), [5, 7]);
        assert!(policy.value(5) > 0.0);
    }

    #[test]
    fn what_follows_is_foreseen() {
        let mut policy = policy(16, &[1.0; 16]);
        let tokens = [[0, 1], [4, 5], [8, 9], [12, 13]];
        (0..200).for_each(|token| policy.observe(&tokens[token % 4]));
        for token in 200..204 {
            policy.observe(&tokens[token % 4]);
            assert_eq!(best(&policy, 2), tokens[(token + 1) % 4], "{:?}", policy.weights);
        }
        // Selected by the next token, and by every fourth one after it: about, since four things cannot say all.
        let (next, discount) = (policy.values[0], DISCOUNT.powi(4));
        assert!((next - 1.0 / (1.0 - discount)).abs() < 0.2, "{next}");
    }

    /// The first token of an answer follows the last one of the prompt.
    #[test]
    fn what_follows_a_prompt_is_foreseen() {
        let mut policy = policy(16, &[1.0; 16]);
        let prompt = [1; 16];
        for _ in 0..20 {
            for text in 0..4u32 {
                policy.observe_prompt(&prompt, 4, &[4 * text]);
                (1..4).for_each(|token| policy.observe(&[4 * text + token]));
            }
        }
        for text in 0..4u32 {
            policy.observe_prompt(&prompt, 4, &[4 * text]);
            assert_eq!(best(&policy, 1), [4 * text + 1]);
        }
    }

    /// Nothing can be foreseen, and half of the experts are five times as popular as the others.
    #[test]
    fn chance_moves_nothing() {
        let heat: Vec<f32> = (0..32u8).map(|expert| if expert < 16 { 5.0 } else { 1.0 }).collect();
        let mut policy = policy(32, &heat);
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..3000 {
            let one = |random: &mut fastrand::Rng| match random.u32(0..6) {
                0 => random.u32(16..32),
                _ => random.u32(0..16),
            };
            policy.observe(&[one(&mut random)]);
        }
        let worst = (0..16).map(|expert| policy.value(expert)).fold(f64::INFINITY, f64::min);
        let newcomer = (16..32).map(|expert| policy.value(expert)).fold(0.0, f64::max);
        assert!(
            !policy.pays(newcomer, worst, 1.0),
            "{newcomer} {worst} {:?}",
            policy.weights
        );
    }

    #[test]
    fn the_less_is_left_the_more_an_upload_must_bring() {
        let policy = policy(1, &[]);
        assert!(policy.pays(0.24, 0.2, 1.0));
        assert!(!policy.pays(0.24, 0.2, 0.5));
        assert!(policy.pays(0.8, 0.2, 0.0));
    }

    #[test]
    fn equations_are_solved() {
        let rows = [
            [0.0, 2.0, 0.0, 1.0],
            [1.0, 0.0, 0.0, 0.0],
            [0.0, 1.0, 4.0, 0.0],
            [0.0, 0.0, 1.0, 3.0],
        ];
        let solution = solve(rows, [8.0, 1.0, 14.0, 15.0]).unwrap();
        for (found, right) in solution.iter().zip([1.0, 2.0, 3.0, 4.0]) {
            assert!((found - right).abs() < 1e-9, "{solution:?}");
        }
        assert_eq!(solve([[1.0; KINDS]; KINDS], [1.0; KINDS]), None);
    }

    #[test]
    fn nothing_becomes_no_number() {
        let mut policy = policy(16, &[1.0; 16]);
        for token in 0..2000u32 {
            policy.observe(&(0..token % 17).collect::<Vec<_>>());
            policy.observe(&[99]);
            policy.observe_prompt(&[token; 16], token % 3, &[token % 20]);
        }
        assert!((0..16).all(|expert| policy.value(expert).is_finite()), "{policy:?}");
        assert_eq!(policy.value(16), 0.0);
    }
}
