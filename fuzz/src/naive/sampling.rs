//! The draws of sampling and the ids of copies, in plain big-integer arithmetic.

const WORD: u128 = 1 << 64;

/// The draw of `id`, from 0 to 1.
pub fn draw(id: &str) -> f64 {
    match uuid(id) {
        Some(number) => share(pcg32(number)),
        None => share(mix(fnv1a(id.as_bytes()))),
    }
}

/// The draw of the item without an id at `position`, in a request with the sampling key `number`.
pub fn draw_by_chance(number: u128, position: usize) -> f64 {
    share(mix(
        (number + position as u128 * 0x9e37_79b9_7f4a_7c15) % WORD
    ))
}

/// The id in copy number `copy` for `id`: hexadecimal digits with or without dashes.
pub fn id_of_copy(id: &str, copy: u32) -> String {
    let plain = id.replace('-', "").to_lowercase();
    let original = mix(fnv1a(plain.as_bytes())) as u64;
    let mut digits = String::new();
    for lane in [0_u8, 1] {
        let seed = [&original.to_le_bytes()[..], &copy.to_le_bytes(), &[lane]].concat();
        digits += &format!("{:016x}", mix(fnv1a(&seed)));
    }
    match id.contains('-') {
        true => [
            &digits[..8],
            &digits[8..12],
            &digits[12..16],
            &digits[16..20],
            &digits[20..],
        ]
        .join("-"),
        false => digits,
    }
}

/// Whether `text` is 32 hexadecimal digits, with dashes where UUIDs have them or without.
pub fn is_id(text: &str) -> bool {
    dashed(text).or_else(|| plain(text)).is_some()
}

/// Whether `text` is a nil UUID.
pub fn is_nil(text: &str) -> bool {
    uuid(text) == Some(0)
}

fn uuid(text: &str) -> Option<u128> {
    let braced = text
        .strip_prefix('{')
        .and_then(|text| text.strip_suffix('}'));
    let urn = text.strip_prefix("urn:uuid:");
    plain(text)
        .or_else(|| dashed(text))
        .or_else(|| dashed(braced?))
        .or_else(|| dashed(urn?))
}

fn plain(text: &str) -> Option<u128> {
    let is_hex = text.len() == 32 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_hex
        .then(|| u128::from_str_radix(text, 16).ok())
        .flatten()
}

fn dashed(text: &str) -> Option<u128> {
    let groups: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    (lengths == [8, 4, 4, 4, 12])
        .then(|| plain(&groups.concat()))
        .flatten()
}

/// The first two outputs of a PCG32 with this seed, the first as the lower half.
fn pcg32(id: u128) -> u128 {
    let seed = id ^ 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834;
    let increment = (seed % WORD * 2 + 1) % WORD;
    let step = |state: u128| (state * 6_364_136_223_846_793_005 + increment) % WORD;
    let output = |state: u128| {
        let shifted = ((state ^ (state >> 18)) >> 27) % (1 << 32);
        u128::from((shifted as u32).rotate_right((state >> 59) as u32))
    };
    let first = step((seed / WORD + increment) % WORD);
    output(first) + output(step(first)) * (1 << 32)
}

fn fnv1a(text: &[u8]) -> u128 {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    for byte in text {
        hash = (hash ^ u128::from(*byte)) * 0x0000_0100_0000_01b3 % WORD;
    }
    hash
}

/// The finalizer of MurmurHash3.
fn mix(hash: u128) -> u128 {
    let hash = (hash ^ (hash >> 33)) * 0xff51_afd7_ed55_8ccd % WORD;
    let hash = (hash ^ (hash >> 33)) * 0xc4ce_b9fe_1a85_ec53 % WORD;
    hash ^ (hash >> 33)
}

/// The upper 53 bits of 64, as a number below 1.
fn share(bits: u128) -> f64 {
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}
