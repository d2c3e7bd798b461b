//! What training rests on: nets in training mode, the supernet, and the optimizers.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used)]

#[path = "table/mod.rs"]
mod table;

use edge_nas::bounded::Threads;
use edge_nas::latency::Latency;
use edge_nas::model::LatencyModel;
use edge_nas::record::{Float, Floats};
use edge_nas::search::{Constraint, Cost, latency_range};
use edge_nas::space::{CandidateOp, Layer, LayerSpec, Networks, SearchSpace};
use edge_nas::train::{Adam, Gate, Net, Placement, Sgd, Supernet, alpha_step, cosine, expectation, fix, weight_step};
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
    let net = Net::new(g, Placement::default());
    net.load(&Weights::random(net.graph(), 0)).unwrap();
    net
}

#[test]
fn batch_norm_normalises_by_the_batch_and_keeps_running_statistics() {
    let mut g = Graph::new(Shape::new(2, 4, 4));
    g.add("bn", Op::BatchNorm, &[g.input()]);
    let net = Net::new(g, Placement::default());
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

/// One net of all kinds of convolution, trained in `float`, with an activation that both branches add to.
fn mixed_net(float: Float) -> Net {
    let mut g = Graph::new(Shape::new(3, 12, 12));
    let conv = |out_channels, kernel, groups| Op::Conv2d { out_channels, kernel, stride: 1, groups, bias: false };
    let x = g.add("conv", conv(16, 3, 1), &[g.input()]);
    let x = g.add("bn", Op::BatchNorm, &[x]);
    let start = g.add("relu", Op::Relu, &[x]);
    let x = g.add("depthwise", conv(16, 5, 16), &[start]);
    let x = g.add("pointwise", conv(16, 1, 1), &[x]);
    let x = g.add("pointwise_bn", Op::BatchNorm, &[x]);
    let x = g.add("add", Op::Add, &[x, start]);
    let x = g.add("max", Op::MaxPool { kernel: 3, stride: 2 }, &[x]);
    let x = g.add("pool", Op::GlobalAvgPool, &[x]);
    g.add("linear", Op::Linear { out_features: 3 }, &[x]);
    let floats = Floats { dense: float, pointwise: float, depthwise: float };
    let net = Net::new(g, Placement { floats, ..Placement::default() });
    net.load(&Weights::random(net.graph(), 0)).unwrap();
    net
}

#[test]
fn training_in_bf16_is_that_in_fp32_but_for_rounding() {
    let nets = [Float::Fp32, Float::Bf16].map(mixed_net);
    let x = images(16, nets[0].graph().input_shape());
    let labels = Tensor::arange(16, (Kind::Int64, tch::Device::Cpu)).remainder(3);
    let inference = nets.each_ref().map(|net| values(&net.forward(&x, false)));
    assert_eq!(inference[0], inference[1], "inference is in fp32");
    let logits = nets.each_ref().map(|net| net.forward(&x, true));
    assert!(logits.iter().all(|logits| logits.kind() == Kind::Float));
    assert_ne!(values(&logits[0]), values(&logits[1]), "training is not");
    logits.iter().for_each(|logits| logits.cross_entropy_for_logits(&labels).backward());
    for ((param, exact), (_, rounded)) in nets[0].params().zip(nets[1].params()) {
        let tensors = [exact, rounded].map(|t| if param.role.is_trained() { t.grad() } else { t.shallow_clone() });
        assert!(tensors.iter().all(|t| t.kind() == Kind::Float), "{}", param.name);
        let [exact, rounded] = &tensors;
        let difference = (exact - rounded).norm().double_value(&[]) / exact.norm().double_value(&[]);
        // Rounding also decides which side of 0 a value before a ReLU is on, and which of a window is the largest.
        assert!(difference < 0.1, "{}: {difference}", param.name);
    }
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
    let labels = x.select(1, 0).mean_dim([1i64, 2].as_slice(), false, Kind::Float).gt(0.0).to_kind(Kind::Int64);
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

/// The ops of `chain` in one layer, between a small stem and a classifier.
fn small() -> Networks {
    let mut space = SearchSpace::load("chain").unwrap();
    space.layers.truncate(2);
    space.layers[0].channels = vec![4];
    space.layers[1] = LayerSpec { channels: vec![6], stride: 2, ..space.layers[1].clone() };
    Networks::new(space, Shape::new(3, 9, 8), [5]).unwrap()
}

fn supernet(networks: &Networks) -> Supernet {
    Supernet::new(networks, Placement::default()).unwrap()
}

/// The latency model of a table in which a layer takes as many nanoseconds as it has multiply-accumulates, and 100.
fn model(networks: &Networks) -> LatencyModel {
    let dir = tempfile::tempdir().unwrap();
    let ns = |layer: &Layer| 100.0 + layer.graph().cost().macs as f64;
    LatencyModel::new(&table::filled(&dir.path().join("table.jsonl"), networks, 1, ns), networks).unwrap()
}

fn within(model: &LatencyModel, limit: Latency) -> Vec<Constraint> {
    vec![Constraint { cost: Cost::latency(model), limit: limit.ns() }]
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

/// The parts of a supernet of [`small`]: stem, the ops of the layer, classifier.
fn parts(net: &Supernet, networks: &Networks) -> (Net, Vec<Net>, Net) {
    let part = |prefix: &str, layer: &Layer| {
        let part = Net::new(layer.graph(), Placement::default());
        part.load(&part_of(net, prefix)).unwrap();
        part
    };
    let [stem, ops, head] = networks.variants() else { panic!("three layers") };
    let ops = ops.iter().map(|variant| part(&format!("layer1.{}", variant.layer.op), &variant.layer));
    (part("stem", &stem[0].layer), ops.collect(), part("head", &head[0].layer))
}

#[test]
fn a_mixed_op_is_the_weighted_sum_of_its_ops() {
    let networks = small();
    let net = supernet(&networks);
    let (stem, ops, head) = parts(&net, &networks);
    let x = images(6, networks.input);
    let mut given: Vec<f64> = (1..=ops.len()).map(|i| i as f64 / 36.0).collect();
    assert!((given.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    for train in [true, false] {
        let between = stem.forward(&x, train);
        let terms = ops.iter().zip(&given).map(|(op, p)| op.forward(&between, train) * *p);
        let expected = head.forward(&terms.reduce(|a, b| a + b).unwrap(), train);
        let one = Tensor::from_slice(&[1f32]);
        let probabilities = [one.copy(), Tensor::from_slice(&given).to_kind(Kind::Float), one];
        assert_close(&net.forward(&x, Gate::Mixture(&probabilities), train), &expected, 1e-5);
        given.reverse();
    }
}

/// A path is the network that holds only its choices; others get no gradient and keep their statistics.
#[test]
fn a_path_is_one_network() {
    let networks = small();
    let net = supernet(&networks);
    let (stem, ops, head) = parts(&net, &networks);
    let x = images(6, networks.input);
    for (choice, op) in ops.iter().enumerate() {
        let expected = head.forward(&op.forward(&stem.forward(&x, true), true), true);
        assert_close(&net.forward(&x, Gate::Path(&[0, choice, 0]), true), &expected, 1e-5);
    }
    let net = supernet(&networks);
    let before = part_of(&net, "layer1.conv_5x5");
    net.forward(&x, Gate::Path(&[0, 0, 0]), true).sum(Kind::Float).backward();
    for (name, param, tensor) in net.params().filter(|(_, param, _)| param.role.is_trained()) {
        let on_path = !name.starts_with("layer1.") || name.starts_with("layer1.conv_3x3.");
        assert_eq!(tensor.grad().defined(), on_path, "{name}: {param:?}");
    }
    assert_eq!(part_of(&net, "layer1.conv_5x5"), before);
}

#[test]
fn alpha_starts_even_and_has_a_gradient() {
    let networks = small();
    let net = supernet(&networks);
    let probabilities = net.probabilities();
    assert!(values(&probabilities[1]).iter().all(|p| *p == 1.0 / 8.0));
    assert!([0, 2].iter().all(|&layer| values(&probabilities[layer]) == [1.0]));
    let labels = Tensor::from_slice(&[0i64, 1, 2, 3]);
    let logits = net.forward(&images(4, networks.input), Gate::Mixture(&probabilities), true);
    let loss = logits.cross_entropy_for_logits(&labels);
    let grad = &Tensor::run_backward(&[loss], &[&net.alpha], false, false)[0];
    assert_eq!(grad.size(), net.alpha.size());
    assert!(values(grad).iter().any(|g| g.abs() > 1e-6));
    let sum: f64 = values(grad).iter().sum();
    assert!(sum.abs() < 1e-5, "softmax does not change along (1, …, 1): {sum}");
}

/// On tensors, the expected cost is the number that it is on numbers, and so are its derivatives.
#[test]
fn the_expectation_on_tensors_is_that_on_numbers() {
    let networks = small();
    let cost = model(&networks).polynomial;
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let sizes: Vec<usize> = networks.choices().iter().map(Vec::len).collect();
    let numbers: Vec<Vec<f64>> = sizes.iter().map(|n| (0..*n).map(|_| rng.random::<f64>()).collect()).collect();
    let tensors: Vec<Tensor> = numbers.iter().map(|row| Tensor::from_slice(row).set_requires_grad(true)).collect();
    let expected = expectation(&cost, &tensors);
    assert_eq!(expected.double_value(&[]), cost.expected(&numbers));
    // Layers of one choice are part of the base.
    let slopes = Tensor::run_backward(&[expected], &[&tensors[1]], false, false);
    assert_eq!(values(&slopes[0]), cost.gradient(&numbers)[1]);
    let rows: Vec<f64> = (0..sizes[1]).map(|choice| cost.row((1, choice))).collect();
    assert_eq!(values(&slopes[0]), rows);
}

#[test]
fn latency_moves_alpha_only_above_the_target() {
    let networks = small();
    let model = model(&networks);
    let (cheapest, dearest) = latency_range(&model);
    let x = images(4, networks.input);
    let labels = Tensor::from_slice(&[0i64, 1, 2, 3]);
    let expected_after = |target: Latency, weight: f64| {
        fix(Threads::of(1), 7);
        let net = supernet(&networks);
        let constraints = within(&model, target);
        let mut adam = Adam::new(&net.alpha, (0.5, 0.999), 0.0);
        let _ = alpha_step(&net, &mut adam, (&constraints, weight), (&x, &labels), 0.1);
        model.polynomial.expected(&net.probabilities().iter().map(values).collect::<Vec<_>>())
    };
    let by_loss = expected_after(dearest, 0.0);
    assert_eq!(expected_after(dearest, 1e3), by_loss);
    assert!(expected_after(cheapest, 1e3) < by_loss);
}

/// Every parameter of every branch gets a gradient, and every alpha moves.
#[test]
fn the_supernet_of_mobile_learns_in_all_branches() {
    fix(Threads::of(1), 0);
    let input = Shape::new(3, 32, 32);
    let networks = Networks::new(SearchSpace::load("mobile").unwrap(), input, [10]).unwrap();
    let net = supernet(&networks);
    let trained = || net.params().filter(|(_, param, _)| param.role.is_trained());
    let biases = trained().filter(|(name, ..)| name.ends_with("se_reduce.bias"));
    assert!(biases.map(|(.., bias)| bias.abs().sum(Kind::Float)).all(|sum| sum.double_value(&[]) == 0.0));

    let (x, labels) = (images(4, input), Tensor::from_slice(&[0i64, 1, 2, 3]));
    let mut sgd = Sgd::new(trained().map(|(name, _, tensor)| (name, tensor, 0.0)), 0.9);
    let probabilities: Vec<Tensor> = net.probabilities().iter().map(Tensor::detach).collect();
    let (loss, _) = weight_step(&net, Gate::Mixture(&probabilities), &mut sgd, (&x, &labels), 0.05);
    let loss = loss.double_value(&[]);
    assert!(loss.is_finite(), "{loss}");
    for (name, _, tensor) in trained() {
        let norm = tensor.grad().norm().double_value(&[]);
        assert!(norm.is_finite() && norm > 0.0, "the gradient of {name} has norm {norm}");
        assert!(tensor.isfinite().all().int64_value(&[]) == 1, "{name}");
    }

    let model = model(&networks);
    let constraints = within(&model, latency_range(&model).0);
    let mut adam = Adam::new(&net.alpha, (0.5, 0.999), 0.0);
    let (loss, logits) = alpha_step(&net, &mut adam, (&constraints, 0.5), (&x, &labels), 0.1);
    assert!(loss.double_value(&[]).is_finite() && logits.isfinite().all().int64_value(&[]) == 1);
    assert!(values(&net.alpha).iter().all(|a| a.is_finite() && *a != 0.0), "{:?}", values(&net.alpha));
}

#[test]
fn a_zero_adds_nothing_to_a_mixture() {
    let networks = small();
    let zero = networks.choices()[1].iter().position(|choice| choice.op == CandidateOp::Zero).unwrap();
    let net = supernet(&networks);
    let (stem, _, head) = parts(&net, &networks);
    let x = images(2, networks.input);
    let one_hot: Vec<f32> = (0..networks.choices()[1].len()).map(|i| if i == zero { 1.0 } else { 0.0 }).collect();
    let one = Tensor::from_slice(&[1f32]);
    let probabilities = [one.copy(), Tensor::from_slice(&one_hot), one];
    let zeros = Tensor::zeros([2, 6, 5, 4], (Kind::Float, tch::Device::Cpu));
    assert_eq!(stem.forward(&x, true).size(), [2, 4, 9, 8]);
    let expected = head.forward(&zeros, true);
    assert_close(&net.forward(&x, Gate::Mixture(&probabilities), true), &expected, 1e-6);
    assert_close(&net.forward(&x, Gate::Path(&[0, zero, 0]), true), &expected, 1e-6);
}

/// Choices of several widths cannot be added up.
#[test]
fn a_layer_of_several_widths_is_refused() {
    let mut space = small().space;
    space.layers[1].channels = vec![4, 6];
    let networks = Networks::new(space, Shape::new(3, 9, 8), [5]).unwrap();
    let error = Supernet::new(&networks, Placement::default()).err().unwrap().to_string();
    assert!(error.contains("layer1 of space `chain`") && error.contains("several widths"), "{error}");
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
    assert_eq!((cosine(0.4, 0, 110, 10), cosine(0.4, 9, 110, 10), cosine(0.4, 10, 110, 10)), (0.04, 0.4, 0.4));
    assert!((1..100).all(|step| cosine(0.4, step, 100, 0) < cosine(0.4, step - 1, 100, 0)));
    assert_eq!(cosine(0.4, 0, 1, 0), 0.4);
}
