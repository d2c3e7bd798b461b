//! Mutations of ONNX models that keep them valid protocol buffers.

use onnx_protobuf::{AttributeProto, GraphProto, Message, ModelProto, NodeProto, TensorProto};
use rand::Rng;
use rand::seq::{IndexedMutRandom, IndexedRandom};
use rand_chacha::ChaCha8Rng;

const OPS: [&str; 34] = [
    "Add",
    "Mul",
    "Conv",
    "MatMul",
    "Gemm",
    "Relu",
    "Reshape",
    "Expand",
    "Tile",
    "Pad",
    "Resize",
    "Loop",
    "If",
    "Scan",
    "Concat",
    "Split",
    "Slice",
    "Gather",
    "Transpose",
    "ConstantOfShape",
    "Range",
    "Identity",
    "Cast",
    "Shape",
    "GlobalAveragePool",
    "AveragePool",
    "MaxPool",
    "BatchNormalization",
    "QuantizeLinear",
    "DequantizeLinear",
    "Einsum",
    "RandomNormal",
    "Where",
    "Constant",
];
const SIZES: [i64; 14] = [0, 1, 2, 3, 7, 16, 1 << 10, 1 << 20, 1 << 31, 1 << 32, 1 << 40, i64::MAX, -1, i64::MIN];

/// Mutates one field of the model, or now and then only bytes. The arguments are those of [`super::mutate_json_lines`].
pub fn mutate(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    let mutated = if super::of_bytes(seed) { None } else { mutated(&data[..size], &mut super::rng(seed)) };
    super::replace(data, size, mutated, max_size)
}

fn mutated(input: &[u8], rng: &mut ChaCha8Rng) -> Option<Vec<u8>> {
    let mut model = ModelProto::parse_from_bytes(input).ok()?;
    for _ in 0..rng.random_range(1..4) {
        mutate_model(&mut model, rng)?;
    }
    model.write_to_bytes().ok()
}

fn mutate_model(model: &mut ModelProto, rng: &mut ChaCha8Rng) -> Option<()> {
    if rng.random_ratio(1, 20) {
        model.opset_import.choose_mut(rng)?.version = rng.random_range(-1..30);
    }
    let graph = model.graph.as_mut()?;
    match rng.random_range(0..4) {
        0 => mutate_tensor(graph.initializer.choose_mut(rng)?, rng),
        1 => mutate_input(graph, rng),
        _ => mutate_nodes(graph, rng),
    }
}

fn size(rng: &mut ChaCha8Rng) -> i64 {
    if rng.random() { SIZES[rng.random_range(0..SIZES.len())] } else { rng.random_range(0..64) }
}

fn mutate_tensor(tensor: &mut TensorProto, rng: &mut ChaCha8Rng) -> Option<()> {
    match rng.random_range(0..5) {
        0 => tensor.dims.push(size(rng)),
        1 => drop(tensor.dims.pop()?),
        2 => *tensor.dims.choose_mut(rng)? = size(rng),
        3 => tensor.data_type = rng.random_range(-1..24),
        _ => {
            tensor.raw_data = vec![];
            tensor.float_data = vec![];
            tensor.int64_data = (0..rng.random_range(0..6)).map(|_| size(rng)).collect();
            tensor.data_type = 7;
            tensor.dims = vec![tensor.int64_data.len() as i64];
        }
    }
    Some(())
}

fn mutate_input(graph: &mut GraphProto, rng: &mut ChaCha8Rng) -> Option<()> {
    let values = if rng.random() { &mut graph.input } else { &mut graph.output };
    let tensor = values.choose_mut(rng)?.type_.as_mut()?.mut_tensor_type();
    if rng.random_ratio(1, 4) {
        tensor.elem_type = rng.random_range(-1..24);
    } else {
        let dim = tensor.shape.as_mut()?.dim.choose_mut(rng)?;
        if rng.random_ratio(1, 4) { dim.set_dim_param("N".into()) } else { dim.set_dim_value(size(rng)) }
    }
    Some(())
}

fn mutate_nodes(graph: &mut GraphProto, rng: &mut ChaCha8Rng) -> Option<()> {
    let outputs = graph.node.iter().flat_map(|node| node.output.iter());
    let initializers = graph.initializer.iter().map(|tensor| &tensor.name);
    let names: Vec<String> = outputs.chain(initializers).chain(graph.input.iter().map(|i| &i.name)).cloned().collect();
    let at = rng.random_range(0..graph.node.len().max(1));
    let node = graph.node.get_mut(at)?;
    match rng.random_range(0..8) {
        0 => node.op_type = OPS[rng.random_range(0..OPS.len())].into(),
        1 => *node.input.choose_mut(rng)? = names.choose(rng)?.clone(),
        2 => node.input.push(names.choose(rng)?.clone()),
        3 => drop(node.input.pop()?),
        4 => *node.output.choose_mut(rng)? = names.choose(rng)?.clone(),
        5 => {
            // A chain of nodes that each double or square what comes before.
            let (input, output) =
                (node.input.first()?.clone(), format!("{}_{}", node.input.first()?, rng.random::<u8>()));
            node.input[0] = output.clone();
            let op_type = ["Add", "Mul", "MatMul", "Concat", OPS[rng.random_range(0..OPS.len())]];
            let op_type = op_type[rng.random_range(0..op_type.len())].into();
            let attribute = if op_type == "Concat" { vec![integer("axis", 1)] } else { vec![] };
            let input = vec![input.clone(), input];
            graph.node.insert(at, NodeProto { op_type, input, output: vec![output], attribute, ..Default::default() });
        }
        6 => drop(graph.node.remove(at)),
        _ => mutate_attribute(node, rng)?,
    }
    Some(())
}

fn mutate_attribute(node: &mut NodeProto, rng: &mut ChaCha8Rng) -> Option<()> {
    if rng.random_ratio(1, 6) {
        let names = ["axis", "group", "pads", "strides", "dilations", "kernel_shape", "auto_pad", "mode", "perm"];
        node.attribute.push(integer(names[rng.random_range(0..names.len())], size(rng)));
        return Some(());
    }
    let attribute = node.attribute.choose_mut(rng)?;
    match attribute.ints.choose_mut(rng) {
        Some(int) => *int = size(rng),
        None => attribute.i = size(rng),
    }
    Some(())
}

fn integer(name: &str, value: i64) -> AttributeProto {
    let mut attribute = AttributeProto::new();
    attribute.name = name.into();
    attribute.i = value;
    attribute.ints = vec![value; 2];
    attribute.type_ = onnx_protobuf::attribute_proto::AttributeType::INT.into();
    attribute
}
