//! Protocol Buffers' wire format, read without a schema.

/// A value of Protocol Buffers' wire format.
pub enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl Value<'_> {
    pub fn number(&self) -> u64 {
        match self {
            Self::Number(number) => *number,
            Self::Bytes(_) => panic!("not a number"),
        }
    }
}

/// The values of one field that have a length: texts, bytes, messages.
pub fn messages(message: &[u8], number: u64) -> impl Iterator<Item = &[u8]> {
    fields(message).filter_map(move |(field, value)| match value {
        Value::Bytes(bytes) if field == number => Some(bytes),
        Value::Bytes(_) | Value::Number(_) => None,
    })
}

/// The fields of a message.
pub fn fields(mut message: &[u8]) -> impl Iterator<Item = (u64, Value<'_>)> {
    std::iter::from_fn(move || {
        if message.is_empty() {
            return None;
        }
        let key = varint(&mut message);
        let value = match key & 7 {
            0 => Value::Number(varint(&mut message)),
            1 => Value::Number(u64::from_le_bytes(split(&mut message, 8).try_into().unwrap())),
            2 => {
                let length = varint(&mut message);
                Value::Bytes(split(&mut message, usize::try_from(length).unwrap()))
            }
            5 => Value::Number(u32::from_le_bytes(split(&mut message, 4).try_into().unwrap()).into()),
            other => panic!("no wire type: {other}"),
        };
        Some((key >> 3, value))
    })
}

fn varint(message: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = split(message, 1)[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return value;
        }
        shift += 7;
    }
}

fn split<'a>(message: &mut &'a [u8], at: usize) -> &'a [u8] {
    let (front, rest) = message.split_at(at);
    *message = rest;
    front
}
