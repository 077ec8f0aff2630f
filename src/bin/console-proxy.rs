//! The administrator's command.

fn main() -> std::process::ExitCode {
    console_proxy::programs::cli::main()
}
