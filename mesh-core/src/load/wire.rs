//! Protobuf's wire format, as far as ORCA's messages need it: they come with responses, and are read where they lie.

/// A field as it lies in the bytes.
pub(crate) enum Value<'a> {
    Fixed64(u64),
    Bytes(&'a [u8]),
    Varint(u64),
    Fixed32,
}

/// Takes the next field off `bytes`.
pub(crate) fn field<'a>(bytes: &mut &'a [u8]) -> Option<(u64, Value<'a>)> {
    let key = varint(bytes).filter(|key| u32::try_from(*key).is_ok())?;
    let value = match key & 7 {
        0 => Value::Varint(varint(bytes)?),
        1 => Value::Fixed64(u64::from_le_bytes(take(bytes, 8)?.try_into().ok()?)),
        2 => {
            let length = usize::try_from(varint(bytes)?).ok()?;
            Value::Bytes(take(bytes, length)?)
        }
        5 => {
            take(bytes, 4)?;
            Value::Fixed32
        }
        // Groups are not in any message of proto3.
        _ => return None,
    };
    (key >> 3 != 0).then_some((key >> 3, value))
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for at in 0..10 {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

/// Writes a number, seven bits to a byte.
pub(crate) fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}
