//! The artifact store, built from its settings.
use super::{StartError, tried};
use crate::api::{ArtifactApi, Sharing};
use crate::artifacts::{Artifacts, Caps, Memory, Observer, SWEEP_EVERY, Sqlite, Store, Sweeper, Ttl};
use crate::config::{ArtifactPlace, Config};
use crate::files::Place;
use std::io;
use std::sync::Arc;

/// The running store: swept until this is dropped, then closed.
#[derive(Debug)]
pub(super) struct RunningArtifacts {
    artifacts: Arc<Artifacts>,
    sweeper: Option<Sweeper>,
}

impl RunningArtifacts {
    pub(super) fn start(config: &Config, observer: Observer) -> Result<RunningArtifacts, StartError> {
        let settings = &config.artifacts;
        let caps = Caps { max_rows: settings.max_rows, max_bytes: settings.max_bytes };
        let store: Box<dyn Store> = match &settings.place {
            ArtifactPlace::Memory => Box::new(Memory::new(caps)),
            ArtifactPlace::Sqlite(path) => {
                let opened = Sqlite::open(path, caps).map_err(io::Error::other);
                Box::new(opened.map_err(tried("opening the artifacts' database"))?)
            }
            #[cfg(feature = "redis")]
            ArtifactPlace::Redis(url) => Box::new(crate::artifacts::Redis::new(url.clone(), caps)),
        };
        let artifacts = Arc::new(Artifacts::new(store, Ttl::new(settings.ttl), observer));
        // Without a thread what has expired still goes when it is asked for, or when room is needed.
        let sweeper = Sweeper::start(Arc::clone(&artifacts), SWEEP_EVERY)
            .inspect_err(|error| log::warn!("expired artifacts are not swept: {error}"))
            .ok();
        Ok(RunningArtifacts { artifacts, sweeper })
    }

    pub(super) fn api(&self, config: &Config) -> Result<ArtifactApi, StartError> {
        let settings = &config.artifacts;
        let viewer_dir = match &settings.viewer_dir {
            Some(dir) => {
                let opened = Place::open(dir.clone()).map_err(io::Error::other);
                Some(opened.map_err(tried(format!("opening the viewer's directory {}", dir.display())))?)
            }
            None => None,
        };
        let sharing = settings
            .cors
            .as_ref()
            .map(|origin| Sharing { origin: origin.clone(), with_token: config.token.is_some() });
        Ok(ArtifactApi::new(Arc::clone(&self.artifacts), viewer_dir, sharing))
    }
}

impl Drop for RunningArtifacts {
    fn drop(&mut self) {
        drop(self.sweeper.take());
        self.artifacts.close();
    }
}
