//! Hands proxies connected descriptors of their guest's backends.

fn main() -> std::process::ExitCode {
    console_proxy::programs::broker::main()
}
