//! The certificate providers of a bootstrap, and the work that keeps them fresh.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::bootstrap::CertificateProvider;
use mesh_core::config::Background;
use mesh_core::identity::{CertificateProviders, FileWatcher};
use mesh_core::model::Name;
use tokio::time::{Instant, sleep_until};

use super::crypto;

/// Files are not read more often than this, whatever is asked for: reading them takes the configuration thread's time.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);

/// Those of the providers in `configured` that are files, having read their files once, and the work that reads them again at their
/// intervals. It is `Options::background` of the configuration thread: without it nothing rotates.
pub(crate) fn watch_files(configured: &BTreeMap<Name, CertificateProvider>) -> (CertificateProviders, Background) {
    let pair = crypto::pair_check();
    let mut providers = CertificateProviders::new();
    let mut watchers = Vec::new();
    for (instance, provider) in configured {
        let CertificateProvider::FileWatcher(config) = provider else {
            continue;
        };
        let watcher = Arc::new(FileWatcher::new(instance.clone(), config.clone(), pair.clone()));
        providers = providers.with(instance.clone(), watcher.clone());
        watchers.push(watcher);
    }
    (providers, Box::pin(refresh(watchers)))
}

async fn refresh(watchers: Vec<Arc<FileWatcher>>) {
    let interval = |watcher: &FileWatcher| watcher.refresh_interval().max(SHORTEST_INTERVAL);
    let start = Instant::now();
    let mut due: Vec<_> = watchers.into_iter().map(|watcher| (start + interval(&watcher), watcher)).collect();
    while let Some((at, watcher)) = due.iter_mut().min_by_key(|(at, _)| *at) {
        sleep_until(*at).await;
        if watcher.refresh() {
            tracing::info!(target: "mesh", "took new certificates: {watcher:?}");
        }
        *at = Instant::now() + interval(watcher);
    }
}
