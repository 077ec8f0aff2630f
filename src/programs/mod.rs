//! What each program does, on one screen.

pub mod hook;
pub mod proxyd;
