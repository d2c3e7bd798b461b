//! Writes libtorch's folder into the RUNPATH of binaries, tests and doc tests, so that they start without any
//! variable set. `LD_LIBRARY_PATH` still overrides it.
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
        // For programs of other crates that link this one (`fuzz/`).
        println!("cargo:libtorch={lib}");
    }
}
