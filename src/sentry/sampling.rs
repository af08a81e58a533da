//! Deterministic sampling by trace.
//!
//! Whether to keep something is a function of the id it belongs to. So all parts of a trace are kept or dropped
//! together: in other requests, at other workers, after a restart, and at other mirrors, including those of
//! getsentry/sentry-mirror. The function therefore must not change. For other implementations:
//!
//! * An id that parses as a UUID is a number of 128 bits. That number XOR 0x9e3779b97f4a7c15f39cc0605cedc834 seeds a
//!   PCG32 (the generator `Lcg64Xsh32` of the crate rand_pcg), with the upper half as the state and the lower half as
//!   the stream. Its first two outputs, the first as the lower half, are 64 bits.
//! * For any other text, the 64 bits are its FNV-1a hash, mixed with the finalizer of MurmurHash3.
//! * The upper 53 of the 64 bits, divided by 2⁵³, are a draw from 0 to 1. Data is kept if its draw is less than the
//!   rate.
//!
//! So what is kept at one rate is also kept at any higher one. The id 771a43a4192642f0b136d5159a501700 draws
//! 0.2580455816534687. A [`Chance`] makes the draws for data without an id.

use uuid::Uuid;

/// The 64 bits from which a sampling decision follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SamplingKey(u64);

impl SamplingKey {
    /// The sampling key of `id`, which may be any text.
    pub fn new(id: &[u8]) -> SamplingKey {
        match Uuid::try_parse_ascii(id) {
            Ok(uuid) => SamplingKey(pcg32(uuid.as_u128())),
            Err(_) => SamplingKey(mix(fnv1a(id.iter().copied()))),
        }
    }

    /// The sampling key of `id`; `None` if it is empty, or a UUID of zeros, which SDKs send if they have no id.
    pub fn from_id(id: &[u8]) -> Option<SamplingKey> {
        (!id.is_empty() && !is_nil(id)).then(|| SamplingKey::new(id))
    }

    /// The sampling key of a UUID; `None` for zero.
    pub fn from_u128(id: u128) -> Option<SamplingKey> {
        (id != 0).then(|| SamplingKey(pcg32(id)))
    }

    /// The sampling key for another decision about the same data. Its draw is independent of the one of this key: of
    /// what a rate keeps by this key, the same share of what is left is kept by that one.
    pub(crate) fn rehashed(self) -> SamplingKey {
        SamplingKey(mix(self.0 ^ 0x9e37_79b9_7f4a_7c15))
    }

    /// Whether data with this key is kept at `rate`.
    pub fn is_within(self, rate: f64) -> bool {
        self.draw() < rate
    }

    /// A number from 0 to less than 1.
    fn draw(self) -> f64 {
        const STEPS: f64 = (1_u64 << 53) as f64;
        (self.0 >> 11) as f64 / STEPS
    }
}

/// Computes the sampling key of a long text, a slice at a time.
pub(crate) struct Digest(u64);

impl Default for Digest {
    fn default() -> Digest {
        Digest(fnv1a(std::iter::empty()))
    }
}

impl Digest {
    pub(crate) fn update(&mut self, slice: &[u8]) {
        self.0 = fnv1a_on(self.0, slice.iter().copied());
    }

    /// The sampling key of all slices.
    pub(crate) fn finish(self) -> SamplingKey {
        SamplingKey(mix(self.0))
    }
}

/// Makes the sampling keys of data without an id in one request. Each request has another number, since identical
/// reports, as browsers send them, must not all be kept or all be dropped.
#[derive(Clone, Copy, Debug, Default)]
pub struct Chance(u64);

impl Chance {
    /// `number` has to be unique to the request.
    pub const fn new(number: u64) -> Chance {
        Chance(number)
    }

    /// The sampling key of the data at a position of the request.
    pub fn sampling_key(self, position: usize) -> SamplingKey {
        let step = (position as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        SamplingKey(mix(self.0.wrapping_add(step)))
    }
}

/// The first two outputs of a PCG32 with the seed `id`.
fn pcg32(id: u128) -> u64 {
    const MULTIPLIER: u64 = 6_364_136_223_846_793_005;
    let seed = id ^ 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834;
    let increment = (seed as u64) << 1 | 1;
    let next = |state: u64| state.wrapping_mul(MULTIPLIER).wrapping_add(increment);
    let output = |state: u64| {
        let shifted = ((state >> 18 ^ state) >> 27) as u32;
        u64::from(shifted.rotate_right((state >> 59) as u32))
    };
    let first = next(((seed >> 64) as u64).wrapping_add(increment));
    output(first) | output(next(first)) << 32
}

/// Whether `text` is an id: 32 hexadecimal digits, with or without the hyphens of a UUID.
pub(crate) fn is_id(text: &[u8]) -> bool {
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

/// Whether `text` is a UUID of zeros, which is no id.
pub(crate) fn is_nil(text: &[u8]) -> bool {
    Uuid::try_parse_ascii(text).is_ok_and(|uuid| uuid.is_nil())
}

/// The replacement for `id` in copy number `copy` of a request. It has the same form and is a function of the two, so
/// that references between requests hold between their copies too.
pub(crate) fn id_of_copy(id: &[u8], copy: u32) -> Vec<u8> {
    let digits = id.iter().filter(|byte| **byte != b'-');
    let original = mix(fnv1a(digits.map(u8::to_ascii_lowercase)));
    let half = |index: u8| {
        let seed = original.to_le_bytes().into_iter();
        let copy = copy.to_le_bytes().into_iter();
        mix(fnv1a(seed.chain(copy).chain([index])))
    };
    let digits = format!("{:016x}{:016x}", half(0), half(1));
    let mut digits = digits.bytes();
    let replaced = id.iter().map(|byte| match byte {
        b'-' => b'-',
        _ => digits.next().unwrap_or(b'0'),
    });
    replaced.collect()
}

/// A hash of `text`: FNV-1a of 64 bits, mixed like a sampling key.
pub(crate) fn hash(text: &[u8]) -> u64 {
    mix(fnv1a(text.iter().copied()))
}

fn fnv1a(bytes: impl Iterator<Item = u8>) -> u64 {
    fnv1a_on(0xcbf2_9ce4_8422_2325, bytes)
}

/// Continues a `hash` with `bytes`.
fn fnv1a_on(hash: u64, bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(hash, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Mixes the bits of a hash, since the upper ones of FNV-1a hardly depend on the last bytes.
fn mix(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// A sample rate times `factor`, as a decimal number without an exponent; `None` if `rate` is not from 0 to 1.
pub(crate) fn multiplied(rate: &[u8], factor: f64) -> Option<String> {
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

    /// A hundred thousand ids of 128 pseudo-random bits.
    fn ids() -> impl Iterator<Item = String> {
        let mut state = 1_u128;
        (0..100_000).map(move |_| {
            state = state.wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645);
            state = state.wrapping_add(0x5851_f42d_4c95_7f2d_1405_7b7e_f767_814f);
            format!("{:032x}", state ^ (state >> 64))
        })
    }

    #[test]
    fn the_kept_share_of_a_hundred_thousand_traces_is_the_rate() {
        for rate in [0.0, 0.01, 0.1, 0.5, 0.9, 1.0] {
            let kept = ids().filter(|id| SamplingKey::new(id.as_bytes()).is_within(rate));
            let share = kept.count() as f64 / 100_000.0;
            assert!((share - rate).abs() <= 0.005, "{share} of {rate}");
        }
        // Consecutive ids behave like random ones.
        let counted = (0..100_000)
            .filter(|n| SamplingKey::new(format!("{n:032x}").as_bytes()).is_within(0.1));
        let share = counted.count() as f64 / 100_000.0;
        assert!((share - 0.1).abs() <= 0.005, "{share}");
    }

    #[test]
    fn a_trace_kept_at_one_rate_is_kept_at_any_higher_one() {
        for id in ids().take(1000) {
            let key = SamplingKey::new(id.as_bytes());
            assert!(!key.is_within(0.1) || key.is_within(0.3));
            assert!(key.is_within(1.0) && key.is_within(7.0));
            assert!(!key.is_within(0.0) && !key.is_within(f64::NAN));
        }
    }

    /// Other mirrors decide alike only if this never changes.
    #[test]
    fn the_draws_are_those_of_the_documentation() {
        assert_eq!(fnv1a(b"foobar".iter().copied()), 0x8594_4171_f739_67e8);
        let id = b"771a43a4192642f0b136d5159a501700";
        let key = SamplingKey::new(id);
        assert_eq!(key.draw(), 0.258_045_581_653_468_7);
        for same in [
            "771A43A4-1926-42f0-b136-d5159a501700",
            "{771a43a4-1926-42f0-b136-d5159a501700}",
            "urn:uuid:771a43a4-1926-42f0-b136-d5159a501700",
        ] {
            assert_eq!(key, SamplingKey::new(same.as_bytes()), "{same}");
        }
        assert_ne!(key, SamplingKey::new(b"771a43a4192642f0b136d5159a501701"));
        assert_ne!(SamplingKey::new(b"User-1"), SamplingKey::new(b"user1"));
        assert_eq!(
            SamplingKey::new(b"user1"),
            SamplingKey(mix(fnv1a(b"user1".iter().copied())))
        );
    }

    #[test]
    fn chance_keeps_the_rate_across_requests_and_within_one() {
        let requests = (0..100_000).map(|number| Chance::new(mix(number)).sampling_key(0));
        let positions = (0..100_000).map(|position| Chance::new(7).sampling_key(position));
        for keys in [requests.collect::<Vec<_>>(), positions.collect()] {
            let kept = keys.iter().filter(|key| key.is_within(0.1));
            let share = kept.count() as f64 / 100_000.0;
            assert!((share - 0.1).abs() <= 0.005, "{share}");
        }
        assert_eq!(
            Chance::new(7).sampling_key(3),
            Chance::new(7).sampling_key(3)
        );
    }

    #[test]
    fn a_text_has_the_same_sampling_key_in_slices_and_at_once() {
        let text = b"resource, scope, span";
        for at in 0..=text.len() {
            let mut digest = Digest::default();
            digest.update(&text[..at]);
            digest.update(&text[at..]);
            assert_eq!(digest.finish(), SamplingKey::new(text));
        }
    }

    #[test]
    fn an_id_of_zeros_is_no_id() {
        for nil in [
            "",
            "00000000000000000000000000000000",
            "00000000-0000-0000-0000-000000000000",
        ] {
            assert_eq!(SamplingKey::from_id(nil.as_bytes()), None, "{nil}");
        }
        for id in ["0", "0000000000000000", "00000000000000000000000000000001"] {
            let id = id.as_bytes();
            assert_eq!(SamplingKey::from_id(id), Some(SamplingKey::new(id)));
        }
    }

    #[test]
    fn ids_of_copies_are_valid_distinct_and_reproducible() {
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
    fn multiplied_rates_are_rounded_to_short_decimals() {
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
