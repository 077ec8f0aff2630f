//! What each program does, on one screen.

pub mod auth;
pub mod broker;
pub mod cli;
pub mod console;
pub mod display;
pub mod doctor;
pub mod hook;
pub mod keys;
pub mod log;
pub mod lookup;
pub mod proxyd;
pub mod prune;
pub mod publish;
pub mod replay;
pub mod sessions;
pub mod show;
pub mod ssh;
pub mod sync;
pub mod ticket;
pub mod wire;
