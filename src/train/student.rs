use super::checkpoint::write_tensors;
use super::epochs::{At, Metrics, Task};
use super::{Buffers, Net, Norm, Sgd, Teacher, TrainError, TrainSettings, accuracy, correct, tensors};
use crate::bounded::Share;
use crate::data::{Batch, Batches};
use crate::record::TrainEpoch;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use statrs::distribution::{Beta, ContinuousCDF};
use std::path::PathBuf;
use tch::{Kind, Reduction, Tensor};

/// A net that is trained from scratch.
pub(super) struct Student<'a> {
    net: Net,
    buffers: Buffers,
    /// The moving average of each buffer, if there is one.
    average: Vec<Tensor>,
    sgd: Sgd,
    settings: &'a TrainSettings,
    teacher: Option<&'a Teacher>,
    shown: Shown<'a>,
    /// The highest accuracy on the held-out images so far.
    best: Tensor,
}

/// The images on which the accuracy of each epoch is measured.
#[derive(Clone)]
pub(super) enum Shown<'a> {
    /// Test images. Nothing is chosen by their accuracy.
    Test(Batches<'a>),
    /// Held-out images. The weights of the best epoch are written to a file. Test images are used once, after the last
    /// epoch.
    HeldOut { images: Batches<'a>, test: Option<Batches<'a>>, best: Option<PathBuf> },
}

impl<'a> Student<'a> {
    pub fn new(net: Net, settings: &'a TrainSettings, teacher: Option<&'a Teacher>, shown: Shown<'a>) -> Student<'a> {
        let buffers = Buffers::of(&net);
        let sgd = Sgd::new(buffers.trained(settings.weight_decay), settings.momentum.get());
        let average = match settings.ema.get() > 0.0 {
            true => buffers.all().into_iter().map(Tensor::copy).collect(),
            false => vec![],
        };
        Student { net, buffers, average, sgd, settings, teacher, shown, best: Tensor::from(-1f64) }
    }

    /// Returns the net, with the weights that were tested.
    pub fn net(self) -> Net {
        self.swap();
        self.net
    }

    /// Exchanges the weights with their average, if there is one.
    fn swap(&self) {
        let _guard = tch::no_grad_guard();
        for (average, buffer) in self.average.iter().zip(self.buffers.all()) {
            let weights = buffer.copy();
            buffer.shallow_clone().copy_(average);
            average.shallow_clone().copy_(&weights);
        }
    }

    /// Moves the average towards the weights. It moves further in the first steps, since it starts at untrained
    /// weights.
    fn follow(&mut self, at: At) {
        let _guard = tch::no_grad_guard();
        let steps = at.done() as f64;
        let keeps = self.settings.ema.get().min((1.0 + steps) / (10.0 + steps));
        for (average, buffer) in self.average.iter_mut().zip(self.buffers.all()) {
            let _ = average.lerp_(buffer, 1.0 - keeps);
        }
    }

    /// Returns the loss: the distance from the labels and from the teacher's answers, N×classes.
    fn loss(&self, logits: &Tensor, labels: &Tensor, answers: Option<&Tensor>) -> Tensor {
        let smoothing = self.settings.label_smoothing.get();
        let of_labels = logits.cross_entropy_loss(labels, None::<&Tensor>, Reduction::Mean, -100, smoothing);
        let Some(answers) = answers else { return of_labels };
        let weight = self.settings.teacher_weight.get();
        of_labels * (1.0 - weight) + self.divergence(logits, answers) * weight
    }

    /// Returns the divergence of the student's probabilities from the teacher's, both softened (Hinton et al. 2015,
    /// arXiv 1503.02531, section 2).
    fn divergence(&self, logits: &Tensor, answers: &Tensor) -> Tensor {
        let temperature = self.settings.temperature.get();
        let soft = |logits: &Tensor| (logits / temperature).log_softmax(-1, Kind::Float);
        let images = logits.size()[0] as f64;
        soft(logits).kl_div(&soft(answers), Reduction::Sum, true) * (temperature * temperature / images)
    }

    /// Returns the share that images keep if they are blended with others in a step.
    fn blend(&self, at: At) -> Option<f64> {
        let mixup = self.settings.mixup.get();
        let beta = Beta::new(mixup, mixup).ok()?;
        let mut rng = ChaCha8Rng::seed_from_u64(self.settings.seed);
        rng.set_stream(u64::MAX - 2 - at.done() as u64);
        Some(beta.inverse_cdf(rng.random()))
    }

    /// Returns the accuracies after an epoch, on test images and on held-out images.
    fn accuracies(&self, at: At) -> Result<(Option<Share>, Option<Share>), TrainError> {
        let (images, test, best) = match &self.shown {
            Shown::Test(images) => return Ok((Some(accuracy(&self.net, *images)), None)),
            Shown::HeldOut { images, test, best } => (images, test, best),
        };
        let held_out = accuracy(&self.net, *images);
        if let (Some(path), true) = (best, held_out.get() > self.best.double_value(&[])) {
            write_tensors(path, &self.net.named())?;
            self.best.shallow_clone().copy_(&Tensor::from(held_out.get()));
        }
        let test = test.filter(|_| at.epoch == self.settings.epochs.get());
        Ok((test.map(|test| accuracy(&self.net, test)), Some(held_out)))
    }
}

impl Task for Student<'_> {
    type Row = TrainEpoch;

    fn state(&self) -> Vec<(String, Tensor)> {
        let average = self.average.iter().enumerate().map(|(i, t)| (format!("average.{i}"), t.shallow_clone()));
        let best = [("best".to_string(), self.best.shallow_clone())];
        self.net.named().into_iter().chain(self.sgd.state()).chain(average).chain(best).collect()
    }

    fn step(&mut self, at: At, batch: &Batch, metrics: &mut Metrics) {
        let (images, labels) = tensors(batch, self.net.graph().input_shape(), self.net.device());
        let answers = self.teacher.map(|teacher| teacher.answers(batch));
        let (loss, logits) = match self.blend(at) {
            None => {
                let logits = self.net.forward(&images, Norm::TRAIN);
                (self.loss(&logits, &labels, answers.as_ref()), logits)
            }
            Some(share) => {
                let logits = self.net.forward(&(&images * share + images.flip([0]) * (1.0 - share)), Norm::TRAIN);
                let others = answers.as_ref().map(|answers| answers.flip([0]));
                let loss = self.loss(&logits, &labels, answers.as_ref()) * share;
                (loss + self.loss(&logits, &labels.flip([0]), others.as_ref()) * (1.0 - share), logits)
            }
        };
        let mut grads = Buffers::gradients(&self.net, &loss);
        if self.settings.clip.get() > 0.0 {
            grads = super::clipped(grads, self.settings.clip.get());
        }
        self.sgd.step_along(&grads, self.settings.learning_rate_at(at));
        self.follow(at);
        metrics.train.add(loss.double_value(&[]), correct(&logits, &labels), batch.labels.len());
    }

    fn row(&self, at: At, metrics: &Metrics, seconds: f64) -> Result<TrainEpoch, TrainError> {
        self.swap();
        let accuracies = self.accuracies(at);
        self.swap();
        let (test_accuracy, held_out_accuracy) = accuracies?;
        Ok(TrainEpoch {
            epoch: at.epoch,
            learning_rate: self.settings.learning_rate_at(at),
            train_loss: metrics.train.mean_loss().unwrap_or_default(),
            train_accuracy: metrics.train.accuracy().unwrap_or(Share::of(0.0)),
            test_accuracy,
            held_out_accuracy,
            seconds,
        })
    }

    fn describe(row: &TrainEpoch) -> String {
        let accuracies = [("test", row.test_accuracy), ("held-out", row.held_out_accuracy)].into_iter();
        let shown = accuracies.filter_map(|(of, share)| Some(format!(", {of} {:.1} %", 100.0 * share?.get())));
        format!("loss {:.3}{}", row.train_loss, shown.collect::<String>())
    }
}
