//! The command line.
//!
//! It is short because what the program does is said by its configuration.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser, Subcommand};

/// The configuration file where none is named.
pub(crate) const CONFIG_DEFAULT: &str = "config.yml";

/// Mirrors what Sentry SDKs send to one DSN to several others.
#[derive(Debug, Parser)]
#[command(version = env!("SENTRY_MIRROR_VERSION"), args_conflicts_with_subcommands = true)]
#[command(after_help = "\
Examples:
  sentry-mirror demo                    see it work, without any configuration
  sentry-mirror -c mirror.yml --check   check a configuration, print its routes
  sentry-mirror -c - --check --strict   check standard input, strictly
  sentry-mirror -c mirror.yml           run
  sentry-mirror                         run with config.yml
  sentry-mirror health -c mirror.yml    ask a running mirror if it is well

Signals:
  SIGTERM, SIGINT, SIGQUIT
                    finish what is in flight, then stop; a second one: at once
  SIGHUP            read the configuration again; a bad one changes nothing

Exit codes:
  0   stopped as asked, or nothing to complain about with --check, or well
  1   the mirror cannot run (perhaps the port is in use), or is not well
  2   the arguments or the configuration are not usable
  128 + the number of the signal, after a second one")]
pub struct Arguments {
    /// The configuration file (YAML), - for standard input; config.example.yml explains every key
    #[arg(short, long, value_name = "FILE", default_value = CONFIG_DEFAULT)]
    pub config: PathBuf,

    /// Check the configuration and the certificates it names, print its routes with keys shortened,
    /// and exit with 0 or 2
    #[arg(long)]
    pub check: bool,

    /// Take warnings about the configuration for errors
    #[arg(long)]
    pub strict: bool,

    /// Log connections, refused requests and the outcome of every delivery (the filter `debug`)
    #[arg(short, long)]
    pub verbose: bool,

    /// Something other than to run the mirror
    #[command(subcommand)]
    pub command: Option<Command>,
}

impl Arguments {
    /// Those of this process. Where they make no sense it says so and ends.
    pub fn from_process() -> Arguments {
        Arguments::from_words(std::env::args_os().collect()).unwrap_or_else(|error| error.exit())
    }

    /// Those of a command, the name of the program before all. In an image whose entry point is this
    /// program, both its arguments alone and the whole command may stand behind the name of the image;
    /// then the name of the program comes twice, and once is enough.
    ///
    /// # Errors
    /// What makes no sense, or the help or version that was asked for.
    pub fn from_words(words: Vec<OsString>) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(once_named(words)).map_err(|error| match file_in(&error) {
            Some(file) => {
                let told = format!("unexpected argument '{file}'; did you mean -c {file}?");
                Arguments::command().error(error.kind(), told)
            }
            None => error,
        })
    }
}

/// What stands where no argument is expected and is probably the name of a configuration file.
fn file_in(error: &clap::Error) -> Option<&str> {
    let kind = match error.kind() {
        ErrorKind::InvalidSubcommand | ErrorKind::ArgumentConflict => {
            ContextKind::InvalidSubcommand
        }
        ErrorKind::UnknownArgument => ContextKind::InvalidArg,
        _ => return None,
    };
    let Some(ContextValue::String(word)) = error.get(kind) else {
        return None;
    };
    let path = Path::new(word);
    let is_yaml = matches!(path.extension()?.to_str()?, "yml" | "yaml" | "json");
    (!word.starts_with('-') && (is_yaml || path.is_file())).then_some(word)
}

/// `arguments` without a second one that repeats the first.
fn once_named(mut arguments: Vec<OsString>) -> Vec<OsString> {
    if matches!(arguments.as_slice(), [name, again, ..] if name == again) {
        arguments.remove(0);
    }
    arguments
}

/// What can be done instead of running the mirror.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the mirror and two stand-ins for Sentry in this process, send real envelopes through it,
    /// and show what came in and what each outbound received
    Demo {
        /// Exit after the tour instead of staying up for your own SDK
        #[arg(long)]
        once: bool,
    },
    /// Run a stand-in for Sentry that accepts everything and prints what it gets
    Sink {
        /// Where to listen, for example 127.0.0.1:9000; port 0 takes a free one
        #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9000")]
        listen: SocketAddr,
    },
    /// Ask the running mirror whether it is well, and exit with 0 or 1; what is wrong with its
    /// configuration file by now is said on standard error and does not count
    Health {
        /// The configuration file of that mirror [default: config.yml, or that of the only mirror]
        #[arg(short, long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_arguments_the_mirror_runs_with_the_default_file() {
        let arguments = Arguments::try_parse_from(["sentry-mirror"]).unwrap();
        assert_eq!(arguments.config, PathBuf::from("config.yml"));
        assert!(arguments.command.is_none() && !arguments.check && !arguments.verbose);
    }

    #[test]
    fn the_program_may_be_named_twice() {
        let named = |arguments: &[&str]| {
            let arguments = arguments.iter().map(OsString::from).collect();
            once_named(arguments).join(&OsString::from(" "))
        };
        assert_eq!(named(&["/opt/m", "/opt/m", "-c", "f"]), "/opt/m -c f");
        assert_eq!(named(&["/opt/m", "-c", "f"]), "/opt/m -c f");
        assert_eq!(named(&["/opt/m", "demo"]), "/opt/m demo");
        assert_eq!(named(&["m"]), "m");
    }

    #[test]
    fn a_file_without_its_option_is_understood() {
        for words in [
            "m dir/config.yml",
            "m --check dir/config.yml",
            "m --check --strict -v dir/config.yml",
            "m health dir/config.yml",
            "m dir/config.yml --check",
            "m m dir/config.yml",
        ] {
            let words = words.split(' ').map(OsString::from).collect();
            let told = Arguments::from_words(words).unwrap_err().to_string();
            let meant = "did you mean -c dir/config.yml?";
            assert!(told.contains(meant), "{told}");
        }
        for words in ["m chekc", "m --conifg", "m -- --config.yml"] {
            let words = words.split(' ').map(OsString::from).collect();
            let told = Arguments::from_words(words).unwrap_err().to_string();
            assert!(!told.contains("did you mean -c"), "{told}");
        }
    }

    #[test]
    fn the_help_tells_signals_and_exit_codes_in_lines_that_fit() {
        let help = Arguments::command().render_help().to_string();
        for word in [
            "SIGTERM",
            "SIGINT",
            "SIGHUP",
            "128 + ",
            "[default: config.yml]",
        ] {
            assert!(help.contains(word), "{word} in {help}");
        }
        let examples = help.split_once("Examples:").unwrap().1;
        assert!(examples.lines().all(|line| line.len() <= 80), "{examples}");
    }
}
