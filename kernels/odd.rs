//! Tiers for tests: tiles of heights, widths and depths that no CPU asks for, so that drivers do not meet powers of
//! two alone. Plain Rust, on every CPU.
//!
//! ```text
//! out[m][f] = init[f] + sum over k:  x[m][k] * w[k / KR][f][k % KR]
//! ```
//!
//! The height, width and depth of a dense tile are free. Panels of 64, 32, 16, 8, 4 or 1 tokens and groups of 4 rows or 1 are
//! the format of block-sparse weights and activations, not properties of a tile; what can be odd there is how many
//! registers are computed at a time.

use super::byte_table::{ByteKernels, DenseKernel, SparseKernel, ThreadState, ToBytes};
use super::dense::{Int8, Kernel, Quad8 as Packed, Run, Tile};
use super::panel::PanelLayout as Layout;
use super::scalar::Scalar;
use super::sparse::{self, KMajor, KMajor4, KMajor4x16, KMajor4x32, KMajor16, KMajor32};
use super::table::{TIERS, Tier};
use crate::base::element::Element;
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// `MR` tokens times `NR` features, with steps of `KR` elements, each of `4 / KR` bytes of x.
///
/// # Safety
/// The caller keeps the promises of [`Run`].
unsafe fn plain<const MR: usize, const NR: usize, const KR: usize>(t: &Tile) {
    for m in 0..MR {
        for f in 0..NR {
            // SAFETY: the caller vouches for the tile's arrays.
            unsafe {
                let mut sum = *t.init.add(f);
                for k in 0..t.steps * KR {
                    let at = m * t.stride + k * (4 / KR);
                    let x = (0..4 / KR).fold(0, |x, i| x | i32::from(*t.x.add(at + i)) << (8 * i));
                    let w = *t.weights.cast::<i8>().add((k / KR * NR + f) * KR + k % KR);
                    sum = sum.wrapping_add(x * i32::from(w));
                }
                *t.out.add(m * t.out_stride + f) = sum;
            }
        }
    }
}

thread_local! {
    static HELD: Cell<bool> = const { Cell::new(false) };
}
/// How often a thread was put into [`STATE`].
pub static SET: AtomicUsize = AtomicUsize::new(0);
/// How often that ended.
pub static RELEASED: AtomicUsize = AtomicUsize::new(0);

/// A state of a thread, without which [`holding`] stops.
const STATE: ThreadState = ThreadState { set, release };

unsafe fn set() {
    assert!(!HELD.replace(true), "the state was set twice");
    SET.fetch_add(1, Ordering::Relaxed);
}

unsafe fn release() {
    assert!(HELD.replace(false), "there was no state");
    RELEASED.fetch_add(1, Ordering::Relaxed);
}

/// [`plain`], in a thread that is in [`STATE`].
///
/// # Safety
/// The caller keeps the promises of [`Run`].
unsafe fn holding<const MR: usize, const NR: usize, const KR: usize>(t: &Tile) {
    assert!(HELD.get(), "the thread is not in the state that the kernel needs");
    // SAFETY: the caller keeps the promises of `Run`.
    unsafe { plain::<MR, NR, KR>(t) }
}

macro_rules! walk {
    ($layout:ident $walk:ident $name:literal $rows:literal x $tokens:literal by $vecs:literal, $to_bytes:expr) => {
        SparseKernel {
            name: concat!("odd-u8i8-sparse-", $name, "-", $rows, "x", $tokens),
            layout: Layout::$layout,
            rows: $rows,
            tokens: $tokens,
            spill: sparse::spill::<Scalar, $walk, $rows, $vecs>,
            requantize: $to_bytes,
        }
    };
    ($layout:ident $name:literal $rows:literal x 64 by $vecs:literal) => {
        walk!($layout $layout $name $rows x 64 by $vecs, {
            Some(sparse::requantize::<Scalar, $layout, $rows, $vecs> as ToBytes)
        })
    };
}

/// Sparse kernels of 1 or 2 registers at a time: those of the scalar tier take 4.
static BY_FEW: [SparseKernel; 12] = [
    walk!(KMajor "kmajor" 4 x 64 by 2),
    walk!(KMajor "kmajor" 1 x 64 by 2),
    walk!(KMajor4 "kmajor4" 4 x 64 by 2),
    walk!(KMajor4 "kmajor4" 1 x 64 by 2),
    walk!(KMajor KMajor32 "kmajor" 4 x 32 by 1, None),
    walk!(KMajor KMajor32 "kmajor" 1 x 32 by 2, None),
    walk!(KMajor4 KMajor4x32 "kmajor4" 4 x 32 by 2, None),
    walk!(KMajor4 KMajor4x32 "kmajor4" 1 x 32 by 2, None),
    walk!(KMajor KMajor16 "kmajor" 4 x 16 by 1, None),
    walk!(KMajor KMajor16 "kmajor" 1 x 16 by 2, None),
    walk!(KMajor4 KMajor4x16 "kmajor4" 4 x 16 by 2, None),
    walk!(KMajor4 KMajor4x16 "kmajor4" 1 x 16 by 1, None),
];

macro_rules! odd {
    (@state) => { None };
    (@state $state:expr) => { Some($state) };
    ($($name:ident: $rows:literal x $nr:literal features of $lanes:literal, $x_bytes:literal bytes, [$($run:expr),*] $(in $state:expr)?;)*) => {
        $(static $name: Tier = Tier {
            bytes: ByteKernels {
                sparse: &BY_FEW,
                dense: DenseKernel {
                    name: concat!("odd-u8i8-dense-rows-", $rows, "x", $nr),
                    nr: $nr,
                    lanes: $lanes,
                    x_bytes: $x_bytes,
                    padded: 4,
                    together: 4 / $x_bytes,
                    stored: Element::I8,
                    several: &[],
                    run: {
                        const RUN: &[Run] = &[$($run),*];
                        RUN
                    },
                },
                state: odd!(@state $($state)?),
                ..TIERS[0].bytes
            },
            ..*TIERS[0]
        };)*
        /// All tiers of this file, named tokens x features x elements of K a step.
        pub static ODD: &[&Tier] = &[$(&$name),*];
    };
}

odd! {
    T1X1X1: 1 x 1 features of 1, 4 bytes, [plain::<1, 1, 1>];
    T3X5X2: 3 x 5 features of 5, 2 bytes, [plain::<1, 5, 2>, plain::<2, 5, 2>, plain::<3, 5, 2>];
    T2X7X4: 2 x 7 features of 7, 1 bytes, [holding::<1, 7, 4>, holding::<2, 7, 4>] in STATE;
    // The loop of the real tiers, with 1, 2, 3 and 5 registers of four features, several steps at a time.
    T1X4X4: 1 x 4 features of 4, 1 bytes, [Kernel::<Scalar, Int8, Packed, 1, 1, 1, 1>::run];
    T5X8X4: 5 x 8 features of 4, 1 bytes, [
        Kernel::<Scalar, Int8, Packed, 1, 2, 1, 5>::run, Kernel::<Scalar, Int8, Packed, 2, 2, 1, 2>::run, Kernel::<Scalar, Int8, Packed, 3, 2, 1, 1>::run, Kernel::<Scalar, Int8, Packed, 4, 2, 1, 1>::run, Kernel::<Scalar, Int8, Packed, 5, 2, 1, 1>::run
    ];
    T5X12X4: 5 x 12 features of 4, 1 bytes, [
        Kernel::<Scalar, Int8, Packed, 1, 3, 1, 3>::run, Kernel::<Scalar, Int8, Packed, 2, 3, 1, 1>::run, Kernel::<Scalar, Int8, Packed, 3, 3, 1, 2>::run, Kernel::<Scalar, Int8, Packed, 4, 3, 1, 1>::run, Kernel::<Scalar, Int8, Packed, 5, 3, 1, 3>::run
    ];
    T3X20X4: 3 x 20 features of 4, 1 bytes, [Kernel::<Scalar, Int8, Packed, 1, 5, 1, 2>::run, Kernel::<Scalar, Int8, Packed, 2, 5, 1, 3>::run, Kernel::<Scalar, Int8, Packed, 3, 5, 1, 1>::run];
}
