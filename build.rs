//! Bakes libtorch's folder in as RUNPATH (`LD_LIBRARY_PATH` still overrides it), so that the
//! binaries, tests and doc tests start with no variable set.
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    }
}
