use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Shape of the feature map of one sample, CHW; a batch of them is NCHW. A vector is C×1×1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "[usize; 3]", into = "[usize; 3]")]
pub struct Shape {
    pub channels: usize,
    pub height: usize,
    pub width: usize,
}

impl Shape {
    pub fn new(channels: usize, height: usize, width: usize) -> Self {
        Shape { channels, height, width }
    }

    /// Number of values in one sample.
    pub fn len(self) -> usize {
        self.channels * self.height * self.width
    }

    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The output shape of an op with `channels` output channels, this `stride`, and a padding of kernel / 2.
    pub fn strided(self, channels: usize, stride: usize) -> Shape {
        Shape::new(channels, self.height.div_ceil(stride), self.width.div_ceil(stride))
    }
}

impl From<[usize; 3]> for Shape {
    fn from([c, h, w]: [usize; 3]) -> Self {
        Shape::new(c, h, w)
    }
}

impl From<Shape> for [usize; 3] {
    fn from(s: Shape) -> Self {
        [s.channels, s.height, s.width]
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}x{}", self.channels, self.height, self.width)
    }
}

impl std::str::FromStr for Shape {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let sizes: Result<Vec<usize>, _> = s.split('x').map(str::parse).collect();
        match sizes.as_deref() {
            Ok(&[c, h, w]) if check_size(Shape::new(c, h, w)).is_ok() => Ok(Shape::new(c, h, w)),
            _ => Err(format!("`{s}` is not a shape; write CHANNELSxHEIGHTxWIDTH, as in 3x32x32")),
        }
    }
}

/// Index of a node in its graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(usize);

impl NodeId {
    /// Index in [`Graph::nodes`].
    pub fn index(self) -> usize {
        self.0
    }
}

/// What a node computes. Kernels are square and odd, and the padding is kernel / 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Op {
    /// The only input of the graph, always node 0.
    Input,
    Conv2d {
        out_channels: usize,
        kernel: usize,
        stride: usize,
        /// The number of groups that input and output channels are divided into. The convolution is depthwise
        /// if it is equal to the number of input channels.
        groups: usize,
        bias: bool,
    },
    /// Per channel, with ε = [`crate::BATCH_NORM_EPS`].
    BatchNorm,
    Relu,
    /// min(max(x, 0), 6)
    Relu6,
    /// min(max(x/6 + 1/2, 0), 1)
    HardSigmoid,
    /// Elementwise sum of two inputs of one shape.
    Add,
    /// Elementwise product of two inputs of one shape, or of channels and their scales: C×H×W times C×1×1.
    Mul,
    MaxPool {
        kernel: usize,
        stride: usize,
    },
    /// Mean over the part of the window inside the feature map.
    AvgPool {
        kernel: usize,
        stride: usize,
    },
    /// C×H×W → C×1×1
    GlobalAvgPool,
    /// Flattens, then y = Wx + b.
    Linear {
        out_features: usize,
    },
    /// Zeros of this shape. It has no input, so that nodes which only a zero would have read are dead.
    Zero {
        shape: Shape,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Unique in the graph; dots divide it into a path, as in `layer2.conv`.
    pub name: String,
    pub op: Op,
    pub inputs: Vec<NodeId>,
    /// Shape of the node's output.
    pub shape: Shape,
}

/// Role of a parameter in training, which decides how it is initialised and whether weight decay applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Weight of a convolution or linear node.
    Weight,
    Bias,
    /// Scale of a batch norm, γ.
    Scale,
    /// Shift of a batch norm, β.
    Shift,
    RunningMean,
    RunningVar,
}

impl Role {
    /// Whether it is trained by gradient descent. Running statistics are computed from the batches instead.
    pub fn is_trained(self) -> bool {
        !matches!(self, Role::RunningMean | Role::RunningVar)
    }
}

/// A parameter of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// Name of the node and of the parameter, as in `layer2.conv.weight`.
    pub name: String,
    /// Convolution weight: O×(I/groups)×K×K; linear weight: O×I; all else: O.
    pub dims: Vec<usize>,
    pub role: Role,
}

/// A network, or a part of one: nodes in an order in which they can be computed, from one input to one
/// output.
///
/// Its JSON is canonical: equal graphs have equal bytes. Shapes are omitted, since they follow from that of
/// the input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Graph {
    nodes: Vec<Node>,
    output: NodeId,
}

/// The JSON form of a graph.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    /// CHW
    input: Shape,
    /// All nodes after the input.
    nodes: Vec<WrittenNode>,
    /// Index of a node; 0 is the input.
    output: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenNode {
    name: String,
    op: Op,
    /// Indices of nodes before this one.
    inputs: Vec<usize>,
}

impl From<Graph> for Written {
    fn from(graph: Graph) -> Written {
        let input = graph.input_shape();
        let node = |Node { name, op, inputs, .. }: Node| {
            let inputs = inputs.into_iter().map(NodeId::index).collect();
            WrittenNode { name, op, inputs }
        };
        let output = graph.output.0;
        Written { input, nodes: graph.nodes.into_iter().skip(1).map(node).collect(), output }
    }
}

impl TryFrom<Written> for Graph {
    type Error = GraphError;

    fn try_from(Written { input, nodes, output }: Written) -> Result<Graph, GraphError> {
        let mut graph = Graph::new(input);
        check_size(input)?;
        if nodes.len() > MOST_NODES {
            return Err(GraphError::Nodes { nodes: nodes.len() });
        }
        if output > nodes.len() {
            return Err(GraphError::Node { node: output });
        }
        for WrittenNode { name, op, inputs } in nodes {
            if let Some(&node) = inputs.iter().find(|&&input| input >= graph.nodes.len()) {
                return Err(GraphError::Node { node });
            }
            graph.try_add(&name, op, &inputs.into_iter().map(NodeId).collect::<Vec<_>>())?;
        }
        graph.output = NodeId(output);
        Ok(graph)
    }
}

/// Why nodes do not form a graph.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    #[error("two nodes are named `{name}`")]
    Name { name: String },
    #[error("`{name}`: {op:?} does not take inputs of {inputs:?}")]
    Inputs { name: String, op: Op, inputs: Vec<Shape> },
    #[error("node {node} is read before it exists")]
    Node { node: usize },
    #[error("{nodes} nodes are too many; a graph has at most {MOST_NODES}")]
    Nodes { nodes: usize },
    #[error("{shape} is empty or too large for a feature map")]
    Size { shape: Shape },
}

/// Maximum number of nodes of a graph that is read.
const MOST_NODES: usize = 1 << 14;
/// Maximum number of values of a feature map, and of weights of a node.
pub const MOST_VALUES: usize = 1 << 28;

fn check_size(shape: Shape) -> Result<(), GraphError> {
    let sizes = [shape.channels, shape.height, shape.width];
    let len = sizes.iter().try_fold(1usize, |len, &size| len.checked_mul(size));
    match len {
        Some(1..=MOST_VALUES) => Ok(()),
        _ => Err(GraphError::Size { shape }),
    }
}

impl Graph {
    /// 64 hex digits that identify the graph: the SHA-256 of its JSON.
    pub fn digest(&self) -> String {
        // Plain data is always serialisable.
        let json = serde_json::to_vec(self).unwrap_or_default();
        format!("{:x}", Sha256::digest(json))
    }

    /// Creates a graph that consists only of its input.
    pub fn new(input: Shape) -> Self {
        let node = Node { name: "input".into(), op: Op::Input, inputs: vec![], shape: input };
        Graph { nodes: vec![node], output: NodeId(0) }
    }

    pub fn input(&self) -> NodeId {
        NodeId(0)
    }

    pub fn output(&self) -> NodeId {
        self.output
    }

    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub fn ids(&self) -> impl Iterator<Item = NodeId> + use<> {
        (0..self.nodes.len()).map(NodeId)
    }

    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    pub fn input_shape(&self) -> Shape {
        self.nodes[0].shape
    }

    pub fn output_shape(&self) -> Shape {
        self.node(self.output).shape
    }

    /// Appends a node, which becomes the output, and returns its id.
    ///
    /// # Panics
    /// Panics if [`Graph::try_add`] fails, which is a mistake in the code that describes the network.
    pub fn add(&mut self, name: &str, op: Op, inputs: &[NodeId]) -> NodeId {
        self.try_add(name, op, inputs).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Appends a node, which becomes the output, and returns its id.
    ///
    /// # Errors
    /// Fails if the inputs do not fit the op, the name is taken, or a size is out of range.
    pub fn try_add(&mut self, name: &str, op: Op, inputs: &[NodeId]) -> Result<NodeId, GraphError> {
        if self.nodes.iter().any(|n| n.name == name) {
            return Err(GraphError::Name { name: name.into() });
        }
        let shapes: Vec<Shape> = inputs.iter().map(|&i| self.node(i).shape).collect();
        let unfit = || GraphError::Inputs { name: name.into(), op, inputs: shapes.clone() };
        let shape = output_shape(op, &shapes).ok_or_else(unfit)?;
        check_size(shape)?;
        self.nodes.push(Node { name: name.into(), op, inputs: inputs.to_vec(), shape });
        self.output = NodeId(self.nodes.len() - 1);
        Ok(self.output)
    }

    /// Appends a copy of `part` that reads `input`. The names of its nodes start with `prefix` and a dot.
    /// Returns the new output.
    pub fn append(&mut self, prefix: &str, part: &Graph, input: NodeId) -> NodeId {
        let mut ids = vec![input];
        for node in &part.nodes[1..] {
            let inputs: Vec<NodeId> = node.inputs.iter().map(|i| ids[i.0]).collect();
            ids.push(self.add(&format!("{prefix}.{}", node.name), node.op, &inputs));
        }
        self.output = ids[part.output.0];
        self.output
    }

    /// Returns the graph without the nodes that its output does not depend on.
    pub fn live(&self) -> Graph {
        let mut live = vec![false; self.nodes.len()];
        live[0] = true;
        live[self.output.0] = true;
        for (i, node) in self.nodes.iter().enumerate().rev() {
            if live[i] {
                node.inputs.iter().for_each(|input| live[input.0] = true);
            }
        }
        self.keep(&live)
    }

    fn keep(&self, live: &[bool]) -> Graph {
        let mut renumbered = vec![NodeId(0); self.nodes.len()];
        let mut nodes: Vec<Node> = vec![];
        for (i, node) in self.nodes.iter().enumerate().filter(|(i, _)| live[*i]) {
            renumbered[i] = NodeId(nodes.len());
            let inputs = node.inputs.iter().map(|input| renumbered[input.0]).collect();
            nodes.push(Node { inputs, ..node.clone() });
        }
        Graph { nodes, output: renumbered[self.output.0] }
    }

    /// Rebuilds the graph node by node. `f` returns the new op of a node, or `None` to remove the node, so
    /// that its readers read its input instead.
    pub(crate) fn rewrite(&self, mut f: impl FnMut(NodeId, &Node) -> Option<Op>) -> Graph {
        let mut graph = Graph::new(self.input_shape());
        let mut ids = vec![NodeId(0)];
        for id in self.ids().skip(1) {
            let node = self.node(id);
            let inputs: Vec<NodeId> = node.inputs.iter().map(|i| ids[i.0]).collect();
            ids.push(match f(id, node) {
                Some(op) => graph.add(&node.name, op, &inputs),
                None => inputs[0],
            });
        }
        graph.output = ids[self.output.0];
        graph
    }

    /// Parameters of a node, in the order in which formats list them.
    pub fn node_params(&self, id: NodeId) -> Vec<Param> {
        let node = self.node(id);
        let param =
            |suffix: &str, dims: Vec<usize>, role| Param { name: format!("{}.{suffix}", node.name), dims, role };
        let channels = vec![node.shape.channels];
        let input = node.inputs.first().map(|&i| self.node(i).shape);
        match (node.op, input) {
            (Op::Conv2d { out_channels, kernel, groups, bias, .. }, Some(input)) => {
                let dims = vec![out_channels, input.channels / groups, kernel, kernel];
                let weight = param("weight", dims, Role::Weight);
                if bias { vec![weight, param("bias", channels, Role::Bias)] } else { vec![weight] }
            }
            (Op::BatchNorm, _) => vec![
                param("weight", channels.clone(), Role::Scale),
                param("bias", channels.clone(), Role::Shift),
                param("running_mean", channels.clone(), Role::RunningMean),
                param("running_var", channels, Role::RunningVar),
            ],
            (Op::Linear { out_features }, Some(input)) => vec![
                param("weight", vec![out_features, input.len()], Role::Weight),
                param("bias", channels, Role::Bias),
            ],
            _ => vec![],
        }
    }

    /// Parameters of all nodes.
    pub fn params(&self) -> Vec<Param> {
        self.ids().flat_map(|id| self.node_params(id)).collect()
    }
}

/// Returns the output shape of an op, or `None` if the op does not take these inputs.
fn output_shape(op: Op, inputs: &[Shape]) -> Option<Shape> {
    let window = |kernel: usize, stride: usize| kernel % 2 == 1 && kernel <= 127 && (1..=127).contains(&stride);
    match (op, inputs) {
        (Op::Conv2d { out_channels, kernel, stride, groups, .. }, &[x]) => {
            let divides = groups > 0 && x.channels % groups == 0 && out_channels % groups == 0;
            let fits = divides && window(kernel, stride) && out_channels > 0;
            let weights = || (x.channels / groups).checked_mul(out_channels)?.checked_mul(kernel * kernel);
            (fits && weights()? <= MOST_VALUES).then(|| x.strided(out_channels, stride))
        }
        (Op::MaxPool { kernel, stride } | Op::AvgPool { kernel, stride }, &[x]) => {
            window(kernel, stride).then(|| x.strided(x.channels, stride))
        }
        (Op::BatchNorm | Op::Relu | Op::Relu6 | Op::HardSigmoid, &[x]) => Some(x),
        (Op::Add, &[a, b]) if a == b => Some(a),
        (Op::Mul, &[x, scale]) if scale == x || scale == Shape::new(x.channels, 1, 1) => Some(x),
        (Op::GlobalAvgPool, &[x]) => Some(Shape::new(x.channels, 1, 1)),
        (Op::Linear { out_features }, &[x]) => {
            let weights = x.len().checked_mul(out_features)?;
            (1..=MOST_VALUES).contains(&weights).then(|| Shape::new(out_features, 1, 1))
        }
        (Op::Zero { shape }, []) => Some(shape),
        _ => None,
    }
}
