//! In a build of the whole workspace, `edge-nas` has the feature `torch`, so these programs need libtorch's folder in
//! their RUNPATH.
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if let Ok(lib) = std::env::var("DEP_EDGE_NAS_LIBTORCH") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    }
}
