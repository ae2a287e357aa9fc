//! What the tests wrap and run: a tiny server and a few kinds of misbehaviour. Not an example to copy.
//!
//! `listen PORT [DELAY_MS]`, `listen6 PORT`: answers every connection with 200 and its pid;
//! `answer PORT STATUS`: with that status; `exit CODE`; `flood BYTES`: writes without a newline;
//! `web PORT [DELAY_MS]`: keeps connections, reads bodies, answers with its pid and the body's length;
//! an upgrade becomes an echo; `/crash` ends it, the first `/hang-once` is never answered, `/sleep/MS` takes its time and says so.
//! `args …` and `env` print what they were given, a line each.
//! `escape PORT`: leaves a listener in a group of its own behind and ends.
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
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
        Some("web") => {
            std::thread::sleep(Duration::from_millis(number(2).unwrap_or(0)));
            web(&TcpListener::bind(("127.0.0.1", port))?)
        }
        Some("listen6") => serve(TcpListener::bind(("::1", port))?, 200),
        Some("answer") => serve(TcpListener::bind(("127.0.0.1", port))?, number(2).unwrap_or(200)),
        Some("exit") => Ok(ExitCode::from(number(1).unwrap_or(0) as u8)),
        Some("args") => {
            arguments[1..].iter().try_for_each(|argument| writeln!(std::io::stdout(), "{argument}"))?;
            Ok(ExitCode::SUCCESS)
        }
        Some("env") => {
            for (name, value) in std::env::vars() {
                writeln!(std::io::stdout(), "{name}={value}")?;
            }
            Ok(ExitCode::SUCCESS)
        }
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

fn web(listener: &TcpListener) -> std::io::Result<ExitCode> {
    for stream in listener.incoming() {
        let stream = stream?;
        std::thread::spawn(move || {
            let _ = converse(&stream);
        });
    }
    Ok(ExitCode::SUCCESS)
}

fn converse(mut stream: &TcpStream) -> std::io::Result<()> {
    let mut input = BufReader::new(stream);
    loop {
        let (mut target, mut length, mut line) = (String::new(), 0, String::new());
        let mut upgrade = false;
        while line != "\r\n" {
            line.clear();
            if input.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if target.is_empty() {
                line.split(' ').nth(1).unwrap_or_default().clone_into(&mut target);
            }
            upgrade |= line.starts_with("upgrade: ");
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        if upgrade {
            stream.write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n",
            )?;
            return std::io::copy(&mut input, &mut stream).map(drop);
        }
        let read = std::io::copy(&mut (&mut input).take(length), &mut std::io::sink())?;
        match target.as_str() {
            "/crash" => std::process::abort(),
            "/hang-once" if std::fs::create_dir("hung").is_ok() => loop {
                std::thread::park();
            },
            _ => {}
        }
        if let Some(ms) = target.strip_prefix("/sleep/") {
            writeln!(std::io::stdout(), "{target}")?;
            std::thread::sleep(Duration::from_millis(ms.parse().unwrap_or(0)));
        }
        let body = format!("{} {read}", std::process::id());
        stream.write_all(
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes(),
        )?;
    }
}
