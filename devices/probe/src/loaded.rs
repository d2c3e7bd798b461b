//! The models that are kept loaded.

use crate::runtime::{Error, Model};
use nas_probe::ModelRef;
use std::{
    collections::{HashMap, hash_map::Entry},
    fs,
    path::Path,
};

/// The files of the models that are kept loaded may have this part of the free memory together; a
/// runtime holds a few times as much.
const PART_OF_FREE: u64 = 8;
/// Where the device does not tell what is free: bytes.
const LEAST_ROOM: u64 = 64 << 20;

pub struct Loaded {
    models: HashMap<ModelRef, (Box<dyn Model>, u64)>,
    /// What all their files may have together, bytes. One that is larger is kept alone.
    room: u64,
}

impl Loaded {
    /// On a device with so much free memory.
    pub fn new(free_bytes: Option<u64>) -> Loaded {
        let room = free_bytes.map_or(LEAST_ROOM, |free| LEAST_ROOM.max(free / PART_OF_FREE));
        Loaded { models: HashMap::new(), room }
    }

    /// The model of a file, loaded by `load` where it is not kept. Where it finds no room all others
    /// go, so that a long profile can't fill the memory.
    ///
    /// # Errors
    /// Those of `load`.
    pub fn get(
        &mut self,
        model: &ModelRef,
        file: &Path,
        load: impl FnOnce() -> Result<Box<dyn Model>, Error>,
    ) -> Result<&mut dyn Model, Error> {
        // A file that can't be looked at does not load either.
        let bytes = fs::metadata(file).map_or(0, |file| file.len());
        let kept: u64 = self.models.values().map(|(_, bytes)| bytes).sum();
        if kept + bytes > self.room && !self.models.contains_key(model) {
            self.models.clear();
        }
        let (model, _) = match self.models.entry(model.clone()) {
            Entry::Occupied(kept) => kept.into_mut(),
            Entry::Vacant(place) => place.insert((load()?, bytes)),
        };
        Ok(model.as_mut())
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
    use std::{fs::File, time::Duration};

    const ROOM: u64 = 256 << 20;

    /// Loads models of files of so many bytes in turn, and tells how many were not kept.
    fn loads(kept: &mut Loaded, models: impl Iterator<Item = (usize, u64)>) -> usize {
        let folder = tempfile::tempdir().unwrap();
        let mut loads = 0;
        for (name, bytes) in models {
            let file = folder.path().join(name.to_string());
            // A hole, of no size on the disk.
            File::create(&file).unwrap().set_len(bytes).unwrap();
            let model = ModelRef { model: name.to_string(), runtime: Runtime::Tract, threads: 1 };
            let load = || {
                loads += 1;
                Ok(Box::new(spins(Duration::ZERO)) as Box<dyn Model>)
            };
            kept.get(&model, &file, load).unwrap().run().unwrap();
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
