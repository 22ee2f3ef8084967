//! Which texts are nearest to each, and whether two models agree about them.

use super::rank::dot;

/// Of each vector the `most` nearest others, the nearest first; of equally near ones the first counts more. Vectors have the length 1.
pub fn nearest(vectors: &[Vec<f32>], most: usize) -> Vec<Vec<usize>> {
    let of = |(i, vector): (usize, &Vec<f32>)| {
        let mut found: Vec<(f64, usize)> = Vec::with_capacity(most + 1);
        for (j, other) in vectors.iter().enumerate().filter(|&(j, _)| j != i) {
            let near = dot(vector, other);
            let at = found.partition_point(|&(found, _)| found >= near);
            if at < most {
                found.truncate(most - 1);
                found.insert(at, (near, j));
            }
        }
        found.into_iter().map(|(_, j)| j).collect()
    };
    vectors.iter().enumerate().map(of).collect()
}

/// The part of the first `most` neighbours of all texts that two models have in common.
pub fn agreement(a: &[Vec<usize>], b: &[Vec<usize>], most: usize) -> f64 {
    let (mut common, mut all) = (0, 0);
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (&a[..most.min(a.len())], &b[..most.min(b.len())]);
        common += a.iter().filter(|j| b.contains(j)).count();
        all += a.len();
    }
    common as f64 / all.max(1) as f64
}
