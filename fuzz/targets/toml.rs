//! The input is a TOML file that a person wrote: a device, or a search space.
#![no_main]

use edge_nas::device::Device;
use edge_nas::space::{Genotype, Networks, SearchSpace};
use libfuzzer_sys::fuzz_target;
use nas_exporters::Shape;
use nas_fuzz::Folder;
use std::sync::LazyLock;

static FOLDER: LazyLock<Folder> = LazyLock::new(Folder::new);

fuzz_target!(|input: &[u8]| {
    let path = FOLDER.write("fuzzed.toml", input).display().to_string();
    if let Ok(device) = Device::load(&path) {
        let Ok(written) = toml::to_string(&device) else { return };
        let copy = toml::from_str::<toml::Table>(&written).unwrap_or_else(|e| panic!("{e}: {written}"));
        assert_eq!(copy.get("name").and_then(toml::Value::as_str), Some("fuzzed"));
    }
    if let Ok(space) = SearchSpace::load(&path) {
        let json = serde_json::to_string(&space).unwrap_or_default();
        match serde_json::from_str::<SearchSpace>(&json) {
            Ok(again) => assert_eq!(again, space),
            Err(error) => panic!("a space that was read cannot be read again: {error}"),
        }
        if let Ok(networks) = Networks::new(space, Shape::new(3, 8, 8), [3]) {
            let first = (0..networks.len()).map(|layer| networks.live(layer)[0]).collect();
            let genotype = Genotype::new(networks, first);
            let graph = genotype.graph();
            let _ = (graph.cost(), graph.digest(), genotype.to_string());
        }
    }
});
