//! The proxy of one guest.

fn main() -> std::process::ExitCode {
    console_proxy::programs::proxyd::main()
}
