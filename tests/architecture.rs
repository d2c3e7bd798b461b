//! The imports between the modules of `src/`, compared with the table in docs/ARCHITECTURE.md.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Returns the modules and what they may import, in the order of the table.
fn documented() -> Vec<(String, BTreeSet<String>)> {
    let text = include_str!("../docs/ARCHITECTURE.md");
    let table = text.split_once("| module | holds | imports |\n").expect("the table of modules").1;
    let quoted = |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(String::from).collect() };
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
        (quoted(cells[0]).remove(0), quoted(cells[2]).into_iter().collect())
    };
    table.lines().skip(1).take_while(|line| line.starts_with('|')).map(row).collect()
}

fn sources(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.into()];
    }
    let mut entries: Vec<PathBuf> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.retain(|path| path.is_dir() || path.extension().is_some_and(|extension| extension == "rs"));
    entries.iter().flat_map(|path| sources(path)).collect()
}

/// Returns the modules that a file names behind `crate::`. Its tests are not part of the structure.
fn imports(file: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(file).unwrap();
    let code = text.split("#[cfg(test)]\n").next().unwrap();
    code.split("crate::").skip(1).flat_map(first_names).collect()
}

/// Returns `a` for `a::b`, and `a` and `d` for `{a::{b, c}, d}`.
fn first_names(path: &str) -> BTreeSet<String> {
    let name = |text: &str| text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap().to_string();
    let Some(group) = path.strip_prefix('{') else { return [name(path)].into() };
    let (mut depth, mut names) = (1, BTreeSet::from([name(group.trim_start())]));
    for (i, c) in group.char_indices() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        match (c, depth) {
            (_, 0) => break,
            (',', 1) => drop(names.insert(name(group[i + 1..].trim_start()))),
            _ => {}
        }
    }
    names.remove("");
    names
}

fn found() -> BTreeMap<String, BTreeSet<String>> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut modules = BTreeMap::new();
    for entry in fs::read_dir(&src).unwrap() {
        let path = entry.unwrap().path();
        let module = path.file_stem().unwrap().to_str().unwrap().to_string();
        if module != "lib" && module != "bin" {
            let mut imports: BTreeSet<String> = sources(&path).iter().flat_map(|file| imports(file)).collect();
            imports.remove(&module);
            modules.insert(module, imports);
        }
    }
    modules
}

#[test]
fn modules_import_what_the_table_says_and_nothing_else() {
    let documented: BTreeMap<String, BTreeSet<String>> = documented().into_iter().collect();
    assert_eq!(found(), documented, "what is there, and docs/ARCHITECTURE.md");
}

#[test]
fn no_import_goes_back_up() {
    let mut above = BTreeSet::new();
    for (module, imports) in documented() {
        let below: Vec<&String> = imports.iter().filter(|import| !above.contains(*import)).collect();
        assert!(below.is_empty(), "{module} imports {below:?}, which follow it in the table");
        above.insert(module);
    }
}

/// The modules of the probe and of the exporters import each other in one direction.
#[test]
fn the_modules_of_the_other_crates_form_no_circle() {
    for folder in ["devices/probe/src", "exporters/src"] {
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let mut left: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for entry in fs::read_dir(&src).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_string();
            let imports: BTreeSet<String> = sources(&path).iter().flat_map(|file| imports(file)).collect();
            left.entry(name).or_default().extend(imports);
        }
        let names: BTreeSet<String> = left.keys().cloned().collect();
        left.iter_mut().for_each(|(name, imports)| imports.retain(|import| import != name && names.contains(import)));
        // Removes modules that import nothing that is left, until nothing is left.
        while !left.is_empty() {
            let free: Vec<String> = left.iter().filter(|(_, i)| i.is_empty()).map(|(name, _)| name.clone()).collect();
            assert!(!free.is_empty(), "{folder}: a circle within {left:?}");
            left.retain(|name, _| !free.contains(name));
            left.values_mut().for_each(|imports| imports.retain(|import| !free.contains(import)));
        }
    }
}

/// Only `train` knows of libtorch, only `cli` of flags, and only `device` of how a board is reached.
#[test]
fn each_of_these_crates_has_one_home() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (name, home) in [("tch::", "train"), ("clap::", "cli"), ("anyhow::", "cli"), ("ssh2::", "device")] {
        for file in sources(&src) {
            let text = fs::read_to_string(&file).unwrap();
            let inside = file.starts_with(src.join(home)) || file.starts_with(src.join("bin"));
            assert!(inside || !text.contains(name), "{} uses {name}", file.display());
        }
    }
}
