//! Durations in logarithmic buckets: any quantile to within 1.6 %, in fixed memory.

use std::time::Duration;

/// Buckets of each doubling, as a power of two.
const SUB_BITS: u32 = 6;
const SUB: u64 = 1 << SUB_BITS;
/// Buckets in all: every 64-bit count of nanoseconds has one.
const BUCKETS_COUNT: usize = ((64 - SUB_BITS + 1) as usize) << SUB_BITS;

/// How often each duration was seen.
#[derive(Clone)]
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max: u64,
}

impl Histogram {
    /// Nothing seen yet.
    pub(crate) fn new() -> Self {
        Self { buckets: vec![0; BUCKETS_COUNT], count: 0, max: 0 }
    }

    /// Adds one duration.
    pub(crate) fn add(&mut self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(nanos)] += 1;
        self.count += 1;
        self.max = self.max.max(nanos);
    }

    /// Adds everything another one saw.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    /// How many durations were added.
    pub(crate) const fn count(&self) -> u64 {
        self.count
    }

    /// The duration that `share` (0 to 1) of all are not longer than, milliseconds; at most 1.6 % too
    /// long. Zero when nothing was added.
    pub(crate) fn millis(&self, share: f64) -> f64 {
        let rank = ((self.count as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return upper(index).min(self.max) as f64 / 1e6;
            }
        }
        0.0
    }
}

/// Small numbers have a bucket each; above, each doubling has `SUB` of them.
const fn bucket(nanos: u64) -> usize {
    if nanos < SUB {
        return nanos as usize;
    }
    let doubling = nanos.ilog2() - SUB_BITS;
    (((doubling as u64 + 1) << SUB_BITS) + ((nanos >> doubling) - SUB)) as usize
}

/// The largest number of a bucket.
const fn upper(index: usize) -> u64 {
    let index = index as u64;
    if index < SUB {
        return index;
    }
    let doubling = (index >> SUB_BITS) - 1;
    let low = ((index & (SUB - 1)) + SUB) << doubling;
    low + ((1 << doubling) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_in_its_bucket() {
        for nanos in (0..10_000).chain([123_456_789, u64::MAX / 3, u64::MAX]) {
            let index = bucket(nanos);
            assert!(upper(index) >= nanos, "{nanos}");
            assert!(index == 0 || upper(index - 1) < nanos, "{nanos}");
            assert!(upper(index) as f64 <= nanos as f64 * 1.016, "{nanos}");
        }
    }

    #[test]
    fn quantiles_of_a_known_series() {
        let mut all = Histogram::new();
        let mut half = Histogram::new();
        for micros in 1..=1_000 {
            let target = if micros % 2 == 0 { &mut all } else { &mut half };
            target.add(Duration::from_micros(micros));
        }
        all.merge(&half);
        assert_eq!(all.count(), 1_000);
        for (share, expected) in [(0.5, 0.5), (0.99, 0.99), (1.0, 1.0)] {
            let found = all.millis(share);
            assert!((expected..=expected * 1.016).contains(&found), "{share}: {found}");
        }
        assert_eq!(Histogram::new().millis(0.5), 0.0);
    }
}
