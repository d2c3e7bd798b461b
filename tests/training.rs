//! The basis of training: nets in training mode, and the optimizers.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used)]

mod tensors;

use edge_nas::bounded::Weight;
use edge_nas::record::{Float, Floats};
use edge_nas::train::{Adam, Buffers, Net, Norm, Placement, Sgd, clipped, cosine};
use nas_exporters::{Graph, Op, Role, Shape, Weights};
use tch::{Kind, Tensor};
use tensors::{assert_close, images, values};

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
