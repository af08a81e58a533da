//! A mirror whose configuration changes while it runs.

use std::path::PathBuf;

use super::Process;
use super::process::file;

/// A running mirror and its configuration file.
pub(crate) struct Reloadable {
    pub(crate) process: Process,
    pub(crate) path: PathBuf,
    reloads: usize,
}

impl Reloadable {
    pub(crate) fn start(config: &str) -> Reloadable {
        let path = file("changing.yml", config);
        Reloadable {
            process: Process::start_at(&path),
            path,
            reloads: 0,
        }
    }

    /// Reloads with another configuration.
    pub(crate) fn reload(&mut self, config: &str) {
        std::fs::write(&self.path, config).expect("a file");
        self.reloads += 1;
        self.process.signal("HUP");
        let ends = ["configuration reloaded", "nothing has changed in "];
        self.process.wait_for_lines_with_any(&ends, self.reloads);
    }
}
