//! The command line.
//!
//! It is short because what the program does is said by its configuration.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Mirrors what Sentry SDKs send to one DSN to several others.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
#[command(after_help = "\
Examples:
  sentry-mirror demo                    see it work, without any configuration
  sentry-mirror -c mirror.yml --check   check a configuration, print its routes
  sentry-mirror -c mirror.yml           run
  sentry-mirror                         run with config.yml

Signals:
  SIGTERM, SIGINT   finish what is in flight, then stop; a second one: at once
  SIGHUP            read the configuration again; a bad one changes nothing

Exit codes:
  0   stopped as asked, or nothing to complain about with --check
  1   the mirror cannot run, for example because the port is in use
  2   the arguments or the configuration are not usable
  128 + the number of the signal, after a second one")]
pub struct Arguments {
    /// The configuration file (YAML); config.example.yml explains every key
    #[arg(short, long, value_name = "FILE", default_value = "config.yml")]
    pub config: PathBuf,

    /// Check the configuration and the certificates it names, print its routes with keys shortened,
    /// and exit with 0 or 2
    #[arg(long)]
    pub check: bool,

    /// Log connections, refused requests and the outcome of every delivery (the filter `debug`)
    #[arg(short, long)]
    pub verbose: bool,

    /// Something other than to run the mirror
    #[command(subcommand)]
    pub command: Option<Command>,
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
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn without_arguments_the_mirror_runs_with_the_default_file() {
        let arguments = Arguments::try_parse_from(["sentry-mirror"]).unwrap();
        assert_eq!(arguments.config, PathBuf::from("config.yml"));
        assert!(arguments.command.is_none() && !arguments.check && !arguments.verbose);
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
