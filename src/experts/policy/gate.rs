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
/// `saved_us` what it wins by one hit, both in microseconds, and `experts_per_token` the experts of a token. 1 if it never does.
#[must_use]
pub fn break_even(overhead_us: f64, saved_us: f64, experts_per_token: u32) -> f64 {
    let best = saved_us * f64::from(experts_per_token);
    match best > 0.0 && overhead_us >= 0.0 {
        true => (overhead_us / best).min(1.0),
        false => 1.0,
    }
}

/// Measurements of which the median counts: what a machine does besides, and what happens once, does not show in it.
#[derive(Debug, Clone, Default)]
struct Median {
    last: [f64; Self::KEPT],
    count: usize,
}

impl Median {
    const KEPT: usize = 15;
    /// The first ones, which are dropped: memory is touched for the first time, kernels are compiled, graphs are recorded.
    const WARM_UP: usize = 8;

    fn add(&mut self, value: f64) {
        if let Some(number) = self.count.checked_sub(Self::WARM_UP) {
            self.last[number % Self::KEPT] = value;
        }
        self.count = self.count.saturating_add(1);
    }

    /// `None` before there is anything to go by.
    fn get(&self) -> Option<f64> {
        let known = self.count.checked_sub(Self::WARM_UP)?.min(Self::KEPT);
        let mut last = self.last;
        let last = &mut last[..known];
        last.sort_unstable_by(f64::total_cmp);
        last.get(known / 2).copied()
    }
}

/// What splitting a block costs and saves, as measured while it runs; and when to measure the way that is not taken.
#[derive(Debug, Clone, Default)]
pub struct Overhead {
    /// Microseconds that one expert takes on the CPU.
    cold: Median,
    /// Microseconds of a block beside its cold half: with copies in use, and without.
    beside: [Median; 2],
    /// Blocks since the last probe, and probes so far.
    blocks: u32,
    probes: u32,
}

impl Overhead {
    /// Blocks from one probe to the next: a probe costs about as much as the copies save in one block, so this costs about
    /// a thousandth of that. The first ones come sooner, so that something is known.
    const PROBE_EVERY: u32 = 1024;
    const FIRST_EVERY: u32 = 64;
    const FIRST: u32 = 32;

    /// Whether the next block should be computed the other way: without copies that are in use, or with copies that are
    /// not. Otherwise one of the two would never be measured again.
    pub fn probe(&mut self) -> bool {
        let every = match self.probes < Self::FIRST {
            true => Self::FIRST_EVERY,
            false => Self::PROBE_EVERY,
        };
        self.blocks += 1;
        if self.blocks < every {
            return false;
        }
        self.blocks = 0;
        self.probes = self.probes.saturating_add(1);
        true
    }

    /// Takes in one block: its whole time, that of its cold half, and how many experts were in that.
    pub fn observe(&mut self, block: std::time::Duration, cold: std::time::Duration, experts: usize, copies: bool) {
        let micros = |time: std::time::Duration| time.as_secs_f64() * 1e6;
        #[expect(clippy::cast_precision_loss, reason = "experts of one batch")]
        if experts > 0 {
            self.cold.add(micros(cold) / experts as f64);
        }
        self.beside[usize::from(!copies)].add(micros(block.saturating_sub(cold)));
    }

    /// The hit rate from which on copies pay, for so many selected experts; 0 as long as not all is known.
    #[must_use]
    pub fn break_even(&self, selected: usize) -> f64 {
        let [with, without] = &self.beside;
        let selected = u32::try_from(selected).unwrap_or(u32::MAX);
        match (with.get(), without.get(), self.cold.get()) {
            (Some(with), Some(without), Some(cold)) => break_even((with - without).max(0.0), cold, selected),
            _ => 0.0,
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

    /// 60 us more with copies, 30 us saved by each expert: two of ten.
    fn measure(overhead: &mut Overhead, times: usize) {
        let micros = std::time::Duration::from_micros;
        for _ in 0..times {
            overhead.observe(micros(330), micros(300), 10, false);
            overhead.observe(micros(240), micros(150), 5, true);
        }
    }

    #[test]
    fn what_is_measured_decides() {
        let mut overhead = Overhead::default();
        assert_eq!(overhead.break_even(10), 0.0);
        measure(&mut overhead, 40);
        assert!((overhead.break_even(10) - 0.2).abs() < 1e-9);
    }

    /// The first blocks take far longer than all later ones, and so does one now and then.
    #[test]
    fn warm_up_and_pauses_do_not_count() {
        let millis = std::time::Duration::from_millis;
        let mut overhead = Overhead::default();
        for _ in 0..8 {
            overhead.observe(millis(20), millis(1), 10, false);
            overhead.observe(millis(50), millis(1), 5, true);
        }
        assert_eq!(overhead.break_even(10), 0.0, "nothing is known yet");
        for _ in 0..10 {
            measure(&mut overhead, 20);
            overhead.observe(millis(50), millis(1), 10, false);
            overhead.observe(millis(70), millis(1), 5, true);
            assert!((overhead.break_even(10) - 0.2).abs() < 1e-9);
        }
    }

    /// As a run goes: at first nothing has a copy and everything is slow, then every block has hits. The way without copies
    /// is measured again nevertheless, and seldom enough.
    #[test]
    fn the_other_way_is_probed_now_and_then() {
        let micros = std::time::Duration::from_micros;
        let mut overhead = Overhead::default();
        for _ in 0..48 {
            overhead.observe(micros(50_000), micros(300), 10, false);
        }
        let mut probes = 0;
        for _ in 0..20_000 {
            if overhead.probe() {
                probes += 1;
                overhead.observe(micros(330), micros(300), 10, false);
            } else {
                overhead.observe(micros(240), micros(150), 5, true);
            }
        }
        assert!(
            (overhead.break_even(10) - 0.2).abs() < 1e-9,
            "{}",
            overhead.break_even(10)
        );
        assert!((32..64).contains(&probes), "{probes}");
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
