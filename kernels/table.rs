//! The one list of matrix kernels. A row here puts a kernel into dispatch, the sweep and the benchmarks.

#[cfg(target_arch = "aarch64")]
use super::aarch64::{Neon, NeonBf16, NeonDot, NeonI8mm};
use super::attention::multiply::Quads;
use super::attention::table::{Multiply, multiply};
use super::requantize::Requantize;
use super::scalar::Scalar;
use super::simd::TOGETHER;
use super::sparse::{self, Band};
#[cfg(target_arch = "x86_64")]
use super::x86_64::{Avx2, Avx512, Avx512Bf16, Avx512Vnni, Avx512VnniVbmi, AvxVnni};
use super::{dense, epilogue, float_table, pack, token};
use crate::base::element::Element;
use crate::base::isa::Isa;

pub use super::panel::PanelLayout as Layout;

/// A block-sparse kernel: some groups of rows times one panel of tokens.
#[derive(Debug, Clone, Copy)]
pub struct SparseKernel {
    /// Tier, layout, rows x tokens.
    pub name: &'static str,
    /// The layout of x it reads.
    pub layout: Layout,
    /// The height of its groups.
    pub rows: usize,
    /// The tokens of its panel.
    pub tokens: usize,
    /// Exact i32 to `[row][tokens]`.
    pub spill: unsafe fn(&Band<'_>, *mut i32),
    /// Bytes to `[row][64]`: only where `tokens` is 64.
    pub requantize: unsafe fn(&Band<'_>, &Requantize<'_>, *mut u8),
}

/// A block-sparse kernel for a single token: gathers into the second argument.
#[derive(Debug, Clone, Copy)]
pub struct TokenKernel {
    /// Tier, layout, rows x 1.
    pub name: &'static str,
    /// How its indices are to be read.
    pub layout: Layout,
    /// The height of its groups.
    pub rows: usize,
    /// Exact i32 to `[row]`.
    pub spill: unsafe fn(&Band<'_>, *mut u32, *mut i32),
}

/// A dense kernel: some tokens times a panel of output features.
#[derive(Debug, Clone, Copy)]
pub struct DenseKernel {
    /// Tier, tokens x features.
    pub name: &'static str,
    /// Output features of a panel of weights.
    pub nr: usize,
    /// 32-bit lanes of a register: the inner order of packed weights.
    pub lanes: usize,
    /// Bytes of an element of x, of which a step has 4. Bytes are widened to 2 or 4 where that is more than 1.
    pub x_bytes: usize,
    /// What K is padded to a multiple of.
    pub padded: usize,
    /// Elements of K of a feature that lie side by side: those of a step, or of more.
    pub together: usize,
    /// What packed weights are stored as.
    pub stored: Element,
    /// `run[m - 1]` takes m tokens and one panel.
    pub run: &'static [dense::Run],
    /// `several[m - 1]` takes m tokens and more panels than one: for fewer tokens than keep a core busy.
    pub several: &'static [Several],
}

impl DenseKernel {
    /// Elements of K in a step.
    pub fn per_step(&self) -> usize {
        4 / self.x_bytes
    }
}

/// A dense kernel for several panels at once.
#[derive(Debug, Clone, Copy)]
pub struct Several {
    /// How many.
    pub panels: usize,
    /// The kernel.
    pub run: dense::Run,
}

/// Everything of one tier.
#[derive(Debug)]
pub struct Tier {
    /// The tier.
    pub isa: Isa,
    /// Whether it also needs AVX-512 VBMI.
    pub vbmi: bool,
    /// Whether its layers of bytes multiply signed bytes of x: those of activations with the top bit flipped, which is to
    /// move them down by 128.
    pub signed: bool,
    /// Block-sparse kernels.
    pub sparse: &'static [SparseKernel],
    /// Block-sparse kernels for one token.
    pub token: &'static [TokenKernel],
    /// The dense kernel.
    pub dense: DenseKernel,
    /// Tokens to panels of lines.
    pub rows_to_lines: pack::Run,
    /// Tokens to panels of quads.
    pub rows_to_quads: pack::Run,
    /// Panels of lines to tokens.
    pub lines_to_rows: pack::Run,
    /// `[features][64]` lines to quads.
    pub lines_to_quads: unsafe fn(*const u8, usize, *mut u8),
    /// `[features][width]` sums to `[tokens][ld]`.
    pub sums_to_rows: unsafe fn(*const i32, usize, usize, *mut i32, usize),
    /// The general epilogue.
    pub epilogue: epilogue::Run,
    /// What its registers do with floats.
    pub float: &'static float_table::FloatTier,
    /// Pairs of bfloat16, where the CPU multiplies them.
    pub pairs: Option<&'static float_table::FloatKernels>,
    /// Tiles of attention, of bytes.
    pub multiply: &'static Multiply,
    /// The same of pairs of bfloat16, where the CPU multiplies them.
    pub multiply_pairs: Option<&'static Multiply>,
    /// The dot products of registers alone, for the peak: so many times the number of operations returned.
    pub peak: unsafe fn(u64) -> u64,
}

macro_rules! tier {
    (
        $(#[$cfg:meta])* $module:ident: $simd:ident, vbmi $vbmi:literal,
        features #[$features:meta],
        sparse [$($id:ident: $layout:ident $walk:ident $rows:literal x $tokens:literal by $vecs:literal),* $(,)?],
        dense $nv:literal registers x [$($mid:ident: $mr:literal unroll $unroll:literal),* $(,)?],
        float $float:ident, pairs [$pairs:expr, $multiply_pairs:expr], attention $widths:tt,
    ) => {
        $(#[$cfg])*
        mod $module {
            use super::*;
            $(
                mod $id {
                    use super::*;
                    #[$features]
                    pub unsafe fn spill(band: &Band<'_>, out: *mut i32) {
                        // SAFETY: as the caller, who also vouches for the tier.
                        unsafe { sparse::spill::<$simd, sparse::$walk, $rows, $vecs>(band, out) }
                    }
                    #[$features]
                    pub unsafe fn requantize(band: &Band<'_>, to: &Requantize<'_>, out: *mut u8) {
                        // SAFETY: as the caller, who also vouches for the tier.
                        unsafe { sparse::requantize::<$simd, sparse::$walk, $rows, $vecs>(band, to, out) }
                    }
                }
            )*
            $(
                #[$features]
                unsafe fn $mid(tile: &dense::Tile) {
                    // SAFETY: as the caller, who also vouches for the tier.
                    unsafe { dense::Kernel::<$simd, dense::Int8, dense::Quads, $mr, $nv, 1, $unroll>::run(tile) }
                }
            )*
            multiply!(multiply: concat!(stringify!($module), "-attention"), $simd Quads, #[$features], $widths);
            tier!(@fn $simd [#[$features]] lines4(band: &Band<'_>, quads: *mut u32, out: *mut i32) => token::token::<$simd, sparse::Lines, 4>);
            tier!(@fn $simd [#[$features]] lines1(band: &Band<'_>, quads: *mut u32, out: *mut i32) => token::token::<$simd, sparse::Lines, 1>);
            tier!(@fn $simd [#[$features]] quads4(band: &Band<'_>, quads: *mut u32, out: *mut i32) => token::token::<$simd, sparse::Quads, 4>);
            tier!(@fn $simd [#[$features]] quads1(band: &Band<'_>, quads: *mut u32, out: *mut i32) => token::token::<$simd, sparse::Quads, 1>);
            tier!(@fn $simd [#[$features]] rows_to_lines(t: &pack::Tokens) => pack::rows_to_lines::<$simd>);
            tier!(@fn $simd [#[$features]] rows_to_quads(t: &pack::Tokens) => pack::rows_to_quads::<$simd>);
            tier!(@fn $simd [#[$features]] lines_to_rows(t: &pack::Tokens) => pack::lines_to_rows::<$simd>);
            tier!(@fn $simd [#[$features]] lines_to_quads(lines: *const u8, n: usize, quads: *mut u8) => pack::lines_to_quads::<$simd>);
            tier!(@fn $simd [#[$features]] sums_to_rows(s: *const i32, n: usize, w: usize, r: *mut i32, ld: usize) => pack::sums_to_rows::<$simd>);
            tier!(@fn $simd [#[$features]] run_epilogue(plan: &epilogue::Plan<'_>, sums: &epilogue::Sums) => epilogue::run::<$simd, false>);
            #[$features]
            unsafe fn peak(times: u64) -> u64 {
                // SAFETY: as the caller, who vouches for the tier.
                unsafe { dense::peak::<$simd>(times) }
            }

            pub static TIER: Tier = Tier {
                isa: <$simd as crate::kernels::simd::Simd>::ISA,
                vbmi: $vbmi,
                signed: !<$simd as crate::kernels::simd::Simd>::MIXED,
                sparse: &[$(SparseKernel {
                    name: concat!(stringify!($module), "-", stringify!($walk), "-", $rows, "x", $tokens),
                    layout: Layout::$layout,
                    rows: $rows,
                    tokens: $tokens,
                    spill: $id::spill,
                    requantize: $id::requantize,
                }),*],
                token: &[
                    TokenKernel { name: concat!(stringify!($module), "-Lines-4x1"), layout: Layout::Lines, rows: 4, spill: lines4 },
                    TokenKernel { name: concat!(stringify!($module), "-Lines-1x1"), layout: Layout::Lines, rows: 1, spill: lines1 },
                    TokenKernel { name: concat!(stringify!($module), "-Quads-4x1"), layout: Layout::Quads, rows: 4, spill: quads4 },
                    TokenKernel { name: concat!(stringify!($module), "-Quads-1x1"), layout: Layout::Quads, rows: 1, spill: quads1 },
                ],
                dense: DenseKernel {
                    name: concat!(stringify!($module), "-dense"),
                    nr: $nv * <$simd as crate::kernels::simd::Simd>::LANES,
                    lanes: <$simd as crate::kernels::simd::Simd>::LANES,
                    x_bytes: <$simd as crate::kernels::simd::Simd>::X_BYTES,
                    padded: if <$simd as crate::kernels::simd::Simd>::MATRIX { TOGETHER } else { 4 },
                    together: if <$simd as crate::kernels::simd::Simd>::MATRIX {
                        TOGETHER
                    } else {
                        4 / <$simd as crate::kernels::simd::Simd>::X_BYTES
                    },
                    stored: Element::I8,
                    run: &[$($mid),*],
                    several: &[],
                },
                rows_to_lines,
                rows_to_quads,
                lines_to_rows,
                lines_to_quads,
                sums_to_rows,
                epilogue: run_epilogue,
                float: &float_table::$float::TIER,
                pairs: $pairs,
                multiply: &multiply::KERNELS,
                multiply_pairs: $multiply_pairs,
                peak,
            };
        }
    };
    (@fn $simd:ident [$($features:tt)*] $name:ident($($arg:ident: $ty:ty),*) => $body:path) => {
        $($features)*
        unsafe fn $name($($arg: $ty),*) {
            // SAFETY: as the caller, who also vouches for the tier.
            unsafe { $body($($arg),*) }
        }
    };
}

tier! {
    scalar: Scalar, vbmi false,
    features #[inline(never)],
    sparse [
        l4: Lines Lines 4 x 64 by 4, l1: Lines Lines 1 x 64 by 4,
        q4: Quads Quads 4 x 64 by 4, q1: Quads Quads 1 x 64 by 4,
        l4s: Lines Lines16 4 x 16 by 4, l1s: Lines Lines16 1 x 16 by 4,
        q4s: Quads Quads16 4 x 16 by 4, q1s: Quads Quads16 1 x 16 by 4,
    ],
    dense 2 registers x [m1: 1 unroll 1, m2: 2 unroll 1, m3: 3 unroll 1],
    float scalar, pairs [None, None],
    attention [w2: 2 x [r1: 1, r2: 2, r3: 3], w1: 1 x [r1: 1, r2: 2, r3: 3]],
}

tier! {
    #[cfg(target_arch = "x86_64")] avx2: Avx2, vbmi false,
    features #[target_feature(enable = "popcnt,avx2,fma,f16c")],
    sparse [
        l4: Lines Lines 4 x 64 by 2, l1: Lines Lines 1 x 64 by 4,
        q4: Quads Quads 4 x 64 by 2, q1: Quads Quads 1 x 64 by 4,
        l4s: Lines Lines16 4 x 16 by 2, l1s: Lines Lines16 1 x 16 by 2,
        q4s: Quads Quads16 4 x 16 by 2, q1s: Quads Quads16 1 x 16 by 2,
    ],
    dense 2 registers x [m1: 1 unroll 2, m2: 2 unroll 1, m3: 3 unroll 1, m4: 4 unroll 1, m5: 5 unroll 1, m6: 6 unroll 1],
    float avx2, pairs [None, None],
    attention [w2: 2 x [r1: 1, r2: 2, r3: 3, r4: 4, r5: 5, r6: 6], w1: 1 x [r1: 1, r2: 2, r3: 3, r4: 4, r5: 5, r6: 6]],
}

tier! {
    #[cfg(target_arch = "x86_64")] avx_vnni: AvxVnni, vbmi false,
    features #[target_feature(enable = "popcnt,avx2,fma,f16c,avxvnni")],
    sparse [
        l4: Lines Lines 4 x 64 by 2, l1: Lines Lines 1 x 64 by 4,
        q4: Quads Quads 4 x 64 by 2, q1: Quads Quads 1 x 64 by 4,
        l4s: Lines Lines16 4 x 16 by 2, l1s: Lines Lines16 1 x 16 by 2,
        q4s: Quads Quads16 4 x 16 by 2, q1s: Quads Quads16 1 x 16 by 2,
    ],
    dense 2 registers x [m1: 1 unroll 4, m2: 2 unroll 2, m3: 3 unroll 1, m4: 4 unroll 1, m5: 5 unroll 1, m6: 6 unroll 1],
    float avx2, pairs [None, None],
    attention [w2: 2 x [r1: 1, r2: 2, r3: 3, r4: 4, r5: 5, r6: 6], w1: 1 x [r1: 1, r2: 2, r3: 3, r4: 4, r5: 5, r6: 6]],
}

/// A tier of 512-bit registers: all have the same tiles.
#[cfg(target_arch = "x86_64")]
macro_rules! zmm_tier {
    ($module:ident: $simd:ident, vbmi $vbmi:literal, features #[$features:meta], pairs $pairs:tt) => {
        tier! {
            $module: $simd, vbmi $vbmi,
            features #[$features],
            sparse [
                l4: Lines Lines 4 x 64 by 4, l1: Lines Lines 1 x 64 by 4,
                q4: Quads Quads 4 x 64 by 4, q1: Quads Quads 1 x 64 by 4,
                l4s: Lines Lines16 4 x 16 by 1, l1s: Lines Lines16 1 x 16 by 1,
                q4s: Quads Quads16 4 x 16 by 1, q1s: Quads Quads16 1 x 16 by 1,
            ],
            dense 2 registers x [
                m1: 1 unroll 4, m2: 2 unroll 2, m3: 3 unroll 1, m4: 4 unroll 1, m5: 5 unroll 1, m6: 6 unroll 1,
                m7: 7 unroll 1, m8: 8 unroll 1, m9: 9 unroll 1, m10: 10 unroll 1, m11: 11 unroll 1, m12: 12 unroll 1,
            ],
            float avx512, pairs $pairs,
            attention [w4: 4 x [r1: 1, r2: 2, r3: 3, r4: 4, r5: 5, r6: 6], w2: 2 x [r1: 1, r2: 2, r3: 3, r4: 4, r5: 5, r6: 6], w1: 1 x [r1: 1, r2: 2, r3: 3, r4: 4, r5: 5, r6: 6]],
        }
    };
}

#[cfg(target_arch = "x86_64")]
zmm_tier! {
    avx512: Avx512, vbmi false,
    features #[target_feature(enable = "popcnt,avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")],
    pairs [None, None]
}

#[cfg(target_arch = "x86_64")]
zmm_tier! {
    avx512_vnni: Avx512Vnni, vbmi false,
    features #[target_feature(enable = "popcnt,avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")],
    pairs [None, None]
}

#[cfg(target_arch = "x86_64")]
zmm_tier! {
    avx512_vnni_vbmi: Avx512VnniVbmi, vbmi true,
    features #[target_feature(enable = "popcnt,avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi")],
    pairs [None, None]
}

#[cfg(target_arch = "x86_64")]
zmm_tier! {
    avx512_bf16: Avx512Bf16, vbmi true,
    features #[target_feature(enable = "popcnt,avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,avx512bf16")],
    pairs [Some(&float_table::avx512_bf16::KERNELS), Some(float_table::avx512_bf16::MULTIPLY)]
}

tier! {
    #[cfg(target_arch = "aarch64")] neon: Neon, vbmi false,
    features #[target_feature(enable = "neon")],
    sparse [
        l4: Lines Lines 4 x 64 by 2, l1: Lines Lines 1 x 64 by 4,
        q4: Quads Quads 4 x 64 by 2, q1: Quads Quads 1 x 64 by 4,
        l4s: Lines Lines16 4 x 16 by 2, l1s: Lines Lines16 1 x 16 by 4,
        q4s: Quads Quads16 4 x 16 by 2, q1s: Quads Quads16 1 x 16 by 4,
    ],
    dense 2 registers x [m1: 1 unroll 2, m2: 2 unroll 1],
    float neon, pairs [None, None],
    attention [w2: 2 x [r1: 1, r2: 2, r3: 3], w1: 1 x [r1: 1, r2: 2, r3: 3]],
}

/// A tier of Arm's with dot products: all have the same tiles of panels. Products of matrices take rows in pairs.
#[cfg(target_arch = "aarch64")]
macro_rules! neon_tier {
    (
        $module:ident: $simd:ident, features #[$features:meta], dense $dense:tt, pairs $pairs:tt,
        attention [$($mid:ident: $mr:literal),*]
    ) => {
        tier! {
            $module: $simd, vbmi false,
            features #[$features],
            sparse [
                l4: Lines Lines 4 x 64 by 4, l1: Lines Lines 1 x 64 by 4,
                q4: Quads Quads 4 x 64 by 4, q1: Quads Quads 1 x 64 by 4,
                l4s: Lines Lines16 4 x 16 by 4, l1s: Lines Lines16 1 x 16 by 4,
                q4s: Quads Quads16 4 x 16 by 4, q1s: Quads Quads16 1 x 16 by 4,
            ],
            dense 4 registers x $dense,
            float neon, pairs $pairs,
            attention [w4: 4 x [$($mid: $mr),*], w2: 2 x [$($mid: $mr),*], w1: 1 x [$($mid: $mr),*]],
        }
    };
}

#[cfg(target_arch = "aarch64")]
neon_tier! {
    neon_dot: NeonDot, features #[target_feature(enable = "neon,dotprod")],
    dense [m1: 1 unroll 4, m2: 2 unroll 2, m3: 3 unroll 1, m4: 4 unroll 1, m5: 5 unroll 1],
    pairs [None, None], attention [r1: 1, r2: 2, r3: 3, r4: 4, r5: 5]
}

#[cfg(target_arch = "aarch64")]
neon_tier! {
    neon_i8mm: NeonI8mm, features #[target_feature(enable = "neon,dotprod,i8mm")],
    dense [m1: 1 unroll 1, m2: 2 unroll 1, m3: 3 unroll 1, m4: 4 unroll 1, m5: 5 unroll 1, m6: 6 unroll 1],
    pairs [None, None], attention [r1: 1, r2: 2, r3: 3, r4: 4, r5: 5, r6: 6]
}

#[cfg(target_arch = "aarch64")]
neon_tier! {
    neon_bf16: NeonBf16, features #[target_feature(enable = "neon,dotprod,i8mm,bf16")],
    dense [m1: 1 unroll 1, m2: 2 unroll 1, m3: 3 unroll 1, m4: 4 unroll 1, m5: 5 unroll 1, m6: 6 unroll 1],
    pairs [Some(&float_table::neon_bf16::KERNELS), Some(float_table::neon_bf16::MULTIPLY)],
    attention [r1: 1, r2: 2, r3: 3, r4: 4, r5: 5, r6: 6]
}

/// NEON's, with tiles of SVE in their places.
#[cfg(siskin_sve)]
mod sve {
    use super::*;
    use crate::kernels::aarch64::sve::{DENSE_I8, FEATURES, quads};
    const SPARSE: [SparseKernel; 8] = {
        let mut all = [neon::TIER.sparse[0]; 8];
        let mut i = 0;
        while i < 8 {
            all[i] = neon::TIER.sparse[i];
            i += 1;
        }
        all[2] = SparseKernel { name: "sve-Quads-4x64", spill: quads::<64>, ..all[2] };
        all[6] = SparseKernel { name: "sve-Quads16-4x16", spill: quads::<16>, ..all[6] };
        assert!(matches!(all[2].layout, Layout::Quads) && all[2].rows == 4 && all[2].tokens == 64);
        assert!(matches!(all[6].layout, Layout::Quads) && all[6].rows == 4 && all[6].tokens == 16);
        all
    };
    pub static TIER: Tier = Tier {
        isa: Isa::Sve,
        sparse: &SPARSE,
        dense: DenseKernel { name: "sve-dense", nr: FEATURES, run: DENSE_I8, ..neon::TIER.dense },
        float: &float_table::SVE,
        ..neon::TIER
    };
}

/// All tiers, the best variant of each last.
pub static TIERS: &[&Tier] = &[
    &scalar::TIER,
    #[cfg(target_arch = "x86_64")]
    &avx2::TIER,
    #[cfg(target_arch = "x86_64")]
    &avx_vnni::TIER,
    #[cfg(target_arch = "x86_64")]
    &avx512::TIER,
    #[cfg(target_arch = "x86_64")]
    &avx512_vnni::TIER,
    #[cfg(target_arch = "x86_64")]
    &avx512_vnni_vbmi::TIER,
    #[cfg(target_arch = "x86_64")]
    &avx512_bf16::TIER,
    #[cfg(target_arch = "aarch64")]
    &neon::TIER,
    #[cfg(siskin_sve)]
    &sve::TIER,
    #[cfg(target_arch = "aarch64")]
    &neon_dot::TIER,
    #[cfg(target_arch = "aarch64")]
    &neon_i8mm::TIER,
    #[cfg(target_arch = "aarch64")]
    &neon_bf16::TIER,
];

impl Tier {
    /// Whether this CPU can run it.
    pub fn is_supported(&self) -> bool {
        #[cfg(target_arch = "x86_64")]
        if self.vbmi && !std::arch::is_x86_feature_detected!("avx512vbmi") {
            return false;
        }
        self.isa.is_supported()
    }

    /// The kernels to use for `isa`, which this CPU has.
    pub fn of(isa: Isa) -> &'static Tier {
        TIERS.iter().rev().find(|t| t.isa == isa && t.is_supported()).unwrap_or(&TIERS[0])
    }
}

impl Tier {
    /// The kernel for a layout, a height of groups and a width of panels: every tier has all of them.
    pub fn sparse_kernel(&self, layout: Layout, rows: usize, tokens: usize) -> &'static SparseKernel {
        let fits = |k: &&SparseKernel| k.layout == layout && k.rows == rows && k.tokens == tokens;
        self.sparse.iter().find(fits).unwrap_or_else(|| unreachable!("no {layout:?} {rows}x{tokens}"))
    }

    /// The float kernels that read packed activations of an element.
    pub fn floats(&self, element: Element) -> &'static float_table::FloatKernels {
        match self.pairs {
            Some(pairs) if element == Element::Bf16 => pairs,
            _ => &self.float.f32,
        }
    }

    /// The kernel for one token.
    pub fn token_kernel(&self, layout: Layout, rows: usize) -> &'static TokenKernel {
        let fits = |k: &&TokenKernel| k.layout == layout && k.rows == rows;
        self.token.iter().find(fits).unwrap_or_else(|| unreachable!("no {layout:?} {rows}x1"))
    }
}

/// Two tiers are the same if they are the same row.
impl PartialEq for Tier {
    fn eq(&self, other: &Tier) -> bool {
        std::ptr::eq(self, other)
    }
}
