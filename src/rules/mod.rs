//! What is true without looking: no I/O, no clock, no environment, no async.

pub mod broker;
pub mod close;
pub mod config;
pub mod diff;
pub mod domain;
pub mod frame;
pub mod gather;
pub mod guest;
pub mod history;
pub mod hook;
pub mod log;
pub mod pace;
pub mod plan;
pub mod ports;
pub mod qemu_conf;
pub mod reach;
pub mod request;
pub mod ring;
pub mod route;
pub mod session;
pub mod ticket;
pub mod told;
pub mod wiring;
pub mod xml;
