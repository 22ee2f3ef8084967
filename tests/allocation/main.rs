//! The second call with the same scratch allocates nothing.
//!
//! A binary of its own: a counter stands in for the allocator of the whole process.

mod attention;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/counting.rs"]
mod counting;
mod ecoformer;
mod layers;
mod norm;
mod scratch;

use counting::allocations;

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| {}), 0);
    assert!(allocations(|| drop(std::hint::black_box(vec![0u8; 100]))) > 0);
}
