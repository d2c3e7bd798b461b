//! Graphs: shapes, dead code, cost, and the folding of batch norm.
#![allow(clippy::unwrap_used)]

use nas_exporters::{BATCH_NORM_EPS, Graph, Node, Op, Shape, Weights, WeightsError, fold_batch_norm};
use proptest::prelude::*;

fn conv(out_channels: usize, kernel: usize, stride: usize, groups: usize) -> Op {
    Op::Conv2d { out_channels, kernel, stride, groups, bias: false }
}

/// A chain of ops, whose nodes are named `n1`, `n2`, and so on.
fn chain(input: Shape, ops: &[Op]) -> Graph {
    let mut g = Graph::new(input);
    for (i, op) in ops.iter().enumerate() {
        let inputs = if matches!(op, Op::Zero { .. }) { vec![] } else { vec![g.output()] };
        g.add(&format!("n{}", i + 1), *op, &inputs);
    }
    g
}

/// Squeeze-and-excite after a 3×3 convolution and its batch norm: 6 channels, which are squeezed to 2.
fn squeeze_excite() -> Graph {
    let pointwise = |out_channels| Op::Conv2d { out_channels, kernel: 1, stride: 1, groups: 1, bias: true };
    let ops =
        [conv(6, 3, 1, 1), Op::BatchNorm, Op::GlobalAvgPool, pointwise(2), Op::Relu, pointwise(6), Op::HardSigmoid];
    let mut g = chain(Shape::new(3, 5, 4), &ops);
    let (x, scale) = (g.ids().nth(2).unwrap(), g.output());
    g.add("scaled", Op::Mul, &[x, scale]);
    g
}

fn names(g: &Graph) -> Vec<&str> {
    g.nodes().iter().map(|n| n.name.as_str()).collect()
}

#[test]
fn every_op_has_the_right_output_shape() {
    let x = Shape::new(4, 9, 6);
    for (op, [c, h, w]) in [
        (conv(8, 3, 1, 1), [8, 9, 6]),
        (conv(8, 5, 2, 1), [8, 5, 3]),
        (conv(4, 5, 3, 4), [4, 3, 2]),
        (conv(6, 1, 2, 2), [6, 5, 3]),
        (Op::BatchNorm, [4, 9, 6]),
        (Op::Relu, [4, 9, 6]),
        (Op::Relu6, [4, 9, 6]),
        (Op::HardSigmoid, [4, 9, 6]),
        (Op::MaxPool { kernel: 3, stride: 2 }, [4, 5, 3]),
        (Op::AvgPool { kernel: 3, stride: 1 }, [4, 9, 6]),
        (Op::GlobalAvgPool, [4, 1, 1]),
        (Op::Linear { out_features: 7 }, [7, 1, 1]),
        (Op::Zero { shape: Shape::new(2, 3, 4) }, [2, 3, 4]),
    ] {
        assert_eq!(chain(x, &[op]).output_shape(), Shape::new(c, h, w), "{op:?}");
    }
    let mut sum = Graph::new(x);
    let twice = [sum.input(), sum.input()];
    for op in [Op::Add, Op::Mul] {
        sum.add(&format!("{op:?}"), op, &twice);
        assert_eq!(sum.output_shape(), x);
    }
    assert_eq!(squeeze_excite().output_shape(), Shape::new(6, 5, 4));
    assert_eq!(Graph::new(x).output_shape(), x);
}

#[test]
fn parameters_have_the_shapes_of_their_nodes() {
    let biased = Op::Conv2d { out_channels: 8, kernel: 1, stride: 1, groups: 1, bias: true };
    let ops = [conv(8, 3, 2, 2), Op::BatchNorm, biased, Op::Linear { out_features: 3 }];
    let g = chain(Shape::new(4, 5, 5), &ops);
    let params: Vec<(String, Vec<usize>)> = g.params().into_iter().map(|p| (p.name, p.dims)).collect();
    let expected = [
        ("n1.weight", vec![8, 2, 3, 3]),
        ("n2.weight", vec![8]),
        ("n2.bias", vec![8]),
        ("n2.running_mean", vec![8]),
        ("n2.running_var", vec![8]),
        ("n3.weight", vec![8, 8, 1, 1]),
        ("n3.bias", vec![8]),
        ("n4.weight", vec![3, 72]),
        ("n4.bias", vec![3]),
    ];
    assert_eq!(params, expected.map(|(name, dims)| (name.to_string(), dims)));
}

#[test]
fn shapes_are_parsed_as_they_are_displayed() {
    let shape = Shape::new(3, 32, 24);
    assert_eq!(shape.to_string(), "3x32x24");
    assert_eq!("3x32x24".parse(), Ok(shape));
    for wrong in ["", "3x32", "3x32x32x1", "3x0x32", "3xax3", "-1x2x2"] {
        assert!(wrong.parse::<Shape>().unwrap_err().contains("3x32x32"), "{wrong}");
    }
}

#[test]
#[should_panic(expected = "does not take inputs")]
fn adding_two_different_shapes_is_refused() {
    let mut g = Graph::new(Shape::new(4, 8, 8));
    let halved = g.add("pool", Op::MaxPool { kernel: 3, stride: 2 }, &[g.input()]);
    g.add("sum", Op::Add, &[halved, g.input()]);
}

#[test]
#[should_panic(expected = "does not take inputs")]
fn a_factor_must_have_one_value_or_as_many_as_the_input_in_each_channel() {
    let mut g = Graph::new(Shape::new(4, 8, 8));
    let halved = g.add("pool", Op::MaxPool { kernel: 3, stride: 2 }, &[g.input()]);
    g.add("product", Op::Mul, &[g.input(), halved]);
}

#[test]
fn nodes_that_the_output_does_not_depend_on_are_dead() {
    let shape = Shape::new(2, 4, 4);
    let mut g = chain(shape, &[conv(2, 3, 1, 1), Op::Relu]);
    let used = g.output();
    g.add("aside", Op::Relu6, &[used]);
    let pool = g.add("pool", Op::GlobalAvgPool, &[used]);
    g.add("linear", Op::Linear { out_features: 2 }, &[pool]);
    let live = g.live();
    assert_eq!(names(&live), ["input", "n1", "n2", "pool", "linear"]);
    assert_eq!(live.node(live.output()).name, "linear");
    let inputs: Vec<Vec<usize>> = live.nodes().iter().map(|n| n.inputs.iter().map(|i| i.index()).collect()).collect();
    assert_eq!(inputs, [vec![], vec![0], vec![1], vec![2], vec![3]]);
    assert_eq!(live.live(), live);

    let zero = chain(shape, &[conv(2, 3, 1, 1), Op::Relu, Op::Zero { shape }, Op::Relu]).live();
    assert_eq!(names(&zero), ["input", "n3", "n4"], "all nodes before the zero are dead, except the input");
}

#[test]
fn the_nodes_of_appended_parts_are_named_with_the_prefix() {
    let part = chain(Shape::new(2, 4, 4), &[conv(2, 3, 1, 1), Op::Relu]);
    let mut g = Graph::new(part.input_shape());
    let a = g.append("a", &part, g.input());
    let b = g.append("b", &part, a);
    let same = g.append("c", &Graph::new(part.input_shape()), b);
    assert_eq!((same, g.output()), (b, b), "an empty part adds nothing");
    assert_eq!(names(&g), ["input", "a.n1", "a.n2", "b.n1", "b.n2"]);
    assert_eq!(g.nodes()[3].inputs, [a]);
}

#[test]
fn cost_is_as_counted_by_hand() {
    // 3·2·3·3 weights at 4·4 positions; γ and β; 3·3·3 weights at 2·2 positions; 3·5 weights and 5 biases.
    let ops = [conv(3, 3, 1, 1), Op::BatchNorm, conv(3, 3, 2, 3), Op::GlobalAvgPool, Op::Linear { out_features: 5 }];
    let cost = chain(Shape::new(2, 4, 4), &ops).cost();
    assert_eq!(cost.macs, 54 * 16 + 27 * 4 + 15);
    assert_eq!(cost.params, 54 + 6 + 27 + 20);
    // At the batch norm: its input and its output, 3·4·4 f32 each.
    assert_eq!(cost.peak_activation_bytes, 2 * 48 * 4);
}

#[test]
fn cost_of_squeeze_and_excite_is_as_counted_by_hand() {
    let cost = squeeze_excite().cost();
    // 6·3·3·3 weights at 5·4 positions; then 2·6 and 6·2 at one position.
    assert_eq!(cost.macs, 162 * 20 + 12 + 12);
    // The first convolution has γ and β, and the others have biases.
    assert_eq!(cost.params, 162 + 12 + (12 + 2) + (12 + 6));
    // At the product: 6·5·4 f32 of its input, as many of its output, and 6 factors.
    assert_eq!(cost.peak_activation_bytes, (120 + 120 + 6) * 4);
    assert_eq!(squeeze_excite().live(), squeeze_excite(), "all of it is live");
}

#[test]
fn the_source_of_a_shortcut_stays_in_memory() {
    let mut g = chain(Shape::new(2, 4, 4), &[Op::Relu, Op::Relu]);
    let start = g.input();
    g.add("sum", Op::Add, &[g.output(), start]);
    assert_eq!(g.cost().peak_activation_bytes, 3 * 32 * 4);
}

#[test]
fn dead_nodes_cost_nothing() {
    let zero = Op::Zero { shape: Shape::new(2, 2, 2) };
    let cost = chain(Shape::new(2, 4, 4), &[conv(64, 5, 1, 1), zero, Op::GlobalAvgPool]).cost();
    assert_eq!((cost.macs, cost.params), (0, 0));
    assert_eq!(cost.peak_activation_bytes, 32 * 4, "the input is the largest");
}

/// The output of a graph of convolutions and batch norms, in f64.
fn evaluate(g: &Graph, weights: &Weights, x: &[f64]) -> Vec<f64> {
    let mut values: Vec<Vec<f64>> = vec![];
    for node in g.nodes() {
        let of = |suffix: &str| &weights.get(&format!("{}.{suffix}", node.name)).unwrap().values;
        values.push(match node.op {
            Op::Input => x.to_vec(),
            Op::Conv2d { bias, .. } => {
                let zeros = vec![0.0; node.shape.channels];
                let bias = if bias { of("bias") } else { &zeros };
                convolve(node, g.node(node.inputs[0]).shape, &values[node.inputs[0].index()], of("weight"), bias)
            }
            Op::BatchNorm => {
                let area = node.shape.height * node.shape.width;
                let normalise = |(i, x): (usize, &f64)| {
                    let of = |suffix| of(suffix)[i / area] as f64;
                    let deviation = (of("running_var") + BATCH_NORM_EPS).sqrt();
                    of("weight") * (x - of("running_mean")) / deviation + of("bias")
                };
                values[node.inputs[0].index()].iter().enumerate().map(normalise).collect()
            }
            op => panic!("{op:?} is not computed here"),
        });
    }
    values.swap_remove(g.output().index())
}

fn convolve(node: &Node, from: Shape, x: &[f64], weight: &[f32], bias: &[f32]) -> Vec<f64> {
    let Op::Conv2d { out_channels, kernel, stride, groups, .. } = node.op else { panic!("{node:?}") };
    let (fan_in, per_group) = (from.channels / groups, out_channels / groups);
    let at = |c: usize, y: usize, x_: usize| {
        let (y, x_) = (y.wrapping_sub(kernel / 2), x_.wrapping_sub(kernel / 2));
        if y < from.height && x_ < from.width { x[(c * from.height + y) * from.width + x_] } else { 0.0 }
    };
    let mut out = vec![];
    for o in 0..out_channels {
        for (y, x) in (0..node.shape.height).flat_map(|y| (0..node.shape.width).map(move |x| (y, x))) {
            let mut sum = bias[o] as f64;
            for (i, w) in weight[o * fan_in * kernel * kernel..][..fan_in * kernel * kernel].iter().enumerate() {
                let (c, dy, dx) = (i / (kernel * kernel), i / kernel % kernel, i % kernel);
                sum += *w as f64 * at(o / per_group * fan_in + c, y * stride + dy, x * stride + dx);
            }
            out.push(sum);
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..Default::default() })]

    #[test]
    fn folding_batch_norms_does_not_change_the_output(
        groups in 1..3usize, fan_in in 1..4usize, per_group in 1..4usize, half in 0..3usize,
        stride in 1..3usize, bias: bool, height in 1..7usize, seed: u64,
    ) {
        let (out_channels, kernel) = (groups * per_group, 2 * half + 1);
        let first = Op::Conv2d { out_channels, kernel, stride, groups, bias };
        let ops = [first, Op::BatchNorm, conv(2, 1, 1, 1), Op::BatchNorm];
        let g = chain(Shape::new(groups * fan_in, height, 5), &ops);
        let weights = Weights::random(&g, seed);
        let (folded, folded_weights) = fold_batch_norm(&g, &weights).unwrap();
        prop_assert_eq!(names(&folded), ["input", "n1", "n3"]);
        folded_weights.check(&folded).unwrap();
        prop_assert_eq!(folded_weights.iter().count(), folded.params().len());

        let x: Vec<f64> = (0..g.input_shape().len()).map(|i| (i as f64 * 0.7).sin()).collect();
        for (a, b) in evaluate(&g, &weights, &x).iter().zip(evaluate(&folded, &folded_weights, &x)) {
            prop_assert!((a - b).abs() < 1e-5, "{} {}", a, b);
        }
    }
}

#[test]
fn a_batch_norm_is_folded_only_if_nothing_else_reads_its_convolution() {
    let shared = |read_again: bool| {
        let mut g = chain(Shape::new(2, 4, 4), &[conv(2, 3, 1, 1)]);
        let conv = g.output();
        let norm = g.add("norm", Op::BatchNorm, &[conv]);
        let other = if read_again { conv } else { g.input() };
        g.add("sum", Op::Add, &[norm, other]);
        g.add("end", Op::BatchNorm, &[g.output()]);
        g
    };
    for (read_again, expected) in
        [(false, vec!["input", "n1", "sum", "end"]), (true, vec!["input", "n1", "norm", "sum", "end"])]
    {
        let g = shared(read_again);
        let (folded, weights) = fold_batch_norm(&g, &Weights::random(&g, 0)).unwrap();
        assert_eq!(names(&folded), expected);
        weights.check(&folded).unwrap();
    }
}

#[test]
fn convolutions_without_batch_norm_keep_their_weights_and_biases() {
    let g = squeeze_excite();
    let weights = Weights::random(&g, 0);
    let (folded, folded_weights) = fold_batch_norm(&g, &weights).unwrap();
    assert_eq!(names(&folded), ["input", "n1", "n3", "n4", "n5", "n6", "n7", "scaled"]);
    let read: Vec<usize> = folded.node(folded.output()).inputs.iter().map(|i| i.index()).collect();
    assert_eq!(read, [1, 6], "the convolution that the batch norm was folded into, and the factors");
    folded_weights.check(&folded).unwrap();
    for name in ["n4.weight", "n4.bias", "n6.weight", "n6.bias"] {
        assert_eq!(folded_weights.get(name).unwrap(), weights.get(name).unwrap(), "{name}");
    }
    assert_ne!(folded_weights.get("n1.weight").unwrap(), weights.get("n1.weight").unwrap());
}

#[test]
fn a_bias_that_the_network_does_not_have_is_ignored() {
    let g = chain(Shape::new(2, 4, 4), &[conv(2, 3, 1, 1), Op::BatchNorm]);
    let weights = Weights::random(&g, 0);
    let mut more = weights.clone();
    more.insert("n1.bias", vec![2], vec![1e3, 1e3]);
    assert_eq!(fold_batch_norm(&g, &more).unwrap().1, fold_batch_norm(&g, &weights).unwrap().1);
}

#[test]
fn missing_and_misshapen_weights_are_named() {
    let g = chain(Shape::new(2, 4, 4), &[conv(2, 3, 1, 1), Op::BatchNorm, Op::Linear { out_features: 3 }]);
    let all = Weights::random(&g, 0);
    for param in g.params() {
        let mut some = Weights::default();
        all.iter().filter(|(n, _)| *n != param.name).for_each(|(n, t)| {
            some.insert(n, t.dims.clone(), t.values.clone());
        });
        let error = fold_batch_norm(&g, &some).unwrap_err();
        assert!(matches!(&error, WeightsError::Missing { name } if *name == param.name), "{error}");
        assert!(error.to_string().contains(&format!("no `{}`", param.name)), "{error}");

        some.insert(&param.name, vec![1, 1], vec![0.0]);
        let error = fold_batch_norm(&g, &some).unwrap_err();
        let WeightsError::Shape { name, expected, found } = &error else { panic!("{error}") };
        assert_eq!((name, expected, found), (&param.name, &param.dims, &vec![1, 1]));
        assert!(error.to_string().contains(&format!("`{}` is [1, 1]", param.name)), "{error}");
    }
}

#[test]
fn random_weights_are_the_same_for_the_same_seed() {
    let g = chain(Shape::new(2, 4, 4), &[conv(2, 3, 1, 1), Op::BatchNorm]);
    assert_eq!(Weights::random(&g, 1), Weights::random(&g, 1));
    assert_ne!(Weights::random(&g, 1), Weights::random(&g, 2));
}
