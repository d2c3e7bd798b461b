//! When a median is known well enough.

/// The 95 % confidence interval of the median of what `samples` are drawn from, whatever its
/// distribution, in the samples' unit: the order statistics of ranks ⌈n/2 - 0.98 √n⌉ and
/// ⌈n/2 + 0.98 √n⌉ (W. J. Conover, Practical Nonparametric Statistics, 3rd ed. 1999, section 3.2).
/// As ranks are whole it holds in 92 to 98 % of cases, depending on n. None for fewer than 6 samples:
/// even all 5 of them hold the median between them in no more than 94 %.
pub fn median_interval(samples: &[f64]) -> Option<(f64, f64)> {
    interval(&sorted(samples))
}

/// Whether there are at least 10 samples, and their [`median_interval`] lies within ± `precision` (a
/// share of their median) around the median.
pub fn settled(samples: &[f64], precision: f64) -> bool {
    let sorted = sorted(samples);
    let Some((low, high)) = interval(&sorted).filter(|_| sorted.len() >= FEWEST_SETTLED) else {
        return false;
    };
    let median = median(&sorted);
    median - low <= precision * median && high - median <= precision * median
}

/// Samples that can be settled at the least: fewer may agree by chance.
pub const FEWEST_SETTLED: usize = 10;

/// 0.98 is half of the normal distribution's 97.5 % quantile.
fn interval(sorted: &[f64]) -> Option<(f64, f64)> {
    if sorted.len() < 6 {
        return None;
    }
    let n = sorted.len() as f64;
    let at = |rank: f64| sorted.get(rank.ceil() as usize - 1).copied();
    at(n / 2.0 - 0.98 * n.sqrt()).zip(at(n / 2.0 + 0.98 * n.sqrt()))
}

fn sorted(samples: &[f64]) -> Vec<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

fn median(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) { (sorted[half - 1] + sorted[half]) / 2.0 } else { sorted[half] }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_that_of_the_worked_case() {
        // n = 20: 10 ∓ 0.98·√20 = 10 ∓ 4.383, so ranks 6 and 15; both are taken after sorting.
        let falling: Vec<f64> = (1..=20).rev().map(f64::from).collect();
        assert_eq!(median_interval(&falling), Some((6.0, 15.0)));
        // n = 10: 5 ∓ 3.099, so ranks 2 and 9. n = 6: 3 ∓ 2.4, all of them.
        let of = |n: i32| (1..=n).map(f64::from).collect::<Vec<_>>();
        assert_eq!(median_interval(&of(10)), Some((2.0, 9.0)));
        assert_eq!(median_interval(&of(6)), Some((1.0, 6.0)));
        assert_eq!(median_interval(&of(5)), None);
        assert_eq!(median_interval(&[]), None);
    }

    /// The generator SplitMix64, uniform in [0, 1).
    fn uniform(state: &mut u64) -> f64 {
        *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    #[test]
    fn nineteen_of_twenty_intervals_hold_the_true_median_of_a_skewed_distribution() {
        let mut state = 4;
        for n in [20, 60, 100] {
            // Exponential, as the noise above a fastest run is; its median is ln 2.
            let mut draw = || (0..n).map(|_| -(1.0 - uniform(&mut state)).ln()).collect::<Vec<_>>();
            let inside = (0..2000).filter(|_| {
                let (low, high) = median_interval(&draw()).unwrap();
                (low..=high).contains(&std::f64::consts::LN_2)
            });
            let share = inside.count() as f64 / 2000.0;
            assert!((0.93..=0.97).contains(&share), "n = {n}: {share}");
        }
    }

    #[test]
    fn settled_is_what_lies_within_the_precision_and_has_ten_samples() {
        let within = |percent: f64| (0..20).map(|i| 100.0 + percent * f64::from(i - 10) / 10.0).collect();
        let (near, far): (Vec<f64>, Vec<f64>) = (within(1.0), within(5.0));
        assert!(settled(&near, 0.01) && !settled(&far, 0.01) && settled(&far, 0.05));
        assert!(!settled(&[7.0; 9], 0.01) && settled(&[7.0; 10], 0.01));
        // Outliers are no matter as long as they are few.
        let mut samples = near;
        samples[..3].fill(1000.0);
        assert!(settled(&samples, 0.01));
        assert!(!settled(&far, 0.0));
    }
}
