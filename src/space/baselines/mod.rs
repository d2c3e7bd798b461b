//! Published networks that a found one is compared with.

pub(super) mod mobilenet_v2;

pub use mobilenet_v2::mobilenet_v2;
