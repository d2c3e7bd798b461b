use super::init;
use crate::data::Batch;
use crate::record::{Float, Floats};
use nas_exporters::{BATCH_NORM_EPS, Graph, NodeId, Op, Param, Weights, WeightsError};
use tch::{Device, Kind, Tensor};

/// How batch norm normalises.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Norm {
    /// By the statistics of the batch.
    Batch,
    /// By the statistics of the batch, which then make up this share of the running statistics.
    Update { share: f64 },
    /// By the running statistics.
    Running,
}

impl Norm {
    /// The mode in which a network is trained. The share is PyTorch's default.
    pub const TRAIN: Norm = Norm::Update { share: 0.1 };
}

/// Where a net is computed, and the number formats in which its convolutions are trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placement {
    pub device: Device,
    /// Number formats of the convolutions. Parameters, the statistics of batch norm, and linear layers always use
    /// 32-bit floats, and so does all of inference.
    pub floats: Floats,
}

impl Default for Placement {
    fn default() -> Self {
        Placement { device: Device::Cpu, floats: Floats::default() }
    }
}

impl Placement {
    /// Returns `cpu` or `cuda`.
    pub fn processor(self) -> &'static str {
        if self.device.is_cuda() { "cuda" } else { "cpu" }
    }
}

/// A [`Graph`] with its parameters as libtorch tensors.
///
/// Activations and convolution weights are channels-last in memory, with which libtorch is fastest on a CPU.
pub struct Net {
    graph: Graph,
    placement: Placement,
    /// The parameters of each node, in the order of [`Graph::node_params`].
    params: Vec<Vec<(Param, Tensor)>>,
}

impl Net {
    /// Creates a net to be trained. Convolutions are initialised from a normal distribution with variance 2 / fan-in
    /// (He et al. 2015, arXiv 1502.01852), and linear layers from a uniform distribution within ±1/√fan-in, by
    /// libtorch's generator.
    pub fn new(graph: Graph, placement: Placement) -> Net {
        Net::with(graph, placement, |param| init::random(param, placement.device))
    }

    /// Creates a net with given trained parameters, such as parts of a supernet's. Its running statistics start anew.
    pub fn with(graph: Graph, placement: Placement, mut tensor: impl FnMut(&Param) -> Tensor) -> Net {
        let mut of = |param: Param| {
            let tensor = if param.role.is_trained() { tensor(&param) } else { init::random(&param, placement.device) };
            (param, tensor)
        };
        let params = graph.ids().map(|id| graph.node_params(id).into_iter().map(&mut of).collect()).collect();
        Net { graph, placement, params }
    }

    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    pub fn device(&self) -> Device {
        self.placement.device
    }

    /// Computes the output of the graph for N×C×H×W: N×C×H×W, or N×C after a linear node. After a convolution in bf16,
    /// activations stay in bf16 until the next operation in 32 bits, and so may the output.
    pub fn forward(&self, x: &Tensor, norm: Norm) -> Tensor {
        let mut values: Vec<Option<Tensor>> = vec![Some(x.shallow_clone())];
        for id in self.graph.ids().skip(1) {
            let inputs: Vec<&Tensor> =
                self.graph.node(id).inputs.iter().filter_map(|i| values[i.index()].as_ref()).collect();
            let value = self.compute(id, &inputs, x.size()[0], norm);
            values.push(Some(value));
        }
        values.swap_remove(self.graph.output().index()).unwrap_or_else(|| x.shallow_clone())
    }

    fn compute(&self, id: NodeId, inputs: &[&Tensor], batch: i64, norm: Norm) -> Tensor {
        let param = |i: usize| &self.params[id.index()][i].1;
        let float = |x: &Tensor| x.to_kind(Kind::Float);
        let window = |kernel: usize, stride: usize| ([kernel as i64; 2], [stride as i64; 2], [kernel as i64 / 2; 2]);
        let shape = self.graph.node(id).shape;
        match self.graph.node(id).op {
            Op::Conv2d { kernel, stride, groups, bias, .. } => {
                let kind =
                    if norm != Norm::Running { kind(self.placement.floats, kernel, groups) } else { Kind::Float };
                let cast = |x: &Tensor| x.to_kind(kind);
                let (_, stride, padding) = window(kernel, stride);
                let bias = bias.then(|| cast(param(1)));
                cast(inputs[0]).conv2d(&cast(param(0)), bias, stride, padding, [1, 1], groups as i64)
            }
            Op::BatchNorm => {
                let (share, running) = match norm {
                    Norm::Batch => (0.0, false),
                    Norm::Update { share } => (share, true),
                    Norm::Running => (0.0, true),
                };
                // A single value has no variance.
                let by_batch = norm != Norm::Running && batch as usize * shape.height * shape.width > 1;
                let statistics = |i: usize| (running || !by_batch).then(|| param(i));
                let (scale, shift) = (Some(param(0)), Some(param(1)));
                inputs[0].batch_norm(scale, shift, statistics(2), statistics(3), by_batch, share, BATCH_NORM_EPS, false)
            }
            Op::Relu => inputs[0].relu(),
            Op::Relu6 => inputs[0].relu6(),
            Op::HardSigmoid => inputs[0].hardsigmoid(),
            Op::Add => inputs[0] + inputs[1],
            Op::Mul => inputs[0] * inputs[1],
            Op::MaxPool { kernel, stride } => {
                let (kernel, stride, padding) = window(kernel, stride);
                inputs[0].max_pool2d(kernel, stride, padding, [1, 1], false)
            }
            Op::AvgPool { kernel, stride } => {
                let (kernel, stride, padding) = window(kernel, stride);
                inputs[0].avg_pool2d(kernel, stride, padding, false, false, None::<i64>)
            }
            Op::GlobalAvgPool => inputs[0].mean_dim([2i64, 3].as_slice(), true, Kind::Float),
            Op::Linear { .. } => float(inputs[0]).flatten(1, -1).linear(param(0), Some(param(1))),
            Op::Zero { shape } => {
                let size = [batch, shape.channels as i64, shape.height as i64, shape.width as i64];
                channels_last(&Tensor::zeros(size, (Kind::Float, self.placement.device)))
            }
            Op::Input => inputs[0].shallow_clone(),
        }
    }

    /// Returns the logits of a batch in inference, N·classes.
    pub fn logits(&self, batch: &Batch) -> Vec<f32> {
        let _guard = tch::no_grad_guard();
        let (images, _) = super::tensors(batch, self.graph.input_shape(), self.placement.device);
        values(&self.forward(&images, Norm::Running))
    }

    /// Returns the weight of a convolution or of a linear node.
    pub(super) fn weight(&self, id: NodeId) -> &Tensor {
        &self.params[id.index()][0].1
    }

    /// Returns all parameters in a fixed order, including the running statistics of batch norm.
    pub fn params(&self) -> impl Iterator<Item = (&Param, &Tensor)> {
        self.params.iter().flatten().map(|(param, tensor)| (param, tensor))
    }

    /// Returns all parameters with their names, in the same order.
    pub fn named(&self) -> Vec<(String, Tensor)> {
        self.params().map(|(param, tensor)| (param.name.clone(), tensor.shallow_clone())).collect()
    }

    /// Returns the parameters that are trained by gradients.
    pub fn trainable(&self) -> impl Iterator<Item = (&Param, &Tensor)> {
        self.params().filter(|(param, _)| param.role.is_trained())
    }

    /// Returns a copy of the parameters as plain numbers.
    pub fn weights(&self) -> Weights {
        let mut weights = Weights::default();
        for (param, tensor) in self.params() {
            weights.insert(&param.name, param.dims.clone(), values(tensor));
        }
        weights
    }

    /// Sets the parameters.
    ///
    /// # Errors
    /// Fails if a parameter is missing or has another shape.
    pub fn load(&self, weights: &Weights) -> Result<(), WeightsError> {
        weights.check(&self.graph)?;
        let _guard = tch::no_grad_guard();
        for (param, tensor) in self.params() {
            let dims: Vec<i64> = param.dims.iter().map(|&d| d as i64).collect();
            let values = Tensor::from_slice(&weights.get(&param.name)?.values).view(dims.as_slice());
            tensor.shallow_clone().copy_(&values);
        }
        Ok(())
    }
}

/// Returns the number format in which a convolution is trained.
fn kind(floats: Floats, kernel: usize, groups: usize) -> Kind {
    let float = match (groups, kernel) {
        (2.., _) => floats.depthwise,
        (_, 1) => floats.pointwise,
        _ => floats.dense,
    };
    match float {
        Float::Fp32 => Kind::Float,
        Float::Bf16 => Kind::BFloat16,
    }
}

/// Returns the same values, stored as NHWC. The shape stays NCHW.
pub(super) fn channels_last(x: &Tensor) -> Tensor {
    x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
}

/// Returns the numbers of a tensor, row-major.
fn values(tensor: &Tensor) -> Vec<f32> {
    let flat = tensor.detach().to_device(Device::Cpu).contiguous().view(-1);
    let mut values = vec![0f32; flat.numel()];
    flat.copy_data(&mut values, flat.numel());
    values
}
