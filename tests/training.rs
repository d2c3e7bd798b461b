//! The basis of training: nets in training mode, the supernet, and the optimizers.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used)]

#[path = "table/mod.rs"]
mod table;

use edge_nas::bounded::{Threads, Weight};
use edge_nas::latency::Latency;
use edge_nas::model::LatencyModel;
use edge_nas::record::{Float, Floats};
use edge_nas::search::{Constraint, Cost, latency_range};
use edge_nas::space::{CandidateOp, Layer, LayerSpec, Networks, SearchSpace};
use edge_nas::train::{
    Adam, Buffers, Gate, Net, Norm, Placement, Sgd, Supernet, alpha_step, clipped, cosine, expectation, fix, penalty,
    sandwich_step, weight_step,
};
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

/// Returns N×C×H×W numbers spread over [-2, 2], which are the same every time.
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

    let y = net.forward(&x, Norm::TRAIN);
    assert_close(&y.mean_dim([0i64, 2, 3].as_slice(), false, Kind::Float), &mean.zeros_like(), 1e-5);
    assert_close(param(Role::RunningMean), &(&mean * 0.1), 1e-5);
    assert_close(param(Role::RunningVar), &(&var * 0.1 + 0.9), 1e-5);

    let before = (values(param(Role::RunningMean)), values(param(Role::RunningVar)));
    let (one, other) = (net.forward(&x, Norm::Running), net.forward(&x.get(0).unsqueeze(0), Norm::Running));
    assert_close(&one.get(0), &other.get(0), 1e-6);
    assert_eq!((values(param(Role::RunningMean)), values(param(Role::RunningVar))), before);
}

/// Returns a net with all kinds of convolution, trained in `float`, with an activation that both branches add to.
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
    let inference = nets.each_ref().map(|net| values(&net.forward(&x, Norm::Running)));
    assert_eq!(inference[0], inference[1], "inference is in fp32");
    let logits = nets.each_ref().map(|net| net.forward(&x, Norm::TRAIN));
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

/// Along its gradient, a function rises by the norm of the gradient.
#[test]
fn gradients_are_those_of_finite_differences() {
    let net = small_net();
    let x = images(16, net.graph().input_shape());
    let labels = Tensor::arange(16, (Kind::Int64, tch::Device::Cpu)).remainder(3);
    let loss = || net.forward(&x, Norm::TRAIN).cross_entropy_for_logits(&labels);
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
    let mut sgd = Sgd::new(Buffers::of(&net).trained(Weight::of(0.0)), 0.9);
    let losses: Vec<f64> = (0..60)
        .map(|_| {
            let loss = net.forward(&x, Norm::TRAIN).cross_entropy_for_logits(&labels);
            sgd.step_along(&Buffers::gradients(&net, &loss), 0.05);
            loss.double_value(&[])
        })
        .collect();
    assert!(losses[59] < 0.5 * losses[0], "{losses:?}");
}

/// A step of the buffers equals a step of each parameter.
#[test]
fn buffers_hold_the_parameters_of_a_net() {
    let (one, other) = (small_net(), small_net());
    other.load(&one.weights()).unwrap();
    let before = one.weights();
    let buffers = Buffers::of(&one);
    assert_eq!(one.weights(), before);
    let x = images(8, one.graph().input_shape());
    let labels = Tensor::from_slice(&[0i64, 1, 0, 1, 0, 1, 0, 1]);
    let loss_of = |net: &Net| net.forward(&x, Norm::TRAIN).cross_entropy_for_logits(&labels);
    let decay = |role| if role == Role::Weight { 0.1 } else { 0.0 };
    let mut flat = Sgd::new(buffers.trained(Weight::of(0.1)), 0.9);
    let mut each = Sgd::new(other.trainable().map(|(p, tensor)| (p.name.clone(), tensor, decay(p.role))), 0.9);
    for _ in 0..3 {
        flat.step_along(&Buffers::gradients(&one, &loss_of(&one)), 0.05);
        let params: Vec<&Tensor> = other.trainable().map(|(_, tensor)| tensor).collect();
        let grads = Tensor::run_backward(&[loss_of(&other)], &params, false, false);
        each.step_along(&grads.into_iter().enumerate().collect::<Vec<_>>(), 0.05);
    }
    let (found, expected) = (one.weights(), other.weights());
    assert_ne!(found, before);
    for ((name, found), (_, expected)) in found.iter().zip(expected.iter()) {
        let difference = found.values.iter().zip(&expected.values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(difference < 1e-6, "{name}: {difference}");
    }
}

#[test]
fn weights_come_out_of_a_net_as_they_went_in() {
    let net = small_net();
    let weights = Weights::random(net.graph(), 3);
    net.load(&weights).unwrap();
    assert_eq!(net.weights(), weights);
    assert!(net.load(&Weights::default()).unwrap_err().to_string().contains("conv.weight"));
}

/// Returns a space with the ops of `chain` in one layer, between a small stem and a classifier.
fn small() -> Networks {
    let mut space = SearchSpace::load("chain").unwrap();
    space.layers.truncate(2);
    space.layers[0].channels = vec![4].into();
    space.layers[1] = LayerSpec { channels: vec![6].into(), stride: 2, ..space.layers[1].clone() };
    Networks::new(space, Shape::new(3, 9, 8), [5]).unwrap()
}

fn supernet(networks: &Networks) -> Supernet {
    Supernet::new(networks, Placement::default(), false)
}

/// Returns the latency model of a table in which a layer takes 100 nanoseconds, and one more for each of its
/// multiply-accumulates.
fn model(networks: &Networks) -> LatencyModel {
    let dir = tempfile::tempdir().unwrap();
    let ns = |layer: &Layer| 100.0 + layer.graph().cost().macs as f64;
    LatencyModel::new(&table::filled(&dir.path().join("table.jsonl"), networks, 1, ns), networks).unwrap()
}

fn within(model: &LatencyModel, limit: Latency) -> Vec<Constraint> {
    vec![Constraint::new(Cost::latency(model), limit.ns())]
}

/// Returns the tensors of a supernet below `prefix`, as weights of that part.
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

/// Returns the parts of a supernet of [`small`]: the stem, the ops of the layer, and the classifier.
fn parts(net: &Supernet, networks: &Networks) -> (Net, Vec<Net>, Net) {
    let part = |prefix: &str, layer: &Layer| {
        let part = Net::new(layer.graph(), Placement::default());
        let mut weights = Weights::random(part.graph(), 0);
        part_of(net, prefix)
            .iter()
            .for_each(|(name, tensor)| weights.insert(name, tensor.dims.clone(), tensor.values.clone()));
        part.load(&weights).unwrap();
        part
    };
    let [stem, ops, head] = networks.variants() else { panic!("three layers") };
    let ops = ops.iter().map(|variant| part(&format!("layer1.{}", variant.layer.op), &variant.layer));
    (part("stem.conv_3x3", &stem[0].layer), ops.collect(), part("head.head", &head[0].layer))
}

#[test]
fn a_mixed_op_is_the_weighted_sum_of_its_ops() {
    let networks = small();
    let net = supernet(&networks);
    let (stem, ops, head) = parts(&net, &networks);
    let x = images(6, networks.input);
    let given: Vec<f64> = (1..=ops.len()).map(|i| i as f64 / 36.0).collect();
    assert!((given.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    let between = stem.forward(&x, Norm::Batch);
    let terms = ops.iter().zip(&given).map(|(op, p)| op.forward(&between, Norm::Batch) * *p);
    let expected = head.forward(&terms.reduce(|a, b| a + b).unwrap(), Norm::Batch);
    let one = Tensor::from_slice(&[1f32]);
    let probabilities = [one.copy(), Tensor::from_slice(&given).to_kind(Kind::Float), one];
    assert_close(&net.forward(&x, Gate::Mixture(&probabilities)), &expected, 1e-5);
}

/// A path is the network that contains only its choices. Other choices get no gradient and keep their statistics.
#[test]
fn a_path_is_one_network() {
    let networks = small();
    let net = supernet(&networks);
    let (stem, ops, head) = parts(&net, &networks);
    let x = images(6, networks.input);
    for (choice, op) in ops.iter().enumerate() {
        let expected = head.forward(&op.forward(&stem.forward(&x, Norm::TRAIN), Norm::TRAIN), Norm::TRAIN);
        assert_close(&net.forward(&x, Gate::Path(&[0, choice, 0])), &expected, 1e-5);
    }
    let net = supernet(&networks);
    let before = part_of(&net, "layer1.conv_5x5");
    net.forward(&x, Gate::Path(&[0, 0, 0])).sum(Kind::Float).backward();
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
    let logits = net.forward(&images(4, networks.input), Gate::Mixture(&probabilities));
    let loss = logits.cross_entropy_for_logits(&labels);
    let grad = &Tensor::run_backward(&[loss], &[&net.alpha], false, false)[0];
    assert_eq!(grad.size(), net.alpha.size());
    assert!(values(grad).iter().any(|g| g.abs() > 1e-6));
    let sum: f64 = values(grad).iter().sum();
    assert!(sum.abs() < 1e-5, "softmax does not change along (1, …, 1): {sum}");
}

/// The expected cost on tensors equals that on numbers, and so do its derivatives.
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
    fix(Threads::of(1), 7);
    // One net for all: libtorch's random numbers are shared with the tests that run at the same time.
    let net = supernet(&networks);
    let initial = net.alpha.detach().copy();
    let expected_after = |target: Latency, weight: f64| {
        tch::no_grad(|| net.alpha.shallow_clone().copy_(&initial));
        let constraints = within(&model, target);
        let mut adam = Adam::new(&net.alpha, (0.5, 0.999), 0.0);
        let mixed = net.probabilities();
        let gate = (Gate::Mixture(&mixed), &penalty(&constraints, &mixed, weight));
        let _ = alpha_step(&net, &mut adam, gate, (&x, &labels), 0.1);
        model.polynomial.expected(&net.probabilities().iter().map(values).collect::<Vec<_>>())
    };
    let by_loss = expected_after(dearest, 0.0);
    assert_eq!(expected_after(dearest, 1e3), by_loss);
    assert!(expected_after(cheapest, 1e3) < by_loss);
}

/// Every parameter of every branch gets a gradient, and every alpha changes.
#[test]
fn the_supernet_of_mobile_learns_in_all_branches() {
    fix(Threads::of(1), 0);
    let input = Shape::new(3, 32, 32);
    let mut space = SearchSpace::load("mobile_224").unwrap();
    space.layers.truncate(8);
    let networks = Networks::new(space, input, [10]).unwrap();
    let net = supernet(&networks);
    let trained = || net.params().filter(|(_, param, _)| param.role.is_trained());
    let biases = trained().filter(|(name, ..)| name.ends_with("se_reduce.bias"));
    assert!(biases.map(|(.., bias)| bias.abs().sum(Kind::Float)).all(|sum| sum.double_value(&[]) == 0.0));

    let (x, labels) = (images(4, input), Tensor::from_slice(&[0i64, 1, 2, 3]));
    let mut sgd = Sgd::new(trained().map(|(name, _, tensor)| (name.to_string(), tensor, 0.0)), 0.9);
    let probabilities: Vec<Tensor> = net.probabilities().iter().map(Tensor::detach).collect();
    let (loss, _) = weight_step(&net, Gate::Mixture(&probabilities), &mut sgd, (&x, &labels), 0.05);
    let loss = loss.double_value(&[]);
    assert!(loss.is_finite(), "{loss}");
    for ((name, _, tensor), (_, velocity)) in trained().zip(sgd.state()) {
        // After the first step, the velocity is the gradient.
        let norm = velocity.norm().double_value(&[]);
        assert!(norm.is_finite() && norm > 0.0, "the gradient of {name} has norm {norm}");
        assert!(tensor.isfinite().all().int64_value(&[]) == 1, "{name}");
    }

    let model = model(&networks);
    let constraints = within(&model, latency_range(&model).0);
    let mut adam = Adam::new(&net.alpha, (0.5, 0.999), 0.0);
    let mixed = net.probabilities();
    let gate = (Gate::Mixture(&mixed), &penalty(&constraints, &mixed, 0.5));
    let (loss, logits) = alpha_step(&net, &mut adam, gate, (&x, &labels), 0.1);
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
    assert_eq!(stem.forward(&x, Norm::TRAIN).size(), [2, 4, 9, 8]);
    let expected = head.forward(&zeros, Norm::TRAIN);
    assert_close(&net.forward(&x, Gate::Mixture(&probabilities)), &expected, 1e-6);
    assert_close(&net.forward(&x, Gate::Path(&[0, zero, 0])), &expected, 1e-6);
}

/// Returns the networks of a space with several widths, kernels and depths.
fn wide() -> Networks {
    let space = r#"
        name = "wide"
        layers = [
          { ops = ["conv_3x3"], channels = [4, 6] },
          { ops = ["conv_3x3", "conv_5x5", "sep_conv_3x3", "max_pool_3x3", "skip"], channels = [5, 8], stride = 2 },
          { ops = ["skip", "res_3x3", "res_3x3_n2"], channels = "same" },
          { ops = ["mb_3x3_e3", "mb_5x5_e6_se"], channels = [6, 9] },
        ]"#;
    Networks::new(toml::from_str(space).unwrap(), Shape::new(3, 9, 8), [5]).unwrap()
}

/// Every network of a supernet that shares weights has the first channels of the widest network, and the centre of the
/// largest kernel. A network that is built from these weights therefore computes the same.
#[test]
fn a_path_of_a_sharing_supernet_is_that_part_of_it() {
    fix(Threads::of(1), 1);
    let networks = wide();
    let net = Supernet::new(&networks, Placement::default(), true);
    let stored: std::collections::BTreeMap<&str, &Tensor> = net.params().map(|(name, _, t)| (name, t)).collect();
    let x = images(6, networks.input);
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    for _ in 0..40 {
        let choices: Vec<usize> = networks.choices().iter().map(|of| rng.random_range(0..of.len())).collect();
        let mut y = x.shallow_clone();
        for (i, layer) in networks.layers_of(&choices).iter().enumerate() {
            let part = Net::new(layer.graph(), Placement::default());
            let mut weights = Weights::random(part.graph(), 0);
            for (param, _) in part.trainable() {
                let name = format!("{}.{}.{}", networks.layer_name(i), layer.op.family(), param.name);
                let mut tensor = stored[name.as_str()].shallow_clone();
                for (dim, &size) in param.dims.iter().enumerate() {
                    let all = tensor.size()[dim];
                    let start = if dim < 2 { 0 } else { (all - size as i64) / 2 };
                    tensor = tensor.narrow(dim as i64, start, size as i64);
                }
                let values = values(&tensor).into_iter().map(|v| v as f32).collect();
                weights.insert(&param.name, param.dims.clone(), values);
            }
            part.load(&weights).unwrap();
            y = part.forward(&y, Norm::Batch);
        }
        assert_close(&net.forward(&x, Gate::Path(&choices)), &y, 1e-5);
        // A mixture with a single choice left in each layer equals that network, if the network has the widest inputs.
        let one_hot = |(choice, of): (&usize, &Vec<edge_nas::space::Choice>)| {
            let row: Vec<f32> = (0..of.len()).map(|i| if i == *choice { 1.0 } else { 0.0 }).collect();
            Tensor::from_slice(&row)
        };
        let probabilities: Vec<Tensor> = choices.iter().zip(networks.choices()).map(one_hot).collect();
        let mixed = net.forward(&x, Gate::Mixture(&probabilities));
        assert_eq!(mixed.size(), y.size());
        // Every choice of a mixture gets the widest input, which changes what is projected and what is expanded.
        let widest = |(layer, of): (&Layer, &Vec<edge_nas::space::Variant>)| {
            of.iter().all(|variant| variant.layer.input.channels <= layer.input.channels)
        };
        if networks.layers_of(&choices).iter().zip(networks.variants()).all(widest) {
            assert_close(&mixed, &y, 1e-4);
        }
        let ones: Vec<Tensor> = choices.iter().map(|_| Tensor::from(1f32)).collect();
        assert_close(&net.forward(&x, Gate::Scaled(&choices, &ones)), &y, 1e-6);
    }
}

/// The statistics of a network are the means over the batches, as if batch norm had seen them as one stream.
#[test]
fn calibration_takes_the_mean_statistics_of_its_batches() {
    fix(Threads::of(1), 2);
    let networks = wide();
    let net = Supernet::new(&networks, Placement::default(), true);
    let path = net.path(&[1, 0, 1, 0, 0]);
    let batch = |seed: u64| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let images = (0..16 * networks.input.len()).map(|_| rng.random_range(-2.0..2.0)).collect();
        edge_nas::data::Batch { images, labels: (0..16).map(|i| i % 5).collect(), indices: vec![], views: vec![] }
    };
    // With a single batch, the running statistics are those of the batch, apart from the unbiased variance.
    path.calibrate([batch(0)]);
    let by_batch = path.evaluate([batch(0)], Norm::Batch).mean_loss().unwrap();
    let by_running = path.evaluate([batch(0)], Norm::Running).mean_loss().unwrap();
    assert!((by_batch - by_running).abs() < 0.02 * by_batch, "{by_batch} and {by_running}");
    // A second calibration leaves nothing of the first.
    path.calibrate([batch(1), batch(2)]);
    let again = path.evaluate([batch(0)], Norm::Running);
    let fresh = net.path(&[1, 0, 1, 0, 0]);
    fresh.calibrate([batch(1), batch(2)]);
    assert_eq!(fresh.evaluate([batch(0)], Norm::Running), again);
}

#[test]
fn a_sandwich_moves_the_weights_of_all_of_its_paths() {
    fix(Threads::of(1), 3);
    let networks = wide();
    let x = images(8, networks.input);
    let labels = Tensor::arange(8, (Kind::Int64, tch::Device::Cpu)).remainder(5);
    for distilled in [false, true] {
        let net = Supernet::new(&networks, Placement::default(), false);
        let before: Vec<Vec<f64>> = net.params().map(|(_, _, tensor)| values(tensor)).collect();
        let mut sgd = Sgd::new(net.params().map(|(name, _, tensor)| (name.to_string(), tensor, 0.0)), 0.9);
        let paths = [vec![1, 1, 2, 1, 0], vec![0, 8, 0, 0, 0]];
        let (loss, logits) = sandwich_step(&net, &paths, distilled, &mut sgd, (&x, &labels), 0.05);
        assert!(loss.double_value(&[]).is_finite());
        assert_eq!(logits.size(), [8, 5]);
        let moved = net.params().zip(&before).filter(|((_, _, tensor), before)| values(tensor) != **before);
        let moved: Vec<&str> = moved.map(|((name, ..), _)| name).collect();
        for part in
            ["stem.conv_3x3:4.", "stem.conv_3x3:6.", "layer1.conv_3x3:8.", "layer1.skip:5.", "layer2.res_3x3_n2."]
        {
            assert!(moved.iter().any(|name| name.starts_with(part)), "{part} {moved:?}");
        }
        assert!(!moved.iter().any(|name| name.starts_with("layer1.conv_5x5")), "{moved:?}");
        // Neither momentum nor weight decay moves what a later step does not use.
        let before: Vec<Vec<f64>> = net.params().map(|(_, _, tensor)| values(tensor)).collect();
        let _ = weight_step(&net, Gate::Path(&paths[1]), &mut sgd, (&x, &labels), 0.05);
        let kept = net.params().zip(&before).filter(|((_, _, tensor), before)| values(tensor) == **before);
        assert!(kept.map(|((name, ..), _)| name).any(|name| name.starts_with("layer2.res_3x3_n2.")));
    }
}

fn parameter(value: f32) -> Tensor {
    Tensor::from_slice(&[value]).set_requires_grad(true)
}

/// PyTorch's formulas for p = 1 with gradient 2, by hand. Weight decay 0.5 makes it 2.5; then v = 2.5, p = 1 − 0.1·(2.5
/// + 0.9·2.5); then g = 2 + 0.5·0.525, and so on.
#[test]
fn sgd_takes_pytorchs_steps() {
    let p = parameter(1.0);
    let mut sgd = Sgd::new([("p".to_string(), &p, 0.5)], 0.9);
    for expected in [0.525, -0.107375] {
        sgd.step_along(&[(0, Tensor::from_slice(&[2f32]))], 0.1);
        assert!((values(&p)[0] - expected).abs() < 1e-6, "{} for {expected}", values(&p)[0]);
    }
    let (name, velocity) = sgd.state().next().unwrap();
    assert_eq!(name, "sgd.p");
    assert!((values(&velocity)[0] - 4.5125).abs() < 1e-6);
}

#[test]
fn clipping_bounds_the_common_norm_and_leaves_small_gradients() {
    let grads = || vec![(0, Tensor::from_slice(&[3f32])), (2, Tensor::from_slice(&[4f32]))];
    let clip = |max: f64| clipped(grads(), max).iter().flat_map(|(_, grad)| values(grad)).collect::<Vec<f64>>();
    let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
    assert!(close(&clip(10.0), &[3.0, 4.0]) && close(&clip(1.0), &[0.6, 0.8]));
    assert!(clipped(vec![], 1.0).is_empty());
}

/// Adam's first step is its learning rate, whatever the gradient: 1 − 0.1. The second follows from its formulas: g =
/// 2.45, m̂ = 1.85 / 0.75, v̂ = 0.01224625 / 0.001999.
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
