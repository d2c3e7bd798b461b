//! One network in three interpreters: libtorch, tract and ONNX Runtime give the same output, and a network consists of
//! its layers and nothing else.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used)]

use edge_nas::bounded::Width;
use edge_nas::device::{Board, Device, Session, Source};
use edge_nas::space::{CandidateOp, Channels, Genotype, Layer, LayerSpec, Network, Networks, SearchSpace};
use edge_nas::train::{Net, Norm, Placement};
use nas_exporters::{Graph, NodeId, Precision, Shape, Weights, onnx};
use nas_probe::{Runtime, TensorData};
use onnx_protobuf::{GraphProto, Message, ModelProto, NodeProto};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::cell::RefCell;
use std::collections::BTreeSet;
use tch::Tensor;
use tempfile::TempDir;

/// The largest difference of an output value that runtimes may have from libtorch, as a share of the largest output, or
/// of 1 if all are smaller.
const TOLERANCE: f32 = 5e-5;

/// The probe of this machine, and a folder for its models.
struct Host {
    session: RefCell<Session>,
    _folder: TempDir,
}

impl Host {
    fn new() -> Host {
        let folder = tempfile::tempdir().unwrap();
        let mut board = Board::local(Device::load("host").unwrap());
        board.device.folder = Some(folder.path().display().to_string());
        Host { session: RefCell::new(Session::open(&board).unwrap()), _folder: folder }
    }

    /// Runs a network with random weights on a random image in libtorch and in each runtime, asserts that they agree,
    /// and returns the output.
    fn agree(&self, name: &str, graph: Graph, seed: u64) -> Vec<f32> {
        let weights = Weights::random(&graph, seed);
        let onnx = onnx::encode(&graph, &weights, Precision::Fp32).unwrap();
        let image = random(graph.input_shape(), seed);
        let net = Net::new(graph, Placement::default());
        net.load(&weights).unwrap();
        let expected = tch::no_grad(|| values(&net.forward(&tensor(&image), Norm::Running)));

        let mut session = self.session.borrow_mut();
        let placed = session.place(&[(name.to_string(), Source::File(onnx))]).unwrap();
        for runtime in Runtime::ALL {
            let outputs = session.infer(&placed[0], runtime, vec![image.clone()]).unwrap();
            assert_eq!(outputs.len(), 1, "{name} in {runtime}");
            assert_eq!(outputs[0].values.len(), expected.len(), "{name} in {runtime}");
            let differences = expected.iter().zip(&outputs[0].values).map(|(a, b)| (a - b).abs());
            let worst = differences.max_by(f32::total_cmp).unwrap();
            let largest = expected.iter().fold(1f32, |largest, value| largest.max(value.abs()));
            assert!(worst <= TOLERANCE * largest, "{name} in {runtime} differs by {worst:e}, seed {seed}");
        }
        expected
    }
}

/// Returns an N×C×H×W tensor with N = 1, whose values are spread over [-1, 1].
fn random(shape: Shape, seed: u64) -> TensorData {
    use rand::{Rng, SeedableRng};
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let values = (0..shape.len()).map(|_| rng.random_range(-1.0..1.0)).collect();
    TensorData { shape: vec![1, shape.channels, shape.height, shape.width], values }
}

fn tensor(data: &TensorData) -> Tensor {
    let dims: Vec<i64> = data.shape.iter().map(|&d| d as i64).collect();
    Tensor::from_slice(&data.values).view(dims.as_slice())
}

fn values(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor.contiguous().view(-1)).unwrap()
}

/// Returns every form of op, with each kernel and expansion that the built-in spaces use, and some beyond.
fn candidates() -> Vec<CandidateOp> {
    let kernels = ["1x1", "3x3", "5x5", "7x7"];
    let plain = ["conv", "sep_conv", "avg_pool", "max_pool"];
    let mut names: Vec<String> = vec!["skip".into(), "zero".into()];
    names.extend(plain.iter().flat_map(|op| kernels.map(|kernel| format!("{op}_{kernel}"))));
    for kernel in &kernels[1..] {
        names.extend(["e1", "e2", "e3", "e6", "e1_se", "e3_se", "e6_se"].map(|form| format!("mb_{kernel}_{form}")));
        names.extend(
            ["e1_relu", "e6_relu", "e3_se_relu", "e3_hswish", "e6_se_hswish"].map(|form| format!("mb_{kernel}_{form}")),
        );
        names.extend(["res_{}", "res_{}_n2", "res_{}_n3"].map(|form| form.replace("{}", kernel)));
        names.extend(["e1", "e3", "e4", "e3_relu", "e3_hswish"].map(|form| format!("fused_{kernel}_{form}")));
    }
    names.iter().map(|name| name.parse().unwrap()).collect()
}

#[test]
fn every_op_computes_the_same_in_every_runtime() {
    let host = Host::new();
    let places = [
        (Shape::new(8, 10, 7), 8, 1),
        (Shape::new(8, 9, 11), 12, 1),
        (Shape::new(12, 6, 6), 8, 1),
        (Shape::new(8, 10, 12), 8, 2),
        (Shape::new(8, 10, 12), 12, 2),
        (Shape::new(8, 9, 11), 8, 2),
        (Shape::new(8, 9, 11), 12, 2),
        (Shape::new(8, 1, 2), 12, 2),
    ];
    for op in candidates() {
        for (seed, (input, channels, stride)) in (0..).zip(places) {
            let layer = Layer { op, input, channels, stride };
            let output = host.agree(&layer.to_string(), layer.graph(), seed);
            assert_eq!(output.len(), layer.output().len(), "{layer}");
            assert_eq!(op == CandidateOp::Zero, output.iter().all(|v| *v == 0.0), "{layer}");
        }
    }
    for input in [Shape::new(8, 5, 7), Shape::new(8, 1, 1)] {
        let head = Layer { op: CandidateOp::Head, input, channels: 10, stride: 1 };
        assert_eq!(host.agree(&head.to_string(), head.graph(), 0).len(), 10);
    }
}

#[test]
fn the_baselines_compute_the_same_in_every_runtime() {
    let host = Host::new();
    for name in Network::baselines() {
        for (width, side) in [(0.5, 32), (1.0, 96)] {
            let network = Network::baseline(name, Some(Width::of(width)), Shape::new(3, side, side), 10);
            let graph = network.unwrap().graph();
            let output = host.agree(&format!("{name}_{side}"), graph, 0);
            assert!(output.iter().any(|v| v.abs() > TOLERANCE * 100.0), "{name}: {output:?}");
        }
    }
}

/// tract 0.23.9 cannot load some networks with residual blocks whose maps are one pixel high or wide.
fn is_for_tract(genotype: &Genotype) -> bool {
    let is_thin = |shape: Shape| shape.height == 1 || shape.width == 1;
    !genotype.layers().iter().any(|layer| layer.op.to_string().starts_with("res_") && is_thin(layer.output()))
}

/// Generates networks of random small spaces, in which layers choose from their own lists, including widths.
fn genotypes() -> impl Strategy<Value = Genotype> {
    let ops = proptest::sample::subsequence(candidates(), 1..4).prop_shuffle();
    let ops = ops.prop_filter("a live op", |ops| ops.iter().any(|op| *op != CandidateOp::Zero));
    let widths = proptest::sample::subsequence((1..9usize).collect::<Vec<_>>(), 1..3).prop_map(Channels::Widths);
    let channels = prop_oneof![widths, Just(Channels::Same)];
    let layer = (ops, channels, 1..4usize, any::<prop::sample::Index>());
    let image = (1..4usize, 1..14usize, 1..14usize).prop_map(|(c, h, w)| Shape::new(c, h, w));
    let genotypes = (proptest::collection::vec(layer, 2..7), image, 1..6usize).prop_map(|(layers, input, classes)| {
        let mut choices = vec![];
        let mut specs = vec![];
        for (ops, channels, stride, index) in layers {
            let spec = LayerSpec { ops, channels, stride };
            choices.push(index.index(spec.choices().len()));
            specs.push(spec);
        }
        choices.push(0);
        let space = SearchSpace { name: "random".into(), layers: specs }.checked().unwrap();
        Genotype::new(Networks::new(space, input, [classes]).unwrap(), choices)
    });
    genotypes.prop_filter("a network that tract can load", is_for_tract)
}

fn networks(space: &str, size: usize) -> Networks {
    Networks::new(SearchSpace::load(space).unwrap(), Shape::new(3, size, size), [10]).unwrap()
}

/// Generates random networks of a built-in space, for square RGB images of `size` pixels.
fn genotypes_of(space: &str, size: usize) -> impl Strategy<Value = Genotype> {
    let networks = networks(space, size);
    let indices = proptest::collection::vec(any::<prop::sample::Index>(), networks.len());
    indices.prop_map(move |indices| {
        let choices = indices.iter().zip(networks.choices()).map(|(index, choices)| index.index(choices.len()));
        Genotype::new(networks.clone(), choices.collect())
    })
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(ProptestConfig { cases, failure_persistence: None, ..Default::default() })
}

#[test]
fn random_networks_compute_the_same_in_every_runtime() {
    let host = Host::new();
    let networks = (genotypes(), any::<u64>());
    let agree = |(genotype, seed): (Genotype, u64)| {
        let output = host.agree(&genotype.to_string(), genotype.graph(), seed);
        prop_assert_eq!(output.len(), genotype.networks.classes[0]);
        Ok(())
    };
    runner(16).run(&networks, agree).unwrap();
    for (space, size, cases) in [
        ("chain", 32, 4),
        ("residual", 32, 4),
        ("resnet", 32, 4),
        ("pooled", 32, 4),
        ("mobile", 32, 12),
        ("mobile_224", 224, 1),
    ] {
        runner(cases).run(&(genotypes_of(space, size), any::<u64>()), agree).unwrap();
    }
}

#[test]
fn layers_of_one_shape_share_their_rows() {
    let networks = networks("mobile_224", 224);
    let layers = networks.distinct_layers();
    assert!(networks.searched().all(|layer| networks.choices()[layer].len() == 20));
    assert_eq!(layers.len(), 20 * 11 + 2);
    let head = layers.last().unwrap();
    assert_eq!((head.input.height, head.input.width), (7, 7));
}

/// The stem; the first layer of each resolution, for each width before it; the layers of the same width, except for
/// those that they share with the first one; and a head for each width.
#[test]
fn layers_of_the_same_width_have_rows_for_each_width() {
    let rows = |space: &str| networks(space, 32).distinct_layers().len();
    assert_eq!(rows("residual"), 3 + 15 + 5 * 3 + 25 + 5 * 4 + 25 + 5 * 4 + 5);
    assert_eq!(rows("resnet"), 3 + 3 * 3 + 15 + 5 * 4 + 30 + 6 * 4 + 6);
    assert_eq!(rows("pooled"), 3 + 15 + 5 * 4 + 25 + 5 * 4 + 20 - 2 + 4 * 4 + 4);
    assert_eq!(rows("mobile"), 1 + 4 * (3 + 9 + 9) + 6 * 3 * 3 - 4 + 3);
    assert_eq!(rows("chain"), 1 + 8 * (3 + 9 + 9) + 8 * 3 * 3 - 8 + 3);
}

#[test]
fn channels_are_numbers_or_same() {
    let space = |channels: &str| {
        let text = format!("name = \"mine\"\nlayers = [{{ ops = [\"conv_3x3\"], channels = {channels} }}]");
        toml::from_str::<SearchSpace>(&text).map_err(|error| error.to_string())
    };
    let channels = |text: &str| space(text).unwrap().layers[0].channels.clone();
    assert_eq!(channels("4"), Channels::Widths(vec![4]));
    assert_eq!(channels("[4, 8]"), Channels::Widths(vec![4, 8]));
    assert_eq!(channels("\"same\""), Channels::Same);
    for channels in ["\"sane\"", "-4", "4.5", "[4, \"same\"]", "true"] {
        let error = space(channels).unwrap_err();
        assert!(error.contains("expected") && (error.contains("\"same\"") || channels.starts_with('[')), "{error}");
    }
    assert!(space("[]").unwrap_err().contains("channels are numbers from 1 to"));
    // Tables and genotypes contain their space, so its JSON must not change.
    for (text, json) in [("4", "[4]"), ("[4, 8]", "[4,8]"), ("\"same\"", "\"same\"")] {
        let space = space(text).unwrap();
        let written = serde_json::to_string(&space).unwrap();
        let layers = format!(r#"[{{"ops":["conv_3x3"],"channels":{json},"stride":1}}]"#);
        assert_eq!(written, format!(r#"{{"name":"mine","layers":{layers}}}"#));
        assert_eq!(serde_json::from_str::<SearchSpace>(&written).unwrap(), space);
    }
}

/// Sizes of networks that others have published or measured.
#[test]
fn spaces_hold_the_networks_that_they_are_named_after() {
    let genotype = |space: &str, names: &str| Genotype::parse(networks(space, 32), names).unwrap();
    let cost = |space: &str, names: &str| {
        let cost = genotype(space, names).graph().cost();
        (cost.macs as f64 / 1e6, cost.params as f64 / 1e6)
    };
    let (macs, params) = cost("residual", "conv_3x3:24,conv_3x3:48,res_3x3,conv_3x3:96,res_3x3,conv_3x3:192,res_3x3");
    assert!((macs - 40.5).abs() < 0.05 && (params - 1.09).abs() < 0.005, "{macs} {params}");
    let (macs, params) = cost("chain", "conv_3x3:32,skip,conv_3x3:64,conv_3x3,conv_3x3:128,conv_3x3");
    assert!((macs - 38.6).abs() < 0.05 && (params - 0.289).abs() < 0.0005, "{macs} {params}");
    let shallow = genotype(
        "mobile",
        "fused_3x3_e3_relu:24,skip,skip,mb_3x3_e6_relu:48,skip,skip,mb_3x3_e3_relu:96,skip,skip,skip",
    );
    assert_eq!(shallow.layers().iter().filter(|layer| layer.is_identity()).count(), 7);
}

/// In a family, parameters of the same name differ only in size, and the larger op has all those of the smaller one.
#[test]
fn ops_of_a_family_share_the_names_of_their_parameters() {
    let params = |op: &str, channels: usize, stride: usize| -> Vec<(String, usize)> {
        let layer = Layer { op: op.parse().unwrap(), input: Shape::new(8, 6, 6), channels, stride };
        let graph = layer.graph();
        let weights = Weights::random(&graph, 0);
        weights.iter().map(|(name, tensor)| (name.to_string(), tensor.dims.len())).collect()
    };
    for (smaller, larger) in [
        ("conv_3x3", "conv_5x5"),
        ("sep_conv_3x3", "sep_conv_5x5"),
        ("mb_3x3_e1", "mb_5x5_e3"),
        ("mb_3x3_e3", "mb_5x5_e6_se"),
        ("mb_3x3_e3_relu", "mb_5x5_e6_se"),
        ("mb_3x3_e3", "mb_5x5_e6_se_hswish"),
        ("fused_3x3_e3", "fused_5x5_e6"),
        ("res_3x3", "res_3x3_n2"),
        ("res_3x3_n2", "res_5x5_n3"),
        ("avg_pool_3x3", "avg_pool_5x5"),
    ] {
        let family = |op: &str| op.parse::<CandidateOp>().unwrap().family();
        assert_eq!(family(smaller), family(larger));
        for (channels, stride) in [(8, 1), (8, 2), (12, 1), (12, 2)] {
            let larger = params(larger, channels, stride);
            for param in params(smaller, channels, stride) {
                assert!(larger.contains(&param), "{param:?} of {smaller} is not in {larger:?}");
            }
        }
    }
    let families: BTreeSet<&str> = candidates().into_iter().map(CandidateOp::family).collect();
    let all = ["avg_pool", "conv", "fused", "max_pool", "mb", "res", "sep_conv", "skip", "zero"];
    assert_eq!(families, BTreeSet::from(all));
}

#[test]
fn a_layer_takes_the_candidates_of_the_space_and_a_stride_of_one_where_it_names_none() {
    let text = r#"
        name = "mine"
        candidates = ["conv_3x3", "skip"]
        layers = [{ ops = ["conv_5x5"], channels = 4, stride = 2 }, { channels = [4, 8] }]
    "#;
    let space: SearchSpace = toml::from_str(text).unwrap();
    assert_eq!(space.layers.iter().map(|layer| layer.stride).collect::<Vec<_>>(), [2, 1]);
    let names = |layer: &LayerSpec| edge_nas::space::names_of(&layer.choices());
    assert_eq!(names(&space.layers[0]), ["conv_5x5"]);
    assert_eq!(names(&space.layers[1]), ["conv_3x3:4", "conv_3x3:8", "skip:4", "skip:8"]);
}

/// A genotype's file has everything that is needed to read it. The names are those of the choices, whatever the layers
/// choose from.
#[test]
fn a_genotype_is_read_as_it_was_written() {
    let check = |genotype: Genotype| {
        let json = serde_json::to_string(&genotype).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Genotype>(&json).unwrap(), &genotype);
        let shown = genotype.to_string();
        if !shown.is_empty() {
            prop_assert_eq!(&Genotype::parse(genotype.networks.clone(), &shown).unwrap(), &genotype);
        }
        prop_assert_eq!(genotype.networks.choices_of(&genotype.layers()), Some(genotype.choices));
        Ok(())
    };
    runner(128).run(&genotypes(), check).unwrap();
}

/// Returns the layers of a network, each with the prefix below which it is found.
fn prefixed(genotype: &Genotype) -> Vec<(String, Layer)> {
    let layers = genotype.layers();
    let last = layers.len() - 1;
    let prefix = |i| match i {
        0 => "stem".to_string(),
        i if i == last => "head".to_string(),
        i => format!("layer{i}"),
    };
    layers.into_iter().enumerate().map(|(i, layer)| (prefix(i), layer)).collect()
}

#[test]
fn a_network_is_its_layers_node_for_node() {
    let check = |genotype: Genotype| {
        let whole = genotype.graph();
        let mut nodes = whole.ids().zip(whole.nodes()).skip(1);
        let mut end = whole.input();
        for (prefix, layer) in prefixed(&genotype) {
            let part = layer.graph();
            prop_assert_eq!(part.input_shape(), whole.node(end).shape);
            let mut ids: Vec<NodeId> = vec![end];
            for expected in &part.nodes()[1..] {
                let (id, node) = nodes.next().unwrap();
                let inputs: Vec<NodeId> = expected.inputs.iter().map(|i| ids[i.index()]).collect();
                prop_assert_eq!(&node.name, &format!("{}.{}", prefix, expected.name));
                prop_assert_eq!((node.op, node.shape), (expected.op, expected.shape));
                prop_assert_eq!(&node.inputs, &inputs);
                ids.push(id);
            }
            end = ids[part.output().index()];
        }
        prop_assert!(nodes.next().is_none());
        prop_assert_eq!(whole.output(), end);
        Ok(())
    };
    runner(256).run(&genotypes(), check).unwrap();
    runner(16).run(&genotypes_of("mobile", 32), check).unwrap();
}

fn parse(onnx: &[u8]) -> GraphProto {
    ModelProto::parse_from_bytes(onnx).unwrap().graph.unwrap()
}

/// Returns the weights of the part of a network below `prefix`, under the names of the part.
fn part_of(weights: &Weights, prefix: &str) -> Weights {
    let mut part = Weights::default();
    for (name, tensor) in weights.iter() {
        if let Some(name) = name.strip_prefix(prefix).and_then(|n| n.strip_prefix('.')) {
            part.insert(name, tensor.dims.clone(), tensor.values.clone());
        }
    }
    part
}

#[test]
fn an_exported_network_is_its_exported_layers() {
    let check = |(genotype, seed): (Genotype, u64)| {
        let weights = Weights::random(&genotype.graph(), seed);
        let whole = parse(&onnx::encode(&genotype.graph(), &weights, Precision::Fp32).unwrap());

        let mut layers = prefixed(&genotype);
        if let Some(zero) = layers.iter().rposition(|(_, layer)| layer.op == CandidateOp::Zero) {
            layers.drain(..zero);
        }
        let (mut nodes, mut initializers) = (vec![], vec![]);
        let mut end = "input".to_string();
        for (prefix, layer) in layers {
            let micro_model = onnx::encode(&layer.graph(), &part_of(&weights, &prefix), Precision::Fp32).unwrap();
            let mut part = parse(&micro_model);
            let moved = |name: &String| match name.as_str() {
                "input" => end.clone(),
                name => format!("{prefix}.{name}"),
            };
            let last = part.node.pop().unwrap();
            prop_assert_eq!((last.op_type.as_str(), last.output[0].as_str()), ("Identity", "output"));
            nodes.extend(part.node.iter().map(|node| NodeProto {
                name: moved(&node.name),
                input: node.input.iter().map(&moved).collect(),
                output: node.output.iter().map(&moved).collect(),
                ..node.clone()
            }));
            for mut tensor in part.initializer {
                tensor.name = moved(&tensor.name);
                initializers.push(tensor);
            }
            end = moved(&last.input[0]);
        }
        let identity = whole.node.last().unwrap();
        prop_assert_eq!((identity.op_type.as_str(), &identity.input), ("Identity", &vec![end]));
        prop_assert_eq!(&whole.node[..whole.node.len() - 1], &nodes[..]);
        prop_assert_eq!(&whole.initializer, &initializers);
        Ok(())
    };
    runner(64).run(&(genotypes(), any::<u64>()), check).unwrap();
    runner(8).run(&(genotypes_of("mobile", 32), any::<u64>()), check).unwrap();
}

#[test]
fn the_layers_of_a_space_are_those_of_all_its_networks() {
    let check = |genotype: Genotype| {
        let networks = &genotype.networks;
        let all = networks.distinct_layers();
        for (i, layer) in all.iter().enumerate() {
            prop_assert!(!all[..i].contains(layer), "{} is there twice", layer);
        }
        for layer in genotype.layers() {
            prop_assert!(all.contains(&layer), "{}", layer);
        }
        // And there are no more: each is in the networks that have its choice and a choice that gives it its input.
        for (layer, variants) in networks.variants().iter().enumerate() {
            for variant in variants {
                let mut choices = vec![0; networks.len()];
                choices[layer] = variant.choice;
                if let Some((before, given)) = &variant.inputs {
                    choices[*before] = given[0];
                }
                prop_assert_eq!(networks.layers_of(&choices)[layer], variant.layer);
            }
        }
        Ok(())
    };
    runner(64).run(&genotypes(), check).unwrap();
}
