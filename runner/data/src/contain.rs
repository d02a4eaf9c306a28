//! Keeps the panic of a library that decodes inside: to whoever asked it is an error like any other.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook},
    sync::Once,
};

thread_local! {
    /// Whether this thread is inside [`contain`].
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// Calls a decoder that may panic where a file lies to it. The panic's message becomes the error and is printed nowhere.
pub(crate) fn contain<T>(decode: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |panic| {
            if !CONTAINED.get() {
                before(panic);
            }
        }));
    });
    CONTAINED.set(true);
    // What it borrows is only read, and what it made is dropped.
    let done = catch_unwind(AssertUnwindSafe(decode));
    CONTAINED.set(false);
    done.unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<&str>().copied();
        let said = said.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Err(format!("the decoder gave up on it: {}", said.unwrap_or("for no given reason")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_reason() {
        let index = std::hint::black_box(7);
        let failed = contain(|| Ok([1, 2, 3][index])).unwrap_err();
        assert!(failed.starts_with("the decoder gave up on it: index out of bounds"), "{failed}");
        assert_eq!(contain(|| Ok(1)), Ok(1));
    }
}
