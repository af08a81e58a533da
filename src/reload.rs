//! Telling what a reload has changed.

use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use tracing::{info, warn};

use crate::config::Changes;

/// Tells in the log what the file at `path` has put in force, in a configuration with so many `routes`.
pub(crate) fn tell(path: &Path, changes: &Changes, routes: usize) {
    if !changes.needs_restart.is_empty() {
        warn!(
            "in {} there are other values of what can change only with a restart: {}",
            path.display(),
            changes.needs_restart.join(", ")
        );
    }
    let is_other = !changes.applied.is_empty();
    match (is_other, changes.needs_restart.is_empty()) {
        (true, _) => info!(routes, "configuration reloaded: {}", changes.summary()),
        (false, false) => info!(routes, "configuration reloaded: nothing else has changed"),
        (false, true) if is_mount_point(path) => warn!(
            "nothing has changed in {0}, which is a mount point of its own: where an editor, sed -i or git has replaced the file, {0} still shows the old one; mount its folder instead, or write into the file without replacing it",
            path.display()
        ),
        (false, true) => info!("nothing has changed in {}", path.display()),
    }
}

/// Whether something is mounted on the very file. Linux before 5.8 does not tell.
fn is_mount_point(path: &Path) -> bool {
    let statx = statx(CWD, path, AtFlags::empty(), StatxFlags::TYPE);
    statx.is_ok_and(|statx| statx.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}
