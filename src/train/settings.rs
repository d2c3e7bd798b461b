//! How to train a network from scratch.

use super::{Arithmetic, TorchDevice};
use crate::bounded::{BatchSize, EpochCount, LearningRate, Momentum, Share, Temperature, Threads, Weight};
use crate::data::{self, Augment, Border, Data};
use crate::named::named;
use serde::{Deserialize, Serialize};

/// A recipe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// The usual recipe for CIFAR-10: SGD with momentum and a cosine, shifts and flips, for 100 epochs.
    Reference,
    /// What was most accurate after 30 epochs, about an hour on two cores for small networks: the same, shorter.
    #[default]
    Fast,
    /// Long, with more regularisation than a short training can use.
    Best,
}

named!(Preset, "a preset": "reference" = Reference, "fast" = Fast, "best" = Best);

/// How the learning rate changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// A half cosine from the peak to 0, after a short linear rise (Loshchilov & Hutter 2017, arXiv 1608.03983).
    Cosine,
    /// A linear rise to the peak in the first fifth, and a linear fall to 0 (Smith & Topin 2018, arXiv 1708.07120, with
    /// straight lines).
    OneCycle,
}

named!(Schedule, "a schedule": "cosine" = Cosine, "one_cycle" = OneCycle);

/// Declares the settings, and what an experiment file or flags may change in those of a preset.
macro_rules! settings {
    ($(#[$meta:meta])* $name:ident, $changes:ident { $($(#[$doc:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(from = "Changes")]
        pub struct $name {
            $($(#[$doc])* pub $field: $kind,)*
        }

        /// A preset, and what differs from it.
        #[derive(Clone, Debug, Default, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $changes {
            pub preset: Preset,
            $(pub $field: Option<$kind>,)*
        }

        impl From<$changes> for $name {
            fn from(changes: $changes) -> $name {
                let preset = changes.preset.settings();
                $name { $($field: changes.$field.unwrap_or(preset.$field),)* }
            }
        }
    };
}

settings! {
    /// How to train: SGD with Nesterov momentum, and weight decay on convolution and linear weights.
    TrainSettings, Changes {
        /// Passes over the training images.
        epochs: EpochCount,
        /// Images in a step.
        batch_size: BatchSize,
        /// The peak.
        learning_rate: LearningRate,
        schedule: Schedule,
        momentum: Momentum,
        weight_decay: Weight,
        /// The share of the target that is spread over all classes (Szegedy et al. 2016, arXiv 1512.00567, section 7).
        label_smoothing: Share,
        /// The most that the norm of the gradient may be; 0 for no limit.
        clip: Weight,
        /// What a step leaves of the moving average of the weights, which is tested and exported in their place; 0 for
        /// no average.
        ema: Momentum,
        /// Training images are shifted by up to so many pixels.
        padding: usize,
        border: Border,
        /// Side of a square that is cut out of training images; 0 for none.
        cutout: usize,
        /// Training images are blended in pairs, with a share drawn from Beta(mixup, mixup) (Zhang et al. 2018, arXiv
        /// 1710.09412); 0 for no blending.
        mixup: Weight,
        /// Training images are not mirrored.
        no_flip: bool,
        /// An epoch has as many images of each class as of any other.
        balanced: bool,
        /// The share of the loss that is the distance from the teacher's answers, where there is a teacher.
        teacher_weight: Share,
        /// What logits are divided by before they are compared with the teacher's.
        temperature: Temperature,
        /// The share of the training images that is kept back, to show the accuracy of each epoch and to choose the
        /// best one; 0 for none, and the log then shows the accuracy on test images.
        held_out: Share,
        /// Of everything random.
        seed: u64,
        /// Of libtorch; the same number gives the same result.
        threads: Threads,
        torch_device: TorchDevice,
        /// What convolutions are computed in.
        arithmetic: Arithmetic,
    }
}

impl Default for TrainSettings {
    fn default() -> Self {
        Preset::default().settings()
    }
}

impl Preset {
    pub fn settings(self) -> TrainSettings {
        let reference = TrainSettings {
            epochs: EpochCount::of(100),
            batch_size: BatchSize::of(64),
            learning_rate: LearningRate::of(0.05),
            schedule: Schedule::Cosine,
            momentum: Momentum::of(0.9),
            weight_decay: Weight::of(5e-4),
            label_smoothing: Share::of(0.0),
            clip: Weight::of(0.0),
            ema: Momentum::of(0.0),
            padding: 4,
            border: Border::Mean,
            cutout: 0,
            mixup: Weight::of(0.0),
            no_flip: false,
            balanced: false,
            teacher_weight: Share::of(0.9),
            temperature: Temperature::of(4.0),
            held_out: Share::of(0.0),
            seed: 0,
            threads: Threads::of(1),
            torch_device: TorchDevice::Auto,
            arithmetic: Arithmetic::Auto,
        };
        match self {
            Preset::Reference => reference,
            Preset::Fast => TrainSettings { epochs: EpochCount::of(30), ..reference },
            Preset::Best => TrainSettings {
                epochs: EpochCount::of(200),
                batch_size: BatchSize::of(128),
                learning_rate: LearningRate::of(0.1),
                label_smoothing: Share::of(0.1),
                ema: Momentum::of(0.999),
                border: Border::Mirrored,
                cutout: 8,
                ..reference
            },
        }
    }
}

impl TrainSettings {
    /// # Errors
    /// Fails if the padding is larger than the images.
    pub fn augment(&self, data: &Data) -> Result<Augment, data::Error> {
        let TrainSettings { padding, border, cutout, no_flip, .. } = *self;
        Augment { padding, border, flip: !no_flip, cutout }.checked(data.train.shape)
    }

    /// The learning rate of a step, of so many.
    pub(super) fn learning_rate_at(&self, at: super::At) -> f64 {
        let (peak, step, steps) = (self.learning_rate.get(), at.done(), self.epochs.get() * at.steps);
        match self.schedule {
            Schedule::Cosine => super::cosine(peak, step, steps, at.steps.min(MOST_WARMUP)),
            Schedule::OneCycle => {
                let (done, top) = ((step + 1) as f64 / (steps + 1) as f64, 0.2);
                peak * (done / top).min((1.0 - done) / (1.0 - top))
            }
        }
    }
}

/// Steps over which a cosine's learning rate rises, at most; and no more than an epoch.
pub(super) const MOST_WARMUP: usize = 500;
