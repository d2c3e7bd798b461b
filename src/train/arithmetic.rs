//! The number formats in which convolutions are trained.

use super::{Net, Norm, Placement};
use crate::artifact::{self, ArtifactError};
use crate::named::named;
use crate::record::{Float, Floats};
use nas_exporters::{Graph, Op, Shape};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::OnceLock;
use std::time::Instant;
use tch::{Device, Kind, Tensor};

/// How a training chooses between 32-bit floats and bfloat16.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arithmetic {
    /// bf16 for those kinds of convolution for which a measurement shows that it is faster and correct.
    #[default]
    Auto,
    /// 32-bit floats throughout.
    Fp32,
    /// bf16 for all convolutions.
    Bf16,
}

named!(Arithmetic, "an arithmetic": "auto" = Auto, "fp32" = Fp32, "bf16" = Bf16);

impl Arithmetic {
    /// Returns the number formats for the convolutions of a training. What `Auto` decides is kept in the file
    /// `decided`, so that a training resumes with it.
    ///
    /// # Errors
    /// Fails if the file is damaged or cannot be written.
    pub fn resolve(self, decided: &Path, device: Device) -> Result<Floats, ArtifactError> {
        if self != Arithmetic::Auto {
            return Ok(self.decide(device));
        }
        let floats = if decided.is_file() {
            artifact::read_json(decided, "the same command")?
        } else {
            let floats = self.decide(device);
            artifact::write_json(decided, &floats)?;
            floats
        };
        log::info!("number formats of convolutions: {floats}; --arithmetic changes them");
        Ok(floats)
    }

    /// Returns the number formats for convolutions. `Auto` measures each processor once per process, with the number of
    /// libtorch threads that is set at that time.
    pub fn decide(self, device: Device) -> Floats {
        static ON_CPU: OnceLock<Floats> = OnceLock::new();
        static ON_GPU: OnceLock<Floats> = OnceLock::new();
        let measured = if device == Device::Cpu { &ON_CPU } else { &ON_GPU };
        match self {
            Arithmetic::Auto => *measured.get_or_init(|| measure(device)),
            Arithmetic::Fp32 => Floats::default(),
            Arithmetic::Bf16 => Floats { dense: Float::Bf16, pointwise: Float::Bf16, depthwise: Float::Bf16 },
        }
    }
}

/// How many times faster bf16 must be, casts included. The margin is wide enough that a busy machine decides no
/// differently.
const FASTER: f64 = 1.4;
/// Timings of each format. The fastest counts, since other programs only ever slow one down.
const TIMINGS: usize = 5;
/// The relative difference of tensors (L2) that rounding to 8 bits may cause.
const ROUNDING: f64 = 1.0 / 64.0;

fn measure(device: Device) -> Floats {
    let conv =
        |kernel, channels: usize, groups| Op::Conv2d { out_channels: channels, kernel, stride: 1, groups, bias: false };
    let float = |op: Op, bf16: Floats, kernels: &[i64]| {
        let depthwise = matches!(op, Op::Conv2d { groups, .. } if groups > 1);
        let faster = is_faster(op, bf16, device) && kernels.iter().all(|&kernel| agrees(kernel, depthwise, device));
        if faster { Float::Bf16 } else { Float::Fp32 }
    };
    let fp32 = Floats::default();
    Floats {
        dense: float(conv(3, CHANNELS, 1), Floats { dense: Float::Bf16, ..fp32 }, &[3, 5, 7]),
        pointwise: float(conv(1, CHANNELS, 1), Floats { pointwise: Float::Bf16, ..fp32 }, &[1]),
        depthwise: float(conv(3, CHANNELS, CHANNELS), Floats { depthwise: Float::Bf16, ..fp32 }, &[3, 5, 7]),
    }
}

/// Channels, side and images of the convolutions that are timed. They are like those in the middle of a network for
/// small images.
const CHANNELS: usize = 64;
const SIZE: usize = 16;
const IMAGES: i64 = 32;

/// Returns whether convolution, batch norm and ReLU train faster with `bf16`.
fn is_faster(conv: Op, bf16: Floats, device: Device) -> bool {
    let mut graph = Graph::new(Shape::new(CHANNELS, SIZE, SIZE));
    let x = graph.add("conv", conv, &[graph.input()]);
    let x = graph.add("bn", Op::BatchNorm, &[x]);
    graph.add("relu", Op::Relu, &[x]);
    let x = super::net::channels_last(&numbers(&[IMAGES, CHANNELS as i64, SIZE as i64, SIZE as i64])).to_device(device);
    let net = |floats| Net::new(graph.clone(), Placement { floats, device });
    let nets = [net(Floats::default()), net(bf16)];
    let seconds = |net: &Net| {
        let start = Instant::now();
        let x = x.detach().set_requires_grad(true);
        net.forward(&x, Norm::Batch).to_kind(Kind::Float).sum(Kind::Float).backward();
        // A GPU computes asynchronously. Reading a result waits for it.
        let _ = x.grad().sum(Kind::Float).double_value(&[]);
        start.elapsed().as_secs_f64()
    };
    let mut fastest = [f64::INFINITY; 2];
    for round in 0..=TIMINGS {
        for (net, fastest) in nets.iter().zip(&mut fastest) {
            *fastest = fastest.min(seconds(net));
        }
        // CPUs without bf16 emulate it, which is slow. The first round does not count, since it also compiles kernels.
        if round == 1 && fastest[1] > 4.0 * fastest[0] {
            return false;
        }
    }
    fastest[0] >= FASTER * fastest[1]
}

/// Returns whether a convolution and its gradients are the same in bf16 as in 32 bits, apart from rounding. Some
/// versions of libtorch compute wrong ones (PyTorch issue 163347).
fn agrees(kernel: i64, depthwise: bool, device: Device) -> bool {
    let channels = 32;
    let groups = if depthwise { channels } else { 1 };
    let (x, weight) = (numbers(&[4, channels, 9, 9]), numbers(&[channels, channels / groups, kernel, kernel]));
    let (x, weight) =
        (super::net::channels_last(&x).to_device(device), super::net::channels_last(&weight).to_device(device));
    let run = |kind: Kind, stride: i64| {
        let [x, weight] = [&x, &weight].map(|t| t.detach().set_requires_grad(true));
        let y = x.to_kind(kind).conv2d(
            &weight.to_kind(kind),
            None::<&Tensor>,
            [stride; 2],
            [kernel / 2; 2],
            [1, 1],
            groups,
        );
        let y = y.to_kind(Kind::Float);
        let slopes = numbers(&y.size()).to_device(device);
        (&y * slopes).sum(Kind::Float).backward();
        [y.detach(), x.grad(), weight.grad()]
    };
    [1, 2].into_iter().all(|stride| {
        let (exact, rounded) = (run(Kind::Float, stride), run(Kind::BFloat16, stride));
        exact.iter().zip(&rounded).all(|(exact, rounded)| {
            let difference = (exact - rounded).norm().double_value(&[]) / exact.norm().double_value(&[]);
            difference <= ROUNDING
        })
    })
}

/// Returns numbers between −1 and 1. They do not come from libtorch's generator, which initialises what is trained.
fn numbers(size: &[i64]) -> Tensor {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let values: Vec<f32> = (0..size.iter().product()).map(|_| rng.random_range(-1.0..1.0)).collect();
    Tensor::from_slice(&values).view(size)
}
