//! What is true without looking: no I/O, no clock, no environment, no async.

pub mod config;
pub mod domain;
pub mod guest;
pub mod hook;
pub mod ports;
pub mod qemu_conf;
pub mod reach;
pub mod route;
pub mod ticket;
pub mod wiring;
pub mod xml;
