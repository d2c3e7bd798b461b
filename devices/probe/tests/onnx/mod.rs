//! Small ONNX models.
// Each test program uses a part of it.
#![allow(dead_code)]

use onnx_protobuf::{
    AttributeProto, GraphProto, Message, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto, attribute_proto::AttributeType, tensor_proto::DataType, tensor_shape_proto, type_proto,
};

pub const SHAPE: [usize; 4] = [1, 2, 4, 4];

pub fn fixed() -> Vec<Option<usize>> {
    SHAPE.map(Some).to_vec()
}

fn value_info(name: &str, shape: &[Option<usize>]) -> ValueInfoProto {
    let mut tensor = type_proto::Tensor::new();
    tensor.elem_type = DataType::FLOAT as i32;
    let mut dims = TensorShapeProto::new();
    for size in shape {
        let mut dim = tensor_shape_proto::Dimension::new();
        match size {
            Some(size) => dim.set_dim_value(*size as i64),
            None => dim.set_dim_param("N".to_owned()),
        }
        dims.dim.push(dim);
    }
    tensor.shape = Some(dims).into();
    let mut ty = TypeProto::new();
    ty.set_tensor_type(tensor);
    let mut info = ValueInfoProto::new();
    info.name = name.to_owned();
    info.type_ = Some(ty).into();
    info
}

/// A model with the input `x`, the output `y`, a constant named `c` (of the shape of `x`, filled with the
/// value `c`), and nodes given as (op, inputs, output).
pub fn model(shape: &[Option<usize>], c: f32, nodes: &[(&str, &[&str], &str)]) -> Vec<u8> {
    let constant = (&SHAPE.map(|d| d as i64)[..], vec![c; SHAPE.iter().product()]);
    build(shape, constant, nodes)
}

/// A model that multiplies `width` numbers by a square matrix, which takes 4 width² bytes.
pub fn dense(width: usize) -> Vec<u8> {
    let weights = (&[width as i64; 2][..], vec![0.5; width * width]);
    build(&[Some(1), Some(width)], weights, &[("MatMul", &["x", "c"], "y")])
}

/// A model whose only inference takes longer than anybody waits: a loop of 2⁶² steps.
pub fn endless() -> Vec<u8> {
    let scalar = |name: &str, kind: DataType| {
        let mut info = value_info(name, &[]);
        info.type_.mut_or_insert_default().mut_tensor_type().elem_type = kind as i32;
        info
    };
    let constant = |name: &str, kind: DataType, int64: Vec<i64>, int32: Vec<i32>| {
        let mut tensor = TensorProto::new();
        tensor.name = name.to_owned();
        tensor.data_type = kind as i32;
        (tensor.int64_data, tensor.int32_data) = (int64, int32);
        tensor
    };
    let node = |op: &str, inputs: &[&str], outputs: &[&str]| {
        let mut node = NodeProto::new();
        node.op_type = op.to_owned();
        node.input = inputs.iter().map(|i| (*i).to_owned()).collect();
        node.output = outputs.iter().map(|o| (*o).to_owned()).collect();
        node
    };
    let mut body = GraphProto::new();
    body.name = "body".to_owned();
    body.input = vec![scalar("i", DataType::INT64), scalar("again", DataType::BOOL), value_info("v", &fixed())];
    body.output = vec![scalar("once_more", DataType::BOOL), value_info("w", &fixed())];
    body.node = vec![node("Identity", &["again"], &["once_more"]), node("Sin", &["v"], &["w"])];
    let mut attribute = AttributeProto::new();
    attribute.name = "body".to_owned();
    attribute.type_ = AttributeType::GRAPH.into();
    attribute.g = Some(body).into();
    let mut steps = node("Loop", &["steps", "true", "x"], &["y"]);
    steps.attribute = vec![attribute];
    let mut graph = GraphProto::new();
    graph.name = "test".to_owned();
    graph.input = vec![value_info("x", &fixed())];
    graph.output = vec![value_info("y", &fixed())];
    graph.initializer = vec![
        constant("steps", DataType::INT64, vec![1 << 62], vec![]),
        constant("true", DataType::BOOL, vec![], vec![1]),
    ];
    graph.node = vec![steps];
    write(graph)
}

/// A model that pads its input to a tensor of `bytes` bytes.
pub fn pads(bytes: i64) -> Vec<u8> {
    let batch = bytes / 4 / 32;
    let mut sizes = TensorProto::new();
    sizes.name = "sizes".to_owned();
    sizes.dims = vec![8];
    sizes.data_type = DataType::INT64 as i32;
    sizes.int64_data = vec![0, 0, 0, 0, batch - 1, 0, 0, 0];
    let mut node = NodeProto::new();
    node.op_type = "Pad".to_owned();
    node.input = vec!["x".to_owned(), "sizes".to_owned()];
    node.output = vec!["y".to_owned()];
    let mut graph = GraphProto::new();
    graph.name = "test".to_owned();
    graph.input = vec![value_info("x", &fixed())];
    graph.output = vec![value_info("y", &[Some(batch as usize), Some(2), Some(4), Some(4)])];
    graph.initializer = vec![sizes];
    graph.node = vec![node];
    write(graph)
}

fn build(shape: &[Option<usize>], c: (&[i64], Vec<f32>), nodes: &[(&str, &[&str], &str)]) -> Vec<u8> {
    let mut constant = TensorProto::new();
    constant.name = "c".to_owned();
    constant.dims = c.0.to_vec();
    constant.data_type = DataType::FLOAT as i32;
    constant.float_data = c.1;
    let mut graph = GraphProto::new();
    graph.name = "test".to_owned();
    graph.input = vec![value_info("x", shape)];
    graph.output = vec![value_info("y", shape)];
    graph.initializer = vec![constant];
    for (op, inputs, output) in nodes {
        let mut node = NodeProto::new();
        node.op_type = (*op).to_owned();
        node.input = inputs.iter().map(|i| (*i).to_owned()).collect();
        node.output = vec![(*output).to_owned()];
        graph.node.push(node);
    }
    write(graph)
}

fn write(graph: GraphProto) -> Vec<u8> {
    let mut opset = OperatorSetIdProto::new();
    opset.version = 17;
    let mut model = ModelProto::new();
    model.ir_version = 8;
    model.opset_import = vec![opset];
    model.graph = Some(graph).into();
    model.write_to_bytes().unwrap()
}
