//! Which programs and arguments are let through. Pure; the texts are the wire contract's.
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

/// Arguments of a fixed program at most.
const FIXED_ARGS: usize = 32;
/// Bytes of one argument of a fixed program.
const FIXED_ARG_BYTES: usize = 256;
/// Words of any command at most.
const ANY_ARGS: usize = 4096;
/// Bytes of one word of any command, and of one variable: what the kernel takes (`MAX_ARG_STRLEN`
/// without its NUL, see `execve(2)`).
const ANY_ARG_BYTES: usize = 128 * 1024 - 1;
/// Variables a caller may add.
const ENV_VARIABLES: usize = 256;
/// What a shell would act on. There is none here, but what a fixed program does with its arguments is
/// its own affair.
const SHELL_CHARACTERS: &[char] = &['`', '$', '|', ';', '&'];
/// Variables that are ours to set, or that no child may see.
const RESERVED_PREFIXES: &[&str] = &["FRAG_", "SYSTEMPROMPT_"];

/// What callers may run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// This one; they choose its arguments.
    Fixed(PathBuf),
    /// Whatever they name first.
    Any,
}

/// Why a command is not run. The numbers count from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There are no arguments.
    NoArguments,
    /// More than this many.
    TooManyArguments(usize),
    /// The argument is longer than this many bytes.
    ArgumentTooLong(usize, usize),
    /// The argument has a character that is not let through.
    ForbiddenCharacter(usize),
    /// The first argument of a fixed program is no subcommand.
    NotASubcommand,
    /// More than this many variables.
    TooManyVariables(usize),
    /// A variable with this name cannot be set.
    VariableName(String),
    /// A variable with this name is not the caller's to set.
    VariableReserved(String),
    /// The variable's value has a NUL or is too long.
    VariableValue(String),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::NoArguments => f.write_str("cli args must not be empty"),
            Refused::TooManyArguments(most) => write!(f, "too many cli args (max {most})"),
            Refused::ArgumentTooLong(i, most) => write!(f, "cli arg #{i} exceeds {most} bytes"),
            Refused::ForbiddenCharacter(i) => write!(f, "cli arg #{i} contains forbidden character"),
            Refused::NotASubcommand => f.write_str("first cli arg must be a lowercase subcommand"),
            Refused::TooManyVariables(most) => write!(f, "too many env variables (max {most})"),
            Refused::VariableName(name) => write!(f, "env variable {name:?} has no usable name"),
            Refused::VariableReserved(name) => write!(f, "env variable {name:?} is reserved"),
            Refused::VariableValue(name) => {
                write!(f, "env variable {name:?} contains a NUL or exceeds {ANY_ARG_BYTES} bytes")
            }
        }
    }
}

impl std::error::Error for Refused {}

/// The words to execute, from the arguments a caller gave.
///
/// # Errors
/// The first thing that is [`Refused`], in the contract's order.
pub fn argv(program: &Program, args: Vec<String>) -> Result<Vec<OsString>, Refused> {
    if args.is_empty() {
        return Err(Refused::NoArguments);
    }
    let (most, bytes) = match program {
        Program::Fixed(_) => (FIXED_ARGS, FIXED_ARG_BYTES),
        Program::Any => (ANY_ARGS, ANY_ARG_BYTES),
    };
    if args.len() > most {
        return Err(Refused::TooManyArguments(most));
    }
    let forbidden = |c: char| match program {
        Program::Fixed(_) => c.is_control() || SHELL_CHARACTERS.contains(&c),
        Program::Any => c == '\0',
    };
    for (i, arg) in args.iter().enumerate() {
        if arg.len() > bytes {
            return Err(Refused::ArgumentTooLong(i, bytes));
        }
        if arg.contains(forbidden) {
            return Err(Refused::ForbiddenCharacter(i));
        }
    }
    let mut words = Vec::with_capacity(args.len() + 1);
    if let Program::Fixed(path) = program {
        if !is_subcommand(&args[0]) {
            return Err(Refused::NotASubcommand);
        }
        words.push(path.clone().into_os_string());
    }
    words.extend(args.into_iter().map(OsString::from));
    Ok(words)
}

/// `[a-z][a-z0-9-]*`
fn is_subcommand(word: &str) -> bool {
    let rest = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    word.starts_with(|c: char| c.is_ascii_lowercase()) && word.chars().all(rest)
}

/// Whether a caller may add these variables. With a fixed program those that decide which program that
/// is, or what the loader puts into it, are not theirs.
///
/// # Errors
/// The first thing that is [`Refused`].
pub fn check_env(program: &Program, env: &[(String, String)]) -> Result<(), Refused> {
    if env.len() > ENV_VARIABLES {
        return Err(Refused::TooManyVariables(ENV_VARIABLES));
    }
    for (name, value) in env {
        if name.is_empty() || name.contains(['=', '\0']) || name.len() > FIXED_ARG_BYTES {
            return Err(Refused::VariableName(name.chars().take(FIXED_ARG_BYTES).collect()));
        }
        let fixes_program = name == "PATH" || name.starts_with("LD_");
        let reserved = RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        if reserved || fixes_program && matches!(program, Program::Fixed(_)) {
            return Err(Refused::VariableReserved(name.clone()));
        }
        if value.contains('\0') || name.len() + 1 + value.len() > ANY_ARG_BYTES {
            return Err(Refused::VariableValue(name.clone()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixed(args: &[&str]) -> Result<usize, String> {
        let args = args.iter().map(ToString::to_string).collect();
        argv(&Program::Fixed("/bin/tool".into()), args).map(|a| a.len()).map_err(|e| e.to_string())
    }

    fn any(args: &[&str]) -> Result<usize, String> {
        let args = args.iter().map(ToString::to_string).collect();
        argv(&Program::Any, args).map(|a| a.len()).map_err(|e| e.to_string())
    }

    #[test]
    fn arguments_of_a_fixed_program() {
        let refused = |text: &str| Err(text.to_owned());
        assert_eq!(fixed(&["infra", "db", "status"]), Ok(4));
        assert_eq!(fixed(&["a"; 32]), Ok(33));
        assert_eq!(fixed(&["a9-", "Ünï", "", "--x=(y)", "'\"\\<>*?"]), Ok(6));
        assert_eq!(fixed(&[]), refused("cli args must not be empty"));
        assert_eq!(fixed(&["A"; 33]), refused("too many cli args (max 32)"));
        let long = "x".repeat(257);
        assert_eq!(fixed(&["a", &"x".repeat(256)]), Ok(3));
        assert_eq!(fixed(&["a", "b", &long]), refused("cli arg #2 exceeds 256 bytes"));
        assert_eq!(fixed(&["a", &"é".repeat(129)]), refused("cli arg #1 exceeds 256 bytes"));
        for bad in ["`", "$", "|", ";", "&", "\n", "\0", "\t", "\x7f", "\u{85}", "a$b"] {
            assert_eq!(fixed(&["a", bad]), refused("cli arg #1 contains forbidden character"), "{bad:?}");
        }
        // The first offender counts, and the length before the character.
        assert_eq!(fixed(&["$", &long]), refused("cli arg #0 contains forbidden character"));
        let long_and_bad = "$".repeat(257);
        assert_eq!(fixed(&[&long_and_bad]), refused("cli arg #0 exceeds 256 bytes"));
        for first in ["", "A", "9", "-a", "aB", "a_b", "a b", "/bin/sh", "é"] {
            assert_eq!(fixed(&[first]), refused("first cli arg must be a lowercase subcommand"), "{first:?}");
        }
    }

    #[test]
    fn any_command_is_held_to_sizes_only() {
        assert_eq!(any(&["/bin/sh", "-c", "a | b; $c & `d`\n\t"]), Ok(3));
        assert_eq!(any(&[""]), Ok(1), "it will not be found");
        assert_eq!(any(&[]), Err("cli args must not be empty".to_owned()));
        assert_eq!(any(&["a", "b\0"]), Err("cli arg #1 contains forbidden character".to_owned()));
        assert_eq!(any(&[&"x".repeat(131_071)]), Ok(1));
        assert_eq!(any(&[&"x".repeat(131_072)]), Err("cli arg #0 exceeds 131071 bytes".to_owned()));
        assert_eq!(any(&["x"; 4096]), Ok(4096));
        assert_eq!(any(&["x"; 4097]), Err("too many cli args (max 4096)".to_owned()));
    }

    #[test]
    fn variables() {
        let fixed = Program::Fixed("tool".into());
        let check = |program: &Program, name: &str, value: &str| {
            check_env(program, &[(name.to_owned(), value.to_owned())]).is_ok()
        };
        assert!(check(&fixed, "A", "") && check(&fixed, "MY_PATH", "x=y\n"));
        assert!(check(&Program::Any, "PATH", "/x") && check(&Program::Any, "LD_PRELOAD", "/x"));
        assert!(!check(&fixed, "PATH", "/x") && !check(&fixed, "LD_PRELOAD", "/x"));
        for name in ["", "A=B", "A\0", "FRAG_TOKEN", "SYSTEMPROMPT_USER_ID", &"n".repeat(257)] {
            assert!(!check(&Program::Any, name, "x"), "{name:?}");
        }
        assert!(!check(&Program::Any, "A", "\0"));
        assert!(check(&Program::Any, "A", &"x".repeat(131_069)));
        assert!(!check(&Program::Any, "A", &"x".repeat(131_070)));
        let many: Vec<_> = (0..257).map(|n| (format!("A{n}"), String::new())).collect();
        assert!(check_env(&fixed, &many[..256]).is_ok());
        assert_eq!(check_env(&fixed, &many), Err(Refused::TooManyVariables(256)));
    }
}
