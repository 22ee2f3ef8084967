//! Which ISAs this run has, against what it was meant to have. Without this a detection that breaks would pass as
//! tests that are skipped.
//!
//! * `SISKIN_EXPECT_ISA=avx-vnni`: [`Isa::detect`] must say exactly this (after `SISKIN_MAX_ISA`, where set).
//! * `SISKIN_REQUIRE_ISA=avx2,avx512`: each of these must be supported; a missing one fails instead of being skipped.

use crate::common::{Rng, implies, isas};
use siskin::internal::core::Target;
use siskin::internal::isa::FeatureSet;
use siskin::internal::kernels::table::Tier;
use siskin::linear::{Epilogue, Linear};
use siskin::sparse::{BlockShape, Norm, prune};
use siskin::{Bf16Pairs, Core, Ctx, Element, Isa, MatMut, MatRef, Scratch, SparseCost, bf16};
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

/// The best row of each ISA; without pairs of bfloat16 where they are not wanted.
#[test]
fn a_target_gets_its_row() {
    for isa in Isa::supported() {
        let tier = Tier::of(Target { isa, pairs: true });
        let best = FeatureSet::all().iter().rfind(|set| set.isa == isa && set.is_supported()).unwrap();
        assert_eq!((tier.isa, tier.set.name), (isa, best.name));
        assert_eq!(
            (tier.pairs.is_some(), tier.multiply_pairs.is_some()),
            (isa.pairs_bf16(), isa.pairs_bf16())
        );
        let widening = Tier::of(Target { isa, pairs: false });
        assert_eq!((widening.isa, widening.set.name), (isa, best.name));
        assert!(widening.pairs.is_none() && widening.multiply_pairs.is_none());
        assert_eq!(widening.bytes.dense.name, tier.bytes.dense.name);
    }
}

/// Blocks of any size give the same bits.
#[test]
fn caches_change_no_answer() {
    let (m, n, k) = (70, 130, 120);
    let mut r = Rng::new(12);
    let mut floats = |len: usize| (0..len).map(|_| r.float(-1.0, 1.0)).collect::<Vec<_>>();
    let (w, x) = (floats(n * k), floats(m * k));
    let (w, x) = (MatRef::new(&w, n, k).unwrap(), MatRef::new(&x, m, k).unwrap());
    let pruned = prune::magnitude(w, BlockShape::B4X1, 0.6, Norm::L2).unwrap();
    let layers = |ctx: &Ctx| {
        [
            Linear::quantize_dense(w).unwrap().build(ctx).unwrap(),
            Linear::quantize_sparse(&pruned).unwrap().build(ctx).unwrap(),
            Linear::dense(w).build(ctx).unwrap(),
            Linear::sparse(&pruned).build(ctx).unwrap(),
        ]
    };
    for isa in Isa::supported() {
        let outputs = |core: &str| {
            let ctx = Ctx::serial().unwrap().with_isa(isa).unwrap().with_core(core.parse().unwrap());
            layers(&ctx).map(|layer| {
                let mut y = vec![0.0f32; m * n];
                let to = MatMut::new(&mut y, m, n).unwrap();
                layer.forward(x, Epilogue::new(), to, &ctx, &mut Scratch::new()).unwrap();
                y
            })
        };
        let small = outputs("bf16-pairs=1 division=1 sparse=1,1,1,1,1 l1d=4096 l2=4096");
        assert_eq!(
            small,
            outputs("bf16-pairs=1 division=1 sparse=1,1,1,1,1 l1d=32768 l2=1073741824"),
            "{isa}"
        );
    }
}

/// A layer of bfloat16 is packed for pairs where the context says so, and only where the ISA has them.
#[test]
fn pairs_are_a_choice() {
    let w = [bf16::ONE; 8];
    for isa in Isa::supported() {
        let ctx = Ctx::serial().unwrap().with_isa(isa).unwrap();
        let slow: Core = "bf16-pairs=0.5 division=1 sparse=1,1,1,1,1 l1d=32768 l2=524288".parse().unwrap();
        let fast: Core = "bf16-pairs=1.5 division=1 sparse=1,1,1,1,1 l1d=32768 l2=524288".parse().unwrap();
        let has = isa.pairs_bf16();
        for (ctx, pairs) in [
            (ctx.clone().with_core(slow), false),
            (ctx.clone().with_core(fast), has),
            (ctx.clone().with_core(slow).with_bf16_pairs(Bf16Pairs::Always), has),
            (ctx.clone().with_core(fast).with_bf16_pairs(Bf16Pairs::Never), false),
        ] {
            assert_eq!(ctx.pairs_bf16(), pairs, "{isa} {:?} {}", ctx.bf16_pairs(), ctx.core());
            let layer = Linear::dense(MatRef::new(&w, 2, 4).unwrap()).build(&ctx).unwrap();
            assert_eq!(layer.input_element(), if pairs { Element::Bf16 } else { Element::F32 });
            // What packed the layer decides, not what calls it.
            let (mut y, mut scratch) = ([0.0f32; 2], Scratch::new());
            let x = [1.0f32, 2.0, 3.0, 4.0];
            let other = ctx.clone().with_bf16_pairs(if pairs { Bf16Pairs::Never } else { Bf16Pairs::Always });
            let (x, to) = (MatRef::new(&x, 1, 4).unwrap(), MatMut::new(&mut y, 1, 2).unwrap());
            layer.forward(x, Epilogue::new(), to, &other, &mut scratch).unwrap();
            assert_eq!(y, [10.0, 10.0]);
        }
    }
}

/// A core that no machine has is brought inside of what kernels can be chosen for.
#[test]
fn a_core_is_limited() {
    let mut core = Core::ANY;
    (core.l1d, core.l2, core.bf16_pairs, core.division) = (0, usize::MAX, f32::NAN, f32::INFINITY);
    (core.sparse.any_4, core.sparse.any_1) = (f32::NEG_INFINITY, f32::NAN);
    let core = Ctx::serial().unwrap().with_core(core).core();
    assert_eq!((core.l1d, core.l2, core.bf16_pairs, core.division), (4 << 10, 1 << 30, 1.0, 1000.0));
    assert_eq!((core.sparse.any_4, core.sparse.any_1), (0.0, 1.0));
    assert_eq!(core.to_string().parse::<Core>().unwrap().sparse, core.sparse);
}

/// Sparse layers of INT8 run dense where that is faster, with the same answers, and say at which sparsity that turns.
#[test]
fn sparse_layers_run_dense_where_that_is_faster() {
    let (n, k, m) = (64, 96, 5);
    let mut r = Rng::new(13);
    let w: Vec<f32> = (0..n * k).map(|_| r.float(-1.0, 1.0)).collect();
    let w = MatRef::new(&w, n, k).unwrap();
    let x: Vec<f32> = (0..m * k).map(|_| r.float(-1.0, 1.0)).collect();
    let ctx = |cost: f32| {
        let core =
            format!("bf16-pairs=1 division=1 sparse={cost},{cost},{cost},{cost},{cost} l1d=32768 l2=524288");
        Ctx::serial().unwrap().with_core(core.parse().unwrap())
    };
    for (rows, cols) in [(4, 1), (4, 4), (1, 1), (1, 4)] {
        for sparsity in [0.1, 0.4, 0.6, 0.9] {
            let block = BlockShape::new(rows, cols).unwrap();
            let pruned = prune::magnitude(w, block, sparsity, Norm::L2).unwrap();
            let builder = || Linear::quantize_sparse(&pruned).unwrap();
            let answer = |layer: &Linear| {
                let mut y = vec![0.0f32; m * n];
                let to = MatMut::new(&mut y, m, n).unwrap();
                let x = MatRef::new(&x, m, k).unwrap();
                layer.forward(x, Epilogue::new(), to, &ctx(1.0), &mut Scratch::new()).unwrap();
                y
            };
            let kept = builder().keep_sparse().build(&ctx(9.0)).unwrap();
            assert!(!kept.is_dense());
            for cost in [1.0, 2.0, 3.0] {
                let layer = builder().build(&ctx(cost)).unwrap();
                let turn = layer.dense_below().unwrap();
                let own = pruned.statistics().sparsity();
                assert_eq!(layer.is_dense(), own < turn, "{block} {own} {turn}");
                // What four columns are padded to costs too.
                let unpadded = 1.0 - 1.0 / f64::from(cost);
                assert!((unpadded - 1e-9..unpadded + 0.45).contains(&turn), "{block} {cost} {turn}");
                assert_eq!(layer.kernel(m).contains("dense"), layer.is_dense());
                assert_eq!(answer(&layer), answer(&kept));
                assert_eq!(layer.stored_values(), kept.stored_values());
            }
        }
    }
    // Eight rows at once have a cost of their own, where there are kernels of them.
    let core = "bf16-pairs=1 division=1 sparse=2,4,1,1,1 l1d=32768 l2=524288".parse().unwrap();
    for isa in isas("sparse_layers_run_dense_where_that_is_faster") {
        let ctx = Ctx::serial().unwrap().with_isa(isa).unwrap().with_core(core);
        let turn = |rows: usize| {
            let pruned = prune::magnitude(w, BlockShape::new(rows, 1).unwrap(), 0.8, Norm::L2).unwrap();
            let layer = Linear::quantize_sparse(&pruned).unwrap().keep_sparse().build(&ctx).unwrap();
            (layer.dense_below().unwrap(), layer.kernel(64).contains("-8x64"))
        };
        // A stored weight costs four times as much, and what four columns are padded to costs too; or half of that.
        let (four, eight) = (0.75..0.87, 0.5..0.74);
        let ((of_four, _), (of_eight, tall)) = (turn(4), turn(8));
        assert!(four.contains(&of_four), "{isa} {of_four}");
        assert!(if tall { eight } else { four }.contains(&of_eight), "{isa} {of_eight} {tall}");
    }
    // Floats stay: a pruned weight is not multiplied, and infinity times 0 would be NaN.
    let pruned = prune::magnitude(w, BlockShape::B4X1, 0.1, Norm::L2).unwrap();
    let layer = Linear::sparse(&pruned).build(&ctx(9.0)).unwrap();
    assert!(!layer.is_dense() && layer.dense_below().is_none());
}

/// A core can be kept as text; the one that is measured too.
#[test]
fn a_core_is_what_its_text_says() {
    for core in [Core::ANY, Ctx::new().unwrap().core(), Ctx::tuned().unwrap().core()] {
        let again: Core = core.to_string().parse().unwrap();
        assert_eq!((again.bf16_pairs, again.division), (core.bf16_pairs, core.division));
        assert_eq!((again.l1d, again.l2, again.sparse), (core.l1d, core.l2, core.sparse));
        assert!(!core.name.is_empty() && !core.source.is_empty());
    }
    let tuned = Ctx::tuned().unwrap().core();
    let SparseCost { any_8, any_4, adjacent_4, any_1, adjacent_1, .. } = tuned.sparse;
    // They were timed, and what was timed took time. How much is not for a test to say: the machine may be busy.
    assert_ne!(tuned.sparse, Core::ANY.sparse);
    assert!([any_8, any_4, adjacent_4, any_1, adjacent_1].iter().all(|&cost| cost > 0.0), "{tuned}");
    // Four costs are those from before groups of eight rows had one.
    let before: Core = "bf16-pairs=2 division=1 sparse=2,1,3,1.5 l1d=32768 l2=524288".parse().unwrap();
    let after = "bf16-pairs=2 division=1 sparse=2,2,1,3,1.5 l1d=32768 l2=524288".parse::<Core>().unwrap();
    assert_eq!(before.sparse, after.sparse);
    for wrong in [
        "",
        "l2=524288",
        "bf16-pairs=2 division=1 sparse=1,1,1,1,1 l1d=32768",
        "bf16-pairs=2 division=1 sparse=1,1,1,1,1 l1d=32768 l2=524288 l2=524288",
        "bf16-pairs=2 division=1 sparse=1,1,1,1,1 l1d=32768 l2=524288 l3=1",
        "bf16-pairs=NaN division=1 sparse=1,1,1,1,1 l1d=32768 l2=524288",
        "bf16-pairs=-1 division=1 sparse=1,1,1,1,1 l1d=32768 l2=524288",
        "bf16-pairs=2 division=1 sparse=1,1,1,1,1 l1d=1 l2=524288",
        "bf16-pairs=2 division=1 sparse=1,1,1,1,1 l1d=32768 l2=99999999999",
        "bf16-pairs=2 division=1 sparse=1,1,1 l1d=32768 l2=524288",
        "bf16-pairs=2 division=1 sparse=1,1,1,1,-1 l1d=32768 l2=524288",
        "bf16-pairs=two division=1 sparse=1,1,1,1,1 l1d=32768 l2=524288",
    ] {
        assert!(wrong.parse::<Core>().is_err(), "{wrong:?}");
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
