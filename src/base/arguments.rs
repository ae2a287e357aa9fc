//! What every command line of ours takes, and the library that parses it does not.

/// `--flag=value` becomes `--flag value`, up to a `--`.
pub fn split_equals(arguments: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut split = Vec::new();
    let mut options = true;
    for argument in arguments {
        options &= argument != "--";
        match argument.split_once('=') {
            Some((flag, value)) if options && flag.starts_with("--") => {
                split.extend([flag.to_owned(), value.to_owned()]);
            }
            _ => split.push(argument),
        }
    }
    split
}

#[cfg(test)]
mod tests {
    #[test]
    fn values_are_split_off_up_to_two_dashes() {
        let split = |words: &[&str]| super::split_equals(words.iter().map(|&word| word.to_owned()));
        assert_eq!(split(&["--a=b=c", "d=e", "-f=g"]), ["--a", "b=c", "d=e", "-f=g"]);
        assert_eq!(split(&["--a=b", "--", "--c=d"]), ["--a", "b", "--", "--c=d"]);
    }
}
