//! Switches the cache of a layer off while it costs more than it saves.

/// When a layer's cache is used.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct GateConfig {
    /// Hit rate at which using the cache costs as much as it saves, 0 to 1, as [`break_even`] computes it; 0 never
    /// switches off.
    pub break_even: f64,
    /// How far the hit rate must be from break-even before anything changes.
    pub margin: f64,
    /// Tokens over which the hit rate is averaged.
    pub window: f64,
    /// While off, one upload is still allowed in so many tokens: without any, the hit rate could not recover.
    pub probe_every: u32,
}

impl Default for GateConfig {
    fn default() -> Self {
        Self {
            break_even: 0.0,
            margin: 0.05,
            window: 256.0,
            probe_every: 4,
        }
    }
}

/// The hit rate at which a layer's cache pays for itself: `overhead_us` is what a token loses by computing on two devices,
/// `saved_us` what it wins by one hit, both in microseconds, and `active` the experts per token. 1 if it never does.
#[must_use]
pub fn break_even(overhead_us: f64, saved_us: f64, active: u32) -> f64 {
    let best = saved_us * f64::from(active);
    match best > 0.0 && overhead_us >= 0.0 {
        true => (overhead_us / best).min(1.0),
        false => 1.0,
    }
}

/// What splitting a block costs and saves, as measured while it runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Overhead {
    /// Microseconds that one expert takes on the CPU.
    cold: f64,
    /// Microseconds of a block beside its cold half: with copies in use, and without.
    beside: [f64; 2],
}

impl Overhead {
    /// Takes in one block: its whole time, that of its cold half, and how many experts were in that.
    pub fn observe(&mut self, block: std::time::Duration, cold: std::time::Duration, experts: usize, copies: bool) {
        let micros = |time: std::time::Duration| time.as_secs_f64() * 1e6;
        let follow = |average: &mut f64, now: f64| match *average > 0.0 {
            true => *average += (now - *average) / 64.0,
            false => *average = now,
        };
        #[expect(clippy::cast_precision_loss, reason = "experts of one batch")]
        if experts > 0 {
            follow(&mut self.cold, micros(cold) / experts as f64);
        }
        follow(
            &mut self.beside[usize::from(!copies)],
            micros(block.saturating_sub(cold)),
        );
    }

    /// The hit rate from which on copies pay, for so many selected experts.
    #[must_use]
    pub fn break_even(&self, selected: usize) -> f64 {
        let [with, without] = self.beside;
        let active = u32::try_from(selected).unwrap_or(u32::MAX);
        match self.cold > 0.0 {
            true => break_even((with - without).max(0.0), self.cold, active),
            // Nothing is known yet: everything may have a copy.
            false => 0.0,
        }
    }
}

/// Follows the hit rate of one layer.
#[derive(Debug, Clone)]
pub struct Gate {
    config: GateConfig,
    hit_rate: f64,
    tokens: f64,
    open: bool,
    since_probe: u32,
}

impl Gate {
    /// Open until a window's worth of tokens says otherwise.
    #[must_use]
    pub fn new(config: GateConfig) -> Self {
        Self {
            config,
            hit_rate: 0.0,
            tokens: 0.0,
            open: true,
            since_probe: 0,
        }
    }

    /// Changes the hit rate below which nothing is gained.
    pub fn set_break_even(&mut self, break_even: f64) {
        self.config.break_even = break_even;
    }

    /// Whether the cache should be used.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Average share of the selected experts that were resident.
    #[must_use]
    pub fn hit_rate(&self) -> f64 {
        self.hit_rate
    }

    /// Takes in how many of a token's experts were resident, whether they were used or not.
    pub fn observe(&mut self, hits: usize, selections: usize) {
        if selections == 0 {
            return;
        }
        let window = self.config.window.max(1.0);
        self.tokens = (self.tokens + 1.0).min(window);
        #[expect(clippy::cast_precision_loss, reason = "experts of one token")]
        let now = hits as f64 / selections as f64;
        self.hit_rate += (now - self.hit_rate) / self.tokens;
        self.since_probe = self.since_probe.saturating_add(1);
        if self.tokens < window || self.config.break_even <= 0.0 {
            return;
        }
        if self.hit_rate < self.config.break_even - self.config.margin {
            self.open = false;
        } else if self.hit_rate > self.config.break_even + self.config.margin {
            self.open = true;
        }
    }

    /// How many of `wanted` uploads this token may cause.
    pub fn allow(&mut self, wanted: usize) -> usize {
        if self.open {
            return wanted;
        }
        if self.since_probe < self.config.probe_every {
            return 0;
        }
        self.since_probe = 0;
        wanted.min(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn break_even_is_a_share() {
        assert!((break_even(60.0, 20.0, 10) - 0.3).abs() < 1e-9);
        assert!((break_even(60.0, 1.0, 10) - 1.0).abs() < 1e-9);
        assert!((break_even(60.0, -1.0, 10) - 1.0).abs() < 1e-9);
        assert!((break_even(f64::NAN, 1.0, 10) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn what_is_measured_decides() {
        let micros = std::time::Duration::from_micros;
        let mut overhead = Overhead::default();
        assert_eq!(overhead.break_even(10), 0.0);
        overhead.observe(micros(330), micros(300), 10, false);
        overhead.observe(micros(240), micros(150), 5, true);
        // 60 us more, 30 us per expert saved: two of ten.
        assert!((overhead.break_even(10) - 0.2).abs() < 1e-9);
    }

    #[test]
    fn closes_below_and_opens_above() {
        let mut gate = Gate::new(GateConfig {
            break_even: 0.3,
            ..GateConfig::default()
        });
        (0..255).for_each(|_| gate.observe(0, 10));
        assert!(gate.is_open() && gate.allow(2) == 2, "not before the window is full");
        gate.observe(0, 10);
        assert!(!gate.is_open());
        assert_eq!([gate.allow(2), gate.allow(2)], [1, 0], "one probe at a time");
        (0..4).for_each(|_| gate.observe(10, 10));
        assert_eq!(gate.allow(2), 1);
        (0..200).for_each(|_| gate.observe(10, 10));
        assert!(gate.is_open());
    }

    #[test]
    fn without_a_break_even_it_stays_open() {
        let mut gate = Gate::new(GateConfig::default());
        (0..1000).for_each(|_| gate.observe(0, 10));
        assert!(gate.is_open());
    }
}
