//! One network, three interpreters: libtorch, tract and ONNX Runtime give the same output, and a
//! network is its layers and nothing else.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used)]

use edge_nas::device::{Board, Device, Session};
use edge_nas::space::{CandidateOp, Genotype, Layer, LayerSpec, SearchSpace, Stem, mobilenet_v2};
use edge_nas::torch::Net;
use nas_exporters::{Graph, NodeId, Shape, Weights, onnx};
use nas_probe::{Runtime, TensorData};
use onnx_protobuf::{GraphProto, Message, ModelProto, NodeProto};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::cell::RefCell;
use tch::Tensor;
use tempfile::TempDir;

/// The largest difference of an output value that runtimes may have from libtorch.
const TOLERANCE: f32 = 1e-4;

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

    /// Runs a network with random weights on a random image in libtorch and in each runtime, asserts
    /// that they agree, and gives the output.
    fn agree(&self, name: &str, graph: Graph, seed: u64) -> Vec<f32> {
        let weights = Weights::random(&graph, seed);
        let onnx = onnx::encode(&graph, &weights).unwrap();
        let image = random(graph.input_shape(), seed);
        let net = Net::new(graph);
        net.load(&weights).unwrap();
        let expected = tch::no_grad(|| values(&net.forward(&tensor(&image), false)));

        let mut session = self.session.borrow_mut();
        let placed = session.put(&[(name.to_string(), onnx)]).unwrap();
        for runtime in Runtime::ALL {
            let outputs = session.infer(&placed[0], runtime, vec![image.clone()]).unwrap();
            assert_eq!(outputs.len(), 1, "{name} in {runtime}");
            assert_eq!(outputs[0].values.len(), expected.len(), "{name} in {runtime}");
            let differences = expected.iter().zip(&outputs[0].values).map(|(a, b)| (a - b).abs());
            let worst = differences.max_by(f32::total_cmp).unwrap();
            assert!(worst <= TOLERANCE, "{name} in {runtime} differs by {worst:e}, seed {seed}");
        }
        expected
    }
}

/// A N×C×H×W tensor of N = 1, its values spread over [-1, 1].
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

fn candidates() -> Vec<CandidateOp> {
    let all = CandidateOp::names().into_iter().map(|name| name.parse().unwrap());
    all.filter(|op| *op != CandidateOp::HEAD).collect()
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
            assert_eq!(op == CandidateOp::ZERO, output.iter().all(|v| *v == 0.0), "{layer}");
        }
    }
    for input in [Shape::new(8, 5, 7), Shape::new(8, 1, 1)] {
        let head = Layer { op: CandidateOp::HEAD, input, channels: 10, stride: 1 };
        assert_eq!(host.agree(&head.to_string(), head.graph(), 0).len(), 10);
    }
}

#[test]
fn the_baseline_computes_the_same_in_every_runtime() {
    let output = Host::new().agree("mobilenet_v2", mobilenet_v2(0.5, Shape::new(3, 32, 32), 10), 0);
    assert!(output.iter().any(|v| v.abs() > TOLERANCE * 100.0), "{output:?}");
}

/// A network of a random small space.
fn genotypes() -> impl Strategy<Value = Genotype> {
    let op = proptest::sample::select(candidates());
    let live = op.clone().prop_filter("the stem computes something", |op| *op != CandidateOp::ZERO);
    let layer =
        (1..9usize, 1..4usize, op).prop_map(|(channels, stride, op)| (LayerSpec { channels, stride }, op));
    let image = (1..4usize, 1..14usize, 1..14usize).prop_map(|(c, h, w)| Shape::new(c, h, w));
    let stem = (live, 1..9usize, 1..3usize);
    (stem, proptest::collection::vec(layer, 1..6), image, 1..6usize).prop_map(
        |((op, channels, stride), layers, input, classes)| {
            let (layers, ops) = layers.into_iter().unzip();
            let stem = Stem { op, channels, stride };
            let space = SearchSpace { name: "random".into(), stem, candidates: candidates(), layers };
            Genotype::new(space, ops, input, classes).unwrap()
        },
    )
}

/// A random network of a built-in space, for square RGB images of `size` pixels.
fn genotypes_of(space: &str, size: usize) -> impl Strategy<Value = Genotype> {
    let space = SearchSpace::load(space).unwrap();
    let op = proptest::sample::select(space.candidates.clone());
    let ops = proptest::collection::vec(op, space.layers.len());
    ops.prop_map(move |ops| Genotype::new(space.clone(), ops, Shape::new(3, size, size), 10).unwrap())
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
        prop_assert_eq!(output.len(), genotype.classes);
        Ok(())
    };
    runner(16).run(&networks, agree).unwrap();
    for (space, size, cases) in [("chain", 32, 4), ("mobile", 32, 12), ("mobile_224", 224, 1)] {
        runner(cases).run(&(genotypes_of(space, size), any::<u64>()), agree).unwrap();
    }
}

#[test]
fn layers_of_one_shape_share_their_rows() {
    for (space, size, shapes) in [("mobile", 32, 6), ("mobile_224", 224, 11)] {
        let space = SearchSpace::load(space).unwrap();
        let layers = space.distinct_layers(Shape::new(3, size, size), 10);
        assert_eq!(space.candidates.len(), 20);
        assert_eq!(layers.len(), 20 * shapes + 2, "{}", space.name);
        let head = layers.last().unwrap();
        assert_eq!((head.input.height, head.input.width), if size == 32 { (8, 8) } else { (7, 7) });
    }
}

#[test]
fn a_stem_without_stride_has_stride_one() {
    let mut space = serde_json::to_value(SearchSpace::load("chain").unwrap()).unwrap();
    space["stem"].as_object_mut().unwrap().remove("stride").unwrap();
    let read: SearchSpace = serde_json::from_value(space).unwrap();
    assert_eq!(read, SearchSpace::load("chain").unwrap());
    assert_eq!(read.stem.stride, 1);
}

/// The layers of a network with the prefix that each is found below.
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

/// The weights of the part of a network below `prefix`, under the names of the part.
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
        let whole = parse(&onnx::encode(&genotype.graph(), &weights).unwrap());

        let mut layers = prefixed(&genotype);
        if let Some(zero) = layers.iter().rposition(|(_, layer)| layer.op == CandidateOp::ZERO) {
            layers.drain(..zero);
        }
        let (mut nodes, mut initializers) = (vec![], vec![]);
        let mut end = "input".to_string();
        for (prefix, layer) in layers {
            let micro_model = onnx::encode(&layer.graph(), &part_of(&weights, &prefix)).unwrap();
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
        let all = genotype.space.distinct_layers(genotype.input, genotype.classes);
        for (i, layer) in all.iter().enumerate() {
            prop_assert!(!all[..i].contains(layer), "{} stands twice", layer);
        }
        for layer in genotype.layers() {
            prop_assert!(all.contains(&layer), "{}", layer);
        }
        // And no more: each is in the network that holds its op everywhere.
        let of_all_networks: Vec<Layer> = candidates()
            .into_iter()
            .flat_map(|op| Genotype { ops: vec![op; genotype.ops.len()], ..genotype.clone() }.layers())
            .collect();
        prop_assert!(all.iter().all(|layer| of_all_networks.contains(layer)));
        Ok(())
    };
    runner(64).run(&genotypes(), check).unwrap();
}
