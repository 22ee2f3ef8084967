//! Which ISAs this run has, against what it was meant to have. Without this a detection that breaks would pass as
//! tests that are skipped.
//!
//! * `SISKIN_EXPECT_ISA=avx-vnni`: [`Isa::detect`] must say exactly this (after `SISKIN_MAX_ISA`, where set).
//! * `SISKIN_REQUIRE_ISA=avx2,avx512`: each of these must be supported; a missing one fails instead of being skipped.

use crate::common::implies;
use siskin::internal::core::{Core, Target};
use siskin::internal::isa::FeatureSet;
use siskin::internal::kernels::table::Tier;
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

/// What follows from the sets of features, spelled out: an ISA, and all that it implies.
#[test]
fn sets_imply_what_they_include() {
    use Isa::*;
    let implied: [(Isa, &[Isa]); 11] = [
        (Scalar, &[Scalar]),
        (Avx2, &[Scalar, Avx2]),
        (AvxVnni, &[Scalar, Avx2, AvxVnni]),
        (Avx512, &[Scalar, Avx2, Avx512]),
        (Avx512Vnni, &[Scalar, Avx2, Avx512, Avx512Vnni]),
        (Avx512Bf16, &[Scalar, Avx2, Avx512, Avx512Vnni, Avx512Bf16]),
        (Neon, &[Scalar, Neon]),
        (Sve, &[Scalar, Neon, Sve]),
        (NeonDot, &[Scalar, Neon, NeonDot]),
        (NeonI8mm, &[Scalar, Neon, NeonDot, NeonI8mm]),
        (NeonBf16, &[Scalar, Neon, NeonDot, NeonI8mm, NeonBf16]),
    ];
    for (isa, all) in implied {
        for (other, _) in implied {
            assert_eq!(isa.implies(other), all.contains(&other), "{isa} and {other}");
        }
    }
}

/// Sets of an ISA follow each other, each with all features of the one before.
#[test]
fn sets_of_an_isa_grow() {
    for pair in FeatureSet::all().windows(2).filter(|pair| pair[0].isa == pair[1].isa) {
        assert!(
            implies(&pair[1], &pair[0]) && !implies(&pair[0], &pair[1]),
            "{} {}",
            pair[0].name,
            pair[1].name
        );
    }
}

/// The best row of each ISA; without pairs of bfloat16 where the core is better without.
#[test]
fn a_target_gets_its_row() {
    for isa in Isa::supported() {
        let tier = Tier::of(Target { isa, core: Core::ANY });
        let best = FeatureSet::all().iter().rfind(|set| set.isa == isa && set.is_supported()).unwrap();
        assert_eq!((tier.isa, tier.set.name), (isa, best.name));
        assert_eq!(
            (tier.pairs.is_some(), tier.multiply_pairs.is_some()),
            (isa.pairs_bf16(), isa.pairs_bf16())
        );
        let widening = Tier::of(Target { isa, core: Core { bf16_pairs: false, ..Core::ANY } });
        assert_eq!((widening.isa, widening.set.name), (isa, best.name));
        assert!(widening.pairs.is_none() && widening.multiply_pairs.is_none());
        assert_eq!(widening.bytes.dense.name, tier.bytes.dense.name);
    }
}

/// Cache sizes that blocks were measured with.
#[test]
fn blocks_of_any_core() {
    assert_eq!((Core::ANY.block_bytes(), Core::ANY.share_bytes()), (256 << 10, 400 << 10));
}

#[test]
fn the_cap_of_the_environment_holds() {
    if let Some(name) = variable("SISKIN_MAX_ISA") {
        let cap: Isa = name.parse().expect("SISKIN_MAX_ISA");
        assert_eq!(Isa::detect().unwrap(), Isa::capped(cap));
        assert_eq!(Ctx::new().unwrap().isa(), Isa::capped(cap));
    }
}
