//! What the fuzz targets share: a folder for the files of an execution, and mutations that keep the syntax.

mod folder;
mod json;
mod onnx;
mod probe;

pub use folder::Folder;
pub use json::mutate as mutate_json_lines;
pub use onnx::mutate as mutate_onnx;
pub use probe::Probe;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// Returns whether bytes are mutated, one time in eight, instead of keeping the syntax.
fn of_bytes(seed: u32) -> bool {
    seed.is_multiple_of(8)
}

fn rng(seed: u32) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed.into())
}

/// Replaces the input by `mutated` if that fits. Otherwise, mutates the bytes of the input.
fn replace(data: &mut [u8], size: usize, mutated: Option<Vec<u8>>, max_size: usize) -> usize {
    match mutated {
        Some(bytes) if !bytes.is_empty() && bytes.len() <= max_size && bytes.len() <= data.len() => {
            data[..bytes.len()].copy_from_slice(&bytes);
            bytes.len()
        }
        _ => libfuzzer_sys::fuzzer_mutate(data, size, max_size),
    }
}
