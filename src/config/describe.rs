//! A configuration in words, for `--check`.
//!
//! It says what is received where and who gets it. The other settings are not repeated: they are in
//! the file, or have their defaults.

use std::fmt::Write;
use std::net::SocketAddr;

use super::{Compression, Config, Outbound};

impl Config {
    /// Where the program listens and what goes where, on several lines. Keys are shortened, since
    /// this is made to be pasted.
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

/// What an outbound gets other than everything, once and as it is.
fn options(outbound: &Outbound) -> String {
    let mut text = String::new();
    if let Some(selection) = &outbound.selection {
        let _ = write!(text, " {selection}");
    }
    if outbound.copies > 1 {
        let _ = write!(text, " multiplier {}", outbound.copies);
    }
    text.push_str(match outbound.compression {
        Compression::None => "",
        Compression::Preserve => " compression preserve",
        Compression::Gzip => " compression gzip",
        Compression::Zstd => " compression zstd",
    });
    text
}
