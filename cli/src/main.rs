//! The command `siskin`.

fn main() -> std::process::ExitCode {
    siskin_cli::main()
}
