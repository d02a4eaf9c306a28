//! Numbers that look random, the same each time.

/// Numbers in −1..1 that look random and differ by `stream`.
pub(crate) fn numbers(stream: usize, count: usize) -> Vec<f32> {
    let mut state = (stream as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}
