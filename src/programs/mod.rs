//! What each program does, on one screen.

pub mod broker;
pub mod hook;
pub mod proxyd;
