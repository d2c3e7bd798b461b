//! The models that stay loaded between requests.

use crate::{runtime::Model, store::ModelFile};
use nas_probe::ModelRef;
use std::{
    collections::{HashMap, hash_map::Entry},
    path::Path,
};

/// The free memory divided by this is the limit of the total size of the files whose models stay loaded. A
/// loaded model takes a few times the size of its file.
const PART_OF_FREE: u64 = 8;
/// The lowest limit, also for a device that does not report its free memory, in bytes.
const LEAST_ROOM: u64 = 64 << 20;

pub struct Loaded {
    models: HashMap<ModelRef, (Box<dyn Model>, u64)>,
    /// Limit of the total size of the models' files, in bytes. A model whose file is larger is kept alone.
    pub room: u64,
}

impl Loaded {
    /// Starts without models. The limit depends on the free memory, which is `None` if it is not known.
    pub fn new(free_bytes: Option<u64>) -> Loaded {
        let room = free_bytes.map_or(LEAST_ROOM, |free| LEAST_ROOM.max(free / PART_OF_FREE));
        Loaded { models: HashMap::new(), room }
    }

    /// Returns a model. If it is not loaded yet, `load` reads it from its `file`; if it would exceed the
    /// limit, all other models are dropped first, so that a long profile cannot fill the memory.
    ///
    /// # Errors
    /// The errors of `file` and `load`.
    pub fn get(
        &mut self,
        model: &ModelRef,
        file: impl FnOnce() -> Result<ModelFile, String>,
        load: impl FnOnce(&Path) -> Result<Box<dyn Model>, String>,
    ) -> Result<&mut dyn Model, String> {
        if !self.models.contains_key(model) {
            let file = file()?;
            let kept: u64 = self.models.values().map(|(_, bytes)| bytes).sum();
            if kept + file.bytes > self.room {
                self.models.clear();
            }
            self.models.insert(model.clone(), (load(&file.path)?, file.bytes));
        }
        match self.models.entry(model.clone()) {
            Entry::Occupied(kept) => Ok(kept.into_mut().0.as_mut()),
            Entry::Vacant(_) => Err("the model was not kept".into()),
        }
    }

    pub fn drop(&mut self, model: &ModelRef) {
        self.models.remove(model);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::measure::tests::spins;
    use nas_probe::Runtime;
    use std::time::Duration;

    const ROOM: u64 = 256 << 20;

    /// Requests models in turn, each given by its name and the size of its file, and counts how many had to
    /// be loaded.
    fn loads(kept: &mut Loaded, models: impl Iterator<Item = (usize, u64)>) -> usize {
        let mut loads = 0;
        for (name, bytes) in models {
            let model = ModelRef { model: name.to_string(), runtime: Runtime::Tract, threads: 1 };
            let file = || Ok(ModelFile { path: name.to_string().into(), bytes, temporary: None });
            let load = |_: &Path| {
                loads += 1;
                Ok(Box::new(spins(Duration::ZERO)) as Box<dyn Model>)
            };
            kept.get(&model, file, load).unwrap().run().unwrap();
        }
        loads
    }

    #[test]
    fn small_models_stay_loaded_and_large_ones_evict_them() {
        let mut kept = Loaded::new(Some(PART_OF_FREE * ROOM));
        let rounds = |n: usize| (0..3 * n).map(move |i| (i % n, 500_000));
        assert_eq!(loads(&mut kept, rounds(300)), 300);
        // A model above the limit evicts all others and is kept alone.
        let large = [(1000, ROOM + 1), (1000, ROOM + 1)];
        assert_eq!(loads(&mut kept, large.into_iter()), 1);
        assert_eq!(loads(&mut kept, rounds(1)), 1);
        assert_eq!(loads(&mut kept, large.into_iter()), 1);
        // Two models that reach the limit exactly, and one more byte.
        let half = ROOM / 2;
        assert_eq!(loads(&mut kept, [(1, half), (2, half), (1, half), (3, 1), (1, half)].into_iter()), 4);
    }
}
