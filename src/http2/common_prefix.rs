//! How far two texts agree.

/// The length of what both begin with.
pub(super) fn common_prefix(one: &[u8], other: &[u8]) -> usize {
    // Chunks are compared with one instruction each.
    let chunks = one
        .as_chunks::<16>()
        .0
        .iter()
        .zip(other.as_chunks::<16>().0);
    let same = 16 * chunks.take_while(|(one, other)| one == other).count();
    let bytes = one.iter().zip(other).skip(same);
    same + bytes.take_while(|(one, other)| one == other).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_agree_up_to_the_first_byte_that_differs() {
        let text: Vec<u8> = (0..100).collect();
        for len in 0..text.len() {
            let start = &text[..len];
            assert_eq!(common_prefix(start, &text), len);
            assert_eq!(common_prefix(&text, start), len);
            let mut other = text.clone();
            other[len] = 200;
            assert_eq!(common_prefix(&text, &other), len);
        }
    }
}
