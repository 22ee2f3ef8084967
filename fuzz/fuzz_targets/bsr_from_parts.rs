//! Any parts are either refused with an error that names the part, or are a matrix that survives the way to dense
//! and back, and whose parts are those that were given.
//!
//! The input is bytes, read in order: rows, cols, block rows, block cols (one byte each), the number of entries of
//! indptr, of indices and of values, and then the entries. A byte from 250 stands for a number that is hard to bear.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siskin::sparse::{BlockShape, Bsr};
use siskin::{Error, MatRef};

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn number(&mut self) -> usize {
        const HARD: [usize; 6] =
            [usize::MAX, usize::MAX - 1, 1 << 63, 1 << 32, u32::MAX as usize, isize::MAX as usize];
        let byte = self.byte();
        byte.checked_sub(250).map_or(byte as usize, |i| HARD[i as usize])
    }

    fn list<T>(&mut self, len: u8, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..len).map(|_| one(self)).collect()
    }
}

fuzz_target!(|data: &[u8]| {
    let mut bytes = Bytes(data);
    let size = (bytes.number(), bytes.number());
    let Ok(block) = BlockShape::new(bytes.number(), bytes.number()) else { return };
    let (pointers, blocks, stored) = (bytes.byte(), bytes.byte(), bytes.byte());
    let indptr = bytes.list(pointers, Bytes::number);
    let indices = bytes.list(blocks, |b| b.number() as u32);
    let values: Vec<i8> = bytes.list(stored, |b| b.byte() as i8);

    let bsr = match Bsr::from_parts(size, block, indptr.clone(), indices.clone(), values.clone()) {
        Ok(bsr) => bsr,
        Err(
            Error::Shape { argument, .. } | Error::Value { argument, .. } | Error::Index { argument, .. },
        ) => {
            assert!(["rows", "cols", "indptr", "indices", "values"].contains(&argument), "{argument}");
            return;
        }
        Err(e) => panic!("an error of another kind: {e}"),
    };
    assert_eq!((bsr.rows(), bsr.cols()), size);
    assert_eq!((bsr.indptr(), bsr.indices(), bsr.values()), (&indptr[..], &indices[..], &values[..]));
    assert!(bsr.stored_values() <= values.len());
    bsr.statistics();
    // A few blocks can stand for a matrix of any size; one that fits here is taken there and back.
    if size.0.max(1).checked_mul(size.1.max(1)).is_none_or(|n| n > 1 << 20) {
        return;
    }
    let dense = bsr.to_dense().unwrap();
    let count = |all: &[i8]| all.iter().filter(|&&v| v != 0).count();
    assert_eq!(count(&dense), count(&values), "a value was lost or made");
    // What comes back holds the same blocks but those of zeros alone.
    let again = Bsr::from_dense(MatRef::new(&dense, size.0, size.1).unwrap(), block).unwrap();
    assert!(again.num_blocks() <= bsr.num_blocks());
    assert_eq!(again.to_dense().unwrap(), dense);
    let parts = (again.indptr().to_vec(), again.indices().to_vec(), again.values().to_vec());
    assert_eq!(Bsr::from_parts(size, block, parts.0, parts.1, parts.2).as_ref(), Ok(&again));
});
