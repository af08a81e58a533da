//! Flow control windows (RFC 9113 §5.2).

use super::error::Violation;

/// The largest window.
pub(super) const WINDOW_MAX: i64 = 0x7fff_ffff;

/// The window of a connection, and of its streams unless SETTINGS says otherwise.
pub(super) const INITIAL_WINDOW: u32 = 65_535;

/// What may still be sent. It may be negative, after the server has made all windows smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SendWindow(i64);

impl SendWindow {
    pub(super) fn new(bytes: u32) -> SendWindow {
        SendWindow(i64::from(bytes))
    }

    pub(super) fn free(self) -> usize {
        usize::try_from(self.0).unwrap_or(0)
    }

    pub(super) fn take(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.free());
        self.0 -= i64::try_from(bytes).unwrap_or(WINDOW_MAX);
    }

    /// Changes it by `difference`.
    ///
    /// # Errors
    /// It would be too large.
    pub(super) fn change(&mut self, difference: i64) -> Result<(), Violation> {
        let changed = self.0.saturating_add(difference);
        if changed > WINDOW_MAX {
            return Err(Violation::FlowControl);
        }
        self.0 = changed;
        Ok(())
    }
}

/// What the server may still send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReceiveWindow {
    size: u32,
    left: u32,
}

impl ReceiveWindow {
    pub(super) fn new(size: u32) -> ReceiveWindow {
        ReceiveWindow { size, left: size }
    }

    /// Takes `bytes` that have arrived, which the caller has processed. Returns by how much to enlarge the window
    /// again: 0 until half of it is used.
    ///
    /// # Errors
    /// There are more than the window allowed.
    pub(super) fn receive(&mut self, bytes: usize) -> Result<u32, Violation> {
        let left = u32::try_from(bytes).ok();
        let left = left.and_then(|bytes| self.left.checked_sub(bytes));
        self.left = left.ok_or(Violation::FlowControl)?;
        if self.left > self.size / 2 {
            return Ok(0);
        }
        let used = self.size - self.left;
        self.left = self.size;
        Ok(used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_send_window_may_become_negative_but_not_too_large() {
        let mut window = SendWindow::new(10);
        window.take(4);
        assert_eq!(window.change(-10), Ok(()));
        assert_eq!((window, window.free()), (SendWindow(-4), 0));
        assert_eq!(window.change(5), Ok(()));
        assert_eq!(window.free(), 1);
        assert_eq!(window.change(WINDOW_MAX - 1), Ok(()));
        assert_eq!(window.change(1), Err(Violation::FlowControl));
    }

    #[test]
    fn a_receive_window_is_enlarged_once_half_of_it_is_used() {
        let mut window = ReceiveWindow::new(100);
        assert_eq!(window.receive(49), Ok(0));
        assert_eq!(window.receive(1), Ok(50));
        assert_eq!(window.receive(100), Ok(100));
        assert_eq!(window.receive(101), Err(Violation::FlowControl));
    }
}
