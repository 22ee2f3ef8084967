//! The kernels of the row of SVE: those of NEON's row, with the tiles of `sve.c` in their places.

pub mod bytes {
    use crate::kernels::aarch64::rows::neon::bytes;
    use crate::kernels::aarch64::sve::{DENSE_I8, FEATURES, quads};
    use crate::kernels::byte_table::{ByteKernels, DenseKernel, SparseKernel};
    use crate::kernels::panel::PanelLayout;

    pub use bytes::{multiply, peak};

    const NEON: ByteKernels = bytes::BYTES;
    const SPARSE: &[SparseKernel] = &{
        let mut all = [NEON.sparse[0]; NEON.sparse.len()];
        let mut i = 0;
        while i < all.len() {
            all[i] = NEON.sparse[i];
            if matches!(all[i].layout, PanelLayout::KMajor4) && all[i].rows == 4 {
                (all[i].name, all[i].spill) = match all[i].tokens {
                    64 => ("sve-i8i8-sparse-kmajor4-4x64", quads::<64> as _),
                    16 => ("sve-i8i8-sparse-kmajor4-4x16", quads::<16> as _),
                    _ => (all[i].name, all[i].spill),
                };
            }
            i += 1;
        }
        all
    };
    const DENSE: DenseKernel =
        DenseKernel { name: "sve-i8i8-dense-rows-4x64", nr: FEATURES, run: DENSE_I8, ..NEON.dense };
    pub const BYTES: ByteKernels = ByteKernels { sparse: SPARSE, dense: DENSE, ..NEON };
}

/// What is not for layers is NEON's.
#[cfg(not(feature = "linear"))]
pub use super::rows::neon::floats;

#[cfg(feature = "linear")]
pub mod floats {
    use crate::kernels::aarch64::rows::neon::floats;
    use crate::kernels::aarch64::sve;
    use crate::kernels::byte_table::DenseKernel;
    use crate::kernels::float_table::{FloatKernels, FloatTier, GatherKernel};

    const NEON: &FloatKernels = &floats::FLOATS.f32;

    /// A gathering kernel in the place of NEON's of four rows.
    const fn four(of: usize, tokens: usize) -> GatherKernel {
        assert!(NEON.gather[of].rows == 4 && NEON.gather[of].tokens == tokens);
        NEON.gather[of]
    }

    pub static FLOATS: FloatTier = FloatTier {
        f32: FloatKernels {
            dense: &[
                DenseKernel {
                    name: "sve-f32f32-dense-rows-4x64",
                    nr: sve::FEATURES,
                    run: sve::DENSE_F32,
                    several: &[],
                    ..NEON.dense[0]
                },
                NEON.dense[1],
                NEON.dense[2],
                NEON.dense[3],
            ],
            gather: &[
                GatherKernel { name: "sve-f32f32-gather-kmajor-4x32", run: sve::gather::<32>, ..four(0, 32) },
                NEON.gather[1],
                NEON.gather[2],
                GatherKernel { name: "sve-f32f32-gather-kmajor-4x16", run: sve::gather::<16>, ..four(3, 16) },
                NEON.gather[4],
                NEON.gather[5],
            ],
            two: NEON.two,
            scatter: NEON.scatter,
            peak: NEON.peak,
        },
        ..floats::FLOATS
    };
}
