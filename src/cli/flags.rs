//! Flags that several verbs share, and the settings that they stand for.

use crate::bounded::{Classes, Threads};
use crate::data::DataSpec;
use crate::device::Timeout;
use crate::run::{BoardSettings, Images, MeasureSettings, Reach};
use nas_exporters::{Precision, Shape};
use nas_probe::Runtime;
use std::path::PathBuf;

/// Where and how networks are measured.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Device")]
pub struct MeasureFlags {
    /// Device: a name that `nas devices` lists, or a TOML file
    #[arg(long, default_value = "host")]
    device: String,
    /// Inference runtime, tract or ort; may be repeated [default: those of the device]
    #[arg(long = "runtime")]
    runtimes: Vec<Runtime>,
    /// Threads that the runtime uses for an inference on the device; a latency table is for one number of threads
    #[arg(long, default_value_t = Threads::of(1))]
    threads: Threads,
    /// Folder of the latency tables
    #[arg(long, default_value = "profiles")]
    profiles: PathBuf,
    /// Use this latency table instead of the one of the device in --profiles
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
}

impl MeasureFlags {
    pub fn settings(self) -> MeasureSettings {
        let MeasureFlags { device, runtimes, threads, profiles, table } = self;
        let (precision, allow_foreign_table) = (Precision::Fp32, false);
        MeasureSettings { device, runtimes, threads, precision, profiles, table, allow_foreign_table }
    }
}

/// Where and how networks are measured, and whose latency tables predict them.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Device")]
pub struct PredictFlags {
    #[command(flatten)]
    measure: MeasureFlags,
    /// Use a latency table of another machine, runtime version or set of cores; the report mentions it
    #[arg(long)]
    allow_foreign_table: bool,
}

impl PredictFlags {
    pub fn settings(self) -> MeasureSettings {
        MeasureSettings { allow_foreign_table: self.allow_foreign_table, ..self.measure.settings() }
    }
}

/// Which boards are used for measuring, and how they are set up.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Device")]
pub struct BoardFlags {
    /// Pin the probe to these cores, such as --pin=2,3; without a list, to the cores that the device file names
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pin: Option<Cores>,
    /// Set this scaling governor while measuring, and restore the old one afterwards
    #[arg(long, value_name = "performance")]
    governor: Option<String>,
    /// How long loading a model, its first inference, and a measurement beyond its planned time may each take
    /// [default: `timeout` of sites.toml or 60s; 120s on this machine]
    #[arg(long, value_name = "DURATION")]
    timeout: Option<Timeout>,
    #[command(flatten)]
    reach: ReachFlags,
}

impl BoardFlags {
    pub fn settings(self) -> BoardSettings {
        let BoardFlags { pin, governor, timeout, reach } = self;
        BoardSettings { pin: pin.map(|Cores(cores)| cores), governor, timeout, reach: reach.settings() }
    }
}

/// How a board is reached.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Device")]
pub struct ReachFlags {
    /// Address of the board, as user@host:port or a Host of ~/.ssh/config; may be repeated for several boards of one
    /// kind [default: the address in sites.toml or ~/.ssh/config]
    #[arg(long, value_name = "USER@HOST")]
    ssh: Vec<String>,
    /// Accept a host key that is not in known_hosts, and add it there
    #[arg(long)]
    accept_new_host_key: bool,
}

impl ReachFlags {
    pub fn settings(self) -> Reach {
        Reach { ssh: self.ssh, accept_new_host_key: self.accept_new_host_key }
    }
}

/// Core numbers, such as `2,3`.
#[derive(Clone, Debug)]
struct Cores(Vec<usize>);

impl std::str::FromStr for Cores {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let cores = s.split(',').map(str::trim).filter(|core| !core.is_empty());
        let core = |core: &str| {
            core.parse().map_err(|_| format!("`{core}` is not the number of a core; write for example 2,3"))
        };
        Ok(Cores(cores.map(core).collect::<Result<_, _>>()?))
    }
}

/// Which networks to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct SpaceFlags {
    /// Search space: a built-in name (chain, chain_small, residual, resnet, pooled, mobile, mobile_224, proxylessnas)
    /// or a TOML file
    #[arg(long, default_value = "chain")]
    pub space: String,
    /// Data set that gives the image shape and the classes: embedded, cifar10:DIR, idx:DIR, folder:DIR,
    /// folder:DIR@64 (scaled to 64x64), or only DIR
    #[arg(long, default_value = "embedded")]
    data: DataSpec,
    /// Image shape, such as 3x32x32, instead of that of a data set
    #[arg(long, requires = "classes")]
    input: Option<Shape>,
    /// Number of classes, with --input
    #[arg(long, requires = "input")]
    classes: Option<Classes>,
}

impl SpaceFlags {
    pub fn images(&self) -> Images {
        match (self.input, self.classes) {
            (Some(input), Some(classes)) => Images::Shape { input, classes: classes.get() },
            _ => Images::Data(self.data.clone()),
        }
    }
}

#[cfg(feature = "torch")]
use crate::bounded::{
    BatchSize, EpochCount, HeldOut, ImageShare, LearningRate, Momentum, NetworkCount, Share, Temperature, Weight,
};
#[cfg(feature = "torch")]
use crate::data::Border;
#[cfg(feature = "torch")]
use crate::train::{
    Arithmetic, Changes, Init, Preset, Schedule, TorchDevice, TrainSettings,
    search::{Algorithm, Components, SearchSettings},
};

/// Declares the flags of a training, each of which overrides a setting of the preset.
#[cfg(feature = "torch")]
macro_rules! train_flags {
    ({ $($(#[$doc:meta])* $name:ident: $kind:ty,)* } switches { $($(#[$switch_doc:meta])* $switch:ident,)* }) => {
        #[derive(Clone, Debug, clap::Args)]
        #[command(next_help_heading = "Training")]
        pub struct TrainFlags {
            /// Recipe that other flags change: reference, fast or best; docs/training.md describes each of them
            #[arg(long, default_value_t = Preset::default())]
            preset: Preset,
            $($(#[$doc])* #[arg(long)] $name: Option<$kind>,)*
            $($(#[$switch_doc])* #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")] $switch: Option<bool>,)*
            /// Threads on which libtorch trains on this machine; results are reproducible only with the same
            /// number [default: 1]
            #[arg(id = "torch_threads", long = "torch-threads", value_name = "TORCH_THREADS")]
            threads: Option<Threads>,
        }

        impl TrainFlags {
            pub fn settings(self) -> TrainSettings {
                let TrainFlags { preset, $($name,)* $($switch,)* threads } = self;
                Changes { preset, $($name,)* $($switch,)* threads }.into()
            }
        }
    };
}

#[cfg(feature = "torch")]
train_flags!({
    /// Passes over the training images
    epochs: EpochCount,
    /// Images per step
    batch_size: BatchSize,
    /// Peak learning rate; usual values are 0.01 to 0.1, or less if the training diverges
    learning_rate: LearningRate,
    /// How the learning rate changes: cosine, or one_cycle (linear rise in the first fifth, linear fall)
    schedule: Schedule,
    /// How k×k convolutions start: random, or whitened (one that reads the images whitens their patches, others copy
    /// their input); docs/training.md explains it
    init: Init,
    /// Momentum of SGD: the share of the last step that the next one keeps, which smooths the steps; usually 0.9
    momentum: Momentum,
    /// Weight decay: how strongly convolution and linear weights are pulled towards 0, against overfitting; usual
    /// values are 1e-5 to 1e-3, more for few images
    weight_decay: Weight,
    /// Share of the target that is spread over all classes, against overconfidence; usual values are 0 to 0.2
    label_smoothing: Share,
    /// Largest norm of the gradient; 0 for no limit
    clip: Weight,
    /// Decay of the exponential moving average of the weights, which is tested and exported in place of the weights. 0
    /// for no average; usual values are 0.99 to 0.9999
    ema: Momentum,
    /// Shift training images by up to this many pixels; no more than their size
    padding: usize,
    /// What fills the border of shifted images: mean (the mean colour) or mirrored
    border: Border,
    /// Cut a square with a side of this many pixels out of each training image; 0 for none
    cutout: usize,
    /// Blend training images in pairs, with a share drawn from Beta(MIXUP, MIXUP); 0 for none. It tends to harm very
    /// small networks
    mixup: Weight,
    /// Share of the loss that is the distance from the logits of --teacher
    teacher_weight: Share,
    /// Temperature at which logits are compared with those of --teacher
    temperature: Temperature,
    /// Share of the training images to hold out: the log shows the accuracy on them, best.safetensors has the weights
    /// of the best epoch, and test images are used only after the last epoch
    held_out: Share,
    /// Seed of all random numbers
    seed: u64,
    /// Processor that libtorch trains on: cpu, cuda, or auto for the first GPU that it can use
    torch_device: TorchDevice,
    /// Number format in which convolutions are trained: fp32, bf16, or auto, which measures which one is faster on this
    /// machine; everything else, and inference, is in fp32. Results are reproducible only with the same format
    arithmetic: Arithmetic,
} switches {
    /// Do not mirror training images; use this for digits and letters
    no_flip,
    /// Train on equally many images of each class, if some classes have few
    balanced,
});

/// Declares the flags of a search, one for each field of its settings, with its defaults.
#[cfg(feature = "torch")]
macro_rules! search_flags {
    ({ $($(#[$doc:meta])* $name:ident: $kind:ty,)* } switches { $($(#[$switch_doc:meta])* $switch:ident,)* }) => {
        #[derive(Clone, Debug, clap::Args)]
        #[command(next_help_heading = "Search")]
        pub struct SearchFlags {
            $($(#[$doc])* #[arg(long, default_value_t = SearchSettings::default().$name)] $name: $kind,)*
            $($(#[$switch_doc])* #[arg(long)] $switch: bool,)*
            /// Threads on which libtorch trains on this machine; results are reproducible only with the same number
            #[arg(id = "torch_threads", long = "torch-threads", value_name = "TORCH_THREADS")]
            #[arg(default_value_t = SearchSettings::default().threads)]
            threads: Threads,
        }

        impl SearchFlags {
            pub fn settings(self) -> SearchSettings {
                let SearchFlags { $($name,)* $($switch,)* threads } = self;
                SearchSettings { $($name,)* $($switch,)* threads }
            }
        }
    };
}

#[cfg(feature = "torch")]
search_flags!({
    /// How to search: random, surrogate, evolution, oneshot, gradient or mixture; docs/search.md compares them
    algorithm: Algorithm,
    /// Passes over the training split that train the supernet
    epochs: EpochCount,
    /// Number of epochs at the start in which mixture and gradient train only the weights; fewer than --epochs
    warmup_epochs: usize,
    /// Images per step
    batch_size: BatchSize,
    /// Share of the training images of each class to search with; fewer images make a search faster
    image_share: ImageShare,
    /// Share of these images to hold out, which no weights are trained on: oneshot, gradient and mixture compare
    /// networks by them
    held_out: HeldOut,
    /// Peak learning rate of the weights, which a cosine lowers to 0; usual values are 0.01 to 0.1
    learning_rate: LearningRate,
    /// Momentum of SGD: the share of the last step that the next one keeps, which smooths the steps; usually 0.9
    momentum: Momentum,
    /// Weight decay: how strongly convolution and linear weights are pulled towards 0, against overfitting; usual
    /// values are 1e-5 to 1e-3, more for few images
    weight_decay: Weight,
    /// Learning rate of alpha, the scores by which mixture and gradient choose; usual values are 3e-4 to 3e-2
    alpha_learning_rate: LearningRate,
    /// Weight decay of alpha: pulls the scores of a layer together, against an early decision; usual values are 0 to
    /// 1e-3
    alpha_weight_decay: Weight,
    /// λ, the weight of the limits in the loss of alpha: constant in mixture; in gradient, how much it grows in a step
    /// whose networks cost twice the limit
    latency_weight: Weight,
    /// Probability with which a step of mixture and gradient leaves out skip at first; it falls to 0
    skip_dropout: Share,
    /// End mixture and gradient when the best network has stayed the same for this many epochs; 0 for never
    patience: usize,
    /// Parts of the algorithm to use: sandwich, distillation, recalibration, sharing (all for oneshot) and reranking,
    /// separated by commas, or none
    components: Components,
    /// Number of networks to compare for each target: by the supernet in oneshot, by short training runs in surrogate,
    /// random and evolution
    candidates: NetworkCount,
    /// Number of best candidates to compare by short training runs
    finalists: NetworkCount,
    /// Passes over the training split in a short training run
    trial_epochs: EpochCount,
    /// Shift training images by up to this many pixels; no more than their size
    padding: usize,
    /// Seed of all random numbers
    seed: u64,
    /// Processor that libtorch trains on: cpu, cuda, or auto for the first GPU that it can use
    torch_device: TorchDevice,
    /// Number format in which convolutions are trained: fp32, bf16, or auto, which measures which one is faster on this
    /// machine; everything else, and inference, is in fp32. Results are reproducible only with the same format
    arithmetic: Arithmetic,
} switches {
    /// Do not mirror training images; use this for digits and letters
    no_flip,
    /// Use the second-order gradient of alpha, which accounts for how the weights respond to alpha; mixture only
    unrolled,
});
