use crate::{BATCH_NORM_EPS, Graph, NodeId, Op, Weights, WeightsError};

/// Folds batch norms into convolutions, for inference. With s = γ/√(σ² + ε), the weight W becomes s·W, and
/// the bias b becomes β + s·(b − μ). A batch norm is folded only if nothing else reads the output of its
/// convolution.
///
/// # Errors
/// Fails if a parameter of `graph` is missing in `weights` or misshapen.
pub fn fold_batch_norm(graph: &Graph, weights: &Weights) -> Result<(Graph, Weights), WeightsError> {
    weights.check(graph)?;
    let readers = |id: NodeId| graph.nodes().iter().filter(|n| n.inputs.contains(&id)).count();
    let folded_into = |id: NodeId| match (graph.node(id).op, graph.node(id).inputs.as_slice()) {
        (Op::BatchNorm, &[conv]) if readers(conv) == 1 && conv != graph.output() => {
            matches!(graph.node(conv).op, Op::Conv2d { .. }).then_some(conv)
        }
        _ => None,
    };

    let mut folded = Weights::default();
    let mut biased = vec![];
    for id in graph.ids() {
        let Some(conv) = folded_into(id) else {
            for param in graph.node_params(id) {
                let tensor = weights.get(&param.name)?;
                folded.insert(param.name, tensor.dims.clone(), tensor.values.clone());
            }
            continue;
        };
        biased.push(conv);
        let has_bias = matches!(graph.node(conv).op, Op::Conv2d { bias: true, .. });
        let (bn, conv) = (&graph.node(id).name, &graph.node(conv).name);
        let of = |name: &str, suffix: &str| weights.get(&format!("{name}.{suffix}"));
        let (mean, var) = (of(bn, "running_mean")?, of(bn, "running_var")?);
        let (gamma, beta) = (of(bn, "weight")?, of(bn, "bias")?);
        let scale: Vec<f64> = gamma
            .values
            .iter()
            .zip(&var.values)
            .map(|(&g, &v)| g as f64 / (v as f64 + BATCH_NORM_EPS).sqrt())
            .collect();

        let mut weight = of(conv, "weight")?.clone();
        let per_channel = weight.values.len() / scale.len();
        for (filter, s) in weight.values.chunks_mut(per_channel).zip(&scale) {
            filter.iter_mut().for_each(|w| *w = (*w as f64 * s) as f32);
        }
        let own = if has_bias { of(conv, "bias")?.values.clone() } else { vec![0.0; scale.len()] };
        let bias = (0..scale.len())
            .map(|c| (beta.values[c] as f64 + scale[c] * (own[c] as f64 - mean.values[c] as f64)) as f32)
            .collect();
        folded.insert(format!("{conv}.weight"), weight.dims, weight.values);
        folded.insert(format!("{conv}.bias"), beta.dims.clone(), bias);
    }

    let graph = graph.rewrite(|id, node| match node.op {
        Op::BatchNorm if folded_into(id).is_some() => None,
        Op::Conv2d { out_channels, kernel, stride, groups, bias } => {
            Some(Op::Conv2d { out_channels, kernel, stride, groups, bias: bias || biased.contains(&id) })
        }
        op => Some(op),
    });
    Ok((graph, folded))
}
