//! Compiles kernels/oracle.c, and only under the feature `oracle`, which is for siskin's own tests. Nothing is ever
//! compiled for the building machine's CPU.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=kernels/oracle.c");
    println!("cargo::rustc-check-cfg=cfg(siskin_oracle)");
    #[cfg(feature = "oracle")]
    oracle();
}

/// Sets the cfg `siskin_oracle` if there is a C compiler. Without one: a warning, or an error where CI=true.
#[cfg(feature = "oracle")]
fn oracle() {
    println!("cargo::rerun-if-env-changed=CI");
    let built = cc::Build::new()
        .file("kernels/oracle.c")
        .std("c11")
        .warnings(true)
        .extra_warnings(true)
        .warnings_into_errors(std::env::var("CI").is_ok_and(|v| v == "true"))
        .opt_level(2)
        .try_compile("siskin_oracle");
    match built {
        Ok(()) => {
            println!("cargo::rustc-cfg=siskin_oracle");
            if std::env::var("CARGO_CFG_UNIX").is_ok() {
                println!("cargo::rustc-link-lib=m");
            }
        }
        Err(e) if std::env::var("CI").is_ok_and(|v| v == "true") => {
            println!("cargo::error=kernels/oracle.c was not compiled: {e}");
        }
        Err(e) => println!("cargo::warning=tests run without the C oracle, it was not compiled: {e}"),
    }
}
