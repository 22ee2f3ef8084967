//! Which tiers this run has, against what it was meant to have. Without this a detection that breaks would pass as
//! tests that are skipped.
//!
//! * `SISKIN_EXPECT_ISA=avx-vnni`: [`Isa::detect`] must say exactly this (after `SISKIN_MAX_ISA`, where set).
//! * `SISKIN_REQUIRE_ISA=avx2,avx512`: each of these must be supported; a missing one fails instead of being skipped.

use siskin::{Ctx, Isa};
use std::io::Write;

/// Past libtest's capture, so that it is seen without `--nocapture` too.
fn say(line: &str) {
    std::io::stderr().write_all(format!("tiers: {line}\n").as_bytes()).unwrap();
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[test]
fn report() {
    let best = Isa::detect().unwrap();
    for &isa in Isa::ALL {
        match (isa.is_supported(), best.implies(isa)) {
            (true, true) => say(&format!("{isa}: runs")),
            (true, false) => say(&format!("{isa}: runs where a test asks for it (above or beside {best})")),
            (false, _) => say(&format!("{isa}: SKIPPED, this CPU does not have it")),
        }
    }
}

#[test]
fn detection_is_as_expected() {
    let got = Isa::detect().unwrap();
    match variable("SISKIN_EXPECT_ISA") {
        None => say(&format!("detected {got} (SISKIN_EXPECT_ISA is not set: not held against anything)")),
        Some(name) => {
            let want: Isa = name.parse().expect("SISKIN_EXPECT_ISA");
            assert_eq!(got, want, "detected {got}, but SISKIN_EXPECT_ISA says {want}");
            say(&format!("detected {got}, as expected"));
        }
    }
}

#[test]
fn required_tiers_are_there() {
    for name in variable("SISKIN_REQUIRE_ISA").unwrap_or_default().split(',').filter(|n| !n.trim().is_empty())
    {
        let isa: Isa = name.trim().parse().expect("SISKIN_REQUIRE_ISA");
        assert!(isa.is_supported(), "SISKIN_REQUIRE_ISA names {isa}, which this CPU does not have");
    }
}

#[test]
fn a_context_takes_a_tier_if_and_only_if_it_is_supported() {
    let ctx = Ctx::serial().unwrap();
    for &isa in Isa::ALL {
        match ctx.clone().with_isa(isa) {
            Ok(ctx) => assert!(isa.is_supported() && ctx.isa() == isa),
            Err(e) => assert!(!isa.is_supported(), "{e}"),
        }
        assert!(ctx.isa().implies(ctx.clone().with_max_isa(isa).isa()), "a cap of {isa} raised the tier");
    }
}

#[test]
fn supported_tiers_are_closed_under_implication() {
    assert!(Isa::Scalar.is_supported());
    for isa in Isa::supported() {
        for &below in Isa::ALL.iter().filter(|&&below| isa.implies(below)) {
            assert!(below.is_supported(), "{isa} without {below}");
        }
    }
}

#[test]
fn the_cap_of_the_environment_holds() {
    if let Some(name) = variable("SISKIN_MAX_ISA") {
        let cap: Isa = name.parse().expect("SISKIN_MAX_ISA");
        assert_eq!(Isa::detect().unwrap(), Isa::capped(cap));
        assert_eq!(Ctx::new().unwrap().isa(), Isa::capped(cap));
    }
}
