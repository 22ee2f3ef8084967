//! Compiles the C under kernels/: for Arm, kernels/aarch64/sve.c, and under the feature `internal`, which is for siskin's own
//! tests, kernels/oracle.c. Nothing is ever compiled for the building machine's CPU.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=kernels/oracle.c");
    println!("cargo::rerun-if-changed=kernels/aarch64/sve.c");
    println!("cargo::rerun-if-env-changed=CI");
    println!("cargo::rustc-check-cfg=cfg(siskin_oracle)");
    println!("cargo::rustc-check-cfg=cfg(siskin_sve)");
    sve();
    #[cfg(feature = "internal")]
    oracle();
}

fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|v| v == "true")
}

/// Sets the cfg `siskin_sve` where the target is Arm of a kind that can have SVE and the C compiler knows it. Without: a
/// warning, or an error where CI=true.
fn sve() {
    let target = |name: &str| std::env::var(name).unwrap_or_default();
    let can = matches!(target("CARGO_CFG_TARGET_OS").as_str(), "linux" | "android" | "freebsd");
    if target("CARGO_CFG_TARGET_ARCH") != "aarch64" || target("CARGO_CFG_TARGET_ENDIAN") != "little" || !can {
        return;
    }
    let built = cc::Build::new()
        .file("kernels/aarch64/sve.c")
        .std("c11")
        .warnings(true)
        .extra_warnings(true)
        .warnings_into_errors(is_ci())
        .opt_level(2)
        .flag("-march=armv8.2-a+sve")
        .flag("-ffp-contract=off")
        // Sums fill the registers: in another order than is written, gcc spills some.
        .flag_if_supported("-fno-schedule-insns")
        .try_compile("siskin_sve");
    match built {
        Ok(()) => println!("cargo::rustc-cfg=siskin_sve"),
        Err(e) if is_ci() => println!("cargo::error=kernels/aarch64/sve.c was not compiled: {e}"),
        Err(e) => println!("cargo::warning=no kernels of SVE, the C compiler did not make them: {e}"),
    }
}

/// Sets the cfg `siskin_oracle` if there is a C compiler. Without one: a warning, or an error where CI=true.
#[cfg(feature = "internal")]
fn oracle() {
    let built = cc::Build::new()
        .file("kernels/oracle.c")
        .std("c11")
        .warnings(true)
        .extra_warnings(true)
        .warnings_into_errors(is_ci())
        .opt_level(2)
        .try_compile("siskin_oracle");
    match built {
        Ok(()) => {
            println!("cargo::rustc-cfg=siskin_oracle");
            if std::env::var("CARGO_CFG_UNIX").is_ok() {
                println!("cargo::rustc-link-lib=m");
            }
        }
        Err(e) if is_ci() => {
            println!("cargo::error=kernels/oracle.c was not compiled: {e}");
        }
        Err(e) => println!("cargo::warning=tests run without the C oracle, it was not compiled: {e}"),
    }
}
