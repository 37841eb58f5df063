//! What filters share that are built of one configuration: made once for all its routes, and kept when something else changes.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use mesh_core::model::FilterConfig;

/// What is in use, by the configuration it is of. Looked at when filters are built, on the configuration thread, and never
/// by requests.
#[derive(Debug)]
pub(crate) struct Kept<T>(Mutex<Vec<Entry<T>>>);

type Entry<T> = (Weak<dyn FilterConfig>, Weak<T>);

impl<T> Kept<T> {
    /// What is of `config`; `make` makes it if there is none.
    pub(crate) fn get<E>(
        &self,
        config: &Arc<dyn FilterConfig>,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(config, kept)| config.strong_count() > 0 && kept.strong_count() > 0);
        // While it is listed its address is nobody else's.
        let mut same = all.iter().filter(|(of, _)| std::ptr::addr_eq(of.as_ptr(), Arc::as_ptr(config)));
        if let Some(kept) = same.find_map(|(_, kept)| kept.upgrade()) {
            return Ok(kept);
        }
        let made = Arc::new(make()?);
        all.push((Arc::downgrade(config), Arc::downgrade(&made)));
        Ok(made)
    }
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}
