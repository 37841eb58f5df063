//! The regular expressions of one resource: each compiled once, and all of them bounded together.
//!
//! A dozen bytes can ask for a megabyte of program, and a resource has room for many dozens: without a common bound, one
//! response of a few megabytes could take all the memory there is.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::model::ByteRegex;

/// What the expressions of one resource may take together: room for 8,192 that are as large as most are, or for 64 of the
/// largest.
const MOST: usize = 256 << 20;
/// Limits for an expression's program, and what one within it may take with everything around it.
const SIZES: [(usize, usize); 3] = [(4 << 10, 32 << 10), (64 << 10, 512 << 10), (ByteRegex::SIZE_LIMIT, 4 << 20)];

thread_local! {
    /// The expressions of the resource that is being decoded on this thread. The extensions' decoders are in between, so
    /// that it cannot be handed down.
    static CURRENT: RefCell<Option<Expressions>> = const { RefCell::new(None) };
}

#[derive(Default)]
struct Expressions {
    compiled: HashMap<String, ByteRegex>,
    taken: usize,
}

impl Expressions {
    fn get(&mut self, pattern: &str) -> Result<ByteRegex, String> {
        if let Some(known) = self.compiled.get(pattern) {
            return Ok(known.clone());
        }
        let mut error = String::new();
        for (limit, worth) in SIZES {
            if self.taken + worth > MOST {
                return Err(format!("needs more room: all expressions of a resource have {} MiB together", MOST >> 20));
            }
            match ByteRegex::within(pattern, limit) {
                Ok(regex) => {
                    self.taken += worth;
                    self.compiled.insert(pattern.to_owned(), regex.clone());
                    return Ok(regex);
                }
                Err(why) => error = why,
            }
        }
        Err(error)
    }
}

/// Decodes one resource, whose expressions share their bound.
pub(super) fn of_one_resource<T>(decode: impl FnOnce() -> T) -> T {
    /// Forgets them again, whatever happens.
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            CURRENT.set(None);
        }
    }
    CURRENT.set(Some(Expressions::default()));
    let _end = End;
    decode()
}

/// Compiles an expression; the error is a text that goes on from "is not a regular expression".
pub(super) fn compile(pattern: &str) -> Result<ByteRegex, String> {
    CURRENT.with_borrow_mut(|current| match current {
        Some(expressions) => expressions.get(pattern),
        // An extension's configuration by itself, which has no resource around it.
        None => ByteRegex::new(pattern),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_compiled_once() {
        let mut all = Expressions::default();
        for _ in 0..10_000 {
            assert!(all.get("[a-z]+").expect("it is one").is_full_match(b"abc"));
        }
        assert_eq!(all.taken, SIZES[0].1);
    }

    #[test]
    fn what_is_no_expression_takes_nothing_and_says_why() {
        let mut all = Expressions::default();
        assert!(all.get("(").expect_err("it is none").contains("unclosed group"));
        assert!(all.get("((a{1000}){1000}){1000}").expect_err("it is too large").contains("size limit"));
        assert_eq!(all.taken, 0);
    }

    #[test]
    fn all_of_them_together_are_bounded() {
        let mut all = Expressions::default();
        let many = |all: &mut Expressions, of: &dyn Fn(usize) -> String| {
            (0..100_000).take_while(|index| all.get(&of(*index)).is_ok()).count()
        };
        assert_eq!(many(&mut all, &|index| format!("(a{{100}}){{10}}{index}")), MOST / SIZES[1].1);
        assert!(all.get("new").expect_err("there is no room").contains("256 MiB together"));
        assert!(all.get("(a{100}){10}0").is_ok(), "what is there already takes no more");
    }

    #[test]
    fn the_next_resource_has_its_own() {
        let fill = || (0..100_000).take_while(|index| compile(&format!("(a{{100}}){{10}}{index}")).is_ok()).count();
        let most = MOST / SIZES[1].1;
        assert_eq!(of_one_resource(fill), most);
        assert!(of_one_resource(|| compile("a").is_ok()));
        assert!(CURRENT.with_borrow(Option::is_none));
    }
}
