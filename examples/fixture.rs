//! What the tests wrap and run: a tiny server and a few kinds of misbehaviour. Not an example to copy.
//!
//! `listen PORT [DELAY_MS]`, `listen6 PORT`: answers every connection with 200 and its pid;
//! `answer PORT STATUS`: with that status; `exit CODE`; `flood BYTES`: writes without a newline;
//! `escape PORT`: leaves a listener in a group of its own behind and ends.
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::Duration;

fn main() -> std::io::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize| arguments.get(i).and_then(|a| a.parse::<u64>().ok());
    let port = number(1).unwrap_or(0) as u16;
    match arguments.first().map(String::as_str) {
        Some("listen") => {
            std::thread::sleep(Duration::from_millis(number(2).unwrap_or(0)));
            serve(TcpListener::bind(("127.0.0.1", port))?, 200)
        }
        Some("listen6") => serve(TcpListener::bind(("::1", port))?, 200),
        Some("answer") => serve(TcpListener::bind(("127.0.0.1", port))?, number(2).unwrap_or(200)),
        Some("exit") => Ok(ExitCode::from(number(1).unwrap_or(0) as u8)),
        Some("flood") => {
            let chunk = [b'x'; 64 * 1024];
            let mut left = number(1).unwrap_or(0) as usize;
            while left > 0 {
                let count = left.min(chunk.len());
                std::io::stdout().write_all(&chunk[..count])?;
                left -= count;
            }
            Ok(ExitCode::SUCCESS)
        }
        Some("escape") => {
            let mut child = Command::new(std::env::current_exe()?);
            child.arg("listen").arg(port.to_string()).process_group(0).spawn()?;
            Ok(ExitCode::SUCCESS)
        }
        _ => Ok(ExitCode::from(2)),
    }
}

fn serve(listener: TcpListener, status: u64) -> std::io::Result<ExitCode> {
    for stream in listener.incoming() {
        let mut stream = stream?;
        // A readiness probe closes without a byte.
        if stream.read(&mut [0; 4096]).unwrap_or(0) > 0 {
            let pid = std::process::id().to_string();
            let _ = write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{pid}", pid.len());
        }
    }
    Ok(ExitCode::SUCCESS)
}
