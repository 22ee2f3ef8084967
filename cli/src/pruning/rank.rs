//! Similarities of vectors, and whether two measures order things alike: Spearman's correlation of ranks.

/// The ranks of values from 0 on, equal ones sharing their mean rank.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut from = 0;
    for run in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = from as f64 + (run.len() - 1) as f64 / 2.0;
        run.iter().for_each(|&i| ranks[i] = rank);
        from += run.len();
    }
    ranks
}

/// The correlation of the ranks of `a` with those of `b`: 1 where they order alike. None where one of them does not order at all.
pub fn spearman(a: &[f64], b: &[f64]) -> Option<f64> {
    let (a, b) = (ranks(a), ranks(b));
    let mean = (a.len() as f64 - 1.0) / 2.0;
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - mean) * (b - mean)).sum::<f64>();
    let scale = (product(&a, &a) * product(&b, &b)).sqrt();
    (scale > 0.0).then(|| product(&a, &b) / scale)
}

/// Pairs of so many texts: all, where that are few; else those at distances that are powers of two.
pub fn pairs(texts: usize) -> Vec<(usize, usize)> {
    const ALL: usize = 200;
    if texts <= ALL {
        return (0..texts).flat_map(|a| (a + 1..texts).map(move |b| (a, b))).collect();
    }
    let distances = std::iter::successors(Some(1), |d| Some(2 * d)).take_while(|&d| d < texts);
    distances.flat_map(|d| (0..texts - d).map(move |a| (a, a + d))).collect()
}

/// The sum of products: of vectors of the length 1 the cosine of the angle between them. In lanes, so that it takes little time.
pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    let mut lanes = [0.0; 16];
    for (a, b) in a.chunks(lanes.len()).zip(b.chunks(lanes.len())) {
        lanes.iter_mut().zip(a).zip(b).for_each(|((sum, &a), &b)| *sum += f64::from(a) * f64::from(b));
    }
    lanes.iter().sum()
}
