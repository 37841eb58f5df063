//! Tests of the whole way, on loopback.
