//! Writes a [`Graph`] as an ONNX model: opset 13, batch 1, input `input` and output `output`.

use crate::{BATCH_NORM_EPS, Graph, Node, NodeId, Op, Precision, Shape, Weights, WeightsError, fold_batch_norm};
use onnx_protobuf::{
    AttributeProto, GraphProto, Message, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, attribute_proto::AttributeType,
    tensor_proto::DataLocation, tensor_proto::DataType, tensor_shape_proto::Dimension, type_proto,
};
use protobuf::MessageField;
use std::collections::BTreeMap;

const OPSET: i64 = 13;
/// The IR version that came with opset 13.
const IR_VERSION: i64 = 7;

#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error("networks cannot be written in {0} yet; use fp32")]
    Precision(Precision),
    #[error("it is not an ONNX model: {0}")]
    NotOnnx(String),
    #[error("its weights are in another file; save it with all weights inside, as docs/guide.md shows")]
    External,
    #[error("its input `{name}` {what}; export it with 32-bit float inputs and fixed shapes, as docs/guide.md shows")]
    Input { name: String, what: String },
}

/// Returns the ONNX file of an untrained network, which is the file that is measured for a graph. Its pseudo-random
/// weights are the same on every machine.
///
/// # Errors
/// [`EncodeError::Precision`] if the precision cannot be written.
pub fn untrained(graph: &Graph, precision: Precision) -> Result<Vec<u8>, EncodeError> {
    encode(graph, &Weights::random(graph, 0), precision)
}

/// What an ONNX file says about its model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// Number format of its nodes and initializers.
    pub precision: Precision,
    /// The sizes of its input: the number of images per inference, then the sizes of an image.
    pub input: Vec<usize>,
    pub metadata: BTreeMap<String, String>,
}

impl Inspected {
    /// Returns the number of images per inference, which is the first size of the input.
    pub fn images(&self) -> usize {
        self.input.first().copied().unwrap_or(1)
    }
}

/// Reads what an ONNX file says about its model, and checks that the probe could run it.
///
/// # Errors
/// [`EncodeError::NotOnnx`], [`EncodeError::External`], [`EncodeError::Input`]
pub fn inspect(model: &[u8]) -> Result<Inspected, EncodeError> {
    let model = ModelProto::parse_from_bytes(model).map_err(|e| EncodeError::NotOnnx(e.to_string()))?;
    if model.graph.node.is_empty() {
        return Err(EncodeError::NotOnnx("it has no nodes".into()));
    }
    let external = |tensor: &TensorProto| tensor.data_location.value() == DataLocation::EXTERNAL as i32;
    if model.graph.initializer.iter().any(external) {
        return Err(EncodeError::External);
    }
    let metadata = model.metadata_props.iter().map(|entry| (entry.key.clone(), entry.value.clone())).collect();
    Ok(Inspected { precision: precision(&model), input: input(&model.graph)?, metadata })
}

/// Returns the sizes of the first input that is not a weight.
fn input(graph: &GraphProto) -> Result<Vec<usize>, EncodeError> {
    let is_weight = |input: &&ValueInfoProto| graph.initializer.iter().any(|tensor| tensor.name == input.name);
    let no_input = || EncodeError::NotOnnx("it has no input".into());
    let input = graph.input.iter().find(|input| !is_weight(input)).ok_or_else(no_input)?;
    let wrong = |what: &str| EncodeError::Input { name: input.name.clone(), what: what.into() };
    let tensor = input.type_.tensor_type();
    if tensor.elem_type != DataType::FLOAT as i32 {
        return Err(wrong("is not of 32-bit floats"));
    }
    let size = |dim: &Dimension| usize::try_from(dim.dim_value()).ok().filter(|size| *size > 0);
    let sizes: Option<Vec<usize>> = tensor.shape.dim.iter().map(size).collect();
    sizes.filter(|sizes| !sizes.is_empty()).ok_or_else(|| wrong("has no fixed shape"))
}

/// Returns the model with an additional entry of metadata.
///
/// # Errors
/// [`EncodeError::NotOnnx`]
pub fn with_metadata(model: &[u8], key: &str, value: &str) -> Result<Vec<u8>, EncodeError> {
    let not_onnx = |e: protobuf::Error| EncodeError::NotOnnx(e.to_string());
    let mut model = ModelProto::parse_from_bytes(model).map_err(not_onnx)?;
    model.metadata_props.push(StringStringEntryProto { key: key.into(), value: value.into(), ..Default::default() });
    model.write_to_bytes().map_err(not_onnx)
}

fn precision(model: &ModelProto) -> Precision {
    let quantised = |node: &NodeProto| {
        let op = node.op_type.as_str();
        op.starts_with("QLinear") || op.ends_with("Integer") || matches!(op, "QuantizeLinear" | "DequantizeLinear")
    };
    let half = |tensor: &TensorProto| tensor.data_type == DataType::FLOAT16 as i32;
    match &*model.graph {
        graph if graph.node.iter().any(quantised) => Precision::Int8,
        graph if graph.initializer.iter().any(half) => Precision::Fp16,
        _ => Precision::Fp32,
    }
}

/// Returns the ONNX file of a network. Dead nodes are removed, and batch norms are folded into convolutions.
///
/// # Errors
/// Fails if a parameter of `graph` is missing in `weights` or misshapen, or if the precision cannot be written.
pub fn encode(graph: &Graph, weights: &Weights, precision: Precision) -> Result<Vec<u8>, EncodeError> {
    if precision != Precision::Fp32 {
        return Err(EncodeError::Precision(precision));
    }
    let (graph, weights) = fold_batch_norm(&graph.live(), weights)?;
    let mut proto = GraphProto { name: "edge-nas".into(), ..Default::default() };
    proto.input.push(value_info("input", graph.input_shape(), false));
    let flat = matches!(graph.node(graph.output()).op, Op::Linear { .. });
    proto.output.push(value_info("output", graph.output_shape(), flat));
    for id in graph.ids() {
        write_node(&mut proto, &graph, id, &weights)?;
    }
    let last = graph.node(graph.output());
    proto.node.push(node_proto("Identity", "output", &[value_name(last)], "output", vec![]));

    let opset = OperatorSetIdProto { version: OPSET, ..Default::default() };
    let model = ModelProto {
        ir_version: IR_VERSION,
        producer_name: "edge-nas".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        opset_import: vec![opset],
        graph: MessageField::some(proto),
        ..Default::default()
    };
    // Writing to memory fails only if a required field is not set, and proto3 has no required fields.
    Ok(model.write_to_bytes().unwrap_or_default())
}

/// The output of a node is named after the node.
fn value_name(node: &Node) -> &str {
    &node.name
}

fn write_node(proto: &mut GraphProto, graph: &Graph, id: NodeId, weights: &Weights) -> Result<(), WeightsError> {
    let node = graph.node(id);
    let mut inputs: Vec<&str> = node.inputs.iter().map(|&i| value_name(graph.node(i))).collect();
    let params = graph.node_params(id);
    for param in &params {
        let tensor = weights.get(&param.name)?;
        proto.initializer.push(tensor_proto(&param.name, &tensor.dims, &tensor.values));
        inputs.push(&param.name);
    }
    let window = |kernel: usize, stride: usize| {
        let (k, s, p) = (kernel as i64, stride as i64, (kernel / 2) as i64);
        vec![ints("kernel_shape", &[k, k]), ints("strides", &[s, s]), ints("pads", &[p, p, p, p])]
    };
    let [flat, low, high] = ["flat", "low", "high"].map(|s| format!("{}.{s}", node.name));
    let (kind, attributes) = match node.op {
        Op::Input => return Ok(()),
        Op::Conv2d { kernel, stride, groups, .. } => {
            let mut attributes = window(kernel, stride);
            attributes.push(int("group", groups as i64));
            ("Conv", attributes)
        }
        Op::BatchNorm => ("BatchNormalization", vec![float("epsilon", BATCH_NORM_EPS as f32)]),
        Op::Relu => ("Relu", vec![]),
        Op::Relu6 => {
            proto.initializer.push(tensor_proto(&low, &[], &[0.0]));
            proto.initializer.push(tensor_proto(&high, &[], &[6.0]));
            inputs.extend([low.as_str(), high.as_str()]);
            ("Clip", vec![])
        }
        Op::HardSigmoid => ("HardSigmoid", vec![float("alpha", 1.0 / 6.0), float("beta", 0.5)]),
        Op::Add => ("Add", vec![]),
        Op::Mul => ("Mul", vec![]),
        Op::MaxPool { kernel, stride } => ("MaxPool", window(kernel, stride)),
        Op::AvgPool { kernel, stride } => ("AveragePool", window(kernel, stride)),
        Op::GlobalAvgPool => ("GlobalAveragePool", vec![]),
        Op::Linear { .. } => {
            proto.node.push(node_proto("Flatten", &flat, &inputs[..1], &flat, vec![]));
            inputs[0] = &flat;
            ("Gemm", vec![int("transB", 1)])
        }
        Op::Zero { shape } => {
            let dims = [1, shape.channels, shape.height, shape.width];
            proto.initializer.push(tensor_proto(value_name(node), &dims, &vec![0.0; shape.len()]));
            return Ok(());
        }
    };
    proto.node.push(node_proto(kind, &node.name, &inputs, value_name(node), attributes));
    Ok(())
}

fn node_proto(kind: &str, name: &str, inputs: &[&str], output: &str, attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        op_type: kind.into(),
        name: name.into(),
        input: inputs.iter().map(|&s| s.into()).collect(),
        output: vec![output.into()],
        attribute,
        ..Default::default()
    }
}

fn tensor_proto(name: &str, dims: &[usize], values: &[f32]) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: dims.iter().map(|&d| d as i64).collect(),
        data_type: DataType::FLOAT as i32,
        raw_data: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        ..Default::default()
    }
}

fn value_info(name: &str, shape: Shape, flat: bool) -> ValueInfoProto {
    let sizes = [1, shape.channels, shape.height, shape.width];
    let dim = sizes[..if flat { 2 } else { 4 }]
        .iter()
        .map(|&size| {
            let mut dim = Dimension::new();
            dim.set_dim_value(size as i64);
            dim
        })
        .collect();
    let shape = MessageField::some(TensorShapeProto { dim, ..Default::default() });
    let mut kind = TypeProto::new();
    kind.set_tensor_type(type_proto::Tensor { elem_type: DataType::FLOAT as i32, shape, ..Default::default() });
    ValueInfoProto { name: name.into(), type_: MessageField::some(kind), ..Default::default() }
}

fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto { name: name.into(), ints: values.to_vec(), type_: AttributeType::INTS.into(), ..Default::default() }
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { name: name.into(), i: value, type_: AttributeType::INT.into(), ..Default::default() }
}

fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto { name: name.into(), f: value, type_: AttributeType::FLOAT.into(), ..Default::default() }
}
