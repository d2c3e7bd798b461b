//! How to train a network from scratch.

use super::{Arithmetic, Init, TorchDevice, TrainError};
use crate::bounded::{BatchSize, EpochCount, LearningRate, Momentum, Share, Temperature, Threads, Weight};
use crate::data::{self, Augment, Border, Data};
use crate::named::named;
use serde::{Deserialize, Serialize};

/// A named recipe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// The usual recipe for CIFAR-10: SGD with momentum and a cosine schedule, shifts and flips, for 100 epochs.
    Reference,
    /// The reference recipe for fewer epochs, with a start from which networks learn faster: about an hour on two cores
    /// for small networks.
    #[default]
    Fast,
    /// A long recipe with more regularisation than a short training can use.
    Best,
}

named!(Preset, "a preset": "reference" = Reference, "fast" = Fast, "best" = Best);

/// How the learning rate changes during a training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// A half cosine from the peak to 0, after a short linear rise (Loshchilov & Hutter 2017, arXiv 1608.03983).
    Cosine,
    /// A linear rise to the peak over the first fifth, then a linear fall to 0 (Smith & Topin 2018, arXiv 1708.07120,
    /// with straight lines).
    OneCycle,
}

named!(Schedule, "a schedule": "cosine" = Cosine, "one_cycle" = OneCycle);

/// Declares the settings, and the changes that an experiment file or flags may make to those of a preset.
macro_rules! settings {
    ($(#[$meta:meta])* $name:ident, $changes:ident { $($(#[$doc:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(from = "Changes")]
        pub struct $name {
            $($(#[$doc])* pub $field: $kind,)*
        }

        /// A preset, and the settings that differ from it.
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
        /// Images per step.
        batch_size: BatchSize,
        /// Peak learning rate.
        learning_rate: LearningRate,
        schedule: Schedule,
        init: Init,
        momentum: Momentum,
        weight_decay: Weight,
        /// The share of the target that is spread over all classes (Szegedy et al. 2016, arXiv 1512.00567, section 7).
        label_smoothing: Share,
        /// The largest norm of the gradient; 0 for no limit.
        clip: Weight,
        /// The share of the moving average of the weights that a step keeps; 0 for no average. The average is tested
        /// and exported in place of the weights.
        ema: Momentum,
        /// The largest shift of training images, in pixels.
        padding: usize,
        border: Border,
        /// Side of a square that is cut out of training images; 0 for none.
        cutout: usize,
        /// Parameter of Beta(mixup, mixup), from which the shares are drawn when training images are blended in pairs
        /// (Zhang et al. 2018, arXiv 1710.09412); 0 for no blending.
        mixup: Weight,
        /// Do not mirror training images.
        no_flip: bool,
        /// Whether each epoch has equally many images of each class.
        balanced: bool,
        /// The share of the loss that is the distance from the teacher's answers, if there is a teacher.
        teacher_weight: Share,
        /// The temperature by which logits are divided before they are compared with the teacher's.
        temperature: Temperature,
        /// The share of the training images that is held out, to show the accuracy of each epoch and to choose the best
        /// one. With 0, none are held out, and the log shows the accuracy on test images.
        held_out: Share,
        /// Seed of all random numbers.
        seed: u64,
        /// Threads of libtorch. The same number gives the same result.
        threads: Threads,
        torch_device: TorchDevice,
        /// The number formats of convolutions.
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
            init: Init::Random,
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
            Preset::Fast => TrainSettings { epochs: EpochCount::of(30), init: Init::Whitened, ..reference },
            Preset::Best => TrainSettings {
                epochs: EpochCount::of(200),
                batch_size: BatchSize::of(128),
                learning_rate: LearningRate::of(0.1),
                init: Init::Whitened,
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
    /// Returns the augmentation of training images.
    ///
    /// # Errors
    /// Fails if the padding is larger than the images.
    pub fn augment(&self, data: &Data) -> Result<Augment, data::Error> {
        let TrainSettings { padding, border, cutout, no_flip, .. } = *self;
        Augment { padding, border, flip: !no_flip, cutout }.checked(data.train.shape)
    }

    /// Returns the indices of the training images that weights are trained on, and of those that are held out.
    ///
    /// # Errors
    /// Fails if images are to be held out, and either part would be empty.
    pub(super) fn split(&self, data: &Data) -> Result<(Vec<usize>, Vec<usize>), data::Error> {
        match self.held_out.get() {
            0.0 => Ok((data.train.indices(), vec![])),
            share => data::split(&data.train, &data.train.indices(), share, self.seed),
        }
    }

    /// Checks that the settings fit the data and this machine.
    ///
    /// # Errors
    /// Fails if the padding is larger than the images, if no image would be trained on, or if there is no such processor.
    pub fn check(&self, data: &Data) -> Result<(), TrainError> {
        self.augment(data)?;
        self.split(data)?;
        self.torch_device.resolve().map(drop)
    }

    /// Returns the flags that differ from their defaults although a training without a teacher does not use them.
    pub fn unused_without_teacher(&self) -> Vec<&'static str> {
        let usual = TrainSettings::default();
        let flags = [
            ("--teacher-weight", self.teacher_weight == usual.teacher_weight),
            ("--temperature", self.temperature == usual.temperature),
        ];
        flags.into_iter().filter(|(_, same)| !same).map(|(flag, _)| flag).collect()
    }

    /// Returns the learning rate at a step.
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

/// The most steps over which the learning rate of a cosine rises. It never rises for longer than an epoch.
pub(super) const MOST_WARMUP: usize = 500;
