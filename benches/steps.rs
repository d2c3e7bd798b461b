//! Times steps of the search on request, for `scripts/against-pytorch`: reads `mixture N` or `path N` from stdin, takes
//! N steps, and answers with a line of their milliseconds as JSON. One thread, batches of 64 images of 3×32×32. The
//! first argument is the arithmetic of convolutions.
#![allow(clippy::unwrap_used)]

use edge_nas::bounded::Threads;
use edge_nas::space::{Networks, SearchSpace};
use edge_nas::train::{Arithmetic, Gate, Placement, Sgd, Supernet, fix, weight_step};
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

/// The choices of the path: those of `PATH` of `scripts/against-pytorch`, between stem and head.
const PATH: [usize; 8] = [0, 0, 1, 2, 3, 0, 2, 0];

fn main() {
    // `cargo bench` passes `--bench`, and has nothing to ask.
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
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let (what, steps) = line.split_once(' ').unwrap();
        let step = |_| {
            let start = Instant::now();
            let probabilities: Vec<Tensor> = net.probabilities().iter().map(Tensor::detach).collect();
            let gate = if what == "path" { Gate::Path(&PATH) } else { Gate::Mixture(&probabilities) };
            let (loss, _) = weight_step(&net, gate, &mut sgd, (&images, &labels), 0.01);
            assert!(loss.double_value(&[]).is_finite());
            start.elapsed().as_secs_f64() * 1e3
        };
        let times: Vec<f64> = (0..steps.parse::<usize>().unwrap()).map(step).collect();
        println!("{}", serde_json::to_string(&times).unwrap());
    }
}
