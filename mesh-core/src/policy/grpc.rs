//! gRPC status codes, as far as policies look at them.

use http::{HeaderMap, StatusCode};

/// A gRPC status code, by its number: every number is one, also those that nobody has named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GrpcStatus(pub u8);

impl GrpcStatus {
    /// OK.
    pub const OK: Self = Self(0);
    /// CANCELLED.
    pub const CANCELLED: Self = Self(1);
    /// UNKNOWN.
    pub const UNKNOWN: Self = Self(2);
    /// DEADLINE_EXCEEDED.
    pub const DEADLINE_EXCEEDED: Self = Self(4);
    /// PERMISSION_DENIED.
    pub const PERMISSION_DENIED: Self = Self(7);
    /// RESOURCE_EXHAUSTED.
    pub const RESOURCE_EXHAUSTED: Self = Self(8);
    /// UNIMPLEMENTED.
    pub const UNIMPLEMENTED: Self = Self(12);
    /// INTERNAL.
    pub const INTERNAL: Self = Self(13);
    /// UNAVAILABLE.
    pub const UNAVAILABLE: Self = Self(14);
    /// UNAUTHENTICATED.
    pub const UNAUTHENTICATED: Self = Self(16);

    /// Its name, as gRPC spells it: `DEADLINE_EXCEEDED`. None for a number that nobody has named.
    pub fn name(self) -> Option<&'static str> {
        const NAMES: [&str; 17] = [
            "OK",
            "CANCELLED",
            "UNKNOWN",
            "INVALID_ARGUMENT",
            "DEADLINE_EXCEEDED",
            "NOT_FOUND",
            "ALREADY_EXISTS",
            "PERMISSION_DENIED",
            "RESOURCE_EXHAUSTED",
            "FAILED_PRECONDITION",
            "ABORTED",
            "OUT_OF_RANGE",
            "UNIMPLEMENTED",
            "INTERNAL",
            "UNAVAILABLE",
            "DATA_LOSS",
            "UNAUTHENTICATED",
        ];
        NAMES.get(usize::from(self.0)).copied()
    }

    /// `grpc-status` of a response's head or trailers; None if it is not there, UNKNOWN if it is no number.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get("grpc-status")?;
        let number = value.to_str().ok().and_then(|text| text.parse().ok());
        Some(number.map_or(Self::UNKNOWN, Self))
    }

    /// What a response without `grpc-status` means (gRPC's HTTP status mapping).
    pub fn from_http(status: StatusCode) -> Self {
        match status.as_u16() {
            400 => Self::INTERNAL,
            401 => Self::UNAUTHENTICATED,
            403 => Self::PERMISSION_DENIED,
            404 => Self::UNIMPLEMENTED,
            429 | 502 | 503 | 504 => Self::UNAVAILABLE,
            _ => Self::UNKNOWN,
        }
    }

    /// What a stream reset means, by its HTTP/2 error code (gRPC over HTTP/2, "Errors").
    pub fn from_reset(code: u32) -> Self {
        match code {
            0x7 => Self::UNAVAILABLE,
            0x8 => Self::CANCELLED,
            0xb => Self::RESOURCE_EXHAUSTED,
            0xc => Self::PERMISSION_DENIED,
            0x0..=0x6 | 0x9 | 0xa => Self::INTERNAL,
            _ => Self::UNKNOWN,
        }
    }
}
