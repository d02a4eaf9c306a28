//! The models that stages of recorded runs made.

use std::collections::BTreeMap;

use runner_contract::Digest;
use runner_store::Store;

use crate::{EngineError, outcome::read_outcome};

/// The models that a stage made, by output port, as digests of artifacts. `manifest` is the one recorded with the stage; that
/// of a dataset names no models.
pub async fn stage_models(store: &Store, manifest: &Digest) -> Result<BTreeMap<String, Digest>, EngineError> {
    let file = store.artifacts().get(manifest).await?;
    let made = match serde_json::from_slice::<serde_json::Value>(&file) {
        Ok(value) if value.get("models").is_none() => return Ok(BTreeMap::new()),
        _ => read_outcome(&file).map_err(|reason| EngineError::stored("of this manifest", reason))?,
    };
    Ok(made.models.into_iter().map(|(port, blob)| (port, blob.digest)).collect())
}
