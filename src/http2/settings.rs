//! What each side announces (RFC 9113 §6.5).

use super::error::Violation;
use super::frame::{self, Kind};
use super::window::{INITIAL_WINDOW, WINDOW_MAX};

const HEADER_TABLE_SIZE: u16 = 1;
const ENABLE_PUSH: u16 = 2;
const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_FRAME_SIZE: u16 = 5;
const MAX_HEADER_LIST_SIZE: u16 = 6;

/// What the server has announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PeerSettings {
    pub(super) streams_max: u32,
    pub(super) initial_window: u32,
    /// Advice: a longer header list will be refused.
    pub(super) header_list_max: u32,
}

impl Default for PeerSettings {
    fn default() -> PeerSettings {
        PeerSettings {
            streams_max: u32::MAX,
            initial_window: INITIAL_WINDOW,
            header_list_max: u32::MAX,
        }
    }
}

impl PeerSettings {
    /// Applies the payload of a SETTINGS frame. Where a setting is repeated, the last one counts.
    ///
    /// # Errors
    /// A value that its setting does not allow.
    pub(super) fn apply(&mut self, payload: &[u8]) -> Result<(), Violation> {
        for &[a, b, c, d, e, f] in payload.as_chunks::<6>().0 {
            let value = u32::from_be_bytes([c, d, e, f]);
            match u16::from_be_bytes([a, b]) {
                ENABLE_PUSH if value != 0 => {
                    return Err(Violation::Protocol("a server cannot enable push"));
                }
                MAX_CONCURRENT_STREAMS => self.streams_max = value,
                INITIAL_WINDOW_SIZE if i64::from(value) > WINDOW_MAX => {
                    return Err(Violation::FlowControl);
                }
                INITIAL_WINDOW_SIZE => self.initial_window = value,
                // Frames are never longer than the least that it may allow.
                MAX_FRAME_SIZE if !(0x4000..=0xff_ffff).contains(&value) => {
                    return Err(Violation::Protocol("a maximum frame size out of range"));
                }
                MAX_HEADER_LIST_SIZE => self.header_list_max = value,
                // No dynamic table is used, whatever its size, and unknown settings are ignored.
                _ => {}
            }
        }
        Ok(())
    }
}

/// Appends what the mirror announces: no dynamic table, no push, and the longest header list that it takes.
pub(super) fn append_own(out: &mut Vec<u8>, header_list_bytes: u32) {
    let settings = [
        (HEADER_TABLE_SIZE, 0),
        (ENABLE_PUSH, 0),
        (MAX_HEADER_LIST_SIZE, header_list_bytes),
    ];
    frame::append_header(out, 6 * settings.len(), Kind::Settings, 0, 0);
    for (name, value) in settings {
        out.extend_from_slice(&name.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(settings: &[(u16, u32)]) -> Result<PeerSettings, Violation> {
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        let mut applied = PeerSettings::default();
        applied.apply(&payload).map(|()| applied)
    }

    #[test]
    fn the_last_value_of_a_setting_counts_and_unknown_ones_are_ignored() {
        let settings = [
            (3, 7),
            (0xaaaa, 1),
            (1, 9),
            (5, 0x4000),
            (4, 1),
            (6, 5),
            (3, 8),
            (2, 0),
        ];
        let applied = apply(&settings).unwrap();
        let fields = (
            applied.streams_max,
            applied.initial_window,
            applied.header_list_max,
        );
        assert_eq!(fields, (8, 1, 5));
        assert_eq!(apply(&[]), Ok(PeerSettings::default()));
    }

    #[test]
    fn values_out_of_range_are_refused() {
        assert!(matches!(apply(&[(2, 1)]), Err(Violation::Protocol(_))));
        assert_eq!(apply(&[(4, 0x8000_0000)]), Err(Violation::FlowControl));
        assert!(apply(&[(4, 0x7fff_ffff)]).is_ok());
        for size in [0, 0x3fff, 0x100_0000] {
            assert!(
                matches!(apply(&[(5, size)]), Err(Violation::Protocol(_))),
                "{size}"
            );
        }
    }
}
