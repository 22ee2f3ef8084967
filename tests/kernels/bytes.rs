//! Every kernel of the table against loops written here: depths around every step, missing rows, split groups, strides.

use crate::common::{Rng, cases, tiers};
use siskin::Element;
use siskin::MatRef;
use siskin::internal::buffer::memory;
use siskin::internal::driver::linear::weights::Dense;
use siskin::internal::kernels::activation::{Curve, evaluate};
use siskin::internal::kernels::dense::Tile;
use siskin::internal::kernels::epilogue::Finish;
use siskin::internal::kernels::few::STRIDE;
use siskin::internal::kernels::gemv::GATHER;
use siskin::internal::kernels::pack::{Tokens, quad_offset};
use siskin::internal::kernels::panel::PanelLayout as Layout;
use siskin::internal::kernels::scalar::Scalar;
use siskin::internal::kernels::simd::Simd;
use siskin::internal::kernels::sparse::{self, Band, Group};
use siskin::internal::kernels::table::Tier;

/// Groups of random columns, and what to multiply them with.
struct Problem {
    groups: Vec<Group>,
    indices: Vec<u16>,
    weights: Vec<i8>,
    panel: Vec<u8>,
    init: Vec<i32>,
    first_row: usize,
    rows: usize,
}

const K: usize = 64;
const BASE: usize = 16;

impl Problem {
    fn new(r: &mut Rng, layout: Layout, height: usize, width: usize, lens: &[usize], extreme: bool) -> Self {
        Self::with_features(r, layout, height, (width, K), lens, extreme)
    }

    fn with_features(
        r: &mut Rng,
        layout: Layout,
        height: usize,
        (width, k): (usize, usize),
        lens: &[usize],
        extreme: bool,
    ) -> Self {
        let first_row = [0, 64][r.below(2)];
        let mut this = Problem {
            groups: vec![],
            indices: vec![],
            weights: vec![],
            panel: r.bytes((k + BASE) * width),
            init: vec![],
            first_row,
            rows: 0,
        };
        let mut row = first_row;
        for &len in lens {
            let rows = if r.below(3) == 0 { 1 + r.below(height) } else { height };
            this.groups.push(Group {
                row: row as u32,
                rows: rows as u32,
                // Groups of eight rows are two of four, one behind the other.
                start: (this.weights.len() / (4 * height.min(4))) as u32,
                len: len as u32,
                base: if r.below(3) == 0 { BASE as u32 } else { 0 },
            });
            row += rows;
            for _ in 0..len {
                match layout {
                    Layout::KMajor => this.indices.extend((0..4).map(|_| r.below(k) as u16)),
                    _ => this.indices.push(r.below(k / 4) as u16),
                }
            }
            let indices = if layout == Layout::KMajor { 4 * len } else { len };
            let first = this.indices.len() - indices;
            this.indices[first..].sort_unstable();
            if height == 8 {
                this.indices.extend_from_within(first..);
            }
            this.weights.extend(r.signed(len * height * 4));
        }
        this.rows = row - first_row;
        if extreme {
            this.panel.iter_mut().for_each(|b| *b = if r.below(2) == 0 { 0 } else { 255 });
            this.weights.iter_mut().for_each(|b| *b = if r.below(2) == 0 { -128 } else { 127 });
        }
        // Not in the order of their rows, as the packer may leave them.
        this.groups.reverse();
        this.weights.extend([99; 64]);
        this.init = (0..row + 64).map(|_| r.next() as i32).collect();
        this
    }

    fn band(&self) -> Band<'_> {
        Band {
            groups: &self.groups,
            indices: &self.indices,
            weights: memory(&self.weights),
            panel: &self.panel,
            init: &self.init,
            first_row: self.first_row,
        }
    }

    /// `[row][width]`, where x is signed or not.
    fn expected(&self, layout: Layout, height: usize, width: usize, signed: bool) -> Vec<i32> {
        let mut out = vec![0; self.rows * width];
        for g in &self.groups {
            for row in 0..g.rows as usize {
                for t in 0..width {
                    let feature = g.row as usize + row;
                    let mut sum = i64::from(self.init[feature]);
                    let fours = height.min(4);
                    for e in g.start as usize..(g.start + g.len) as usize {
                        let (own, r) = (e + row / 4 * g.len as usize, row % 4);
                        for i in 0..4 {
                            let at = match layout {
                                Layout::KMajor => {
                                    (g.base as usize + usize::from(self.indices[4 * e + i])) * width + t
                                }
                                _ => {
                                    let quad = g.base as usize / 4 + usize::from(self.indices[e]);
                                    quad_offset(width, quad, t) + i
                                }
                            };
                            sum += number(self.panel[at], signed)
                                * i64::from(self.weights[(own * fours + r) * 4 + i]);
                        }
                    }
                    out[(feature - self.first_row) * width + t] = sum as i32;
                }
            }
        }
        out
    }
}

/// Sums of panels of 64 tokens in the order in which kernels store them.
fn in_registers(tier: &Tier, sums: &[i32]) -> Vec<i32> {
    let mut stored = vec![POISON; sums.len()];
    for (i, &sum) in sums.iter().enumerate() {
        stored[i / 64 * 64 + sparse::place(tier.packing.lanes, i % 64)] = sum;
    }
    stored
}

/// What a byte of x is.
fn number(byte: u8, signed: bool) -> i64 {
    if signed { (byte as i8).into() } else { byte.into() }
}

const LENS: [usize; 20] = [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 100];
const POISON: i32 = 0x5a5a_5a5a;

/// Some numbers of entries, in turn. Groups of eight rows have at least one.
fn lens(rows: usize, numbers: std::ops::Range<usize>) -> Vec<usize> {
    numbers.map(|i| LENS[i % LENS.len()].max(rows / 8)).collect()
}

#[test]
fn sparse_kernels() {
    let mut r = Rng::new(1);
    for tier in tiers("sparse_kernels") {
        assert_eq!(tier.bytes.sparse.len(), 12);
        for kernel in tier.bytes.sparse.iter().chain(tier.bytes.tall) {
            for round in 0..cases(8) {
                let lens = lens(kernel.rows, round as usize * 6..round as usize * 6 + 6);
                // The last two are cut into blocks of K where a group is one row.
                let k = [K, K, 1536 - BASE, 2000][round as usize % 4];
                let extreme = round % 8 == 3;
                let p = Problem::with_features(
                    &mut r,
                    kernel.layout,
                    kernel.rows,
                    (kernel.tokens, k),
                    &lens,
                    extreme,
                );
                let sums = p.expected(kernel.layout, kernel.rows, kernel.tokens, tier.bytes.signed);
                let want = match kernel.tokens {
                    64 => in_registers(tier, &sums),
                    _ => sums,
                };
                let mut got = vec![POISON; want.len() + 64];
                // SAFETY: the tier is supported; the problem's groups, indices and panel fit each other; there is room.
                unsafe { (kernel.spill)(&p.band(), got.as_mut_ptr()) };
                assert_eq!(got[..want.len()], want, "{} {lens:?}", kernel.name);
                assert!(got[want.len()..].iter().all(|&v| v == POISON), "{} wrote too far", kernel.name);
            }
        }
    }
}

#[test]
fn sparse_kernels_of_few_tokens() {
    let mut r = Rng::new(11);
    for tier in tiers("sparse_kernels_of_few_tokens") {
        assert_eq!(tier.bytes.few.len(), 8);
        for kernel in tier.bytes.few {
            for round in 0..cases(12) {
                let lens: Vec<usize> = (0..6).map(|i| LENS[(round as usize * 6 + i) % LENS.len()]).collect();
                let (rows, tokens) = (kernel.rows, kernel.tokens);
                let p = Problem::new(&mut r, kernel.layout, rows, tokens, &lens, round % 8 == 3);
                let want = p.expected(kernel.layout, rows, tokens, tier.bytes.signed);
                let mut got = vec![POISON; tokens * STRIDE];
                // SAFETY: the tier is supported; the problem's groups, indices and panel fit each other; there is room.
                unsafe { (kernel.spill)(&p.band(), got.as_mut_ptr()) };
                for (i, &got) in got.iter().enumerate() {
                    let (t, row) = (i / STRIDE, i % STRIDE);
                    let want = if row < p.rows { want[row * tokens + t] } else { POISON };
                    assert_eq!(got, want, "{} {lens:?} row {row} token {t}", kernel.name);
                }
            }
        }
    }
}

/// The fused ends: against the sums of the loop, finished one by one.
#[test]
fn sparse_kernels_to_bytes() {
    let mut r = Rng::new(8);
    for tier in tiers("sparse_kernels_to_bytes") {
        for kernel in tier.bytes.sparse.iter().filter(|k| k.tokens == 64).chain(tier.bytes.tall) {
            for round in 0..cases(16) {
                let lens = lens(kernel.rows, round as usize * 5..round as usize * 5 + 5);
                let k = if round % 3 == 2 { 1700 } else { K };
                let mut p = Problem::with_features(
                    &mut r,
                    kernel.layout,
                    kernel.rows,
                    (64, k),
                    &lens,
                    round % 5 == 4,
                );
                p.init.iter_mut().for_each(|v| *v %= 100_000);
                let sums = p.expected(kernel.layout, kernel.rows, 64, tier.bytes.signed);
                let scale: Vec<f32> = p.init.iter().map(|_| r.float(1e-5, 1e-3)).collect();
                let bias: Vec<f32> = p.init.iter().map(|_| r.float(-5.0, 5.0)).collect();
                let table: [u8; 256] = std::array::from_fn(|_| r.byte());
                let activation =
                    [Curve::Identity, Curve::Gelu, Curve::GeluTanh, Curve::Silu][round as usize % 4];
                let (low, high) = if r.below(2) == 0 { (0, 255) } else { (40, 200) };
                let to = Finish {
                    scale: &scale,
                    bias: &bias,
                    token_scale: None,
                    corrections: [None; 2],
                    residual: None,
                    curve: activation,
                    clamp: (f32::NEG_INFINITY, f32::INFINITY),
                    element: Element::U8,
                    post: 3.7,
                    zero: r.below(256) as i32,
                    low,
                    high,
                    table: if r.below(2) == 0 { Some(&table) } else { None },
                    flip: 0,
                    saturating: true,
                };
                let mut got = vec![0xa5u8; sums.len() + 64];
                // SAFETY: as above; there are parameters for all rows.
                unsafe {
                    if activation == Curve::Identity {
                        Tier::ends(kernel)(&p.band(), &to, got.as_mut_ptr());
                    } else {
                        let rows = sums.len() / 64;
                        (tier.packing.requantize_rows)(
                            &to,
                            in_registers(tier, &sums).as_ptr(),
                            p.first_row,
                            rows,
                            got.as_mut_ptr(),
                        );
                    }
                }
                for (i, &sum) in sums.iter().enumerate() {
                    let row = p.first_row + i / 64;
                    let mut v = (sum as f32).mul_add(scale[row], bias[row]);
                    if activation != Curve::Identity {
                        v = evaluate(activation, v) * to.post;
                    }
                    let q = (v.round_ties_even() + to.zero as f32).clamp(low.into(), high.into()) as u8;
                    let want = to.table.map_or(q, |t| t[usize::from(q)]);
                    assert_eq!(got[i], want, "{} {activation:?}", kernel.name);
                }
                assert!(got[sums.len()..].iter().all(|&v| v == 0xa5), "{} wrote too far", kernel.name);
            }
        }
    }
}

#[test]
fn token_kernels() {
    let mut r = Rng::new(2);
    for tier in tiers("token_kernels") {
        assert_eq!(tier.bytes.gemv.len(), 4);
        for kernel in tier.bytes.gemv {
            for round in 0..cases(40) {
                let lens: Vec<usize> = (0..5).map(|i| LENS[(round as usize * 5 + i) % LENS.len()]).collect();
                // Rows within one window of a search, at its edges, and over many.
                let k = [64, 236, 240, 244, 500, 777, 3000][round as usize % 7];
                let p =
                    Problem::with_features(&mut r, kernel.layout, kernel.rows, (1, k), &lens, round % 4 == 3);
                let want = p.expected(kernel.layout, kernel.rows, 1, tier.bytes.signed);
                let mut got = vec![POISON; want.len() + 64];
                let gathered: usize = lens.iter().map(|len| len.next_multiple_of(GATHER)).sum();
                let room = gathered + GATHER;
                let mut quads = vec![0xabab_abab_u32; room + 16];
                // SAFETY: as above; there is room for each group's quads, padded, and as many zeros.
                unsafe { (kernel.spill)(&p.band(), quads.as_mut_ptr(), got.as_mut_ptr()) };
                assert_eq!(got[..want.len()], want, "{} {lens:?}", kernel.name);
                assert!(got[want.len()..].iter().all(|&v| v == POISON), "{} wrote too far", kernel.name);
                assert!(quads[room..].iter().all(|&v| v == 0xabab_abab), "{} wrote too far", kernel.name);
            }
        }
    }
}

/// The default of `Simd::token`, which no tier of the table uses: what another must compute.
#[test]
fn a_token_looked_up_plainly() {
    let mut r = Rng::new(9);
    for (layout, rows) in
        [(Layout::KMajor, 4), (Layout::KMajor, 1), (Layout::KMajor4, 4), (Layout::KMajor4, 1)]
    {
        let run = match (layout, rows) {
            (Layout::KMajor, 4) => Scalar::token::<4, false>,
            (Layout::KMajor, _) => Scalar::token::<1, false>,
            (_, 4) => Scalar::token::<4, true>,
            _ => Scalar::token::<1, true>,
        };
        let p = Problem::new(&mut r, layout, rows, 1, &LENS, false);
        let want = p.expected(layout, rows, 1, false);
        for g in &p.groups {
            let indices = &p.indices[g.start as usize * if layout == Layout::KMajor { 4 } else { 1 }..];
            let weights = &p.weights[g.start as usize * 4 * rows..];
            let x = &p.panel[g.base as usize..];
            // SAFETY: plain Rust; the problem's groups, indices and panel fit each other.
            let sums = unsafe { run(x, indices.as_ptr(), weights.as_ptr(), g.len as usize) };
            for (row, sum) in (g.row as usize..).zip(&sums[..g.rows as usize]) {
                assert_eq!(sum.wrapping_add(p.init[row]), want[row - p.first_row], "{layout:?} {rows}");
            }
        }
    }
}

#[test]
fn dense_kernels() {
    let mut r = Rng::new(3);
    for tier in tiers("dense_kernels") {
        let kernel = tier.bytes.dense;
        for k in [0, 1, 2, 3, 4, 5, 7, 8, 9, 11, 12, 13, 15, 16, 17, 31, 32, 33, 100] {
            for (i, run) in kernel.run.iter().enumerate() {
                let (m, nr) = (i + 1, kernel.nr);
                let mut w = r.signed(nr * k);
                let mut x = r.bytes(m * k);
                if r.below(3) == 0 {
                    x.iter_mut().for_each(|b| *b |= 0xff * (*b & 1));
                    w.iter_mut().for_each(|b| *b = if *b < 0 { -128 } else { 127 });
                }
                let packed = Dense::pack(MatRef::new(&w, nr, k).unwrap(), kernel, None);
                let stride = packed.steps() * 4 + [0, 1, 2, 64][r.below(4)] * kernel.x_bytes;
                // Beyond k there is padding of weight 0: any bytes will do.
                let mut rows = r.bytes(m * stride + 4);
                for (t, row) in x.chunks(k.max(1)).enumerate() {
                    for (c, &b) in row.iter().enumerate() {
                        let at = t * stride + c * kernel.x_bytes;
                        rows[at] = b;
                        if kernel.x_bytes == 2 {
                            rows[at + 1] = 0;
                        }
                    }
                }
                let init: Vec<i32> = (0..nr).map(|_| r.next() as i32).collect();
                let out_stride = nr + [0, 3, 64][r.below(3)];
                let mut got = vec![POISON; m * out_stride + 64];
                // SAFETY: the tier is supported, and everything has the lengths that the tile names.
                unsafe {
                    run(&Tile {
                        x: rows.as_ptr(),
                        stride,
                        weights: packed.panels(0..1).as_ptr(),
                        panel_bytes: packed.panel_bytes(),
                        resume: false,
                        scales: std::ptr::null(),
                        group: packed.steps(),
                        scales_stride: 0,
                        steps: packed.steps(),
                        init: init.as_ptr(),
                        out: got.as_mut_ptr(),
                        out_stride,
                        bias: std::ptr::null(),
                        ahead: std::ptr::null(),
                        ahead_lines: 0,
                        // Nothing is read there.
                        y: std::ptr::without_provenance(4096),
                        y_stride: 64,
                        y_bytes: r.below(3),
                    });
                }
                for t in 0..m {
                    for f in 0..nr {
                        let dot: i64 = (0..k)
                            .map(|c| number(x[t * k + c], tier.bytes.signed) * i64::from(w[f * k + c]))
                            .sum();
                        let want = (i64::from(init[f]) + dot) as i32;
                        let got = std::mem::replace(&mut got[t * out_stride + f], POISON);
                        assert_eq!(got, want, "{} m={m} k={k} ({t}, {f})", kernel.name);
                    }
                }
                assert!(got.iter().all(|&v| v == POISON), "{} wrote too far", kernel.name);
            }
        }
    }
}

const FEATURES: [usize; 14] = [0, 1, 3, 4, 5, 15, 16, 17, 31, 63, 64, 65, 100, 131];

fn each_panel(r: &mut Rng, mut f: impl FnMut(&mut Rng, usize, usize, usize, usize, u8)) {
    for width in [64, 32, 16, 8, 4, 1] {
        for features in FEATURES {
            for tokens in [1, 3, 4, 5, 8, 15, 16, 17, 31, 32, 33, 47, 60, 63, 64] {
                if tokens <= width {
                    let stride = features + [0, 1, 13][r.below(3)];
                    let flip = [0, 0x80][r.below(2)];
                    f(r, width, features, tokens, stride, flip);
                }
            }
        }
    }
}

fn place(layout: Layout, width: usize, f: usize, t: usize) -> usize {
    match layout {
        Layout::KMajor => f * width + t,
        Layout::KMajor4 if width == 64 => {
            // Byte f % 4 of lane t % 4 of part t / 16 of register t / 4 % 4.
            f / 4 * 256 + (t / 4 % 4) * 64 + (t / 16) * 16 + (t % 4) * 4 + f % 4
        }
        _ => (f / 4 * width + t) * 4 + f % 4,
    }
}

#[test]
fn rows_to_panels() {
    let mut r = Rng::new(4);
    for tier in tiers("rows_to_panels") {
        for (layout, run) in
            [(Layout::KMajor, tier.packing.pack_kmajor), (Layout::KMajor4, tier.packing.pack_kmajor4)]
        {
            each_panel(&mut r, |r, width, features, tokens, stride, flip| {
                let mut rows = r.bytes((tokens - 1) * stride + features);
                let padded = if layout == Layout::KMajor4 { features.next_multiple_of(4) } else { features };
                let mut panel = vec![0xa5u8; padded * width + 64];
                // SAFETY: the tier is supported; rows and panel have these lengths.
                unsafe {
                    run(&Tokens {
                        rows: rows.as_mut_ptr(),
                        stride,
                        tokens,
                        features,
                        panel: panel.as_mut_ptr(),
                        width,
                        flip,
                        ahead: std::ptr::null(),
                    });
                }
                let what =
                    format!("{} {layout:?} width={width} features={features} tokens={tokens}", tier.isa);
                for f in 0..padded {
                    for t in 0..width {
                        let inside = f < features && t < tokens;
                        let want = if inside { rows[t * stride + f] ^ flip } else { 0 };
                        assert_eq!(panel[place(layout, width, f, t)], want, "{what} ({t}, {f})");
                    }
                }
                assert!(panel[padded * width..].iter().all(|&b| b == 0xa5), "{what} wrote too far");
            });
        }
    }
}

#[test]
fn unpack_kmajor() {
    let mut r = Rng::new(5);
    for tier in tiers("unpack_kmajor") {
        each_panel(&mut r, |r, width, features, tokens, stride, flip| {
            let mut panel = r.bytes(features * width);
            let mut rows = vec![0xa5u8; tokens * stride + 64];
            // SAFETY: the tier is supported; rows and panel have these lengths.
            unsafe {
                (tier.packing.unpack_kmajor)(&Tokens {
                    rows: rows.as_mut_ptr(),
                    stride,
                    tokens,
                    features,
                    panel: panel.as_mut_ptr(),
                    width,
                    flip,
                    ahead: std::ptr::null(),
                });
            }
            for (i, &got) in rows.iter().enumerate() {
                let (t, f) = (i / stride.max(1), i % stride.max(1));
                let inside = t < tokens && f < features;
                let want = if inside { panel[f * width + t] ^ flip } else { 0xa5 };
                assert_eq!(got, want, "{} width={width} features={features} tokens={tokens}", tier.isa);
            }
        });
    }
}

#[test]
fn interleave_kmajor() {
    let mut r = Rng::new(6);
    for tier in tiers("interleave_kmajor") {
        for features in FEATURES {
            let padded = features.next_multiple_of(4);
            let lines = r.bytes(padded * 64);
            let mut quads = vec![0xa5u8; padded * 64 + 64];
            // SAFETY: the tier is supported; the missing lines are there.
            unsafe { (tier.packing.interleave_kmajor)(lines.as_ptr(), features, quads.as_mut_ptr()) };
            for (f, t) in (0..padded).flat_map(|f| (0..64).map(move |t| (f, t))) {
                assert_eq!(quads[place(Layout::KMajor4, 64, f, t)], lines[f * 64 + t], "{}", tier.isa);
            }
            assert!(quads[padded * 64..].iter().all(|&b| b == 0xa5));
        }
    }
}

#[test]
fn sums_to_rows() {
    let mut r = Rng::new(7);
    for tier in tiers("sums_to_rows") {
        for width in [64, 32, 16, 1] {
            for features in [0, 4, 8, 12, 60, 64] {
                let ld = features + [0, 4, 64][r.below(3)];
                let sums: Vec<i32> = (0..features * width).map(|_| r.next() as i32).collect();
                let mut rows = vec![POISON; width * ld + 64];
                let check = |rows: &[i32], name: &str| {
                    for (i, &got) in rows.iter().enumerate() {
                        let (t, f) = (i / ld.max(1), i % ld.max(1));
                        let inside = t < width && f < features;
                        let want = if inside { sums[f * width + t] } else { POISON };
                        assert_eq!(got, want, "{} {name} width={width} features={features}", tier.isa);
                    }
                };
                // SAFETY: the tier is supported; both matrices have these lengths.
                unsafe { (tier.packing.sums_to_rows)(sums.as_ptr(), features, width, rows.as_mut_ptr(), ld) };
                check(&rows, "sums_to_rows");
                if width == 64 {
                    rows.fill(POISON);
                    let sums = in_registers(tier, &sums);
                    // SAFETY: as above.
                    unsafe {
                        (tier.packing.registers_to_rows)(sums.as_ptr(), features, rows.as_mut_ptr(), ld)
                    };
                    check(&rows, "registers_to_rows");
                }
            }
        }
    }
}

/// Each tier has the rows that the drivers ask for.
#[test]
fn every_tier_has_every_kernel() {
    for tier in siskin::internal::kernels::table::TIERS {
        let tier: &Tier = tier;
        for layout in [Layout::KMajor, Layout::KMajor4] {
            for rows in [4, 1] {
                assert_eq!(tier.sparse_kernel(layout, rows, 64).tokens, 64);
                assert_eq!(tier.sparse_kernel(layout, rows, 32).tokens, 32);
                assert_eq!(tier.sparse_kernel(layout, rows, 16).tokens, 16);
                assert_eq!(tier.few_kernel(layout, rows, 8).tokens, 8);
                assert_eq!(tier.few_kernel(layout, rows, 4).tokens, 4);
                assert!(tier.bytes.sparse.iter().all(|k| k.requantize.is_some() == (k.tokens == 64)));
                assert_eq!(tier.gemv_kernel(layout, rows).rows, rows);
            }
        }
    }
}
