//! A sweep over the kernels of EcoFormer, one call each: every tier against plain loops, bit for bit where those are of the same
//! operations, and against the scalar tier.

use crate::common::{Rng, cases, isas, tiers};
use siskin::internal::kernels::attention::PANEL;
use siskin::internal::kernels::ecoformer::{
    AddRows, Features, GROUP, Lookup, Norms, Signed, centre, inverse_norms, reciprocals, spread,
    spread_bytes, sums_of_group, transpose,
};
use siskin::internal::kernels::float_table::FloatTier;
use siskin::internal::kernels::table::TIERS;
use std::f64::consts::LOG2_E;
use std::ptr;

const POISON: f32 = -77.25;

/// Of each kind of registers once.
fn kinds(test: &str) -> Vec<&'static FloatTier> {
    let mut all: Vec<&'static FloatTier> = vec![];
    for tier in tiers(test) {
        if !all.iter().any(|&other| ptr::eq(other, tier.float)) {
            all.push(tier.float);
        }
    }
    all
}

fn floats(r: &mut Rng, n: usize) -> Vec<f32> {
    (0..n).map(|_| r.float(-2.0, 2.0)).collect()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// What a product with a vector without a direction can be.
const ODD: [f32; 6] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 0.0, -1.0];

#[test]
fn features() {
    let mut r = Rng::new(531);
    let kinds = kinds("features");
    for round in 0..cases(400) {
        let anchors = 1 + r.below(7);
        let inverse: Vec<f32> = (0..PANEL)
            .map(|_| if r.below(4) == 0 { 0.0 } else { [1.0, r.float(0.1, 2.0), 1e-19, 1e22][r.below(4)] })
            .collect();
        let products: Vec<f32> = (0..anchors * PANEL)
            .map(|i| match inverse[i % PANEL] {
                0.0 => ODD[r.below(6)],
                inverse => r.float(-1.0, 1.0) / inverse,
            })
            .collect();
        // Of a squared norm of 1 and a cosine of 1 the distance is 0, or about: it is never below.
        let squares: Vec<f32> = (0..anchors).map(|_| [1.0, r.float(0.0, 3.0), 3e38][r.below(3)]).collect();
        let centring = floats(&mut r, anchors);
        let sigma = [1e-37, 0.001, 0.5, 1.3, 40.0, f64::from(f32::MAX)][round as usize % 6];
        let rate = (-LOG2_E / (2.0 * sigma)) as f32;
        let run = |tier: &FloatTier| {
            let mut rows = products.clone();
            let f = Features {
                rows: rows.as_mut_ptr(),
                anchors,
                inverse: inverse.as_ptr(),
                squares: squares.as_ptr(),
                centring: centring.as_ptr(),
                rate,
            };
            // SAFETY: the tier is supported; there are panels of all anchors.
            unsafe { (tier.hashing.features)(&f) };
            rows
        };
        let want = run(TIERS[0].float);
        for (i, got) in want.iter().enumerate() {
            let (anchor, token) = (i / PANEL, i % PANEL);
            let (square, cosine) = match inverse[token] {
                0.0 => (0.0, 0.0),
                inverse => (1.0, f64::from(products[i]) * f64::from(inverse)),
            };
            let distance = (square + f64::from(squares[anchor]) - 2.0 * cosine).max(0.0);
            let similarity = (-distance / (2.0 * sigma)).exp();
            let apart = (f64::from(*got) - (similarity - f64::from(centring[anchor]))).abs();
            let off = 1e-6 * (1.0 + 1.0 / sigma);
            assert!(apart <= off, "sigma {sigma}, anchor {anchor}, token {token}: {got}, off by {apart}");
        }
        for tier in &kinds {
            assert_eq!(bits(&run(tier)), bits(&want), "{} sigma {sigma}", tier.multiply.name);
        }
    }
}

#[test]
fn signs() {
    const SOME: [f32; 12] = [
        0.0,
        -0.0,
        f32::NAN,
        -f32::NAN,
        1e-45,
        -1e-45,
        f32::MIN_POSITIVE,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::MAX,
        1.0,
        -1.0,
    ];
    let mut r = Rng::new(532);
    for tier in kinds("signs") {
        for n in (0..=256).step_by(1 + 256 / cases(256) as usize) {
            let y: Vec<f32> = (0..n * PANEL).map(|_| SOME[r.below(12)]).collect();
            let mut masks = vec![0x5a5a; n + 2];
            // SAFETY: the tier is supported; there is a mask for each row.
            unsafe { (tier.hashing.signs)(y.as_ptr(), n, masks.as_mut_ptr()) };
            for (b, mask) in masks[..n].iter().enumerate() {
                let want = (0..PANEL).fold(0, |want, t| want | u64::from(y[b * PANEL + t] > 0.0) << t);
                assert_eq!(*mask, want, "{} row {b}", tier.multiply.name);
            }
            assert_eq!(masks[n..], [0x5a5a; 2], "{}: masks behind the last", tier.multiply.name);
        }
    }
}

#[test]
fn lookups() {
    let mut r = Rng::new(533);
    for tier in kinds("lookups") {
        for round in 0..cases(300) {
            let groups = 1 + r.below(40);
            let (words, columns, tokens) = (groups.div_ceil(16), 16 * (1 + r.below(10)), r.below(6));
            let table = floats(&mut r, groups * 16 * columns);
            let codes: Vec<u64> = (0..tokens * words).map(|_| r.next() << 32 ^ r.next()).collect();
            let (base, factors) = (floats(&mut r, columns), floats(&mut r, tokens));
            let (own_row, out_row) = (columns + r.below(3), columns + r.below(3));
            let own = floats(&mut r, tokens * own_row);
            let mut out = vec![POISON; tokens * out_row + 16];
            let [has_base, has_own, has_factors] = [1, 2, 4].map(|bit| round & bit != 0);
            let lookup = Lookup {
                table: table.as_ptr(),
                groups,
                columns,
                codes: codes.as_ptr(),
                words,
                tokens,
                base: if has_base { base.as_ptr() } else { ptr::null() },
                own: if has_own { own.as_ptr().cast() } else { ptr::null() },
                own_stride: 4 * own_row,
                own_factor: 17.0,
                factors: if has_factors { factors.as_ptr() } else { ptr::null() },
                out: out.as_mut_ptr().cast(),
                out_stride: 4 * out_row,
            };
            // SAFETY: the tier is supported; all that is described is there.
            unsafe { (tier.hashing.lookup)(&lookup) };
            let mut want = vec![POISON; out.len()];
            for (t, column) in (0..tokens).flat_map(|t| (0..columns).map(move |column| (t, column))) {
                let part = |group: usize| {
                    let value = codes[t * words + group / 16] >> (GROUP * (group % 16)) & 15;
                    table[(16 * group + value as usize) * columns + column]
                };
                let mut sum = (1..groups).fold(part(0), |sum, group| sum + part(group));
                if has_base {
                    sum += base[column];
                }
                if has_own {
                    sum = 17f32.mul_add(own[t * own_row + column], sum);
                }
                want[t * out_row + column] = if has_factors { sum * factors[t] } else { sum };
            }
            let case = format!("{} {groups} groups, {columns} columns, {round}", tier.multiply.name);
            assert_eq!(bits(&out), bits(&want), "{case}");
        }
    }
}

/// Rows are added in the order of tokens to the sums of the values of their groups, and to nothing else.
#[test]
fn rows_by_codes() {
    let mut r = Rng::new(538);
    for tier in kinds("rows_by_codes") {
        for _ in 0..cases(200) {
            let groups = 1 + r.below(40);
            let (words, columns, tokens) = (groups.div_ceil(16), 16 * (1 + r.below(10)), 1 + r.below(8));
            let (stride, group_stride) = (columns + r.below(3), sums_of_group(columns));
            let rows = floats(&mut r, tokens * stride);
            let codes: Vec<u64> = (0..tokens * words).map(|_| r.next() << 32 ^ r.next()).collect();
            let before = floats(&mut r, groups * group_stride);
            let mut sums = before.clone();
            let call = AddRows {
                rows: rows.as_ptr().cast(),
                stride: 4 * stride,
                codes: codes.as_ptr(),
                words,
                tokens,
                groups,
                columns,
                sums: sums.as_mut_ptr(),
            };
            // SAFETY: the tier is supported; all that is described is there.
            unsafe { (tier.hashing.add_rows)(&call) };
            let mut want = before;
            for (token, group) in (0..tokens).flat_map(|token| (0..groups).map(move |group| (token, group))) {
                let value = codes[token * words + group / 16] >> (GROUP * (group % 16)) & 15;
                let at = group * group_stride + value as usize * columns;
                for (sum, x) in want[at..][..columns].iter_mut().zip(&rows[token * stride..]) {
                    *sum += x;
                }
            }
            let case = format!("{} {groups} groups, {columns} columns, {tokens}", tier.multiply.name);
            assert_eq!(bits(&sums), bits(&want), "{case}");
        }
    }
}

/// Sums of signed rows, beside plain ones in f64, and the same bits on every tier.
#[test]
fn signed_sums() {
    let mut r = Rng::new(539);
    let kinds = kinds("signed_sums");
    for bits_of_code in (1usize..=18).chain([64, 255, 256]) {
        let columns = 16 * (1 + r.below(5));
        let (groups, group_stride) = (bits_of_code.div_ceil(GROUP), sums_of_group(columns));
        let mut sums = floats(&mut r, groups * group_stride);
        // Bits that no code has.
        for value in (0..16).filter(|value| value >> (bits_of_code - GROUP * (groups - 1)) != 0) {
            sums[(groups - 1) * group_stride + value * columns..][..columns].fill(0.0);
        }
        let mut run = |tier: &FloatTier| {
            let mut out = vec![POISON; (bits_of_code + 2) * columns];
            let call = Signed {
                bits: bits_of_code,
                columns,
                rows: out.as_mut_ptr(),
                values: sums.as_mut_ptr(),
                stride: group_stride,
            };
            // SAFETY: the tier is supported; all that is described is there.
            unsafe { (tier.hashing.signed)(&call) };
            assert!(out.drain((bits_of_code + 1) * columns..).all(|x| x == POISON), "wrote too far");
            out
        };
        let scalar = run(TIERS[0].float);
        let all: Vec<_> = kinds.iter().map(|tier| (tier.multiply.name, run(tier))).collect();
        for (b, c) in (0..=bits_of_code).flat_map(|b| (0..columns).map(move |c| (b, c))) {
            let (group, bit) = if b < bits_of_code { (b / GROUP, Some(b % GROUP)) } else { (0, None) };
            let part = |value: usize| {
                let sum = f64::from(sums[group * group_stride + value * columns + c]);
                if bit.is_none_or(|bit| value >> bit & 1 == 1) { sum } else { -sum }
            };
            let want: f64 = (0..16).map(part).sum();
            let got = f64::from(scalar[b * columns + c]);
            assert!((got - want).abs() < 1e-5, "bit {b} of {bits_of_code}, {c}: {got} {want}");
        }
        for (name, got) in all {
            assert_eq!(bits(&got), bits(&scalar), "{name} {bits_of_code} bits");
        }
    }
}

#[test]
fn reciprocals_of_sums() {
    let mut r = Rng::new(540);
    for isa in isas("reciprocals_of_sums") {
        for _ in 0..cases(50) {
            let sums: [i64; PANEL] = std::array::from_fn(|_| (r.next() % (1 << 33)) as i64 - (1 << 32));
            let (more, scale) = ((r.next() % 1000) as i64, f64::from(r.float(-2.0, 2.0)));
            let mut out = [POISON; PANEL];
            // SAFETY: the tier is supported.
            unsafe { reciprocals::pick(isa)(&sums, more, scale, &mut out) };
            for (out, sum) in out.iter().zip(sums) {
                assert_eq!(out.to_bits(), ((scale / (sum + more) as f64) as f32).to_bits(), "{isa} {sum}");
            }
        }
    }
}

#[test]
fn transposes() {
    let mut r = Rng::new(534);
    for isa in isas("transposes") {
        for bits in (1..=64).chain([64; 20]) {
            // SAFETY: the tier is supported.
            let turn =
                |words: &mut [u64; 64], to_codes| unsafe { transpose::pick(isa)(words, to_codes, bits) };
            let masks: [u64; 64] =
                std::array::from_fn(|b| if b < bits { r.next() << 32 ^ r.next() } else { 0 });
            let mut codes = masks;
            turn(&mut codes, true);
            for (token, bit) in (0..64).flat_map(|i| (0..64).map(move |j| (i, j))) {
                assert_eq!(codes[token] >> bit & 1, masks[bit] >> token & 1, "{isa} bit {bit} of {token}");
            }
            turn(&mut codes, false);
            assert_eq!(codes, masks, "{isa} {bits} bits");
        }
    }
}

#[test]
fn spread_bits() {
    let mut r = Rng::new(535);
    for isa in isas("spread_bits") {
        for n in 0..=PANEL {
            let mask = r.next() << 32 ^ r.next();
            let mut signs = [POISON; PANEL];
            // SAFETY: the tier is supported.
            unsafe { spread::pick(isa)(mask, &mut signs[..n]) };
            let mut bytes = [77u8; PANEL];
            // SAFETY: as above.
            unsafe { spread_bytes::pick(isa)(mask, &mut bytes[..n]) };
            for (t, (sign, byte)) in signs.into_iter().zip(bytes).enumerate() {
                let want = if mask >> t & 1 == 1 { (1.0, 1) } else { (-1.0, 0) };
                assert_eq!((sign, byte), if t < n { want } else { (POISON, 77) }, "{isa} {t} of {n}");
            }
        }
    }
}

#[test]
fn tables_of_sums() {
    let mut r = Rng::new(536);
    for tier in kinds("tables_of_sums") {
        let name = tier.multiply.name;
        for n in [1, 2, 3, 4, 5, 8, 15, 66] {
            for columns in [16, 48] {
                let mut rows = floats(&mut r, n * columns);
                rows[0] = -0.0;
                let groups = n.div_ceil(GROUP);
                let mut table = vec![POISON; groups * 16 * columns + 16];
                let call = Signed {
                    bits: n,
                    columns,
                    rows: rows.as_mut_ptr(),
                    values: table.as_mut_ptr(),
                    stride: 16 * columns,
                };
                // SAFETY: the tier is supported; all that is described is there.
                unsafe { (tier.hashing.tables)(&call) };
                assert!(table.drain(groups * 16 * columns..).all(|x| x == POISON), "{name} wrote too far");
                for (i, got) in table.iter().enumerate() {
                    let (group, value, column) = (i / columns / 16, i / columns % 16, i % columns);
                    let own = GROUP * group..(GROUP * (group + 1)).min(n);
                    let signed = own.clone().map(|row| {
                        let x = rows[row * columns + column];
                        if value >> (row - own.start) & 1 == 1 { x } else { -x }
                    });
                    let want = signed.reduce(|sum, x| sum + x).unwrap();
                    assert_eq!(got.to_bits(), want.to_bits(), "{name} {n} rows, {group} {value} {column}");
                }
            }
        }
    }
}

#[test]
fn bytes_are_centred() {
    let bytes: Vec<u8> = (0..=255).collect();
    for isa in isas("bytes_are_centred") {
        for (flip, zero) in [(0, 0), (0, -128), (0, 127), (0x80, -128), (0x80, 0), (0x80, 127)] {
            for n in [0, 1, 31, 256] {
                let mut out = [POISON; 256];
                // SAFETY: the tier is supported.
                unsafe { centre::pick(isa)(&bytes[..n], flip, zero, &mut out[..n]) };
                for (i, got) in out.iter().enumerate() {
                    let signed = if flip == 0 { i32::from(i as u8 as i8) } else { i as i32 - 128 };
                    assert_eq!(*got, if i < n { (signed - zero) as f32 } else { POISON }, "{isa} {i}");
                }
            }
        }
    }
}

/// The squares of a row in 16 lanes, as the rule says, and about what they are in f64.
fn square_of(row: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 16];
    for (c, x) in row.iter().enumerate() {
        lanes[c % 16] = x.mul_add(*x, lanes[c % 16]);
    }
    let four = |l: usize| (lanes[l] + lanes[l + 1]) + (lanes[l + 2] + lanes[l + 3]);
    let square = (four(0) + four(4)) + (four(8) + four(12));
    let exact: f64 = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    assert!(!square.is_finite() || square < 1e-30 || (f64::from(square) - exact).abs() < 1e-5 * exact);
    square
}

#[test]
fn norms() {
    let mut r = Rng::new(537);
    for tier in kinds("norms") {
        let name = tier.multiply.name;
        for dim in 0..=70 {
            let (tokens, stride) = (1 + r.below(PANEL), dim + r.below(3));
            let mut rows = floats(&mut r, tokens * stride);
            for x in &mut rows {
                match r.below(300) {
                    0 => *x = [f32::NAN, f32::INFINITY, -1e19, 1e20, f32::MIN][r.below(5)],
                    1 => *x = [0.0, -0.0, 1e-23, 1e-20][r.below(4)],
                    _ => {}
                }
            }
            let mut squares = [POISON; PANEL + 16];
            let call = Norms {
                rows: rows.as_ptr().cast(),
                stride: 4 * stride,
                tokens,
                dim,
                squares: squares.as_mut_ptr(),
            };
            // SAFETY: the tier is supported; all that is described is there.
            unsafe { (tier.hashing.norms)(&call) };
            assert_eq!(squares[PANEL..], [POISON; 16], "{name} wrote too far");
            for (t, got) in squares[..PANEL].iter().enumerate() {
                let want = if t < tokens { square_of(&rows[t * stride..][..dim]) } else { 0.0 };
                let case = format!("{name} {dim} features, token {t} of {tokens}: {got} {want}");
                assert!(got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(), "{case}");
            }
        }
    }
    for isa in isas("norms") {
        let mut inverse: [f32; PANEL] = std::array::from_fn(|_| r.float(0.0, 3.0));
        let odd = [0.0, -0.0, f32::NAN, f32::INFINITY, f32::MAX, f32::MIN_POSITIVE, 1e-45, -1.0];
        inverse[..odd.len()].copy_from_slice(&odd);
        let squares = inverse;
        // SAFETY: the tier is supported.
        unsafe { inverse_norms::pick(isa)(&mut inverse) };
        for (got, square) in inverse.iter().zip(squares) {
            let want = if square > 0.0 && square.is_finite() { 1.0 / square.sqrt() } else { 0.0 };
            assert_eq!(got.to_bits(), want.to_bits(), "{isa} {square}");
        }
    }
}
