//! What training rests on: nets in training mode, the supernet, and the optimizers.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used)]

#[path = "table/mod.rs"]
mod table;

use edge_nas::latency::{Images, Latency, LatencyModel, Networks};
use edge_nas::space::{LayerSpec, SearchSpace};
use edge_nas::torch::{Adam, LatencyTerm, MixedOp, Net, Sgd, Supernet, alpha_step, cosine, weight_step};
use nas_exporters::{Graph, Op, Role, Shape, Weights};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

fn values(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.detach().to_kind(Kind::Double).contiguous().view(-1)).unwrap()
}

fn assert_close(a: &Tensor, b: &Tensor, tolerance: f64) {
    assert_eq!(a.size(), b.size());
    let differences = values(a).into_iter().zip(values(b)).map(|(a, b)| (a - b).abs());
    let worst = differences.max_by(f64::total_cmp).unwrap();
    assert!(worst <= tolerance, "{worst:e}");
}

/// N×C×H×W of numbers spread over [-2, 2], the same every time.
fn images(batch: usize, shape: Shape) -> Tensor {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let values: Vec<f32> = (0..batch * shape.len()).map(|_| rng.random_range(-2.0..2.0)).collect();
    let size = [batch, shape.channels, shape.height, shape.width].map(|n| n as i64);
    Tensor::from_slice(&values).view(size)
}

fn small_net() -> Net {
    let mut g = Graph::new(Shape::new(2, 6, 5));
    let conv = Op::Conv2d { out_channels: 4, kernel: 3, stride: 2, groups: 2, bias: false };
    let x = g.add("conv", conv, &[g.input()]);
    let x = g.add("bn", Op::BatchNorm, &[x]);
    let x = g.add("relu", Op::Relu, &[x]);
    let x = g.add("avg", Op::AvgPool { kernel: 3, stride: 1 }, &[x]);
    let x = g.add("pool", Op::GlobalAvgPool, &[x]);
    g.add("linear", Op::Linear { out_features: 3 }, &[x]);
    let net = Net::new(g);
    net.load(&Weights::random(net.graph(), 0)).unwrap();
    net
}

#[test]
fn batch_norm_normalises_by_the_batch_and_keeps_running_statistics() {
    let mut g = Graph::new(Shape::new(2, 4, 4));
    g.add("bn", Op::BatchNorm, &[g.input()]);
    let net = Net::new(g);
    let param = |role| net.params().find(|(p, _)| p.role == role).unwrap().1;
    let x = images(8, net.graph().input_shape()) * 3.0 + 2.0;
    let (mean, var) = (
        x.mean_dim([0i64, 2, 3].as_slice(), false, Kind::Float),
        x.transpose(0, 1).reshape([2, -1]).var_dim([1i64].as_slice(), true, false),
    );

    let y = net.forward(&x, true);
    assert_close(&y.mean_dim([0i64, 2, 3].as_slice(), false, Kind::Float), &mean.zeros_like(), 1e-5);
    assert_close(param(Role::RunningMean), &(&mean * 0.1), 1e-5);
    assert_close(param(Role::RunningVar), &(&var * 0.1 + 0.9), 1e-5);

    let before = (values(param(Role::RunningMean)), values(param(Role::RunningVar)));
    let (one, other) = (net.forward(&x, false), net.forward(&x.get(0).unsqueeze(0), false));
    assert_close(&one.get(0), &other.get(0), 1e-6);
    assert_eq!((values(param(Role::RunningMean)), values(param(Role::RunningVar))), before);
}

/// Along its gradient a function rises by the gradient's norm.
#[test]
fn gradients_are_those_of_finite_differences() {
    let net = small_net();
    let x = images(16, net.graph().input_shape());
    let labels = Tensor::arange(16, (Kind::Int64, tch::Device::Cpu)).remainder(3);
    let loss = || net.forward(&x, true).cross_entropy_for_logits(&labels);
    loss().backward();
    for (param, tensor) in net.trainable() {
        let direction = tensor.grad() / (tensor.grad().norm() + 1e-12);
        let slope = tensor.grad().norm().double_value(&[]);
        let at = |step: f64| {
            let _guard = tch::no_grad_guard();
            let _ = tensor.shallow_clone().g_add_(&(&direction * step));
            let value = loss().double_value(&[]);
            let _ = tensor.shallow_clone().g_sub_(&(&direction * step));
            value
        };
        let measured = (at(5e-3) - at(-5e-3)) / 1e-2;
        assert!((measured - slope).abs() < 0.02 * slope + 5e-4, "{}: {measured} and {slope}", param.name);
    }
}

#[test]
fn steps_bring_the_loss_down() {
    let net = small_net();
    let x = images(32, net.graph().input_shape());
    let labels =
        x.select(1, 0).mean_dim([1i64, 2].as_slice(), false, Kind::Float).gt(0.0).to_kind(Kind::Int64);
    let params = net.trainable().map(|(param, tensor)| (param.name.clone(), tensor, 0.0));
    let mut sgd = Sgd::new(params, 0.9);
    let losses: Vec<f64> = (0..60)
        .map(|_| {
            let loss = net.forward(&x, true).cross_entropy_for_logits(&labels);
            sgd.zero_grad();
            loss.backward();
            sgd.step(0.05);
            loss.double_value(&[])
        })
        .collect();
    assert!(losses[59] < 0.5 * losses[0], "{losses:?}");
}

#[test]
fn weights_come_out_of_a_net_as_they_went_in() {
    let net = small_net();
    let weights = Weights::random(net.graph(), 3);
    net.load(&weights).unwrap();
    assert_eq!(net.weights(), weights);
    assert!(net.load(&Weights::default()).unwrap_err().to_string().contains("conv.weight"));
}

fn space() -> SearchSpace {
    let mut space = SearchSpace::load("chain").unwrap();
    space.stem.channels = 4;
    space.layers = vec![LayerSpec { channels: 6, stride: 2 }];
    space
}

/// The tensors of a supernet below `prefix`, as weights of that part.
fn part_of(net: &Supernet, prefix: &str) -> Weights {
    let mut weights = Weights::default();
    for (name, param, tensor) in net.params() {
        if name.strip_suffix(&param.name).is_some_and(|before| before == format!("{prefix}.")) {
            let values = values(tensor).into_iter().map(|v| v as f32).collect();
            weights.insert(&param.name, param.dims.clone(), values);
        }
    }
    weights
}

#[test]
fn a_mixed_op_is_the_weighted_sum_of_its_ops() {
    let (space, input) = (space(), Shape::new(3, 9, 8));
    let net = Supernet::new(&space, input, 5);
    let part = |prefix: &str, graph: Graph| {
        let part = Net::new(graph);
        part.load(&part_of(&net, prefix)).unwrap();
        part
    };
    let stem = part("stem", space.stem(input).graph());
    let head = part("head", space.head(input, 5).graph());
    let candidates = space.mixed_layers(input).remove(0);
    let ops: Vec<Net> =
        candidates.iter().map(|layer| part(&format!("layer1.{}", layer.op), layer.graph())).collect();

    let x = images(6, input);
    let mut given: Vec<f64> = (1..=candidates.len()).map(|i| i as f64 / 36.0).collect();
    assert!((given.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    for train in [true, false] {
        let between = stem.forward(&x, train);
        let terms = ops.iter().zip(&given).map(|(op, p)| op.forward(&between, train) * *p);
        let expected = head.forward(&terms.reduce(|a, b| a + b).unwrap(), train);
        let probabilities = Tensor::from_slice2(&[&given]).to_kind(Kind::Float);
        assert_close(&net.forward(&x, &probabilities, train), &expected, 1e-5);
        given.reverse();
    }
}

#[test]
fn alpha_starts_even_and_has_a_gradient() {
    let (space, input) = (space(), Shape::new(3, 9, 8));
    let net = Supernet::new(&space, input, 5);
    let probabilities = net.probabilities();
    assert!(values(&probabilities).iter().all(|p| *p == 1.0 / 8.0));
    let labels = Tensor::from_slice(&[0i64, 1, 2, 3]);
    let loss = net.forward(&images(4, input), &probabilities, true).cross_entropy_for_logits(&labels);
    let grad = &Tensor::run_backward(&[loss], &[&net.alpha], false, false)[0];
    assert_eq!(grad.size(), net.alpha.size());
    assert!(values(grad).iter().any(|g| g.abs() > 1e-6));
    let sum: f64 = values(grad).iter().sum();
    assert!(sum.abs() < 1e-5, "softmax does not change along (1, …, 1): {sum}");
}

#[test]
fn latency_moves_alpha_only_above_the_target() {
    let (space, input) = (space(), Shape::new(3, 9, 8));
    let dir = tempfile::tempdir().unwrap();
    let cost = |layer: &edge_nas::space::Layer| 100.0 + layer.graph().cost().macs as f64;
    let layers = space.distinct_layers(input, 5);
    let table = table::filled(&dir.path().join("table.jsonl"), &layers, 1, cost);
    let networks = Networks { space: &space, images: Images { shape: input, classes: 5 } };
    let model = LatencyModel::new(&table, &networks).unwrap();
    let (cheapest, dearest) = model.range();

    let x = images(4, input);
    let labels = Tensor::from_slice(&[0i64, 1, 2, 3]);
    let expected_after = |target: Latency, weight: f64| {
        edge_nas::torch::fix(std::num::NonZeroUsize::MIN, 7);
        let net = Supernet::new(&space, input, 5);
        let term = LatencyTerm::new(&model, target, weight);
        let mut adam = Adam::new(&net.alpha, (0.5, 0.999), 0.0);
        let _ = alpha_step(&net, &mut adam, &term, &x, &labels, 0.1);
        let row = values(&net.probabilities());
        model.expected(&row.chunks(space.candidates.len()).map(<[f64]>::to_vec).collect::<Vec<_>>())
    };
    let by_loss = expected_after(dearest, 0.0);
    assert_eq!(expected_after(dearest, 1e3), by_loss);
    assert!(expected_after(cheapest, 1e3) < by_loss);
}

/// Every parameter of every branch gets a gradient, and every alpha moves.
#[test]
fn the_supernet_of_mobile_learns_in_all_branches() {
    edge_nas::torch::fix(std::num::NonZeroUsize::MIN, 0);
    let (space, input) = (SearchSpace::load("mobile").unwrap(), Shape::new(3, 32, 32));
    let net = Supernet::new(&space, input, 10);
    let trained = || net.params().filter(|(_, param, _)| param.role.is_trained());
    let biases = trained().filter(|(name, ..)| name.ends_with("se_reduce.bias"));
    assert!(biases.map(|(.., bias)| bias.abs().sum(Kind::Float)).all(|sum| sum.double_value(&[]) == 0.0));

    let (x, labels) = (images(4, input), Tensor::from_slice(&[0i64, 1, 2, 3]));
    let mut sgd = Sgd::new(trained().map(|(name, _, tensor)| (name, tensor, 0.0)), 0.9);
    let loss = weight_step(&net, &mut sgd, &x, &labels, 0.05).double_value(&[]);
    assert!(loss.is_finite(), "{loss}");
    for (name, _, tensor) in trained() {
        let norm = tensor.grad().norm().double_value(&[]);
        assert!(norm.is_finite() && norm > 0.0, "the gradient of {name} has norm {norm}");
        assert!(tensor.isfinite().all().int64_value(&[]) == 1, "{name}");
    }

    let dir = tempfile::tempdir().unwrap();
    let cost = |layer: &edge_nas::space::Layer| 100.0 + layer.graph().cost().macs as f64;
    let layers = space.distinct_layers(input, 10);
    let table = table::filled(&dir.path().join("table.jsonl"), &layers, 1, cost);
    let networks = Networks { space: &space, images: Images { shape: input, classes: 10 } };
    let model = LatencyModel::new(&table, &networks).unwrap();
    let term = LatencyTerm::new(&model, model.range().0, 0.5);
    let mut adam = Adam::new(&net.alpha, (0.5, 0.999), 0.0);
    let (loss, logits) = alpha_step(&net, &mut adam, &term, &x, &labels, 0.1);
    assert!(loss.double_value(&[]).is_finite() && logits.isfinite().all().int64_value(&[]) == 1);
    assert!(values(&net.alpha).iter().all(|a| a.is_finite() && *a != 0.0), "{:?}", values(&net.alpha));
}

#[test]
fn a_layer_of_zeros_gives_zeros() {
    let layer =
        space().mixed_layers(Shape::new(3, 8, 8)).remove(0).into_iter().find(|l| l.op.name() == "zero");
    let layer = layer.unwrap();
    let y = MixedOp::new(vec![layer]).forward(&images(2, layer.input), &Tensor::from_slice(&[1f32]), true);
    assert_eq!(y.size(), [2, 6, 4, 4]);
    assert!(values(&y).iter().all(|v| *v == 0.0));
}

fn parameter(value: f32) -> Tensor {
    Tensor::from_slice(&[value]).set_requires_grad(true)
}

/// PyTorch's formulas on p = 1 with gradient 2, by hand. Weight decay 0.5 makes it 2.5; then
/// v = 2.5, p = 1 − 0.1·(2.5 + 0.9·2.5); then g = 2 + 0.5·0.525, and so on.
#[test]
fn sgd_takes_pytorchs_steps() {
    let p = parameter(1.0);
    let mut sgd = Sgd::new([("p".to_string(), &p, 0.5)], 0.9);
    for expected in [0.525, -0.107375] {
        sgd.zero_grad();
        (&p * 2.0).sum(Kind::Float).backward();
        sgd.step(0.1);
        assert!((values(&p)[0] - expected).abs() < 1e-6, "{} for {expected}", values(&p)[0]);
    }
    let (name, velocity) = sgd.state().next().unwrap();
    assert_eq!(name, "sgd.p");
    assert!((values(&velocity)[0] - 4.5125).abs() < 1e-6);
}

#[test]
fn clipping_bounds_the_common_norm_and_leaves_small_gradients() {
    let (a, b) = (parameter(1.0), parameter(1.0));
    let mut sgd = Sgd::new([("a".to_string(), &a, 0.0), ("b".to_string(), &b, 0.0)], 0.0);
    sgd.clip_grad_norm(1.0);
    (&a * 3.0 + &b * 4.0).sum(Kind::Float).backward();
    sgd.clip_grad_norm(10.0);
    assert_eq!((values(&a.grad()), values(&b.grad())), (vec![3.0], vec![4.0]));
    sgd.clip_grad_norm(1.0);
    assert!((values(&a.grad())[0] - 0.6).abs() < 1e-6 && (values(&b.grad())[0] - 0.8).abs() < 1e-6);
}

/// Adam's first step is its learning rate, whatever the gradient: 1 − 0.1. The second, by its
/// formulas: g = 2.45, m̂ = 1.85 / 0.75, v̂ = 0.01224625 / 0.001999.
#[test]
fn adam_takes_pytorchs_steps() {
    let p = parameter(1.0);
    let mut adam = Adam::new(&p, (0.5, 0.999), 0.5);
    for expected in [0.9, 0.800_341_28] {
        adam.step(&p, &Tensor::from_slice(&[2f32]), 0.1);
        assert!((values(&p)[0] - expected).abs() < 1e-6, "{} for {expected}", values(&p)[0]);
    }
    let state: Vec<(String, Vec<f64>)> = adam.state().map(|(name, t)| (name, values(&t))).collect();
    assert_eq!(state[2], ("adam.steps".to_string(), vec![2.0]));
    assert!((state[0].1[0] - 1.85).abs() < 1e-6 && (state[1].1[0] - 0.012_246_25).abs() < 1e-8);
}

#[test]
fn the_learning_rate_rises_to_its_peak_and_falls_to_zero() {
    assert_eq!(cosine(0.4, 0, 100, 0), 0.4);
    assert!((cosine(0.4, 50, 100, 0) - 0.2).abs() < 1e-12);
    assert!(cosine(0.4, 100, 100, 0).abs() < 1e-12);
    assert_eq!(
        (cosine(0.4, 0, 110, 10), cosine(0.4, 9, 110, 10), cosine(0.4, 10, 110, 10)),
        (0.04, 0.4, 0.4)
    );
    assert!((1..100).all(|step| cosine(0.4, step, 100, 0) < cosine(0.4, step - 1, 100, 0)));
    assert_eq!(cosine(0.4, 0, 1, 0), 0.4);
}
