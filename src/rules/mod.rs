//! What is true without looking: no I/O, no clock, no environment, no async.

pub mod config;
pub mod domain;
pub mod guest;
pub mod ports;
pub mod reach;
pub mod route;
pub mod xml;
