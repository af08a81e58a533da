//! The command line.
//!
//! It is short because what the program does is said by its configuration.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Mirrors what Sentry SDKs send to one DSN to several others.
#[derive(Debug, Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    arg_required_else_help = true
)]
#[command(after_help = "\
Examples:
  sentry-mirror demo                      see it work, without any configuration
  sentry-mirror -c config.yml --check     validate a configuration and print its routes
  sentry-mirror -c config.yml             run

Exit codes: 0 stopped as asked, 1 the mirror cannot run, 2 the configuration is not usable.")]
pub struct Arguments {
    /// The configuration file (YAML); config.example.yml explains every key
    #[arg(short, long, value_name = "FILE", default_value = "config.yml")]
    pub config: PathBuf,

    /// Validate the configuration, print its routes with keys shortened, and exit with 0 or 2
    #[arg(long)]
    pub check: bool,

    /// Log every request and delivery (the filter `debug`)
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
