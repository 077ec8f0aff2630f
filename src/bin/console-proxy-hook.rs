//! The binary that libvirt's hook file calls.

fn main() -> std::process::ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    console_proxy::programs::hook::main(&arguments).into()
}
