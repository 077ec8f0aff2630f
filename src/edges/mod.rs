//! One outside thing each, known by one module alone.

pub mod claims;
pub mod files;
pub mod journal;
pub mod paths;
pub mod ports;
pub mod publish;
pub mod slots;
