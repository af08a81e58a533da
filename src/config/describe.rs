//! The routes of a configuration in plain text, for `--check`.

use std::fmt::Write;
use std::net::SocketAddr;

use super::model::{Compression, Config, Outbound};
use super::value::name;

impl Config {
    /// The listen address and the routes, on several lines. Keys are shortened, so that the text can be
    /// pasted into an issue.
    pub fn describe(&self) -> String {
        let mut text = format!("listen on {}\n", SocketAddr::new(self.ip, self.port));
        for route in &self.routes {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{}", route.inbound.shortened());
            for (index, outbound) in route.outbounds.iter().enumerate() {
                let role = if index == 0 { " (primary)" } else { "" };
                let _ = writeln!(
                    text,
                    "  -> {}{role}{}",
                    outbound.dsn.shortened(),
                    options(outbound)
                );
            }
        }
        text
    }
}

/// The options that are not at their defaults.
fn options(outbound: &Outbound) -> String {
    let mut text = String::new();
    if let Some(selection) = &outbound.selection {
        let _ = write!(text, " {selection}");
    }
    if outbound.copies > 1 {
        let _ = write!(text, " multiplier {}", outbound.copies);
    }
    if outbound.compression != Compression::None {
        let _ = write!(
            text,
            " compression {}",
            name(outbound.compression, Compression::NAMES)
        );
    }
    text
}
