//! The supernet: its gates, its paths, and steps of its weights and of alpha.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used)]

#[path = "table/mod.rs"]
mod table;
mod tensors;

use edge_nas::bounded::Threads;
use edge_nas::latency::Latency;
use edge_nas::model::LatencyModel;
use edge_nas::search::{Constraint, Cost, latency_range};
use edge_nas::space::{CandidateOp, Layer, LayerSpec, Networks, SearchSpace};
use edge_nas::train::{
    Adam, Gate, Net, Norm, Placement, Sgd, Supernet, alpha_step, expectation, fix, penalty, sandwich_step, weight_step,
};
use nas_exporters::{Shape, Weights};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};
use tensors::{assert_close, images, values};

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
    let rows: Vec<f64> = (0..sizes[1]).map(|choice| cost.contribution((1, choice))).collect();
    assert_eq!(values(&slopes[0]), rows);
}

#[test]
fn latency_moves_alpha_only_above_the_target() {
    let networks = small();
    let model = model(&networks);
    let (fastest, slowest) = latency_range(&model);
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
    let by_loss = expected_after(slowest, 0.0);
    assert_eq!(expected_after(slowest, 1e3), by_loss);
    assert!(expected_after(fastest, 1e3) < by_loss);
}

/// Bytes are large numbers, and must not outweigh everything else in the loss.
#[test]
fn an_excess_of_memory_counts_in_shares_of_the_limit() {
    let networks = small();
    let choices: Vec<usize> = networks.all_live().iter().map(|live| live[0]).collect();
    let certain: Vec<Tensor> = networks
        .choices()
        .iter()
        .zip(&choices)
        .map(|(of, choice)| Tensor::from_slice(&(0..of.len()).map(|i| f32::from(i == *choice)).collect::<Vec<_>>()))
        .collect();
    let bytes = 64;
    let constraint = Constraint::peak_activations(&networks, bytes);
    let excess = constraint.value(&choices);
    assert!(excess > 0.0);
    let share = penalty(&[constraint], &certain, 1.0).double_value(&[]);
    assert!((share - excess / bytes as f64).abs() < 1e-9, "{share}, and an excess of {excess} bytes");
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
