use super::TrainError;
use crate::bounded::{
    BatchSize, EpochCount, HeldOut, ImageShare, LearningRate, Momentum, NetworkCount, Share, Threads, Weight,
};
use crate::data::{self, Augment, Data};
use crate::named::named;
use crate::train::{Arithmetic, Preset, TorchDevice, TrainSettings};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// How a search finds networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// A supernet that computes the mean of all choices, weighted by softmax(alpha). Alpha learns on held-out images
    /// (DARTS, Liu et al. 2019, arXiv 1806.09055).
    Mixture,
    /// Like `mixture`, but each step computes a single path, which alpha samples with the Gumbel-softmax trick.
    /// Multipliers that grow while limits are exceeded enforce the limits (LightNAS, Luo et al. 2022, arXiv
    /// 2208.10658).
    Gradient,
    /// A supernet whose networks share weights, trained by sampled paths without a target. Networks within the limits
    /// are then scored on held-out images (Guo et al. 2020, arXiv 1904.00420; Yu et al. 2020, arXiv 2003.11142).
    Oneshot,
    /// Short training runs of networks that a model of the results so far predicts to be the best (Wen et al. 2020, arXiv
    /// 1912.00848). Here the model is linear, so its best network within the limits is found exactly.
    Surrogate,
    /// Random networks within the limits.
    Random,
    /// Mutations of the networks that learn fastest (Real et al. 2019, arXiv 1802.01548).
    Evolution,
}

/// A part of an algorithm that can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Component {
    /// `oneshot` trains the largest, the smallest and two random paths in each step, instead of one random path.
    Sandwich,
    /// In a sandwich, the other paths learn from the answers of the largest one.
    Distillation,
    /// `oneshot` computes the statistics of batch norm anew for each network that it scores.
    Recalibration,
    /// Ops of one family, such as convolutions of several kernel sizes, share their weights in `oneshot`.
    Sharing,
    /// The best networks are compared by training them from scratch for a short time.
    Reranking,
}

/// The components to use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Components(BTreeSet<Component>);

named!(Algorithm, "an algorithm": "mixture" = Mixture, "gradient" = Gradient, "oneshot" = Oneshot,
    "surrogate" = Surrogate, "random" = Random, "evolution" = Evolution);
named!(Component, "a component": "sandwich" = Sandwich, "distillation" = Distillation,
    "recalibration" = Recalibration, "sharing" = Sharing, "reranking" = Reranking);

impl Algorithm {
    /// Returns what the scores of the networks are.
    fn scores(self) -> &'static str {
        match self {
            Algorithm::Mixture => "mixture: sum of the log-probabilities of the choices",
            Algorithm::Gradient => "gradient: sum of the log-probabilities of the choices",
            Algorithm::Oneshot => {
                "oneshot: minus the cross-entropy on held-out images with the weights of the supernet"
            }
            Algorithm::Surrogate => {
                "surrogate: minus the training loss of the first epoch; without limits, what a linear model of it predicts"
            }
            Algorithm::Random => "random: none",
            Algorithm::Evolution => "evolution: minus the training loss of the first epoch",
        }
    }
}

impl Components {
    pub fn has(&self, component: Component) -> bool {
        self.0.contains(&component)
    }
}

impl FromIterator<Component> for Components {
    fn from_iter<T: IntoIterator<Item = Component>>(components: T) -> Components {
        Components(components.into_iter().collect())
    }
}

impl fmt::Display for Components {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.0.iter().map(Component::to_string).collect();
        f.write_str(if names.is_empty() { "none".into() } else { names.join(",") }.as_str())
    }
}

impl FromStr for Components {
    type Err = String;

    /// Parses names that are separated by commas, or `none`.
    fn from_str(text: &str) -> Result<Components, String> {
        match text {
            "none" => Ok(Components(BTreeSet::new())),
            names => names.split(',').map(|name| name.trim().parse()).collect(),
        }
    }
}

/// How to search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SearchSettings {
    pub algorithm: Algorithm,
    /// Passes over the training split that train the supernet.
    pub epochs: EpochCount,
    /// The number of these epochs, at the start, in which `mixture` and `gradient` train only weights; fewer than all.
    pub warmup_epochs: usize,
    /// Images per step.
    pub batch_size: BatchSize,
    /// Share of the training images of each class that the search uses. Fewer images make it faster.
    pub image_share: ImageShare,
    /// Share of these images that is held out: no weights are trained on them. `oneshot`, `gradient` and
    /// `mixture` compare networks by these images, and the accuracy of short training runs is shown for them.
    pub held_out: HeldOut,
    /// Peak learning rate of the weights.
    pub learning_rate: LearningRate,
    pub momentum: Momentum,
    pub weight_decay: Weight,
    pub alpha_learning_rate: LearningRate,
    pub alpha_weight_decay: Weight,
    /// λ, the weight of the limits in the loss of alpha. In `mixture`, it is constant. In `gradient`, this is how much
    /// λ grows in a step whose networks cost twice the limit.
    pub latency_weight: Weight,
    /// The probability with which a step of `mixture` and `gradient` leaves out `skip` at first. It falls to 0.
    pub skip_dropout: Share,
    /// `mixture` and `gradient` end when the best network has stayed the same for this many epochs; 0 for never.
    pub patience: usize,
    /// Whether the gradient of alpha takes into account how the weights follow alpha (second order). Only for
    /// `mixture`.
    pub unrolled: bool,
    /// Parts of the algorithm to use.
    pub components: Components,
    /// The number of networks that are compared for each target: with the weights of the supernet in `oneshot`, and by
    /// short training runs in `surrogate`, `random` and `evolution`.
    pub candidates: NetworkCount,
    /// The number of best candidates that are then compared by short training runs.
    pub finalists: NetworkCount,
    /// Passes over the training split in a short training.
    pub trial_epochs: EpochCount,
    /// The largest shift of training images, in pixels.
    pub padding: usize,
    /// Do not mirror training images.
    pub no_flip: bool,
    /// Seed of all random numbers.
    pub seed: u64,
    /// Threads of libtorch. The same number gives the same result.
    pub threads: Threads,
    pub torch_device: TorchDevice,
    /// The number formats of convolutions.
    pub arithmetic: Arithmetic,
}

impl Default for SearchSettings {
    fn default() -> Self {
        SearchSettings {
            algorithm: Algorithm::Random,
            epochs: EpochCount::of(10),
            warmup_epochs: 1,
            batch_size: BatchSize::of(64),
            image_share: ImageShare::of(1.0),
            held_out: HeldOut::of(0.1),
            learning_rate: LearningRate::of(0.05),
            momentum: Momentum::of(0.9),
            weight_decay: Weight::of(3e-4),
            alpha_learning_rate: LearningRate::of(3e-3),
            alpha_weight_decay: Weight::of(1e-3),
            latency_weight: Weight::of(0.5),
            skip_dropout: Share::of(0.0),
            patience: 0,
            unrolled: false,
            components: [Component::Recalibration, Component::Sharing, Component::Reranking].into_iter().collect(),
            candidates: NetworkCount::of(20),
            finalists: NetworkCount::of(8),
            trial_epochs: EpochCount::of(4),
            padding: 4,
            no_flip: false,
            seed: 0,
            threads: Threads::of(1),
            torch_device: TorchDevice::Auto,
            arithmetic: Arithmetic::default(),
        }
    }
}

impl SearchSettings {
    /// Returns what the scores of the networks are, and how one of the networks is chosen.
    pub fn choice(&self) -> String {
        let chosen = match (self.algorithm, self.components.has(Component::Reranking)) {
            (Algorithm::Random, true) => "short training runs compare all networks",
            (Algorithm::Random, false) => "the first network is taken",
            (_, true) => "short training runs compare the networks with the best scores",
            (_, false) => "the best score is taken",
        };
        format!("{}; {chosen}", self.algorithm.scores())
    }

    /// Returns the settings with the defaults of those that no supernet depends on, so that it is not trained again
    /// when they change.
    pub(super) fn of_supernet(&self) -> SearchSettings {
        let SearchSettings { candidates, finalists, trial_epochs, .. } = SearchSettings::default();
        let later = [Component::Recalibration, Component::Reranking];
        let components = self.components.0.iter().copied().filter(|component| !later.contains(component)).collect();
        SearchSettings { candidates, finalists, trial_epochs, components, ..self.clone() }
    }

    /// Checks that the epochs after the warm-up train alpha.
    ///
    /// # Errors
    /// Fails if the warm-up leaves no epoch that trains alpha.
    pub fn check(&self) -> Result<(), TrainError> {
        let (epochs, warmup) = (self.epochs.get(), self.warmup_epochs);
        let alpha = matches!(self.algorithm, Algorithm::Mixture | Algorithm::Gradient);
        if warmup < epochs || !alpha { Ok(()) } else { Err(TrainError::Untrained { epochs, warmup }) }
    }

    /// Returns the indices of the training images that weights are trained on, and of those that are held out.
    ///
    /// # Errors
    /// Fails if either part would be empty.
    pub(super) fn split(&self, data: &Data) -> Result<(Vec<usize>, Vec<usize>), data::Error> {
        let mut images = data.train.indices();
        if self.image_share.get() < 1.0 {
            (_, images) = data::split(&data.train, &images, self.image_share.get(), self.seed)?;
        }
        data::split(&data.train, &images, self.held_out.get(), self.seed)
    }

    /// Checks that the settings fit the data and this machine.
    ///
    /// # Errors
    /// Fails if the padding is larger than the images, if no image would be trained on or held out, or if there is no
    /// such processor.
    pub fn check_with(&self, data: &Data) -> Result<(), TrainError> {
        self.check()?;
        self.augment(data)?;
        self.split(data)?;
        self.torch_device.resolve().map(drop)
    }

    /// Returns the flags that differ from their defaults although the algorithm does not use them.
    pub fn unused(&self) -> Vec<&'static str> {
        let usual = SearchSettings::default();
        let mixture = self.algorithm == Algorithm::Mixture;
        let alpha = mixture || self.algorithm == Algorithm::Gradient;
        let oneshot = self.algorithm == Algorithm::Oneshot;
        let supernet = alpha || oneshot;
        let flags = [
            ("--epochs", supernet, self.epochs == usual.epochs),
            ("--warmup-epochs", alpha, self.warmup_epochs == usual.warmup_epochs),
            ("--alpha-learning-rate", alpha, self.alpha_learning_rate == usual.alpha_learning_rate),
            ("--alpha-weight-decay", alpha, self.alpha_weight_decay == usual.alpha_weight_decay),
            ("--latency-weight", alpha, self.latency_weight == usual.latency_weight),
            ("--skip-dropout", alpha, self.skip_dropout == usual.skip_dropout),
            ("--patience", alpha, self.patience == usual.patience),
            ("--unrolled", mixture, self.unrolled == usual.unrolled),
            ("--candidates", !alpha, self.candidates == usual.candidates),
            ("--finalists", self.algorithm != Algorithm::Random, self.finalists == usual.finalists),
            ("--trial-epochs", self.trains_networks(), self.trial_epochs == usual.trial_epochs),
            ("--components sandwich", oneshot, !self.components.has(Component::Sandwich)),
            (
                "--components distillation",
                oneshot && self.components.has(Component::Sandwich),
                !self.components.has(Component::Distillation),
            ),
        ];
        flags.into_iter().filter(|(_, used, same)| !used && !same).map(|(flag, ..)| flag).collect()
    }

    /// Returns whether single networks are trained from scratch.
    fn trains_networks(&self) -> bool {
        let without_supernet = matches!(self.algorithm, Algorithm::Surrogate | Algorithm::Evolution);
        without_supernet || self.components.has(Component::Reranking)
    }

    /// Returns the augmentation of training images.
    ///
    /// # Errors
    /// Fails if the padding is larger than the images.
    pub fn augment(&self, data: &Data) -> Result<Augment, data::Error> {
        let SearchSettings { padding, no_flip, .. } = *self;
        Augment { padding, flip: !no_flip, ..Augment::default() }.checked(data.train.shape)
    }

    /// Returns the settings of a short training, which follows the default recipe of `nas train`.
    pub(super) fn trial(&self) -> TrainSettings {
        let SearchSettings { batch_size, learning_rate, momentum, weight_decay, padding, no_flip, seed, .. } = *self;
        let SearchSettings { trial_epochs: epochs, threads, torch_device, arithmetic, .. } = *self;
        TrainSettings {
            epochs,
            batch_size,
            learning_rate,
            momentum,
            weight_decay,
            padding,
            no_flip,
            seed,
            threads,
            torch_device,
            arithmetic,
            ..Preset::Fast.settings()
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::data::DataSpec;
    use std::collections::BTreeSet;

    #[test]
    fn a_search_uses_a_share_of_the_images_of_each_class() {
        let data = Data::load(&DataSpec::Embedded).unwrap();
        let split = |share: f64, seed| {
            let image_share = ImageShare::of(share);
            SearchSettings { image_share, seed, ..SearchSettings::default() }.split(&data).unwrap()
        };
        let (train, held_out) = split(0.2, 0);
        let used: BTreeSet<usize> = train.iter().chain(&held_out).copied().collect();
        assert_eq!((train.len(), held_out.len(), used.len()), (1440, 160, 1600));
        for class in 0..10 {
            assert_eq!(used.iter().filter(|&&i| data.train.label(i) == class).count(), 160);
        }
        assert_eq!(split(0.2, 0), (train.clone(), held_out));
        assert_ne!(split(0.2, 1).0, train);
        assert_eq!(split(1.0, 0).0.len(), 7200);
    }
}
