//! What is kept of a training, so that it can go on as if nothing had happened.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use attn_core::Weights;
use candle_core::{Device, Tensor};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

const WEIGHTS: &str = "weights.safetensors";
const OPTIMISER: &str = "optimiser.safetensors";
const STATE: &str = "state.json";

/// A training at a step.
pub(crate) struct Checkpoint<S> {
    pub(crate) weights: Weights,
    pub(crate) optimiser: Weights,
    /// Everything that is no tensor.
    pub(crate) state: S,
}

impl<S: Serialize + DeserializeOwned> Checkpoint<S> {
    /// Writes a folder beside `dir` and puts it in its place: whoever is killed in between finds the one before.
    pub(crate) fn save(&self, dir: &Path) -> Result<()> {
        let new = dir.with_extension("new");
        let old = dir.with_extension("old");
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |error: std::io::Error| Error::write(&path, error)
        };
        let _ = fs::remove_dir_all(&new); // what an earlier attempt left
        fs::create_dir_all(&new).map_err(failed(&new))?;
        write_tensors(&self.weights, &new.join(WEIGHTS))?;
        write_tensors(&self.optimiser, &new.join(OPTIMISER))?;
        let path = new.join(STATE);
        let text = serde_json::to_string_pretty(&self.state).map_err(|error| Error::write(&path, error))?;
        fs::write(&path, text).map_err(failed(&path))?;
        if dir.exists() {
            let _ = fs::remove_dir_all(&old);
            fs::rename(dir, &old).map_err(failed(dir))?;
        }
        fs::rename(&new, dir).map_err(failed(dir))?;
        let _ = fs::remove_dir_all(&old);
        Ok(())
    }

    /// `None` where there is none.
    pub(crate) fn load(dir: &Path) -> Result<Option<Self>> {
        // Between two renames there is but the old one.
        let old = dir.with_extension("old");
        let dir = match (dir.join(STATE).exists(), old.join(STATE).exists()) {
            (true, _) => dir,
            (false, true) => &old,
            (false, false) => return Ok(None),
        };
        let path = dir.join(STATE);
        let text = fs::read_to_string(&path).map_err(|error| Error::read(&path, error))?;
        let read = |name: &str| Weights::from_safetensors(&dir.join(name), "", &Device::Cpu);
        Ok(Some(Self {
            state: serde_json::from_str(&text).map_err(|error| Error::read(&path, error))?,
            weights: read(WEIGHTS)?,
            optimiser: read(OPTIMISER)?,
        }))
    }
}

fn write_tensors(weights: &Weights, path: &Path) -> Result<()> {
    let tensors: HashMap<String, Tensor> = weights
        .iter()
        .map(|(name, tensor)| (name.to_string(), tensor.clone()))
        .collect();
    candle_core::safetensors::save(&tensors, path).map_err(|error| Error::write(path, error))
}
