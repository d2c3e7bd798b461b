//! ONNX files, read back after they were written.
#![allow(clippy::unwrap_used)]

use nas_exporters::{EncodeError, Graph, Op, Precision, Shape, Weights, WeightsError, fold_batch_norm, onnx};
use onnx_protobuf::{
    AttributeProto, GraphProto, Message, ModelProto, TensorProto, ValueInfoProto, attribute_proto::AttributeType,
    tensor_proto::DataType,
};
use std::path::Path;

/// A network with every op except zero, in which one batch norm cannot be folded.
fn network() -> Graph {
    let conv = |out_channels, kernel, stride, groups| Op::Conv2d { out_channels, kernel, stride, groups, bias: false };
    let mut g = Graph::new(Shape::new(3, 9, 8));
    let x = g.add("stem.conv", conv(4, 3, 1, 1), &[g.input()]);
    let x = g.add("stem.conv_bn", Op::BatchNorm, &[x]);
    let x = g.add("stem.relu", Op::Relu, &[x]);
    let x = g.add("layer1.depthwise", conv(4, 5, 2, 4), &[x]);
    let x = g.add("layer1.depthwise_bn", Op::BatchNorm, &[x]);
    let x = g.add("layer1.relu", Op::Relu6, &[x]);
    let a = g.add("layer2.max_pool", Op::MaxPool { kernel: 3, stride: 1 }, &[x]);
    let b = g.add("layer2.avg_pool", Op::AvgPool { kernel: 3, stride: 1 }, &[x]);
    let x = g.add("layer2.add", Op::Add, &[a, b]);
    let x = g.add("layer2.bn", Op::BatchNorm, &[x]);
    g.add("layer2.unread", Op::Relu, &[x]);
    let x = g.add("layer3.projection", conv(6, 1, 2, 1), &[x]);
    let x = g.add("layer3.projection_bn", Op::BatchNorm, &[x]);
    let biased = Op::Conv2d { out_channels: 6, kernel: 1, stride: 1, groups: 1, bias: true };
    let scale = g.add("layer4.pool", Op::GlobalAvgPool, &[x]);
    let scale = g.add("layer4.conv", biased, &[scale]);
    let scale = g.add("layer4.sigmoid", Op::HardSigmoid, &[scale]);
    let x = g.add("layer4.scale", Op::Mul, &[x, scale]);
    let x = g.add("head.pool", Op::GlobalAvgPool, &[x]);
    g.add("head.linear", Op::Linear { out_features: 5 }, &[x]);
    g
}

fn parse(bytes: &[u8]) -> (ModelProto, GraphProto) {
    let model = ModelProto::parse_from_bytes(bytes).unwrap();
    let graph = model.graph.clone().unwrap();
    (model, graph)
}

/// Everything in a model except its numbers and the version of this crate, one item per line.
fn dump(bytes: &[u8]) -> String {
    let (model, graph) = parse(bytes);
    let opsets: Vec<String> = model.opset_import.iter().map(|o| format!("{:?} {}", o.domain, o.version)).collect();
    let mut lines = vec![format!("ir {}, opset {}, by {}", model.ir_version, opsets.join(", "), model.producer_name)];
    lines.extend(graph.input.iter().map(|v| format!("input {}", value(v))));
    for node in &graph.node {
        let attributes: String = node.attribute.iter().map(|a| format!(" {}", attribute(a))).collect();
        assert_eq!(node.name, node.output[0]);
        lines.push(format!("{} {} <- {}{attributes}", node.op_type, node.output.join(" "), node.input.join(" ")));
    }
    lines.extend(graph.output.iter().map(|v| format!("output {}", value(v))));
    lines.extend(graph.initializer.iter().map(|t| format!("initializer {} {:?}", t.name, t.dims)));
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn value(v: &ValueInfoProto) -> String {
    let tensor = v.type_.tensor_type();
    assert_eq!(tensor.elem_type, DataType::FLOAT as i32);
    let dims: Vec<i64> = tensor.shape.dim.iter().map(|d| d.dim_value()).collect();
    format!("{} {dims:?}", v.name)
}

fn attribute(a: &AttributeProto) -> String {
    match a.type_.unwrap() {
        AttributeType::INTS => format!("{}={:?}", a.name, a.ints),
        AttributeType::INT => format!("{}={}", a.name, a.i),
        AttributeType::FLOAT => format!("{}={}", a.name, a.f),
        other => panic!("{}: {other:?}", a.name),
    }
}

fn values(t: &TensorProto) -> Vec<f32> {
    t.raw_data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// The rows of a latency table are bound to graphs, not to their ONNX files, so changing this format does not by itself
/// invalidate them.
#[test]
fn the_format_matches_the_golden_file() {
    let g = network();
    let found = dump(&onnx::encode(&g, &Weights::random(&g, 0), Precision::Fp32).unwrap());
    if found != include_str!("golden/network.txt") {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("network.txt");
        std::fs::write(&path, &found).unwrap();
        panic!("the ONNX format changed; compare {} with exporters/tests/golden/network.txt", path.display());
    }
}

#[test]
fn initializers_hold_the_folded_weights() {
    let g = network();
    let weights = Weights::random(&g, 0);
    let (_, graph) = parse(&onnx::encode(&g, &weights, Precision::Fp32).unwrap());
    let (folded_graph, folded) = fold_batch_norm(&g.live(), &weights).unwrap();
    for param in folded_graph.params() {
        let tensor = folded.get(&param.name).unwrap();
        let written = graph.initializer.iter().find(|t| t.name == param.name).unwrap();
        assert_eq!(written.dims, param.dims.iter().map(|&d| d as i64).collect::<Vec<_>>(), "{}", param.name);
        assert_eq!(values(written), tensor.values, "{}", param.name);
    }
    let bound = |name| values(graph.initializer.iter().find(|t| t.name == name).unwrap());
    assert_eq!((bound("layer1.relu.low"), bound("layer1.relu.high")), (vec![0.0], vec![6.0]));
    assert_eq!(graph.initializer.len(), folded_graph.params().len() + 2);
}

#[test]
fn a_zero_is_a_constant_and_the_nodes_before_it_are_not_written() {
    let mut g = Graph::new(Shape::new(2, 4, 4));
    let stem = Op::Conv2d { out_channels: 2, kernel: 3, stride: 1, groups: 1, bias: false };
    g.add("stem", stem, &[g.input()]);
    let zero = g.add("zero", Op::Zero { shape: Shape::new(3, 2, 2) }, &[]);
    g.add("pool", Op::GlobalAvgPool, &[zero]);
    // The weights of the stem are not needed.
    let (_, graph) = parse(&onnx::encode(&g, &Weights::default(), Precision::Fp32).unwrap());
    let written: Vec<(&str, &str)> = graph.node.iter().map(|n| (n.op_type.as_str(), n.input[0].as_str())).collect();
    assert_eq!(written, [("GlobalAveragePool", "zero"), ("Identity", "pool")]);
    assert_eq!(graph.initializer[0].dims, [1, 3, 2, 2]);
    assert_eq!(values(&graph.initializer[0]), vec![0.0; 12]);
    assert_eq!(value(&graph.output[0]), "output [1, 3, 1, 1]");
}

#[test]
fn an_empty_network_outputs_its_input() {
    let (_, graph) =
        parse(&onnx::encode(&Graph::new(Shape::new(2, 4, 4)), &Weights::default(), Precision::Fp32).unwrap());
    assert_eq!(graph.node.len(), 1);
    assert_eq!((graph.node[0].op_type.as_str(), graph.node[0].input[0].as_str()), ("Identity", "input"));
}

#[test]
fn equal_networks_and_weights_give_equal_bytes() {
    let g = network();
    let encode = |seed| onnx::encode(&g, &Weights::random(&g, seed), Precision::Fp32).unwrap();
    assert_eq!(encode(1), encode(1));
    assert_ne!(encode(1), encode(2));
}

#[test]
fn weights_that_do_not_fit_are_an_error() {
    let g = network();
    let mut weights = Weights::random(&g, 0);
    weights.insert("head.linear.bias", vec![6], vec![0.0; 6]);
    let error = onnx::encode(&g, &weights, Precision::Fp32).unwrap_err();
    assert!(
        matches!(&error, EncodeError::Weights(WeightsError::Shape { name, .. }) if name == "head.linear.bias"),
        "{error}"
    );
    let error = onnx::encode(&g, &Weights::default(), Precision::Fp32).unwrap_err();
    assert!(
        matches!(&error, EncodeError::Weights(WeightsError::Missing { name }) if name == "stem.conv.weight"),
        "{error}"
    );
}

#[test]
fn what_a_model_is_stands_in_its_file() {
    let mut g = Graph::new(Shape::new(2, 4, 4));
    g.add("relu", Op::Relu, &[g.input()]);
    let model = onnx::untrained(&g, Precision::Fp32).unwrap();
    assert_eq!(onnx::inspect(&model).unwrap().precision, Precision::Fp32);
    let changed = |change: &dyn Fn(&mut ModelProto)| {
        let mut model = ModelProto::parse_from_bytes(&model).unwrap();
        change(&mut model);
        onnx::inspect(&model.write_to_bytes().unwrap()).map(|model| model.precision)
    };
    let op = |name: &'static str| {
        move |model: &mut ModelProto| {
            model.graph.as_mut().unwrap().node[0].op_type = name.into();
        }
    };
    for quantised in ["QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger"] {
        assert_eq!(changed(&op(quantised)).unwrap(), Precision::Int8, "{quantised}");
    }
    let half = |model: &mut ModelProto| {
        let mut weight = TensorProto::new();
        weight.data_type = onnx_protobuf::tensor_proto::DataType::FLOAT16 as i32;
        model.graph.as_mut().unwrap().initializer.push(weight);
    };
    assert_eq!(changed(&half).unwrap(), Precision::Fp16);
    for garbage in [b"no model".as_slice(), b""] {
        assert!(matches!(onnx::inspect(garbage), Err(EncodeError::NotOnnx(_))));
    }
    for other in [Precision::Int8, Precision::Fp16] {
        let error = onnx::untrained(&g, other).unwrap_err().to_string();
        assert!(error.contains(&other.to_string()) && error.contains("fp32"), "{error}");
    }
}

#[test]
fn batches_and_metadata_stand_in_the_file_and_unfit_models_have_a_reason() {
    let mut g = Graph::new(Shape::new(2, 4, 4));
    g.add("relu", Op::Relu, &[g.input()]);
    let model = onnx::untrained(&g, Precision::Fp32).unwrap();
    assert_eq!(onnx::inspect(&model).unwrap().input, [1, 2, 4, 4]);
    let tagged = onnx::with_metadata(&model, "of", "me").unwrap();
    assert_eq!(onnx::inspect(&tagged).unwrap().metadata["of"], "me");
    let changed = |change: &dyn Fn(&mut ModelProto)| {
        let mut model = ModelProto::parse_from_bytes(&model).unwrap();
        change(&mut model);
        onnx::inspect(&model.write_to_bytes().unwrap())
    };
    let size = |model: &mut ModelProto, size: i64| {
        let input = &mut model.graph.as_mut().unwrap().input[0];
        input.type_.as_mut().unwrap().mut_tensor_type().shape.as_mut().unwrap().dim[0].set_dim_value(size);
    };
    assert_eq!(changed(&|model| size(model, 8)).unwrap().images(), 8);
    let reason = |change: &dyn Fn(&mut ModelProto)| changed(change).unwrap_err().to_string();
    assert!(reason(&|model| size(model, 0)).contains("`input` has no fixed shape"));
    let half = reason(&|model| {
        let input = &mut model.graph.as_mut().unwrap().input[0];
        input.type_.as_mut().unwrap().mut_tensor_type().elem_type = 10;
    });
    assert!(half.contains("`input` is not of 32-bit floats"), "{half}");
    let external = reason(&|model| {
        let mut weight = TensorProto::new();
        weight.data_location = onnx_protobuf::tensor_proto::DataLocation::EXTERNAL.into();
        model.graph.as_mut().unwrap().initializer.push(weight);
    });
    assert!(external.contains("weights are in another file"), "{external}");
}
