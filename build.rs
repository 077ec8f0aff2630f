//! How the programs are linked.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Relocations in a form that takes 5 KiB instead of 240 (DT_RELR; glibc 2.36, binutils 2.38): each proxy reads
    // all of them when it starts, and keeps them in its memory. A linker that does not know this says so and goes on.
    if std::env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|env| env == "gnu") {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
