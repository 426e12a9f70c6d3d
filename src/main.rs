//! Entry point: hands the command line to [`switchover_agent::cli`] and exits with its code.

fn main() -> std::process::ExitCode {
    switchover_agent::cli::main()
}
