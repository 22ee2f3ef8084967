//! The grammar of kernel names, `set-types-operation-layout-rowsxcolumns` (see `kernels/table.rs`), over all tables: each name says
//! what its kernel is, and no two kernels of a row have the same.

use crate::common::implies;
use siskin::internal::isa::FeatureSet;
use siskin::internal::kernels::byte_table::DenseKernel;
use siskin::internal::kernels::float_table::FloatKernels;
use siskin::internal::kernels::odd::ODD;
use siskin::internal::kernels::panel::PanelLayout as Layout;
use siskin::internal::kernels::table::{TIERS, Tier};
use std::collections::HashSet;

const ELEMENTS: [&str; 6] = ["u8", "i8", "bf16", "f16", "f32", "b1"];
const OPERATIONS: [&str; 8] =
    ["dense", "sparse", "gather", "scatter", "gemv", "lookup", "attention", "hamming"];
const LAYOUTS: [&str; 5] = ["rows", "kmajor", "kmajor2", "kmajor4", "kmajor16"];

/// The parts of a name.
#[derive(Debug, PartialEq, Eq)]
struct Name<'a> {
    set: &'a str,
    types: [&'a str; 2],
    operation: &'a str,
    layout: &'a str,
    tile: [usize; 2],
}

fn one_of<'a>(all: &[&str], part: &'a str) -> Option<&'a str> {
    all.contains(&part).then_some(part)
}

fn parse(name: &str) -> Option<Name<'_>> {
    let [set, types, operation, layout, tile]: [&str; 5] =
        name.split('-').collect::<Vec<_>>().try_into().ok()?;
    let known = |set: &str| set == "odd" || FeatureSet::all().iter().any(|known| known.name == set);
    let two = |i: usize| {
        let (x, w) = types.split_at_checked(i)?;
        Some([one_of(&ELEMENTS, x)?, one_of(&ELEMENTS, w)?])
    };
    let number = |text: &str| text.parse().ok().filter(|n: &usize| *n > 0 && n.to_string() == text);
    let (rows, columns) = tile.split_once('x')?;
    Some(Name {
        set: known(set).then_some(set)?,
        types: (0..types.len()).find_map(two)?,
        operation: one_of(&OPERATIONS, operation)?,
        layout: one_of(&LAYOUTS, layout)?,
        tile: [number(rows)?, number(columns)?],
    })
}

/// A name and what it must say: types, operation, layout and tile.
type Said = (&'static str, [&'static str; 2], &'static str, &'static str, [usize; 2]);

fn layout(of: Layout) -> &'static str {
    match of {
        Layout::KMajor => "kmajor",
        Layout::KMajor4 => "kmajor4",
        other => panic!("no sparse kernel of bytes reads {other:?}"),
    }
}

fn dense(kernel: &DenseKernel, types: [&'static str; 2]) -> Said {
    (kernel.name, types, "dense", "rows", [kernel.run.len(), kernel.nr])
}

fn sparse_floats(
    kernels: &'static FloatKernels,
    types: [&'static str; 2],
    layout: &'static str,
) -> Vec<Said> {
    let gather = kernels
        .gather
        .iter()
        .chain(kernels.two)
        .map(|k| (k.name, types, "gather", layout, [k.rows, k.tokens]));
    let scatter = kernels.scatter.iter().map(|k| (k.name, types, "scatter", layout, [4, k.tokens]));
    gather.chain(scatter).collect()
}

/// What the names of a row of bytes must say.
fn bytes(tier: &'static Tier) -> Vec<Said> {
    let types = if tier.bytes.signed { ["i8", "i8"] } else { ["u8", "i8"] };
    let tall = tier.bytes.tall.map(|k| (k.name, types, "sparse", layout(k.layout), [k.rows, k.tokens]));
    let sparse =
        tier.bytes.sparse.iter().map(|k| (k.name, types, "sparse", layout(k.layout), [k.rows, k.tokens]));
    let sparse = sparse.chain(tall);
    sparse.chain([dense(&tier.bytes.dense, types)]).collect()
}

/// What all names of a row must say.
fn said(tier: &'static Tier) -> Vec<Said> {
    let types = if tier.bytes.signed { ["i8", "i8"] } else { ["u8", "i8"] };
    let mut all = bytes(tier);
    all.extend(
        tier.bytes.few.iter().map(|k| (k.name, types, "sparse", layout(k.layout), [k.rows, k.tokens])),
    );
    all.extend(tier.bytes.gemv.iter().map(|k| (k.name, types, "gemv", layout(k.layout), [k.rows, 1])));
    let lookup = tier.bytes.lookup.iter().flat_map(|l| l.kernels.as_flattened());
    all.extend(lookup.map(|k| (k.name, types, "lookup", "rows", [k.rows, k.tokens])));
    for kernel in tier.float.f32.dense {
        all.push(dense(kernel, ["f32", kernel.stored.name()]));
    }
    all.extend(sparse_floats(&tier.float.f32, ["f32", "f32"], "kmajor"));
    for (few, operation) in tier.float.few.iter().zip(["gemv", "gather"]) {
        all.push((few.name, ["f32", "f32"], operation, "kmajor", [4, few.tokens]));
    }
    if let Some(pairs) = tier.pairs {
        all.extend(pairs.dense.iter().map(|kernel| dense(kernel, ["bf16", "bf16"])));
        all.extend(sparse_floats(pairs, ["bf16", "bf16"], "kmajor2"));
    }
    let columns = tier.multiply.columns.name();
    let attention = [
        (Some(tier.multiply), ["u8", columns], "kmajor4"),
        (Some(tier.float.multiply), ["f32", "f32"], "kmajor"),
        (tier.multiply_pairs, ["bf16", "bf16"], "kmajor2"),
    ];
    for (kernel, types, layout) in attention.into_iter().filter_map(|(k, t, l)| Some((k?, t, l))) {
        all.push((kernel.name, types, "attention", layout, [kernel.rows(), kernel.widths[0].columns]));
    }
    let rows = tier.codes.widths.iter().map(|w| w.rows).max().unwrap();
    all.push((tier.codes.name, ["b1", "b1"], "hamming", "kmajor16", [rows, tier.codes.lanes]));
    all
}

fn check(all: Vec<Said>, runs: impl Fn(&str) -> bool) {
    let mut seen = HashSet::new();
    for (name, types, operation, layout, tile) in all {
        let parsed = parse(name).unwrap_or_else(|| panic!("{name}: not a name of a kernel"));
        assert!(runs(parsed.set), "{name}: in a row of other features");
        assert_eq!(parsed, Name { set: parsed.set, types, operation, layout, tile }, "{name}");
        assert!(seen.insert(name), "{name}: twice");
    }
}

#[test]
fn names_say_what_kernels_are() {
    for tier in TIERS {
        let implied = |name: &str| FeatureSet::all().iter().any(|s| s.name == name && implies(tier.set, s));
        check(said(tier), implied);
    }
    for tier in ODD {
        check(bytes(tier), |set| set == "odd");
    }
}

#[test]
fn other_names_are_refused() {
    assert!(parse("scalar-u8i8-dense-rows-3x8").is_some());
    for name in [
        "scalar-u8i8-dense-rows",
        "scalar-u8i8-dense-rows-3x8-1",
        "mmx-u8i8-dense-rows-3x8",
        "scalar-u8-dense-rows-3x8",
        "scalar-u8i9-dense-rows-3x8",
        "scalar-u8i8-matmul-rows-3x8",
        "scalar-u8i8-dense-columns-3x8",
        "scalar-u8i8-dense-rows-3",
        "scalar-u8i8-dense-rows-03x8",
        "scalar-u8i8-dense-rows-3x0",
    ] {
        assert_eq!(parse(name), None, "{name}");
    }
}
