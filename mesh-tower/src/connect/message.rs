//! gRPC's framing: one byte that says whether the message is compressed, four that say how long it is, then the message.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::HeaderMap;
use mesh_core::ads::TransportError;
use mesh_core::policy::grpc::GrpcStatus;

const PREFIX: usize = 5;

/// The frame of a message.
///
/// # Errors
///
/// The message is longer than its length can be written.
pub(crate) fn frame(message: &[u8]) -> Result<Bytes, TransportError> {
    let length = u32::try_from(message.len())
        .map_err(|_| TransportError::new(format!("a message of {} bytes is too long for gRPC", message.len())))?;
    let mut framed = BytesMut::with_capacity(PREFIX + message.len());
    framed.put_u8(0);
    framed.put_u32(length);
    framed.put_slice(message);
    Ok(framed.freeze())
}

/// Puts messages together of what comes, however it was cut.
#[derive(Default)]
pub(crate) struct Deframer(BytesMut);

impl Deframer {
    /// What came. Memory is taken as bytes come, not as a length promises them.
    pub(crate) fn push(&mut self, data: &[u8]) {
        self.0.extend_from_slice(data);
    }

    /// The next message, if it is whole.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, TransportError> {
        let Some(prefix) = self.0.first_chunk::<PREFIX>() else { return Ok(None) };
        let [compressed, length @ ..] = *prefix;
        if compressed != 0 {
            return Err(TransportError::new("the server sent a compressed message, and nobody asked for that"));
        }
        let length = u32::from_be_bytes(length) as usize;
        if self.0.len() - PREFIX < length {
            return Ok(None);
        }
        self.0.advance(PREFIX);
        let message = self.0.split_to(length).freeze();
        if self.0.is_empty() {
            // What is left shares the message's room, and would keep all of it for the next one.
            self.0 = BytesMut::new();
        }
        Ok(Some(message))
    }

    /// How many bytes wait for the rest of their message.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether a message has begun.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What trailers, or a head without a body, say about the call's end.
pub(crate) fn status(headers: &HeaderMap) -> Result<(), TransportError> {
    let Some(status) = GrpcStatus::of(headers) else {
        return Err(TransportError::new("the server ended the call without a grpc-status"));
    };
    if status == GrpcStatus::OK {
        return Ok(());
    }
    let message = headers.get("grpc-message").map(|value| percent_decoded(value.as_bytes())).unwrap_or_default();
    let colon = if message.is_empty() { "" } else { ": " };
    Err(TransportError::new(format!("the server ended the call with status {}{colon}{message}", name(status))))
}

/// The longest message of a server that is passed on.
const LONGEST: usize = 1024;

/// `grpc-message` is percent-encoded UTF-8. What is not is shown as it is: it is for people to read.
fn percent_decoded(value: &[u8]) -> String {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut decoded = Vec::with_capacity(value.len().min(LONGEST));
    let mut rest = &value[..value.len().min(LONGEST)];
    while let Some((first, after)) = rest.split_first() {
        let pair = (*first == b'%').then(|| Some(digit(after.first())? * 16 + digit(after.get(1))?)).flatten();
        match pair.and_then(|byte| u8::try_from(byte).ok()) {
            Some(byte) => {
                decoded.push(byte);
                rest = &after[2..];
            }
            None => {
                decoded.push(*first);
                rest = after;
            }
        }
    }
    let text = String::from_utf8_lossy(&decoded);
    // It ends up in logs: one line, whatever it says.
    text.chars().map(|one| if one.is_control() { ' ' } else { one }).collect()
}

fn name(status: GrpcStatus) -> String {
    status.name().map_or_else(|| status.0.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::{Deframer, frame, status};

    #[test]
    fn messages_come_out_as_they_went_in_however_they_are_cut() {
        let messages: [&[u8]; 4] = [b"", b"a", b"hello", &[7; 1000]];
        let wire: Vec<u8> = messages.iter().flat_map(|message| frame(message).unwrap()).collect();
        for size in [1, 2, 3, 5, 6, 7, 64, wire.len()] {
            let (mut deframer, mut found) = (Deframer::default(), Vec::new());
            for piece in wire.chunks(size) {
                deframer.push(piece);
                while let Some(message) = deframer.next().unwrap() {
                    found.push(message);
                }
            }
            assert_eq!(found, messages, "in pieces of {size}");
            assert!(deframer.is_empty());
            assert_eq!(deframer.0.capacity(), 0, "a long message's room is not kept for the next one");
        }
    }

    #[test]
    fn a_compressed_message_is_refused_and_a_promised_length_takes_no_memory() {
        let mut deframer = Deframer::default();
        deframer.push(&[0, 255, 255, 255, 255, 1]);
        assert_eq!(deframer.next().unwrap(), None);
        assert!(deframer.0.capacity() < 1024);
        let mut deframer = Deframer::default();
        deframer.push(&[1, 0, 0, 0, 0]);
        assert!(deframer.next().is_err());
    }

    #[test]
    fn the_status_is_told_in_words() {
        let said = |number: &str, message: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-status", number.parse().unwrap());
            headers.insert("grpc-message", message.parse().unwrap());
            status(&headers).map_err(|error| error.reason)
        };
        assert_eq!(said("0", "whatever"), Ok(()));
        let rows = [
            ("14", "try%20later%21", "UNAVAILABLE: try later!"),
            ("7", "100% no", "PERMISSION_DENIED: 100% no"),
            ("99", "a%0Ab%", "99: a b%"),
            ("x", "", "UNKNOWN"),
        ];
        for (number, message, text) in rows {
            assert!(said(number, message).unwrap_err().ends_with(text), "{number} {message}");
        }
        assert!(status(&HeaderMap::new()).unwrap_err().reason.contains("without a grpc-status"));
    }
}
