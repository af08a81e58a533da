//! Which share of the traces is kept, without a memory and without a coin.
//!
//! Whether something is kept follows from the id of what it belongs to, so that all parts of a trace
//! are kept or dropped together: those in other requests, at other workers, after a restart and at
//! other mirrors. The function is fixed for that reason. In words for other implementations:
//!
//! * The id is taken without dashes and in lower case; what is no id is taken as it is.
//! * Its bytes are hashed with FNV-1a of 64 bits, and the result is mixed with the finalizer of
//!   MurmurHash3 of 64 bits.
//! * It is kept where the result, as an unsigned number, is less than the rate times 2⁶⁴.
//!
//! So what is kept at one rate is also kept at any higher one.

/// What a decision is taken by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

impl Ticket {
    /// The ticket of all that belongs to `id`.
    pub fn of(id: &[u8]) -> Ticket {
        if is_id(id) {
            let digits = id.iter().filter(|byte| **byte != b'-');
            Ticket(mix(fnv1a(digits.map(u8::to_ascii_lowercase))))
        } else {
            Ticket(mix(fnv1a(id.iter().copied())))
        }
    }

    /// Whether it is among the share `rate`.
    pub fn is_within(self, rate: f64) -> bool {
        const ALL: f64 = 18_446_744_073_709_551_616.0;
        // The conversion saturates, so 1 would leave out the very last ticket.
        rate >= 1.0 || self.0 < (rate * ALL) as u64
    }
}

/// Whether `text` is an id: 32 hexadecimal digits, with or without the dashes of a UUID.
pub fn is_id(text: &[u8]) -> bool {
    let is_dash_place = |at: usize| text.len() == 36 && matches!(at, 8 | 13 | 18 | 23);
    matches!(text.len(), 32 | 36)
        && text.iter().enumerate().all(|(at, byte)| {
            if is_dash_place(at) {
                *byte == b'-'
            } else {
                byte.is_ascii_hexdigit()
            }
        })
}

/// The id that stands for `id` in copy number `copy` of a request. It is of the same form and a
/// function of the two, so that what refers to each other in the original does so in the copy, in
/// whichever requests it comes.
pub fn id_of_copy(id: &[u8], copy: u32) -> Vec<u8> {
    let Ticket(original) = Ticket::of(id);
    let half = |lane: u8| {
        let seed = original.to_le_bytes().into_iter();
        let copy = copy.to_le_bytes().into_iter();
        mix(fnv1a(seed.chain(copy).chain([lane])))
    };
    let digits = format!("{:016x}{:016x}", half(0), half(1));
    let mut digits = digits.bytes();
    let replaced = id.iter().map(|byte| match byte {
        b'-' => b'-',
        _ => digits.next().unwrap_or(b'0'),
    });
    replaced.collect()
}

fn fnv1a(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Spreads the hash over all bits; the upper ones of FNV-1a hardly depend on the last bytes.
fn mix(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// A sample rate times `factor`, as a decimal number without an exponent; `None` where `rate` is none.
pub fn multiplied(rate: &[u8], factor: f64) -> Option<String> {
    let rate: f64 = str::from_utf8(rate).ok()?.parse().ok()?;
    if !(0.0..=1.0).contains(&rate) {
        return None;
    }
    // Twelve digits, so that 0.1 times 0.2 is 0.02 and not 0.020000000000000004.
    let rounded = format!("{:.11e}", rate * factor);
    let rounded: f64 = rounded.parse().ok()?;
    Some(rounded.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hundred thousand ids as SDKs make them: 128 bits that look random.
    fn ids() -> impl Iterator<Item = String> {
        let mut state = 1_u128;
        (0..100_000).map(move |_| {
            state = state.wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645);
            state = state.wrapping_add(0x5851_f42d_4c95_7f2d_1405_7b7e_f767_814f);
            format!("{:032x}", state ^ (state >> 64))
        })
    }

    #[test]
    fn the_share_of_a_hundred_thousand_traces_that_is_kept_is_the_rate() {
        for rate in [0.0, 0.01, 0.1, 0.5, 0.9, 1.0] {
            let kept = ids().filter(|id| Ticket::of(id.as_bytes()).is_within(rate));
            let share = kept.count() as f64 / 100_000.0;
            assert!((share - rate).abs() <= 0.005, "{share} of {rate}");
        }
        // Counted ids are as good as random ones.
        let counted =
            (0..100_000).filter(|n| Ticket::of(format!("{n:032x}").as_bytes()).is_within(0.1));
        let share = counted.count() as f64 / 100_000.0;
        assert!((share - 0.1).abs() <= 0.005, "{share}");
    }

    #[test]
    fn what_is_kept_at_a_rate_is_kept_at_any_higher_one() {
        for id in ids().take(1000) {
            let ticket = Ticket::of(id.as_bytes());
            assert!(!ticket.is_within(0.1) || ticket.is_within(0.3));
            assert!(ticket.is_within(1.0) && ticket.is_within(7.0));
            assert!(!ticket.is_within(0.0) && !ticket.is_within(f64::NAN));
        }
    }

    /// Other mirrors decide alike only if this never changes.
    #[test]
    fn the_tickets_are_those_that_the_documentation_describes() {
        assert_eq!(fnv1a(b"foobar".iter().copied()), 0x8594_4171_f739_67e8);
        let ticket = Ticket::of(b"771a43a4192642f0b136d5159a501700");
        assert_eq!(ticket, Ticket::of(b"771A43A4-1926-42f0-b136-d5159a501700"));
        assert_ne!(ticket, Ticket::of(b"771a43a4192642f0b136d5159a501701"));
        assert_ne!(Ticket::of(b"User-1"), Ticket::of(b"user1"));
        assert_eq!(ticket, Ticket(0x73e7_e444_4fe6_cf98));
    }

    #[test]
    fn ids_of_copies_are_valid_distinct_and_always_the_same() {
        let plain = b"9ec79c33ec9942ab8353589fcb2e04dc";
        let dashed = b"9ec79c33-ec99-42ab-8353-589fcb2e04dc";
        let mut seen: Vec<Vec<u8>> = vec![plain.to_vec()];
        for copy in 2..50 {
            let id = id_of_copy(plain, copy);
            assert!(is_id(&id) && !seen.contains(&id));
            assert_eq!(id, id_of_copy(plain, copy));
            let with_dashes = id_of_copy(dashed, copy);
            assert!(is_id(&with_dashes) && with_dashes.len() == 36);
            let without: Vec<u8> = with_dashes
                .into_iter()
                .filter(|byte| *byte != b'-')
                .collect();
            assert_eq!(without, id);
            seen.push(id);
        }
        for other in [
            &b"no id"[..],
            b"",
            b"9ec79c33ec9942ab8353589fcb2e04d",
            b"9ec79c33-ec9942ab-8353-589f-cb2e04dc",
        ] {
            assert!(!is_id(other));
        }
    }

    #[test]
    fn rates_are_multiplied_and_written_as_people_would() {
        for (rate, factor, product) in [
            ("1.0", 0.5, Some("0.5")),
            ("1", 0.1, Some("0.1")),
            ("0.1", 0.2, Some("0.02")),
            ("0.3", 0.1, Some("0.03")),
            ("0.7", 0.1, Some("0.07")),
            ("1e-3", 0.001, Some("0.000001")),
            ("0", 0.5, Some("0")),
            ("0.3333333333333333", 0.5, Some("0.166666666667")),
            ("NaN", 0.5, None),
            ("2", 0.5, None),
            ("-1", 0.5, None),
            ("", 0.5, None),
            ("true", 0.5, None),
        ] {
            assert_eq!(
                multiplied(rate.as_bytes(), factor).as_deref(),
                product,
                "{rate} {factor}"
            );
        }
    }
}
