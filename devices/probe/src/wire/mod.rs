mod base64;
mod bounds;
mod device;
mod line;
mod reply;
mod request;
mod sensors;
#[cfg(test)]
mod tests;

pub use device::{Conditions, Hello, Runtime, RuntimeInfo};
pub use line::{Line, MOST_REPLY_BYTES, MOST_REQUEST_BYTES, printable, read_line};
pub use reply::{Reply, Samples};
pub use request::{DeployedGraph, MeasurePlan, ModelRef, Request, TensorData};
pub use sensors::{Rail, Sensors, Throttle, ThrottleKind};

use sha2::{Digest, Sha256};

/// SHA-256 of `bytes` as 64 lowercase hex digits, by which the protocol identifies models.
pub fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}
