//! The models that are kept loaded.

use crate::{runtime::Model, store::ModelFile};
use nas_probe::ModelRef;
use std::{
    collections::{HashMap, hash_map::Entry},
    path::Path,
};

/// The files of the models that are kept loaded may together have this part of the free memory; a runtime holds a few
/// times as much.
const PART_OF_FREE: u64 = 8;
/// Where the device does not report what is free: bytes.
const LEAST_ROOM: u64 = 64 << 20;

pub struct Loaded {
    models: HashMap<ModelRef, (Box<dyn Model>, u64)>,
    /// What all their files may have together, bytes. One that is larger is kept alone.
    pub room: u64,
}

impl Loaded {
    /// On a device with so much free memory.
    pub fn new(free_bytes: Option<u64>) -> Loaded {
        let room = free_bytes.map_or(LEAST_ROOM, |free| LEAST_ROOM.max(free / PART_OF_FREE));
        Loaded { models: HashMap::new(), room }
    }

    /// A model; where it is not kept, `load` reads it from its `file`. Where there is no room for it, all others are
    /// dropped, so that a long profile cannot fill the memory.
    ///
    /// # Errors
    /// Those of `file` and `load`.
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

    /// Loads models of files of so many bytes in turn, and counts those that were not kept.
    fn loads(kept: &mut Loaded, models: impl Iterator<Item = (usize, u64)>) -> usize {
        let mut loads = 0;
        for (name, bytes) in models {
            let model = ModelRef { model: name.to_string(), runtime: Runtime::Tract, threads: 1 };
            let file = || Ok(ModelFile { path: name.to_string().into(), bytes, temporary: false });
            let load = |_: &Path| {
                loads += 1;
                Ok(Box::new(spins(Duration::ZERO)) as Box<dyn Model>)
            };
            kept.get(&model, file, load).unwrap().run().unwrap();
        }
        loads
    }

    #[test]
    fn many_small_models_stay_and_large_ones_make_room() {
        let mut kept = Loaded::new(Some(PART_OF_FREE * ROOM));
        let rounds = |n: usize| (0..3 * n).map(move |i| (i % n, 500_000));
        assert_eq!(loads(&mut kept, rounds(300)), 300);
        // Larger than all room: it is kept alone, and drops all others.
        let large = [(1000, ROOM + 1), (1000, ROOM + 1)];
        assert_eq!(loads(&mut kept, large.into_iter()), 1);
        assert_eq!(loads(&mut kept, rounds(1)), 1);
        assert_eq!(loads(&mut kept, large.into_iter()), 1);
        // Two that fill the room exactly, and one byte more.
        let half = ROOM / 2;
        assert_eq!(loads(&mut kept, [(1, half), (2, half), (1, half), (3, 1), (1, half)].into_iter()), 4);
    }
}
