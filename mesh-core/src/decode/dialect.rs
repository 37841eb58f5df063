//! Whose rules a resource is judged by where gRPC and Envoy do not agree.

use std::cell::Cell;

/// Whose rules decide where gRPC refuses what Envoy takes, or takes what Envoy refuses, for another reason than that it lacks
/// the feature. What either of them merely can't do is no matter of dialect: here it works in both.
///
/// A mesh has one dialect for all its resources, since route tables, clusters and endpoints are shared between the Listeners
/// that lead to them. The [`Source`](crate::source::Source) says which: a control plane's resources, reached by gRPC's
/// bootstrap, are made for gRPC's rules; files and memory hold what was written for Envoy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Dialect {
    /// gRPC's (the rules of `docs/validation.md`). The default: it is the stricter one but for the size of expressions.
    #[default]
    Grpc,
    /// Envoy's.
    Envoy,
}

thread_local! {
    /// That of the resource which is being decoded on this thread. The extensions' decoders are in between, so that it cannot
    /// be handed down.
    static CURRENT: Cell<Dialect> = const { Cell::new(Dialect::Grpc) };
}

impl Dialect {
    /// That of the resource which is being decoded on this thread: what a registered
    /// [`HttpFilterType`](super::HttpFilterType) or [`PolicyType`](super::PolicyType) goes by. gRPC's outside of one.
    pub fn current() -> Self {
        CURRENT.get()
    }

    /// Whether Envoy's rules decide.
    pub(super) fn is_envoy() -> bool {
        Self::current() == Self::Envoy
    }

    /// Decodes by these rules.
    pub(super) fn scope<T>(self, decode: impl FnOnce() -> T) -> T {
        /// Back to what it was, whatever happens.
        struct End(Dialect);
        impl Drop for End {
            fn drop(&mut self) {
                CURRENT.set(self.0);
            }
        }
        let _end = End(CURRENT.replace(self));
        decode()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_that_of_the_innermost_scope_and_of_this_thread() {
        assert_eq!(Dialect::current(), Dialect::Grpc);
        Dialect::Envoy.scope(|| {
            assert_eq!(Dialect::current(), Dialect::Envoy);
            Dialect::Grpc.scope(|| assert_eq!(Dialect::current(), Dialect::Grpc));
            assert_eq!(Dialect::current(), Dialect::Envoy);
            let elsewhere = std::thread::spawn(Dialect::current).join().expect("it does not panic");
            assert_eq!(elsewhere, Dialect::Grpc);
        });
        let panicked = std::panic::catch_unwind(|| Dialect::Envoy.scope(|| panic!("on purpose")));
        assert!(panicked.is_err());
        assert_eq!(Dialect::current(), Dialect::Grpc);
    }
}
