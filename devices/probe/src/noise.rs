//! Inputs for runs whose outputs do not matter.

use crate::runtime::{Error, Model};
use nas_probe::TensorData;

/// Maximum number of values of an input: 1 GiB.
const MOST_VALUES: usize = 1 << 28;

/// Sets the inputs of a model to fixed pseudo-random values in [-1, 1].
///
/// # Errors
/// The errors of the model; [`Error::Input`] if an input is too large.
pub fn feed(model: &mut dyn Model) -> Result<(), Error> {
    let shapes = model.input_shapes()?;
    for (index, shape) in shapes.iter().enumerate() {
        let values = shape.iter().try_fold(1_usize, |n, d| n.checked_mul(*d));
        values.filter(|values| *values <= MOST_VALUES).ok_or(Error::too_large(index))?;
    }
    model.set_inputs(shapes.into_iter().map(noise).collect())
}

/// A tensor of fixed pseudo-random values, uniform in [-1, 1]: the top 24 bits of a linear congruential
/// generator with the constants of Numerical Recipes.
fn noise(shape: Vec<usize>) -> TensorData {
    let mut state: u32 = 1;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let values = std::iter::repeat_with(next).take(shape.iter().product()).collect();
    TensorData { shape, values }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_covers_minus_one_to_one_and_is_reproducible() {
        let a = noise(vec![1, 10, 100]);
        assert_eq!(a, noise(vec![1, 10, 100]));
        assert!(a.values.iter().all(|v| (-1.0..=1.0).contains(v)));
        assert!(a.values.iter().sum::<f32>().abs() < 60.0);
        assert!(a.values.iter().any(|v| *v < -0.9) && a.values.iter().any(|v| *v > 0.9));
    }
}
