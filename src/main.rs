//! Parse, run, exit code.
use simple_artifact_server::cli::{self, Early};
use simple_artifact_server::{app, config::Config};
use std::process::ExitCode;

#[allow(clippy::print_stdout, clippy::print_stderr)]
fn main() -> ExitCode {
    let flags = match cli::parse(std::env::args().skip(1)) {
        Ok(flags) => flags,
        Err(Early::Help(text)) => {
            println!("{}", text.trim_end());
            return ExitCode::SUCCESS;
        }
        Err(Early::Usage(text)) => {
            eprintln!("{}", text.trim_end());
            return ExitCode::from(2);
        }
    };
    if flags.version {
        println!("{} {}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    let config = match Config::resolve(flags, &|name| std::env::var_os(name)) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    match app::run(config) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
