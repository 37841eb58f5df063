//! Decoding, tested from outside: bytes in, model or faults out.
