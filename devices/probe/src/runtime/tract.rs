//! tract, which is compiled into the probe.

use super::{Error, Model, Opened, check};
use nas_probe::TensorData;
use std::{hint::black_box, path::Path};
use tract_onnx::prelude::*;

/// tract does not expose its version, so it is repeated here. A test compares it with Cargo.lock.
const VERSION: &str = "0.23.9";

pub fn open() -> Opened {
    Opened { version: VERSION.to_owned(), providers: vec![], refused: vec![], load: Box::new(load) }
}

struct Tract {
    state: TypedSimpleState,
    inputs: TVec<TValue>,
}

fn load(model: &Path, threads: usize) -> Result<Box<dyn Model>, Error> {
    if threads != 1 {
        return Err(Error::OneThread(threads));
    }
    let state = || tract_onnx::onnx().model_for_path(model)?.into_optimized()?.into_runnable()?.spawn();
    let state = state().map_err(|e| Error::Load(format!("{e:#}")))?;
    Ok(Box::new(Tract { state, inputs: tvec!() }))
}

impl Tract {
    fn outputs(&mut self) -> TractResult<TVec<TValue>> {
        // Cloning a TValue only adds a reference and does not copy the values.
        self.state.run(self.inputs.clone())
    }
}

impl Model for Tract {
    fn input_shapes(&self) -> Result<Vec<Vec<usize>>, Error> {
        let model = self.state.model();
        let shape = |index| {
            let fact = model.input_fact(index).map_err(|e| Error::Load(format!("{e:#}")))?;
            if fact.datum_type != f32::datum_type() {
                return Err(Error::not_f32(index, format!("{:?}", fact.datum_type)));
            }
            Ok(fact.shape.as_concrete().ok_or(Error::open_shape(index))?.to_vec())
        };
        (0..model.inputs.len()).map(shape).collect()
    }

    fn set_inputs(&mut self, inputs: Vec<TensorData>) -> Result<(), Error> {
        check(&inputs, self.state.model().inputs.len())?;
        let tensor = |input: &TensorData| Ok(Tensor::from_shape(&input.shape, &input.values)?.into_tvalue());
        let tensors: TractResult<_> = inputs.iter().map(tensor).collect();
        self.inputs = tensors.map_err(|e| Error::Run(format!("{e:#}")))?;
        Ok(())
    }

    fn run(&mut self) -> Result<(), Error> {
        black_box(self.outputs()).map(drop).map_err(|e| Error::Run(format!("{e:#}")))
    }

    fn infer(&mut self) -> Result<Vec<TensorData>, Error> {
        let read = |output: &TValue| {
            let values = output.to_plain_array_view::<f32>()?;
            Ok(TensorData { shape: values.shape().to_vec(), values: values.iter().copied().collect() })
        };
        let outputs = self.outputs().and_then(|outputs| outputs.iter().map(read).collect());
        outputs.map_err(|e| Error::Run(format!("{e:#}")))
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_version_is_that_of_cargo_lock() {
        let lock = include_str!("../../../../Cargo.lock");
        let entry = format!("name = \"tract-onnx\"\nversion = \"{}\"\n", super::VERSION);
        assert!(lock.contains(&entry), "Cargo.lock has another tract-onnx than {}", super::VERSION);
    }
}
