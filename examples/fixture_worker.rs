//! What the tests run as a worker: does what its inputs say. Not an example to copy; `worker/` is.
//!
//! `say TEXT`, `system` inputs too; `plain A|B`: lines that are no events; `flood N`: as many events;
//! `alert TEXT`: on standard error; `raw LINE`: a line as it is, without an end of the run; `silent`;
//! `exit CODE`; `length`: of the input; `environment`; `child`: one that ignores SIGTERM and SIGINT;
//! `leave TEXT`: a plain line, and its end.
use std::io::{BufRead, Write};
use std::process::{Command, ExitCode};

fn main() -> std::io::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let input: serde_json::Value = serde_json::from_str(&line?)?;
        let content = input["content"].as_str().unwrap_or_default();
        let (command, rest) = content.split_once(' ').unwrap_or((content, ""));
        match command {
            "say" => say(&mut out, rest)?,
            "plain" => rest.split('|').try_for_each(|line| writeln!(out, "{line}"))?,
            "flood" => {
                for n in 1..=rest.parse::<u64>().unwrap_or(0) {
                    writeln!(out, r#"{{"event":"text_delta","data":{{"text":"{n}"}}}}"#)?;
                }
            }
            "alert" => writeln!(std::io::stderr(), "{rest}")?,
            "raw" => {
                writeln!(out, "{rest}")?;
                continue;
            }
            "silent" => continue,
            "exit" => return Ok(ExitCode::from(rest.parse().unwrap_or(1))),
            "leave" => {
                writeln!(out, "{rest}")?;
                return Ok(ExitCode::SUCCESS);
            }
            "length" => say(&mut out, &content.len().to_string())?,
            "environment" => {
                let names = ["WORKER_ID", "RUNTIME_ID", "WORKER_PROFILE", "WORKER_INTENT"];
                let values = names.map(|name| std::env::var(name).unwrap_or_default());
                let secrets = std::env::vars().filter(|(name, _)| name.starts_with("FRAG_")).count();
                let place = std::env::current_dir()?;
                say(&mut out, &format!("{}|{secrets}|{}", values.join("|"), place.display()))?;
            }
            "child" => {
                let script = "trap '' TERM INT; while :; do sleep 1; done";
                let child = Command::new("/bin/sh").args(["-c", script]).spawn()?;
                say(&mut out, &child.id().to_string())?;
            }
            _ => say(&mut out, &format!("{}: {content}", input["kind"].as_str().unwrap_or_default()))?,
        }
        writeln!(out, r#"{{"event":"run_end","data":{{"result":"finished"}}}}"#)?;
        out.flush()?;
    }
    Ok(ExitCode::SUCCESS)
}

fn say(out: &mut impl Write, text: &str) -> std::io::Result<()> {
    let text = serde_json::Value::from(text);
    writeln!(out, r#"{{"event":"text_done","data":{{"text":{text}}}}}"#)
}
