//! The command line of `ctl`.
use super::failure::Failure;
use crate::base::arguments::split_equals;
use argh::{EarlyExit, FromArgs};
use std::ffi::OsString;

/// Talks to a running simple-artifact-server.
///
/// The token, if the server asks for one, stands in FRAG_TOKEN or in the file that --token-file or
/// FRAG_TOKEN_FILE names.
/// Exit codes: 0 done, 1 refused, 2 usage, 3 not reached, 4 failed here; exec has its program's.
#[derive(FromArgs, Debug)]
pub(super) struct Arguments {
    /// where the server is, also its --control listener; FRAG_URL says so too (http://127.0.0.1:8080)
    #[argh(option, arg_name = "url")]
    pub(super) url: Option<String>,
    /// file with the token
    #[argh(option, arg_name = "file")]
    pub(super) token_file: Option<String>,
    /// file with the certificates, in PEM, that an https server's is checked by (the web's authorities)
    #[cfg(feature = "tls")]
    #[argh(option, arg_name = "file")]
    pub(super) ca_file: Option<String>,
    /// print what the server answers, one JSON document a line
    #[argh(switch)]
    pub(super) json: bool,
    #[argh(subcommand)]
    pub(super) command: Command,
}

/// What is to be done.
#[derive(FromArgs, Debug)]
#[argh(subcommand)]
pub(super) enum Command {
    Status(Status),
    Logs(Logs),
    Upload(Upload),
    Sync(Sync),
    Restart(Restart),
    Interrupt(Interrupt),
    Stop(Stop),
    Start(Start),
    Exec(Exec),
    Runs(Runs),
    Approvals(Approvals),
    Artifact(Artifact),
}

/// how the wrapped server is; exit code 1 if it does not run
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "status")]
pub(super) struct Status {}

/// what the wrapped server wrote
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "logs")]
pub(super) struct Logs {
    /// go on with what it writes, also over lost connections
    #[argh(switch, short = 'f')]
    pub(super) follow: bool,
    /// the last lines only, as many
    #[argh(option, arg_name = "n")]
    pub(super) tail: Option<usize>,
    /// stdout, stderr or system (what was done to it) alone
    #[argh(option, arg_name = "stream")]
    pub(super) stream: Option<String>,
}

/// puts files, and whole directories, below the server's root
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "upload")]
pub(super) struct Upload {
    /// what to upload; of a directory everything but links, and what sync leaves out
    #[argh(positional)]
    pub(super) file: Vec<String>,
    /// directory below the root (the root)
    #[argh(option, arg_name = "dir")]
    pub(super) to: Option<String>,
    /// then restart the wrapped server
    #[argh(switch)]
    pub(super) restart: bool,
    /// then interrupt it
    #[argh(switch)]
    pub(super) interrupt: bool,
    /// name to leave out, * standing for anything; may be repeated
    #[argh(option, arg_name = "pattern")]
    pub(super) exclude: Vec<String>,
}

/// makes a directory below the server's root like one here
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "sync")]
pub(super) struct Sync {
    /// the directory here
    #[argh(positional)]
    pub(super) dir: String,
    /// directory below the root (the root)
    #[argh(option, arg_name = "dir")]
    pub(super) to: Option<String>,
    /// go on with each change
    #[argh(switch)]
    pub(super) watch: bool,
    /// look for changes twice a second instead of being told, where the system does not tell
    #[argh(switch)]
    pub(super) poll: bool,
    /// restart the wrapped server after each round that changed something
    #[argh(switch)]
    pub(super) restart: bool,
    /// delete there what is not here
    #[argh(switch)]
    pub(super) delete: bool,
    /// name to leave out, * standing for anything; may be repeated
    #[argh(option, arg_name = "pattern")]
    pub(super) exclude: Vec<String>,
}

/// restarts the wrapped server
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "restart")]
pub(super) struct Restart {
    /// until it serves
    #[argh(switch)]
    pub(super) wait: bool,
}

/// sends the wrapped server its interrupt signal
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "interrupt")]
pub(super) struct Interrupt {}

/// stops the wrapped server
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "stop")]
pub(super) struct Stop {}

/// starts the wrapped server
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "start")]
pub(super) struct Start {
    /// until it serves
    #[argh(switch)]
    pub(super) wait: bool,
}

/// runs a program there; what is piped in goes to it
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "exec")]
pub(super) struct Exec {
    /// seconds it may take (300)
    #[argh(option, arg_name = "seconds")]
    pub(super) timeout: Option<u64>,
    /// directory below the root to run in (the root)
    #[argh(option, arg_name = "dir")]
    pub(super) cwd: Option<String>,
    /// a variable for it, NAME=VALUE; may be repeated
    #[argh(option, arg_name = "variable")]
    pub(super) env: Vec<String>,
    /// the program and its arguments, behind a --
    #[argh(positional)]
    pub(super) args: Vec<String>,
}

/// what ran, or one run
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "runs")]
pub(super) struct Runs {
    /// a run's id
    #[argh(positional)]
    pub(super) id: Option<String>,
}

/// what waits for a decision; or decides
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "approvals")]
pub(super) struct Approvals {
    /// an approval's id; then, to decide, approve or reject
    #[argh(positional)]
    pub(super) decision: Vec<String>,
    /// why
    #[argh(option, arg_name = "text")]
    pub(super) reason: Option<String>,
}

/// stores, reads and deletes artifacts
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "artifact")]
pub(super) struct Artifact {
    #[argh(subcommand)]
    pub(super) command: ArtifactCommand,
}

/// What is to be done with an artifact.
#[derive(FromArgs, Debug)]
#[argh(subcommand)]
pub(super) enum ArtifactCommand {
    Put(Put),
    Get(Get),
    Delete(Delete),
}

/// stores a payload and prints its link
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "put")]
pub(super) struct Put {
    /// the file with the payload (standard input)
    #[argh(positional)]
    pub(super) file: Option<String>,
    /// the artifact whose payload it replaces
    #[argh(option, arg_name = "id")]
    pub(super) id: Option<String>,
}

/// prints a payload
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "get")]
pub(super) struct Get {
    /// the artifact's id
    #[argh(positional)]
    pub(super) id: String,
}

/// deletes an artifact
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "delete")]
pub(super) struct Delete {
    /// the artifact's id
    #[argh(positional)]
    pub(super) id: String,
}

/// What the words come to.
pub(super) enum Parsed {
    Arguments(Arguments),
    /// Help was asked for: this text.
    Help(String),
}

/// Parses the words after `ctl`.
pub(super) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Parsed, Failure> {
    let words: Result<Vec<String>, OsString> = words.into_iter().map(OsString::into_string).collect();
    let words = words
        .map_err(|odd| Failure::Usage(format!("the argument `{}` is not UTF-8", odd.to_string_lossy())))?;
    let words = to_the_front(split_equals(words));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match Arguments::from_args(&[env!("CARGO_PKG_NAME"), "ctl"], &words) {
        Ok(arguments) => Ok(Parsed::Arguments(arguments)),
        Err(EarlyExit { output, status: Ok(()) }) => Ok(Parsed::Help(output)),
        Err(EarlyExit { output, .. }) => Err(Failure::Usage(output.trim_end().to_owned())),
    }
}

/// argh takes the flags that all commands have only before the command: they may stand behind it, too.
fn to_the_front(words: Vec<String>) -> Vec<String> {
    let (mut front, mut rest) = (Vec::new(), Vec::new());
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--json" => front.push(word),
            "--url" | "--token-file" | "--ca-file" => {
                front.push(word);
                front.extend(words.next());
            }
            "--" => {
                rest.push(word);
                rest.extend(words.by_ref());
            }
            _ => rest.push(word),
        }
    }
    front.into_iter().chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_all_commands_stand_anywhere_before_two_dashes() {
        let words = ["exec", "--json", "--url=http://h", "--", "x", "--json", "--a=b"].map(OsString::from);
        let Ok(Parsed::Arguments(parsed)) = parse(words) else { panic!("not parsed") };
        assert!(parsed.json && parsed.url.as_deref() == Some("http://h"));
        let Command::Exec(exec) = parsed.command else { panic!("another command") };
        assert_eq!(exec.args, ["x", "--json", "--a=b"]);
        assert!(
            matches!(parse(["--help"].map(OsString::from)), Ok(Parsed::Help(text)) if text.contains("sync"))
        );
        assert!(matches!(parse(["logs", "--tail", "x"].map(OsString::from)), Err(Failure::Usage(_))));
        assert!(matches!(parse([]), Err(Failure::Usage(_))));
    }
}
