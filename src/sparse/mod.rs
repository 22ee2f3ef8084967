//! Block-sparse matrices.
