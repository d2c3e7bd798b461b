//! Tensors for the tests of training.
#![allow(dead_code, clippy::unwrap_used)]

use nas_exporters::Shape;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

pub fn values(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.detach().to_kind(Kind::Double).contiguous().view(-1)).unwrap()
}

pub fn assert_close(a: &Tensor, b: &Tensor, tolerance: f64) {
    assert_eq!(a.size(), b.size());
    let differences = values(a).into_iter().zip(values(b)).map(|(a, b)| (a - b).abs());
    let worst = differences.max_by(f64::total_cmp).unwrap();
    assert!(worst <= tolerance, "{worst:e}");
}

/// Returns N×C×H×W numbers spread over [-2, 2], which are the same every time.
pub fn images(batch: usize, shape: Shape) -> Tensor {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let values: Vec<f32> = (0..batch * shape.len()).map(|_| rng.random_range(-2.0..2.0)).collect();
    let size = [batch, shape.channels, shape.height, shape.width].map(|n| n as i64);
    Tensor::from_slice(&values).view(size)
}
