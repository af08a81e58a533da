//! A configuration in words, for `--check` and the first lines of the log.
//!
//! It says what is received where and who gets it. The other settings are not repeated: they are in
//! the file, or have their defaults.

use std::fmt::Write;
use std::net::SocketAddr;

use super::Config;

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
                let _ = writeln!(text, "  -> {}{role}", outbound.dsn.shortened());
            }
        }
        text
    }
}
