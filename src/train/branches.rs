//! Re-parametrisation: a convolution is trained as a sum of branches, each with a batch norm of its own, which are
//! one convolution and one batch norm afterwards (Ding et al. 2021, arXiv 2101.03697). The network that is exported is
//! the one that was searched.

use nas_exporters::{BATCH_NORM_EPS, Graph, NodeId, Op, Weights, WeightsError};
use std::collections::HashMap;

/// The names of the branches' nodes, after that of the convolution.
const POINT: &str = "branch_1x1";
const IDENTITY: &str = "branch_identity";

/// A convolution of several branches.
struct Branched {
    conv: NodeId,
    norm: NodeId,
    has_identity: bool,
}

/// Convolutions larger than 1×1 whose only reader is a batch norm.
fn branched(graph: &Graph) -> Vec<Branched> {
    let mut readers: HashMap<NodeId, Vec<NodeId>> = HashMap::new();
    for id in graph.ids() {
        graph.node(id).inputs.iter().for_each(|&input| readers.entry(input).or_default().push(id));
    }
    let of = |conv: NodeId| {
        let node = graph.node(conv);
        let Op::Conv2d { kernel, bias: false, .. } = node.op else { return None };
        let &[norm] = readers.get(&conv)?.as_slice() else { return None };
        let is_norm = graph.node(norm).op == Op::BatchNorm && conv != graph.output();
        let has_identity = graph.node(node.inputs[0]).shape == node.shape;
        (kernel > 1 && is_norm).then_some(Branched { conv, norm, has_identity })
    };
    graph.ids().filter_map(of).collect()
}

/// The graph that is trained: to each of these convolutions with its batch norm, a 1×1 convolution with batch norm is
/// added, and a batch norm of the input where it has the shape of the output.
pub fn with_branches(graph: &Graph) -> Graph {
    let by_norm: HashMap<NodeId, Branched> = branched(graph).into_iter().map(|b| (b.norm, b)).collect();
    let mut grown = Graph::new(graph.input_shape());
    let mut ids = vec![grown.input()];
    for id in graph.ids().skip(1) {
        let node = graph.node(id);
        let inputs: Vec<NodeId> = node.inputs.iter().map(|input| ids[input.index()]).collect();
        let mut x = grown.add(&node.name, node.op, &inputs);
        if let Some(Branched { conv, has_identity, .. }) = by_norm.get(&id) {
            let conv = graph.node(*conv);
            let input = ids[conv.inputs[0].index()];
            let name = |branch: &str| format!("{}.{branch}", conv.name);
            if let Op::Conv2d { out_channels, stride, groups, .. } = conv.op {
                let point = Op::Conv2d { out_channels, kernel: 1, stride, groups, bias: false };
                let y = grown.add(&name(POINT), point, &[input]);
                let y = grown.add(&name(&format!("{POINT}_bn")), Op::BatchNorm, &[y]);
                x = grown.add(&name(&format!("{POINT}_add")), Op::Add, &[x, y]);
            }
            if *has_identity {
                let y = grown.add(&name(IDENTITY), Op::BatchNorm, &[input]);
                x = grown.add(&name(&format!("{IDENTITY}_add")), Op::Add, &[x, y]);
            }
        }
        ids.push(x);
    }
    grown
}

/// The weights of `graph` that compute what `weights` of [`with_branches`] compute: all branches are one convolution,
/// whose batch norm only adds a shift.
///
/// # Errors
/// Where weights are missing.
pub fn without_branches(graph: &Graph, weights: &Weights) -> Result<Weights, WeightsError> {
    let mut folded = Weights::default();
    for param in graph.params() {
        folded.insert(&param.name, param.dims, weights.get(&param.name)?.values.clone());
    }
    for Branched { conv, norm, has_identity } in branched(graph) {
        let (conv, norm) = (graph.node(conv), graph.node(norm));
        let Op::Conv2d { kernel, groups, .. } = conv.op else { continue };
        let mut sum = weights.get(&format!("{}.weight", conv.name))?.clone();
        let [outputs, inputs] = [sum.dims[0], sum.dims[1]];
        let area = kernel * kernel;
        let centre = area / 2;
        let (scale, mut shift) = affine(weights, &norm.name)?;
        for (values, scale) in sum.values.chunks_exact_mut(inputs * area).zip(&scale) {
            values.iter_mut().for_each(|value| *value = (f64::from(*value) * scale) as f32);
        }
        let mut add = |output: usize, input: usize, value: f64| {
            let at = &mut sum.values[(output * inputs + input) * area + centre];
            *at = (f64::from(*at) + value) as f32;
        };
        let point = format!("{}.{POINT}", conv.name);
        let (scale, more) = affine(weights, &format!("{point}_bn"))?;
        let values = &weights.get(&format!("{point}.weight"))?.values;
        for output in 0..outputs {
            for input in 0..inputs {
                add(output, input, f64::from(values[output * inputs + input]) * scale[output]);
            }
            shift[output] += more[output];
        }
        if has_identity {
            let (scale, more) = affine(weights, &format!("{}.{IDENTITY}", conv.name))?;
            for output in 0..outputs {
                // Of the channels of its group.
                let first = output / (outputs / groups) * inputs;
                add(output, output - first, scale[output]);
                shift[output] += more[output];
            }
        }
        folded.insert(&format!("{}.weight", conv.name), sum.dims, sum.values);
        let ones = vec![1.0; outputs];
        // With this variance the batch norm divides by 1.
        let variance = vec![(1.0 - BATCH_NORM_EPS) as f32; outputs];
        let shift = shift.iter().map(|&value| value as f32).collect();
        let own = [("weight", ones), ("bias", shift), ("running_mean", vec![0.0; outputs]), ("running_var", variance)];
        for (name, values) in own {
            folded.insert(&format!("{}.{name}", norm.name), vec![outputs], values);
        }
    }
    Ok(folded)
}

/// What a batch norm multiplies by and adds, by channel.
fn affine(weights: &Weights, norm: &str) -> Result<(Vec<f64>, Vec<f64>), WeightsError> {
    let get = |suffix: &str| -> Result<Vec<f64>, WeightsError> {
        Ok(weights.get(&format!("{norm}.{suffix}"))?.values.iter().map(|&value| f64::from(value)).collect())
    };
    let [scale, shift, mean, variance] = [get("weight")?, get("bias")?, get("running_mean")?, get("running_var")?];
    let scale: Vec<f64> = scale.iter().zip(&variance).map(|(s, v)| s / (v + BATCH_NORM_EPS).sqrt()).collect();
    let shift = shift.iter().zip(&mean).zip(&scale).map(|((shift, mean), scale)| shift - mean * scale).collect();
    Ok((scale, shift))
}
