//! Asks PAM about one password.

fn main() -> std::process::ExitCode {
    console_proxy::programs::auth::main()
}
