//! What guesses for tokens are worth, by how often they are right: for the engine, which measures, and for plans.

/// Passes over which the average is taken that guesses bring.
const PASSES: u32 = 32;

/// Tokens that a pass of this width gives each stream on average.
///
/// A pass has the tokens that are sure but not computed yet, at least one, and guesses. Without replays there is always one
/// sure token. With them, a wrong guess after `a` right ones makes `a` more tokens sure: the next pass has fewer guesses.
#[must_use]
pub fn expected(width: usize, chances: &[f64], replays: bool) -> f64 {
    // The chance that the first guesses are right, so many of them.
    let all_right = |guesses: usize| chances[..guesses].iter().product::<f64>();
    // Tokens of a pass after so many guesses.
    let tokens = |guesses: usize| (0..=guesses).map(all_right).sum::<f64>();
    if !replays {
        return tokens(width - 1);
    }
    // The share of passes by their guesses, by repetition.
    let mut share = vec![0.0; width];
    share[width - 1] = 1.0;
    let mut sum = 0.0;
    for _ in 0..PASSES {
        let mut next = vec![0.0; width];
        for (guesses, part) in share.iter().enumerate() {
            sum += part * tokens(guesses);
            for (right, chance) in chances.iter().enumerate().take(guesses) {
                // The sure tokens of this pass, those that were right, and the one that was not.
                let sure = (width - guesses) + right + 1;
                next[width - sure] += part * all_right(right) * (1.0 - chance);
            }
            next[width - 1] += part * all_right(guesses);
        }
        share = next;
    }
    sum / f64::from(PASSES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_a_pass() {
        let near = |value: f64, expect: f64| assert!((value - expect).abs() < 1e-6, "{value}");
        near(expected(1, &[], true), 1.0);
        near(expected(3, &[1.0, 1.0], true), 3.0);
        near(expected(3, &[0.0, 1.0], false), 1.0);
        near(expected(3, &[0.5, 0.5], false), 1.75);
        near(expected(3, &[0.9, 0.5], false), 1.0 + 0.9 + 0.45);
        // Half of the guesses are wrong, after each of which a pass replays: 2/3 of the passes guess.
        let replayed = expected(2, &[0.5], true);
        assert!((replayed - (2.0 / 3.0 * 1.5 + 1.0 / 3.0)).abs() < 0.01, "{replayed}");
        assert!(expected(4, &[0.7; 3], true) < expected(4, &[0.7; 3], false));
    }
}
