//! Metrics of a classifier, counted image by image.

use crate::bounded::Share;
use crate::record::{Confusion, Metrics, OfClass};

/// The same number as in Guo et al. 2017 (arXiv 1706.04599).
const BINS: usize = 15;

/// What has been counted so far.
pub struct Tally {
    confusion: Confusion,
    images: usize,
    /// Images whose class has one of the five largest logits.
    in_top5: usize,
    cross_entropy: f64,
    bins: [Bin; BINS],
}

/// The images whose confidence is within (i / 15, (i + 1) / 15].
#[derive(Clone, Copy, Default)]
struct Bin {
    right: f64,
    confidence: f64,
}

impl Tally {
    /// Creates a tally for at least one class.
    pub fn new(classes: usize) -> Tally {
        let bins = [Bin::default(); BINS];
        Tally { confusion: Confusion::new(classes), images: 0, in_top5: 0, cross_entropy: 0.0, bins }
    }

    /// Counts an image of class `class`. There is a finite logit for each class.
    pub fn add(&mut self, logits: &[f32], class: usize) {
        let best = (1..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best });
        let own = logits[class];
        let is_before = |(i, logit): (usize, &f32)| *logit > own || (*logit == own && i < class);
        let before = logits.iter().enumerate().filter(|&(i, logit)| is_before((i, logit))).count();
        // Relative to the largest logit, so that no exponential overflows.
        let below = |logit: f32| f64::from(logit) - f64::from(logits[best]);
        let sum: f64 = logits.iter().map(|&logit| below(logit).exp()).sum();
        let confidence = 1.0 / sum;
        let bin = &mut self.bins[((confidence * BINS as f64).ceil() as usize).clamp(1, BINS) - 1];
        bin.confidence += confidence;
        bin.right += f64::from(u8::from(best == class));
        self.images += 1;
        self.in_top5 += usize::from(before < 5);
        self.cross_entropy += sum.ln() - below(own);
        self.confusion.add(class, best);
    }

    /// Returns the metrics of the images that were counted, of which there must be at least one. `names` has a name for
    /// each class.
    pub fn metrics(self, names: &[String]) -> Metrics {
        let confusion = self.confusion;
        let of_class = |(i, name): (usize, &String)| {
            let images = confusion.images(i);
            let accuracy = (images > 0).then(|| share(confusion.rows()[i][i].into(), images as f64));
            OfClass { class: name.clone(), images: images as usize, accuracy }
        };
        let images = self.images as f64;
        Metrics {
            top1: share(confusion.right() as f64, images),
            top5: (names.len() > 5).then(|| share(self.in_top5 as f64, images)),
            cross_entropy: self.cross_entropy / images,
            calibration_error: share(self.bins.iter().map(|bin| (bin.right - bin.confidence).abs()).sum(), images),
            classes: names.iter().enumerate().map(of_class).collect(),
            confusion,
        }
    }
}

fn share(part: f64, whole: f64) -> Share {
    // Only a rounding error can make the part exceed the whole.
    Share::new(part / whole).unwrap_or(Share::of(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(classes: usize) -> Vec<String> {
        (0..classes).map(|class| format!("class {class}")).collect()
    }

    fn metrics(classes: usize, images: &[(Vec<f32>, usize)]) -> Metrics {
        let mut tally = Tally::new(classes);
        images.iter().for_each(|(logits, class)| tally.add(logits, *class));
        tally.metrics(&names(classes))
    }

    /// Returns logits of two classes, the first of which has this probability.
    fn sure(probability: f64) -> Vec<f32> {
        vec![(probability / (1.0 - probability)).ln() as f32, 0.0]
    }

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-6, "{a} {b}");
    }

    #[test]
    fn the_calibration_error_is_that_computed_by_hand() {
        // The bin of (12/15, 13/15] has two images of confidence 0.82 and 0.86, one of them right; that of (8/15, 9/15]
        // has three of 0.55, all right; that of (14/15, 1] has one of 0.99, wrong.
        let images =
            [(sure(0.82), 0), (sure(0.86), 1), (sure(0.55), 0), (sure(0.55), 0), (sure(0.45), 1), (sure(0.99), 1)];
        let found = metrics(2, &images);
        let expected = (2.0 / 6.0) * (0.84f64 - 0.5) + (3.0 / 6.0) * (1.0 - 0.55) + (1.0 / 6.0) * 0.99;
        close(found.calibration_error.get(), expected);
        let entropy = [0.82, 0.14, 0.55, 0.55, 0.55, 0.01f64].iter().map(|p| -p.ln()).sum::<f64>() / 6.0;
        close(found.cross_entropy, entropy);
        assert_eq!(found.confusion.rows(), [[3, 0], [2, 1]]);
        close(found.top1.get(), 4.0 / 6.0);
        assert_eq!(found.top5, None);
        assert_eq!(found.worst().map(|(class, _)| class), Some("class 1"));
    }

    #[test]
    fn the_edge_of_a_bin_belongs_to_the_lower_one() {
        // Three equal logits: a confidence of 5/15, in the bin that ends there. Certain ones are in the last bin.
        let mut tally = Tally::new(3);
        tally.add(&[0.0, 0.0, 0.0], 0);
        tally.add(&[0.0, 1000.0, 0.0], 1);
        let filled: Vec<usize> = (0..BINS).filter(|&i| tally.bins[i].confidence > 0.0).collect();
        assert_eq!(filled, [4, 14]);
        let found = tally.metrics(&names(3));
        close(found.calibration_error.get(), (1.0 - 1.0 / 3.0) / 2.0);
        close(found.cross_entropy, 3f64.ln() / 2.0);
        assert_eq!(found.classes[2].accuracy, None);
    }

    #[test]
    fn top_5_counts_the_rank_and_ties_go_to_the_first_class() {
        let falling = vec![6.0, 5.0, 4.0, 3.0, 2.0, 1.0];
        let images: Vec<(Vec<f32>, usize)> = (0..6).map(|class| (falling.clone(), class)).collect();
        let found = metrics(6, &images);
        close(found.top1.get(), 1.0 / 6.0);
        close(found.top5.unwrap_or(Share::of(0.0)).get(), 5.0 / 6.0);
        let equal: Vec<(Vec<f32>, usize)> = (0..6).map(|class| (vec![0.5; 6], class)).collect();
        let found = metrics(6, &equal);
        close(found.top1.get(), 1.0 / 6.0);
        close(found.top5.unwrap_or(Share::of(0.0)).get(), 5.0 / 6.0);
    }

    #[test]
    fn large_logits_do_not_overflow() {
        let found = metrics(2, &[(vec![f32::MAX, f32::MIN], 1)]);
        assert!(found.cross_entropy.is_finite() && found.cross_entropy > 1e38);
        close(found.calibration_error.get(), 1.0);
    }

    fn classified() -> impl Strategy<Value = (usize, Vec<(Vec<f32>, usize)>)> {
        (1usize..9).prop_flat_map(|classes| {
            let logits = prop::collection::vec(-50f32..50.0, classes);
            (Just(classes), prop::collection::vec((logits, 0..classes), 1..60))
        })
    }

    proptest! {
        #[test]
        fn rows_sum_to_the_classes_and_the_accuracy_is_the_trace((classes, images) in classified()) {
            let found = metrics(classes, &images);
            for (class, of) in found.classes.iter().enumerate() {
                let own = images.iter().filter(|(_, own)| *own == class).count();
                prop_assert_eq!((of.images, found.confusion.images(class)), (own, own as u64));
                prop_assert_eq!(of.accuracy.is_some(), own > 0);
            }
            let trace: u32 = (0..classes).map(|class| found.confusion.rows()[class][class]).sum();
            let sum: u32 = found.confusion.rows().iter().flatten().sum();
            prop_assert_eq!(sum as usize, images.len());
            prop_assert_eq!(found.top1.get(), f64::from(trace) / f64::from(sum));
            prop_assert_eq!(found.top5.is_some(), classes > 5);
            prop_assert!(found.top5.is_none_or(|top5| top5 >= found.top1));
            prop_assert!(found.cross_entropy >= 0.0);
        }
    }
}
