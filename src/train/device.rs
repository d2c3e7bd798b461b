//! The processor that libtorch trains on.

use super::TrainError;
use crate::named::named;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use tch::{Cuda, Device};

/// How a training chooses its processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TorchDevice {
    /// The first GPU if libtorch can use one, otherwise the CPU.
    #[default]
    Auto,
    Cpu,
    Cuda,
}

named!(TorchDevice, "a processor of libtorch": "auto" = Auto, "cpu" = Cpu, "cuda" = Cuda);

impl TorchDevice {
    /// Returns the processor. This must be called before anything else asks libtorch for a GPU, since libtorch looks
    /// for its CUDA library only once.
    ///
    /// # Errors
    /// [`TrainError::Cuda`] for `Cuda` if no GPU can be used.
    pub fn resolve(self) -> Result<Device, TrainError> {
        static CUDA: OnceLock<Result<(), String>> = OnceLock::new();
        if self == TorchDevice::Cpu {
            return Ok(Device::Cpu);
        }
        match (CUDA.get_or_init(find_cuda), self) {
            (Ok(()), _) => Ok(Device::Cuda(0)),
            (Err(_), TorchDevice::Auto) => Ok(Device::Cpu),
            (Err(reason), _) => Err(TrainError::Cuda { reason: reason.clone() }),
        }
    }
}

/// The library of libtorch that computes on GPUs. The program is not linked with it. It loads the library if it is
/// beside the one for CPUs, as in every Python package of PyTorch with CUDA.
const CUDA_LIBRARY: &str = "libtorch_cuda.so";
const CPU_LIBRARY: &str = "libtorch_cpu.so";

fn find_cuda() -> Result<(), String> {
    let cpu = loaded(CPU_LIBRARY).ok_or_else(|| format!("{CPU_LIBRARY} is not loaded as a file"))?;
    let cuda = cpu.with_file_name(CUDA_LIBRARY);
    if !cuda.is_file() {
        let folder = cpu.parent().unwrap_or(Path::new("")).display();
        return Err(format!("{CUDA_LIBRARY} is not in {folder}"));
    }
    load(&cuda)?;
    if Cuda::is_available() { Ok(()) } else { Err("libtorch finds no GPU, or no driver for it".into()) }
}

/// Loads a library permanently, and makes its symbols available to all others.
fn load(library: &Path) -> Result<(), String> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    // SAFETY: the constructors of this library register its kernels with the libtorch that it belongs to, which is
    // loaded.
    let library = unsafe { Library::open(Some(library), RTLD_NOW | RTLD_GLOBAL) };
    library.map(std::mem::forget).map_err(|error| error.to_string())
}

/// Returns the path of a library that this process has loaded.
fn loaded(name: &str) -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let path = |line: &str| Some(PathBuf::from(&line[line.find('/')?..]));
    maps.lines().filter_map(path).find(|path| path.ends_with(name))
}
