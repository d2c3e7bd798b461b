//! ONNX Runtime, loaded from a shared library.

use super::{Error, Model, Opened, check};
use nas_probe::{ModelRef, TensorData};
use ort::{
    LoadDynamicError,
    environment::Environment,
    session::{Session, SessionInputValue, builder::GraphOptimizationLevel},
    value::{Tensor, TensorElementType, ValueType},
};
use std::{
    error::Error as _,
    ffi::{CStr, CString},
    hint::black_box,
    os::unix::ffi::OsStrExt,
    path::Path,
};

pub fn open(library: Option<&Path>) -> Result<Opened, String> {
    let library = library.ok_or("no library was named (--ort LIBONNXRUNTIME.so)")?;
    // ort looks for a relative path next to the executable; here it means what it means elsewhere.
    let library = library.canonicalize().map_err(|e| format!("{}: {e}", library.display()))?;
    let environment = ort::init_from(&library).map_err(|e| match &e {
        // The linker's own words (a glibc too old, another architecture) are a level down.
        LoadDynamicError::Dlopen { error, .. } => error.source().map_or(e.to_string(), |why| why.to_string()),
        _ => e.to_string(),
    })?;
    let environment = environment.with_telemetry(false).build().map_err(|e| e.to_string())?;
    let version = version(&library).ok_or_else(|| format!("{} tells no version", library.display()))?;
    Ok(Opened { version, load: Box::new(move |model| load(&environment, model)) })
}

/// The version that the library itself tells; ort has it too, but keeps it to itself.
fn version(library: &Path) -> Option<String> {
    let path = CString::new(library.as_os_str().as_bytes()).ok()?;
    // SAFETY: the library is loaded and found good by `ort::init_from`, so this only counts one
    // reference more; the symbol has the signature that ONNX Runtime's C API gives it.
    unsafe {
        let handle = libc::dlopen(path.as_ptr(), libc::RTLD_NOW);
        let symbol = (!handle.is_null()).then(|| libc::dlsym(handle, c"OrtGetApiBase".as_ptr()))?;
        type GetApiBase = unsafe extern "system" fn() -> *const ort::sys::OrtApiBase;
        let get = std::mem::transmute::<*mut libc::c_void, Option<GetApiBase>>(symbol)?;
        let version = (get().as_ref()?.GetVersionString)();
        (!version.is_null()).then(|| CStr::from_ptr(version).to_string_lossy().into_owned())
    }
}

struct Ort {
    session: Session,
    inputs: Vec<SessionInputValue<'static>>,
}

fn load(environment: &Environment, model: &ModelRef) -> Result<Box<dyn Model>, Error> {
    let session = || -> ort::Result<Session> {
        Session::builder(environment)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_intra_threads(model.threads)?
            .with_inter_threads(1)?
            .commit_from_file(&model.path)
    };
    let session = session().map_err(|e| Error::Load(e.to_string()))?;
    Ok(Box::new(Ort { session, inputs: Vec::new() }))
}

impl Model for Ort {
    fn input_shapes(&self) -> Result<Vec<Vec<usize>>, Error> {
        let shape = |(index, input): (usize, &ort::value::Outlet)| match input.dtype() {
            ValueType::Tensor { ty: TensorElementType::Float32, shape, .. } => {
                let fixed = |d: &i64| usize::try_from(*d).map_err(|_| Error::open_shape(index));
                shape.iter().map(fixed).collect()
            }
            other => Err(Error::not_f32(index, other)),
        };
        self.session.inputs().iter().enumerate().map(shape).collect()
    }

    fn set_inputs(&mut self, inputs: Vec<TensorData>) -> Result<(), Error> {
        check(&inputs, self.session.inputs().len())?;
        let tensor = |input: TensorData| Ok(Tensor::from_array((input.shape, input.values))?.into());
        let tensors: ort::Result<_> = inputs.into_iter().map(tensor).collect();
        self.inputs = tensors.map_err(|e| Error::Run(e.to_string()))?;
        Ok(())
    }

    fn run(&mut self) -> Result<(), Error> {
        let outputs = self.session.run(self.inputs.as_slice());
        black_box(outputs).map(drop).map_err(|e| Error::Run(e.to_string()))
    }

    fn infer(&mut self) -> Result<Vec<TensorData>, Error> {
        let mut infer = || -> ort::Result<_> {
            let outputs = self.session.run(self.inputs.as_slice())?;
            let read = |output: ort::value::ValueRef<'_>| {
                let (shape, values) = output.try_extract_tensor::<f32>()?;
                // An actual tensor's dimensions are never negative.
                let shape = shape.iter().map(|d| d.unsigned_abs() as usize).collect();
                Ok(TensorData { shape, values: values.to_vec() })
            };
            outputs.values().map(read).collect()
        };
        infer().map_err(|e| Error::Run(e.to_string()))
    }
}
