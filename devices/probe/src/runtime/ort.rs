//! ONNX Runtime, loaded from a shared library.

use super::{Error, Model, Opened, check};
use nas_probe::TensorData;
use ort::{
    LoadDynamicError,
    environment::Environment,
    ep,
    session::{
        Session, SessionInputValue,
        builder::{GraphOptimizationLevel, SessionBuilder},
    },
    value::{Tensor, TensorElementType, ValueType},
};
use std::{
    error::Error as _,
    ffi::{CStr, CString},
    hint::black_box,
    num::NonZeroUsize,
    os::unix::ffi::OsStrExt,
    path::Path,
};

pub fn open(library: Option<&Path>, asked: &[String]) -> Result<Opened, String> {
    let library = library.ok_or("no library was named (--ort LIBONNXRUNTIME.so)")?;
    // ort would resolve a relative path against the folder of the executable instead of the current one.
    let library = library.canonicalize().map_err(|e| format!("{}: {e}", library.display()))?;
    let environment = ort::init_from(&library).map_err(|e| match &e {
        // The message of the dynamic linker (such as a glibc that is too old) is the error's source.
        LoadDynamicError::Dlopen { error, .. } => error.source().map_or(e.to_string(), |why| why.to_string()),
        _ => e.to_string(),
    })?;
    let environment = environment.with_telemetry(false).build().map_err(|e| e.to_string())?;
    let version = version(&library).ok_or_else(|| format!("{} reports no version", library.display()))?;
    let (mut providers, mut refused) = (Vec::new(), Vec::new());
    for name in asked {
        match try_provider(&environment, name) {
            Ok(()) => providers.push(name.clone()),
            Err(why) => refused.push(format!("ort provider {name}: {why}")),
        }
    }
    if providers.is_empty() {
        if !refused.is_empty() {
            return Err(format!("none of the requested providers can be used; {}", refused.join("; ")));
        }
        providers.push("cpu".to_owned());
    }
    let used = providers.clone();
    let load = move |model: &Path, threads| load(&environment, &used, model, threads);
    Ok(Opened { version, providers, refused, load: Box::new(load) })
}

/// Returns the version that the library reports, which ort knows but does not expose.
fn version(library: &Path) -> Option<String> {
    let path = CString::new(library.as_os_str().as_bytes()).ok()?;
    // SAFETY: `ort::init_from` has loaded and checked the library, so dlopen only adds a reference. The
    // symbol has the signature that ONNX Runtime's C API declares.
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

fn load(
    environment: &Environment,
    providers: &[String],
    model: &Path,
    threads: usize,
) -> Result<Box<dyn Model>, Error> {
    let session = || -> ort::Result<Session> {
        builder(environment, providers, threads)?.with_inter_threads(1)?.commit_from_file(model)
    };
    let session = session().map_err(|e| Error::Load(e.to_string()))?;
    Ok(Box::new(Ort { session, inputs: Vec::new() }))
}

fn builder(environment: &Environment, providers: &[String], threads: usize) -> ort::Result<SessionBuilder> {
    let mut builder = Session::builder(environment)?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_intra_threads(threads)?;
    if providers.iter().any(|name| name == "xnnpack") {
        // XNNPACK has its own threads, and the threads of the session must not spin while they wait for them.
        builder = builder.with_intra_op_spinning(false)?;
    }
    let dispatch = |name: &String| provider(name, threads).map_err(ort::Error::new);
    let providers: Vec<_> = providers.iter().map(dispatch).collect::<Result<_, _>>()?;
    Ok(builder.with_execution_providers(providers)?)
}

/// Returns an execution provider by its name.
///
/// # Errors
/// Fails if there is no provider of that name.
fn provider(name: &str, threads: usize) -> Result<ep::ExecutionProviderDispatch, String> {
    let provider = match name {
        "tensorrt" => ep::TensorRT::default().build(),
        "cuda" => ep::CUDA::default().build(),
        "xnnpack" => {
            let threads = NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN);
            ep::XNNPACK::default().with_intra_op_num_threads(threads).build()
        }
        // ONNX Runtime uses the arena by default, but ort does not.
        "cpu" => ep::CPU::default().with_arena_allocator(true).build(),
        _ => return Err("it is unknown; the providers are tensorrt, cuda, xnnpack and cpu".to_owned()),
    };
    Ok(provider.error_on_failure())
}

/// Checks that a session can be created with this provider. The library may have the provider although this
/// machine lacks the device for it.
fn try_provider(environment: &Environment, name: &String) -> Result<(), String> {
    let session = || builder(environment, std::slice::from_ref(name), 1)?.commit_from_memory(&EMPTY);
    session().map(drop).map_err(|e| e.to_string())
}

/// An ONNX model (IR 8, opset 17) without nodes, whose output is its input `x`, one f32.
const EMPTY: [u8; 45] = *b"\x08\x08\x42\x02\x10\x11\x3a\x25\x12\x01g\
    \x5a\x0f\x0a\x01x\x12\x0a\x0a\x08\x08\x01\x12\x04\x0a\x02\x08\x01\
    \x62\x0f\x0a\x01x\x12\x0a\x0a\x08\x08\x01\x12\x04\x0a\x02\x08\x01";

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
