//! HTTP/2 as attackers write it: frames, and header fields without a table.

/// What a client says first, SETTINGS included.
pub(crate) const START: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// One frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The fields of a request to this path.
pub(crate) fn request(path: &str) -> Vec<u8> {
    // :method GET and :scheme http by their index, :authority and :path by that of their names.
    let mut block = vec![0x82, 0x86];
    for (name, value) in [(0x01, "plain:8080"), (0x04, path)] {
        block.push(name);
        text(&mut block, value);
    }
    block
}

/// A field that goes into no table.
pub(crate) fn field(name: &str, value: &str) -> Vec<u8> {
    let mut block = vec![0x00];
    text(&mut block, name);
    text(&mut block, value);
    block
}

/// A field that goes into the table.
pub(crate) fn indexed_field(name: &str, value: &str) -> Vec<u8> {
    let mut block = field(name, value);
    block[0] = 0x40;
    block
}

/// HPACK's string without Huffman's code; its length is an integer with a prefix of 7 bits.
fn text(block: &mut Vec<u8>, text: &str) {
    let mut length = text.len();
    if length < 127 {
        block.push(u8::try_from(length).unwrap_or(0));
    } else {
        block.push(127);
        length -= 127;
        while length >= 128 {
            block.push(u8::try_from(length % 128).unwrap_or(0) | 128);
            length /= 128;
        }
        block.push(u8::try_from(length).unwrap_or(0));
    }
    block.extend(text.as_bytes());
}

/// A request without a body.
pub(crate) fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &request(path))
}
