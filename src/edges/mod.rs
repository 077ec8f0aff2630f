//! One outside thing each, known by one module alone.

pub mod files;
pub mod paths;
pub mod slots;
