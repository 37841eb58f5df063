//! What is wrong with a token, in Envoy's words and with its numbers.

use std::fmt;

use http::StatusCode;

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        /// Why a request does not meet a requirement. `code` and `message` of `failed_status_in_metadata` are these.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum JwtStatus {
            $($(#[$doc])* $name,)*
        }

        impl JwtStatus {
            /// Envoy's number for it.
            pub fn code(self) -> u16 {
                match self {
                    $(Self::$name => $code,)*
                }
            }

            /// Envoy's words for it: the client sees them.
            pub fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

statuses! {
    /// There is no token.
    Missing = 1, "Jwt is missing";
    /// `nbf` is yet to come.
    NotYetValid = 2, "Jwt not yet valid";
    /// `exp` has passed.
    Expired = 3, "Jwt is expired";
    /// It has not three parts, or is too long.
    BadFormat = 4, "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections";
    /// The header is not base64url.
    HeaderBadBase64 = 5, "Jwt header is an invalid Base64url encoded";
    /// The header is not a JSON object, or says something twice.
    HeaderBadJson = 6, "Jwt header is an invalid JSON";
    /// `alg` is not there, or no string.
    HeaderBadAlg = 7, "Jwt header [alg] field is required and must be a string";
    /// `alg` is not known: `none` for one.
    HeaderUnknownAlg = 8, "Jwt header [alg] is not supported";
    /// `kid` is no string.
    HeaderBadKid = 9, "Jwt header [kid] field is not a string";
    /// The payload is not base64url.
    PayloadBadBase64 = 10, "Jwt payload is an invalid Base64url encoded";
    /// The payload is not a JSON object, or says something twice.
    PayloadBadJson = 11, "Jwt payload is an invalid JSON";
    /// `iss` is no string.
    IssNotString = 12, "Jwt payload [iss] field is not a string";
    /// `sub` is no string.
    SubNotString = 13, "Jwt payload [sub] field is not a string";
    /// `iat` is no number.
    IatNotInteger = 14, "Jwt payload [iat] field is not an integer";
    /// `iat` is out of range.
    IatOutOfRange = 15, "Jwt payload [iat] field is not a positive 64 bit integer";
    /// `nbf` is no number.
    NbfNotInteger = 16, "Jwt payload [nbf] field is not an integer";
    /// `nbf` is out of range.
    NbfOutOfRange = 17, "Jwt payload [nbf] field is not a positive 64 bit integer";
    /// `exp` is no number.
    ExpNotInteger = 18, "Jwt payload [exp] field is not an integer";
    /// `exp` is out of range.
    ExpOutOfRange = 19, "Jwt payload [exp] field is not a positive 64 bit integer";
    /// `jti` is no string.
    JtiNotString = 20, "Jwt payload [jti] field is not a string";
    /// `aud` is neither a string nor a list of strings.
    AudNotString = 21, "Jwt payload [aud] field is not a string or string list";
    /// The signature is not base64url.
    SignatureBadBase64 = 22, "Jwt signature is an invalid Base64url encoded";
    /// An Ed25519 signature has 64 bytes.
    Ed25519WrongLength = 23, "Jwt ED25519 signature is wrong length";
    /// `iss` is nobody's whose tokens may be where this one was.
    UnknownIssuer = 24, "Jwt issuer is not configured";
    /// `aud` has nothing that is asked for.
    AudienceNotAllowed = 25, "Audiences in Jwt are not allowed";
    /// No key fits the signature; or `sub` or the lifetime is not allowed; or there is a `crit`.
    VerificationFails = 26, "Jwt verification fails";
    /// There are more tokens than anybody needs.
    MultipleTokens = 27, "Found multiple Jwt tokens";
    /// The key set is not a JSON object, or says something twice.
    JwksBadJson = 28, "Jwks is an invalid JSON";
    /// The key set has no `keys`.
    JwksNoKeys = 29, "Jwks does not have [keys] field";
    /// `keys` of the key set is no list.
    JwksBadKeys = 30, "[keys] in Jwks is not an array";
    /// The key set has no key that can be used.
    JwksNoValidKeys = 31, "Jwks doesn't have any valid public key";
    /// No key has the token's `kid` and `alg`.
    JwksKidAlgMismatch = 32, "Jwks doesn't have key to match kid or alg from Jwt";
    /// The key set has not been fetched.
    JwksFetchFails = 40, "Jwks remote fetch is failed";
}

impl JwtStatus {
    /// The status of the answer: 403 where the token is good and for somebody else, 401 otherwise.
    pub fn http_status(self) -> StatusCode {
        if self == Self::AudienceNotAllowed { StatusCode::FORBIDDEN } else { StatusCode::UNAUTHORIZED }
    }
}

impl fmt::Display for JwtStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}
