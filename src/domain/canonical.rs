//! The one way in which several values become one byte string that is hashed, authenticated or used as a key.

/// Encodes the parts so that different lists never give the same bytes: each part is preceded by its length
/// (32 bits, big-endian). Joining with a separator is not injective: `a:b` + `c` and `a` + `b:c` collide.
pub fn canonical(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len() + 4).sum());
    for part in parts {
        let length = u32::try_from(part.len()).expect("no part of a key or associated data reaches 4 GiB");
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}
