mod base64;
mod device;
mod reply;
mod request;
mod sensors;
#[cfg(test)]
mod tests;

pub use device::{Conditions, Hello, Runtime, RuntimeInfo};
pub use reply::Reply;
pub use request::{MeasurePlan, ModelRef, Request, TensorData};
pub use sensors::{Rail, Sensors, Throttle, ThrottleKind};
