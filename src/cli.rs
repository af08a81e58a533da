//! The command line.

pub(crate) mod manual;
mod parity;
mod sink;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

pub(crate) use self::parity::ParityArguments;
pub(crate) use self::sink::{RateLimit, SinkArguments};

/// The default configuration file.
pub(crate) const CONFIG_DEFAULT: &str = "config.yml";

/// Paragraphs of a heading and its lines. The manual page has them as sections.
const AFTER_HELP: &str = "\
Examples:
  sentry-mirror demo                    see it work, without a configuration
  sentry-mirror init DSN DSN DSN        print a first configuration
  sentry-mirror -c mirror.yml --check   check a configuration, print its routes
  sentry-mirror -c - --check --strict   check standard input, strictly
  sentry-mirror -c mirror.yml --check --connect
                                        and ask each outbound, storing nothing
  sentry-mirror -c mirror.yml           run
  sentry-mirror                         run with config.yml
  sentry-mirror health -c mirror.yml    check that a running mirror is healthy
  sentry-mirror test -c mirror.yml      send an event through a running mirror
  sentry-mirror parity -c mirror.yml    does each side have what was sent?

Signals:
  SIGTERM, SIGINT, SIGQUIT
                    finish requests and deliveries in flight, then stop;
                    a second signal stops at once
  SIGHUP            reload the configuration; an invalid one is not applied

Exit codes:
  0   success: stopped on request, --check found no errors, the mirror is
      healthy, every outbound accepts, or every difference is explained
  1   the mirror cannot run (for example, the port is in use) or is unhealthy,
      an outbound does not accept (--connect, test), or a difference is not
      explained (parity)
  2   the arguments or the configuration are invalid
  128 + the number of the signal, after a second signal";

/// Mirrors what Sentry SDKs send to one DSN to several others
#[derive(Debug, Parser)]
#[command(version = env!("SENTRY_MIRROR_VERSION"), args_conflicts_with_subcommands = true)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    /// Configuration file (YAML), or - for standard input; config.example.yml documents every key
    #[arg(short, long, value_name = "FILE", default_value = CONFIG_DEFAULT)]
    pub config: PathBuf,

    /// Check the configuration and the certificates it names, print its routes with keys shortened,
    /// and exit with 0 or 2
    #[arg(long)]
    pub check: bool,

    /// With --check: also resolve, connect to and ask each outbound in a way that stores nothing there,
    /// say what is wrong, and exit with 1 if one of them does not accept
    #[arg(long, requires = "check")]
    pub connect: bool,

    /// Treat warnings about the configuration as errors
    #[arg(long)]
    pub strict: bool,

    /// Log connections, rejected requests and the outcome of every delivery (log filter `debug`)
    #[arg(short, long)]
    pub verbose: bool,

    /// Subcommand to run instead of the mirror
    #[command(subcommand)]
    pub command: Option<Command>,
}

impl Arguments {
    /// The arguments of this process. If they are invalid, prints an error and exits.
    pub fn from_process() -> Arguments {
        Arguments::from_words(std::env::args_os().collect()).unwrap_or_else(|error| error.exit())
    }

    /// Parses a command, which begins with the name of the program. A container image whose entry point
    /// is this program can be given the arguments alone or the whole command; then the name comes twice.
    ///
    /// # Errors
    /// Invalid arguments, or a request for the help or the version.
    pub fn from_words(words: Vec<OsString>) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(without_repeated_name(words)).map_err(|error| {
            let Some(file) = unexpected_file(&error) else {
                return error;
            };
            let message = format!("unexpected argument '{file}'; did you mean -c {file}?");
            Arguments::command().error(error.kind(), message)
        })
    }
}

/// The unexpected argument, if it is probably the name of a configuration file.
fn unexpected_file(error: &clap::Error) -> Option<&str> {
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

fn without_repeated_name(mut words: Vec<OsString>) -> Vec<OsString> {
    if matches!(words.as_slice(), [name, again, ..] if name == again) {
        words.remove(0);
    }
    words
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the mirror with two stand-ins for Sentry, send envelopes, and show what each one received
    Demo {
        /// Exit after the tour; otherwise keep running for your own SDK
        #[arg(long)]
        once: bool,
    },
    /// Run a stand-in for Sentry that prints every request, to try a configuration or rehearse an outage
    ///
    /// It accepts every key and every project, and answers as Sentry does. The options make it slow, or let it
    /// refuse requests. A sink that is not running is an outage, too.
    Sink(SinkArguments),
    /// Send one real error event through a running mirror, say what each outbound answered, and exit with 0 or 1
    Test {
        /// Configuration file of that mirror
        #[arg(short, long, value_name = "FILE", default_value = CONFIG_DEFAULT)]
        config: PathBuf,

        /// Route to send it to; needed if there are several
        #[arg(long, value_name = "NAME")]
        route: Option<String>,

        /// Send it straight to each outbound of the route, without the mirror
        #[arg(long)]
        direct: bool,
    },
    /// Compare what the mirror has counted with what each organization has, explain differences, and exit with 0 or 1
    Parity(ParityArguments),
    /// Check whether a running mirror is healthy, and exit with 0 or 1
    ///
    /// Errors in its configuration file are printed to standard error, but do not affect the result.
    Health {
        /// Configuration file of that mirror [default: config.yml, or that of the only mirror]
        #[arg(short, long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Write a first configuration for these DSNs, with comments on what to decide
    Init {
        /// File to write, which must not exist yet [default: standard output]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// DSN that SDKs use: that of an application as it is today, or one of your choice
        inbound: String,
        /// DSNs that get what arrives; the first is the primary
        #[arg(required = true)]
        outbound: Vec<String>,
    },
    /// Print the JSON schema of the configuration, for editors
    Schema,
    /// Print the completions of a shell
    Completions {
        /// Shell to complete in
        shell: Shell,
    },
    /// Print a manual page, for `man -l -`
    Man {
        /// Subcommand that the page is about [default: the whole program]
        #[arg(value_name = "COMMAND")]
        subcommand: Option<String>,
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
    fn the_name_of_the_program_may_come_twice() {
        let named = |arguments: &[&str]| {
            let arguments = arguments.iter().map(OsString::from).collect();
            without_repeated_name(arguments).join(&OsString::from(" "))
        };
        assert_eq!(named(&["/opt/m", "/opt/m", "-c", "f"]), "/opt/m -c f");
        assert_eq!(named(&["/opt/m", "-c", "f"]), "/opt/m -c f");
        assert_eq!(named(&["/opt/m", "demo"]), "/opt/m demo");
        assert_eq!(named(&["m"]), "m");
    }

    #[test]
    fn a_file_without_its_option_gets_a_suggestion() {
        for words in [
            "m dir/config.yml",
            "m --check dir/config.yml",
            "m --check --strict -v dir/config.yml",
            "m health dir/config.yml",
            "m dir/config.yml --check",
            "m m dir/config.yml",
        ] {
            let words = words.split(' ').map(OsString::from).collect();
            let error = Arguments::from_words(words).unwrap_err().to_string();
            let suggestion = "did you mean -c dir/config.yml?";
            assert!(error.contains(suggestion), "{error}");
        }
        for words in ["m chekc", "m --conifg", "m -- --config.yml"] {
            let words = words.split(' ').map(OsString::from).collect();
            let error = Arguments::from_words(words).unwrap_err().to_string();
            assert!(!error.contains("did you mean -c"), "{error}");
        }
    }

    #[test]
    fn the_help_lists_signals_and_exit_codes_within_80_columns() {
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
