//! The bundles a runtime keeps.
use super::bundle::ConfigBundle;
use super::bundle_rules::check_reference;
use super::error::WorkersError;
use super::model::ConfigBundleRef;
use super::runtime::Runtime;
use crate::base::lock::lock;
use std::sync::Arc;

/// Bundles kept.
const MAX_BUNDLES: usize = 256;
/// Bytes of them together.
const MAX_BUNDLES_BYTES: usize = 16 * 1024 * 1024;

impl Runtime {
    /// Every bundle, in the order of their ids.
    pub fn bundles(&self) -> Vec<Arc<ConfigBundle>> {
        lock(&self.bundles).values().cloned().collect()
    }

    pub(super) fn bundle(&self, id: &str) -> Result<Arc<ConfigBundle>, WorkersError> {
        lock(&self.bundles).get(id).cloned().ok_or_else(|| WorkersError::BundleMissing(id.to_owned()))
    }

    /// The bundle of this reference, if it is here in that state.
    ///
    /// # Errors
    /// The reference has not the form of one, there is no such bundle, or it is in another state.
    pub fn available(&self, reference: &ConfigBundleRef) -> Result<Arc<ConfigBundle>, WorkersError> {
        check_reference(reference)?;
        let bundle = self.bundle(&reference.id)?;
        if bundle.metadata.digest != reference.digest {
            return Err(WorkersError::DigestMismatch {
                bundle: reference.id.clone(),
                expected: reference.digest.clone(),
                got: bundle.metadata.digest.clone(),
            });
        }
        Ok(bundle)
    }

    /// Takes a bundle in the place of any other of its id.
    ///
    /// # Errors
    /// It is not one we take, there are too many, or it could not be stored.
    pub fn sync_bundle(&self, bundle: ConfigBundle) -> Result<Arc<ConfigBundle>, WorkersError> {
        self.check_running()?;
        bundle.check()?;
        let bundle = Arc::new(bundle);
        let mut commit = self.commit.lock();
        let mut bundles = commit.record().config_bundles.clone();
        bundles.insert(bundle.metadata.id.clone(), Arc::clone(&bundle));
        let bytes: usize = bundles.values().map(|bundle| weight(bundle)).sum();
        if bundles.len() > MAX_BUNDLES || bytes > MAX_BUNDLES_BYTES {
            let why = format!(
                "the runtime keeps at most {MAX_BUNDLES} config bundles of {MAX_BUNDLES_BYTES} bytes together"
            );
            return Err(WorkersError::Invalid(why));
        }
        commit.set_bundles(bundles.clone())?;
        *lock(&self.bundles) = bundles;
        self.count_diagnostics(&commit);
        Ok(bundle)
    }
}

fn weight(bundle: &ConfigBundle) -> usize {
    serde_json::to_string(bundle).map_or(0, |text| text.len())
}
