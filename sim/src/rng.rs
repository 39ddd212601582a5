//! Chance from a seed: `SplitMix64` (Steele, Lea and Flood, 2014). Small, fast, and the same on every
//! machine; nothing here is a secret.

/// A stream of numbers that its seed decides.
#[derive(Debug, Clone)]
pub(crate) struct Rng {
    state: u64,
}

impl Rng {
    /// The stream of that seed.
    #[must_use]
    pub(crate) const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next number.
    pub(crate) const fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in `from..=to`; the slight preference of a modulus does not matter here.
    pub(crate) const fn range(&mut self, from: u64, to: u64) -> u64 {
        debug_assert!(from <= to);
        from + self.next() % (to - from + 1)
    }

    /// True in `parts` of a million cases.
    pub(crate) const fn chance(&mut self, parts_per_million: u64) -> bool {
        parts_per_million > 0 && self.next() % 1_000_000 < parts_per_million
    }
}

#[cfg(test)]
mod tests {
    use super::Rng;

    #[test]
    fn the_reference_values_come_out() {
        // The first outputs for seed 0 are given with the reference implementation in C.
        let mut rng = Rng::new(0);
        assert_eq!(rng.next(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(rng.next(), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn ranges_hold_both_ends() {
        let mut rng = Rng::new(7);
        let seen: std::collections::BTreeSet<_> = (0..200).map(|_| rng.range(3, 5)).collect();
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [3, 4, 5]);
    }
}
