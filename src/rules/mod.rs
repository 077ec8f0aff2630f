//! What is true without looking: no I/O, no clock, no environment, no async.

pub mod config;
pub mod guest;
pub mod ports;
pub mod xml;
