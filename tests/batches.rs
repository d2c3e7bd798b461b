//! Splits and batches of the embedded data set.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use edge_nas::data::{Augment, Batch, Batches, Border, Data, DataSpec, Dataset, Normalisation, ahead, split};

fn embedded() -> Dataset {
    Data::load(&DataSpec::Embedded).unwrap().train
}

#[test]
fn splits_are_disjoint_balanced_and_reproducible_by_seed() {
    let train = embedded();
    let (rest, held_out) = split(&train, &train.indices(), 0.25, 7).unwrap();
    let union: BTreeSet<usize> = rest.iter().chain(&held_out).copied().collect();
    assert_eq!((rest.len(), held_out.len(), union.len()), (6000, 2000, 8000));
    for class in 0..10 {
        assert_eq!(held_out.iter().filter(|&&i| train.label(i) == class).count(), 200);
    }
    assert_eq!(split(&train, &train.indices(), 0.25, 7).unwrap(), (rest.clone(), held_out.clone()));
    assert_ne!(split(&train, &train.indices(), 0.25, 8).unwrap().1, held_out);

    let (inner, outer) = split(&train, &rest, 0.5, 7).unwrap();
    assert_eq!(inner.len(), 3000);
    assert!(inner.iter().chain(&outer).all(|i| rest.binary_search(i).is_ok()));

    for fraction in [0.0, 1.0, -1.0, f64::NAN] {
        let message = split(&train, &rest, fraction, 7).unwrap_err().to_string();
        assert!(message.contains("leaves one part empty"), "{message}");
    }
}

const CROP_AND_FLIP: Augment = Augment { padding: 4, border: Border::Mean, flip: true, cutout: 0 };

/// Runs `run` with the first `count` images of the embedded set as batches of 64.
fn with_batches<R>(count: usize, run: impl FnOnce(Batches) -> R) -> R {
    let train = embedded();
    let normalisation = Normalisation::of(&train, &train.indices()).unwrap();
    let indices: Vec<usize> = (0..count).collect();
    let size = 64.try_into().unwrap();
    run(Batches { dataset: &train, indices: &indices, normalisation: &normalisation, size, balanced: false })
}

#[test]
fn an_epoch_depends_only_on_its_seed_and_number() {
    with_batches(200, |batches| {
        let epoch = |seed, epoch| batches.epoch(seed, epoch, CROP_AND_FLIP).iter().collect::<Vec<Batch>>();
        let first = epoch(1, 3);
        assert_eq!(first.iter().map(|batch| batch.labels.len()).collect::<Vec<_>>(), [64, 64, 64, 8]);
        assert!(first == epoch(1, 3));
        assert!(first != epoch(1, 4));
        assert!(first != epoch(2, 3));
    });
}

/// This is why a training can resume at any step.
#[test]
fn a_batch_does_not_depend_on_earlier_batches() {
    with_batches(200, |batches| {
        let epoch = batches.epoch(1, 3, CROP_AND_FLIP);
        let all: Vec<Batch> = epoch.iter().collect();
        for step in [3, 1, 0, 2] {
            assert!(batches.epoch(1, 3, CROP_AND_FLIP).batch(step) == all[step], "step {step}");
        }
    });
}

#[test]
fn an_epoch_contains_each_image_once() {
    with_batches(200, |batches| {
        let images = |batches: Vec<Batch>| {
            let mut images: Vec<(i64, Vec<u32>)> = Vec::new();
            for batch in batches {
                let pixels = batch.images.chunks_exact(784).map(|image| image.iter().map(|v| v.to_bits()).collect());
                images.extend(batch.labels.into_iter().zip(pixels));
            }
            images
        };
        let plain = images(batches.in_order().collect());
        let mut shuffled = images(batches.epoch(1, 0, Augment::default()).iter().collect());
        assert_ne!(shuffled, plain);
        let mut sorted = plain.clone();
        sorted.sort();
        shuffled.sort();
        assert_eq!(shuffled, sorted);
        assert!((0..200).all(|i| plain[i].0 == batches.dataset.label(i) as i64));
    });
}

#[test]
fn batches_are_normalised() {
    with_batches(8000, |batches| {
        assert_eq!(batches.in_order().len(), 125);
        let values: Vec<f64> = batches.in_order().flat_map(|batch| batch.images).map(f64::from).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64;
        assert!(mean.abs() < 1e-4 && (variance - 1.0).abs() < 1e-4, "{mean} {variance}");
    });
}

/// The reference for augmentation: every augmented image must equal the result for some shift and flip.
fn shifted(image: &[f32], side: i64, down: i64, right: i64, flip: bool) -> Vec<f32> {
    let mut out = Vec::new();
    for y in 0..side {
        for x in 0..side {
            let x = if flip { side - 1 - x } else { x };
            let (y, x) = (y - down, x - right);
            let inside = (0..side).contains(&y) && (0..side).contains(&x);
            out.push(if inside { image[(y * side + x) as usize] } else { 0.0 });
        }
    }
    out
}

#[test]
fn augmented_images_are_shifted_and_mirrored_originals() {
    with_batches(1, |one| {
        let original = one.in_order().next().unwrap().images;
        let mut seen = BTreeSet::new();
        for epoch in 0..400 {
            let image = one.epoch(5, epoch, Augment { padding: 2, flip: true, ..Augment::default() }).batch(0).images;
            let found = (0..50).find(|k| {
                let (down, right, flip) = (k / 2 / 5 - 2, k / 2 % 5 - 2, k % 2 == 1);
                shifted(&original, 28, down, right, flip) == image
            });
            seen.insert(found.expect("the image is not a shift within the padding"));
        }
        assert_eq!(seen.len(), 50, "400 draws of 50 equally likely shifts reach all of them");
        let far = one.epoch(5, 0, Augment { padding: 1000, flip: false, ..Augment::default() }).batch(0);
        assert_eq!(far.images.len(), 784);
    });
}

/// A batch says which view each image shows, and the view can be made again.
#[test]
fn views_are_what_augmented_images_show() {
    with_batches(64, |batches| {
        for (border, flip) in [(Border::Mean, true), (Border::Mirrored, true), (Border::Mirrored, false)] {
            let augment = Augment { padding: 2, border, flip, cutout: 0 };
            assert_eq!(augment.views(), if flip { 50 } else { 25 });
            let views: Vec<Batch> =
                (0..augment.views()).map(|view| batches.in_view(augment, view).next().unwrap()).collect();
            for epoch in 0..4 {
                let batch = batches.epoch(3, epoch, augment).batch(0);
                for (i, image) in batch.images.chunks_exact(784).enumerate() {
                    let view = &views[batch.views[i]].images[784 * batch.indices[i]..][..784];
                    assert_eq!(image, view, "image {i}");
                }
            }
        }
    });
}

#[test]
fn each_image_is_mirrored_in_every_other_epoch() {
    with_batches(64, |batches| {
        let flips = |epoch| -> Vec<bool> {
            let batch = batches.epoch(3, epoch, CROP_AND_FLIP).batch(0);
            let mut flips = vec![false; 64];
            batch.indices.iter().zip(&batch.views).for_each(|(&image, view)| flips[image] = view % 2 == 1);
            flips
        };
        let (even, odd) = (flips(0), flips(1));
        assert!(even.iter().zip(&odd).all(|(a, b)| a != b));
        assert_eq!((even == flips(2), odd == flips(3)), (true, true));
        assert!((16..48).contains(&even.iter().filter(|flip| **flip).count()), "each image starts at random");
    });
}

#[test]
fn a_mirrored_border_shows_what_is_beside_it() {
    with_batches(1, |one| {
        let original = one.in_order().next().unwrap().images;
        let augment = Augment { padding: 3, border: Border::Mirrored, flip: false, cutout: 0 };
        // The last view is shifted by three pixels down and to the right.
        let shifted = one.in_view(augment, augment.views() - 1).next().unwrap().images;
        for (y, x) in [(0, 0), (2, 9), (3, 3), (27, 1), (10, 20)] {
            let from = |at: usize| at.abs_diff(3);
            assert_eq!(shifted[28 * y + x], original[28 * from(y) + from(x)], "{y} {x}");
        }
    });
}

#[test]
fn cutout_covers_a_square_with_the_mean_colour() {
    with_batches(64, |batches| {
        let whole = batches.epoch(3, 0, Augment::default()).batch(0);
        let cut = batches.epoch(3, 0, Augment { cutout: 6, ..Augment::default() }).batch(0);
        assert_eq!(whole.indices, cut.indices);
        let mut largest = 0;
        for (whole, cut) in whole.images.chunks_exact(784).zip(cut.images.chunks_exact(784)) {
            let changed: Vec<usize> = (0..784).filter(|&i| whole[i] != cut[i]).collect();
            assert!(changed.iter().all(|&i| cut[i] == 0.0));
            let side = |at: fn(usize) -> usize| {
                let (least, most) = (changed.iter().map(|&i| at(i)).min(), changed.iter().map(|&i| at(i)).max());
                most.unwrap_or(0) - least.unwrap_or(0) + 1
            };
            assert!(side(|i| i / 28) <= 6 && side(|i| i % 28) <= 6);
            largest = largest.max(changed.len());
        }
        assert_eq!(largest, 36);
    });
}

#[test]
fn a_balanced_epoch_has_as_many_images_of_each_class() {
    let train = embedded();
    // 90 images of the first class, and 10 of each of two others.
    let of_class = |class: usize, count: usize| {
        train.indices().into_iter().filter(|&i| train.label(i) == class).take(count).collect::<Vec<_>>()
    };
    let indices = [of_class(0, 90), of_class(1, 10), of_class(2, 10)].concat();
    let normalisation = Normalisation::of(&train, &indices).unwrap();
    let size = 64.try_into().unwrap();
    let batches = Batches { dataset: &train, indices: &indices, normalisation: &normalisation, size, balanced: true };
    let seen: Vec<Batch> = batches.epoch(1, 0, Augment::default()).iter().collect();
    let count = |class: i64| seen.iter().flat_map(|batch| &batch.labels).filter(|label| **label == class).count();
    assert_eq!([count(0), count(1), count(2)], [37, 37, 36]);
    assert!(seen != batches.epoch(1, 1, Augment::default()).iter().collect::<Vec<Batch>>());
    let images: BTreeSet<usize> = seen.iter().flat_map(|batch| batch.indices.clone()).collect();
    assert_eq!(images.len(), 37 + 10 + 10);
}

#[test]
fn batches_that_are_made_ahead_are_the_same_in_the_same_order() {
    assert_eq!(ahead(0..100, |numbers| numbers.collect::<Vec<_>>()), (0..100).collect::<Vec<_>>());
    // A consumer that stops early does not wait for the rest.
    assert_eq!(ahead(0.., |mut numbers| numbers.nth(3)), Some(3));
}
