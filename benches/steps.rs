//! Times training steps on request, for `scripts/against-pytorch`: reads lines such as `mixture N` from stdin, takes N
//! steps, and answers with a line of their durations in milliseconds, as JSON. It uses one thread and batches of 64
//! images of 3×32×32. The first argument is the arithmetic of convolutions. `mixture` and `path` are steps of a
//! supernet; `chain` and `mobilenet_v2` are steps of a network that is trained from scratch.
#![allow(clippy::unwrap_used)]

use edge_nas::bounded::{Threads, Weight, Width};
use edge_nas::record::Floats;
use edge_nas::space::{Baseline, Genotype, Network, Networks, SearchSpace};
use edge_nas::train::{Arithmetic, Buffers, Gate, Net, Norm, Placement, Sgd, Supernet, fix, weight_step};
use nas_exporters::Shape;
use std::time::Instant;
use tch::{Device, Kind, Tensor};

/// `SPACE` of `scripts/against-pytorch`.
const SPACE: &str = r#"
name = "steps"
candidates = ["conv_3x3", "conv_5x5", "sep_conv_3x3", "sep_conv_5x5", "skip", "zero", "avg_pool_3x3", "max_pool_3x3"]
layers = [
  { ops = ["conv_3x3"], channels = 32 },
  { channels = 32 },
  { channels = 32 },
  { channels = 64, stride = 2 },
  { channels = 64 },
  { channels = 128, stride = 2 },
  { channels = 128 },
]
"#;

/// The choices of the path between stem and head: those of `PATH` in `scripts/against-pytorch`.
const PATH: [usize; 8] = [0, 0, 1, 2, 3, 0, 2, 0];

fn main() {
    // `cargo bench` passes `--bench` and asks for nothing.
    let Some(Ok(arithmetic)) = std::env::args().nth(1).map(|arg| arg.parse::<Arithmetic>()) else { return };
    fix(Threads::of(1), 0);
    let space: SearchSpace = toml::from_str(SPACE).unwrap();
    let networks = Networks::new(space, Shape::new(3, 32, 32), [10]).unwrap();
    let floats = arithmetic.decide(Device::Cpu);
    let net = Supernet::new(&networks, Placement { floats, ..Placement::default() }, false);
    let mut sgd = Sgd::new(net.params().map(|(name, _, tensor)| (name.to_string(), tensor, 3e-4)), 0.9);
    let images = Tensor::randn([64, 32, 32, 3], (Kind::Float, Device::Cpu)).permute([0, 3, 1, 2]);
    let labels = Tensor::randint(10, [64], (Kind::Int64, Device::Cpu));
    eprintln!("edge-nas: convolutions in {floats}");
    let shape = Shape::new(3, 32, 32);
    let chain = Networks::new(SearchSpace::load("chain").unwrap(), shape, [10]).unwrap();
    let chain = Genotype::parse(chain, "conv_3x3:32,skip,conv_3x3:64,conv_3x3,conv_3x3:128,conv_3x3").unwrap();
    let sizes = Baseline { width: Width::of(0.5), input: shape, classes: 10 };
    let mut chain = Alone::new(&Network::Genotype(chain), floats);
    let mut mobilenet = Alone::new(&Network::MobilenetV2(sizes), floats);
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let (what, steps) = line.split_once(' ').unwrap();
        let mut step = |_| {
            let start = Instant::now();
            let batch = (&images, &labels);
            let loss = match what {
                "chain" => chain.step(batch),
                "mobilenet_v2" => mobilenet.step(batch),
                "path" => weight_step(&net, Gate::Path(&PATH), &mut sgd, batch, 0.01).0,
                _ => {
                    let probabilities: Vec<Tensor> = net.probabilities().iter().map(Tensor::detach).collect();
                    weight_step(&net, Gate::Mixture(&probabilities), &mut sgd, batch, 0.01).0
                }
            };
            assert!(loss.double_value(&[]).is_finite());
            start.elapsed().as_secs_f64() * 1e3
        };
        let times: Vec<f64> = (0..steps.parse::<usize>().unwrap()).map(&mut step).collect();
        println!("{}", serde_json::to_string(&times).unwrap());
    }
}

/// A network that is trained from scratch.
struct Alone {
    net: Net,
    sgd: Sgd,
}

impl Alone {
    fn new(network: &Network, floats: Floats) -> Alone {
        let net = Net::new(network.graph(), Placement { floats, ..Placement::default() });
        let sgd = Sgd::new(Buffers::of(&net).trained(Weight::of(5e-4)), 0.9);
        Alone { net, sgd }
    }

    fn step(&mut self, (images, labels): (&Tensor, &Tensor)) -> Tensor {
        let loss = self.net.forward(images, Norm::TRAIN).cross_entropy_for_logits(labels);
        self.sgd.step_along(&Buffers::gradients(&self.net, &loss), 0.01);
        loss
    }
}
