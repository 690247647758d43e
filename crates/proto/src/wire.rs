//! Protobuf's encodings, read where they lie; none where it takes the generated types to read them.

/// Takes a text behind its length.
#[inline]
pub(crate) fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(bytes(rest)?).ok()
}

/// Takes a length and as many bytes.
#[inline]
pub(crate) fn bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(varint(rest)?).ok()?;
    let (taken, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(taken)
}

/// Takes a number in its shortest form.
#[inline]
pub(crate) fn varint(rest: &mut &[u8]) -> Option<u64> {
    match rest.split_first()? {
        (byte @ 0..0x80, after) => {
            *rest = after;
            Some(u64::from(*byte))
        }
        _ => long_varint(rest),
    }
}

fn long_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for (at, byte) in (0..u64::BITS).step_by(7).zip(rest.iter()) {
        value |= u64::from(byte & 0x7f) << at;
        if *byte < 0x80 {
            // The last byte is needed, and the tenth has room for one bit.
            let shortest = *byte > 0 && (at < 63 || *byte == 1);
            *rest = rest.get(at as usize / 7 + 1..)?;
            return shortest.then_some(value);
        }
    }
    None
}
