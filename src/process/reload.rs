//! The log line about a reload.

use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use tracing::{info, warn};

use crate::config::Changes;

/// Logs the changes that were applied from the file at `path`. `routes` is the number of routes now.
pub(crate) fn log_changes(path: &Path, changes: &Changes, routes: usize) {
    let file = path.display();
    let needs_restart = changes.needs_restart.join(", ");
    if !needs_restart.is_empty() {
        warn!("changes in {file} to these keys take effect only after a restart: {needs_restart}");
    }
    if !changes.applied.is_empty() {
        info!(routes, "configuration reloaded: {}", changes.summary());
    } else if !needs_restart.is_empty() {
        info!(routes, "configuration reloaded: nothing else has changed");
    } else if is_mount_point(path) {
        warn!(
            "nothing has changed in {file}, which is mounted as a single file: if an editor, sed -i or git has replaced the file outside, the old one is still mounted here; mount its folder instead, or write to the file without replacing it"
        );
    } else {
        info!("nothing has changed in {file}");
    }
}

/// Whether the file itself is a mount point. Linux before 5.8 cannot tell.
fn is_mount_point(path: &Path) -> bool {
    let statx = statx(CWD, path, AtFlags::empty(), StatxFlags::TYPE);
    statx.is_ok_and(|statx| statx.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}
