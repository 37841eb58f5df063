//! Redirects that the mesh follows itself, as configuration (`config.route.v3.InternalRedirectPolicy`).

use std::fmt;

use http::{HeaderName, StatusCode};

use super::Name;

/// `config.route.v3.InternalRedirectPolicy`, with every default filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InternalRedirect {
    /// `max_internal_redirects`: how many a request may have followed before, whichever routes it came by; default 1.
    pub max: u32,
    /// `redirect_response_codes`: the statuses that are followed; 302 by default, and none where it lists only others than
    /// 301, 302, 303, 307 and 308.
    pub codes: Vec<StatusCode>,
    /// `allow_cross_scheme_redirect`: also from `http` to `https` and back; not by default.
    pub cross_scheme: bool,
    /// `predicates`: all must agree to the new route.
    pub predicates: Vec<RedirectPredicate>,
    /// `response_headers_to_copy`: these headers of the request become the redirect's; what it does not have is taken out.
    pub copied_headers: Vec<HeaderName>,
}

impl Default for InternalRedirect {
    /// One redirect by 302, in the same scheme, to any route (Envoy).
    fn default() -> Self {
        Self {
            max: 1,
            codes: vec![StatusCode::FOUND],
            cross_scheme: false,
            predicates: Vec::new(),
            copied_headers: Vec::new(),
        }
    }
}

/// What may refuse a redirect by the route it leads to (`extensions.internal_redirect`).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RedirectPredicate {
    /// `previous_routes`: from one route to another only once in a request's life.
    PreviousRoutes,
    /// `allow_listed_routes`: to routes of these names only.
    AllowListed(Vec<Name>),
    /// `safe_cross_scheme`: never from `http` to `https`, as what is behind TLS is not for plaintext.
    SafeCrossScheme,
}

impl fmt::Display for InternalRedirect {
    /// What it follows, in a few words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let codes = self.codes.iter().map(|code| code.as_u16().to_string()).collect::<Vec<_>>().join(",");
        let schemes = if self.cross_scheme { ", also to another scheme" } else { "" };
        write!(f, "{} at most are followed on {codes}{schemes}", self.max)?;
        self.predicates.iter().try_for_each(|predicate| write!(f, ", {predicate}"))
    }
}

impl fmt::Display for RedirectPredicate {
    /// As the policy names it, and whom it lets in.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PreviousRoutes => f.write_str("previous_routes"),
            Self::SafeCrossScheme => f.write_str("safe_cross_scheme"),
            Self::AllowListed(names) => write!(f, "allow_listed_routes ({})", names.join(", ")),
        }
    }
}
