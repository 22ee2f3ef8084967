//! A call that does not fit memory is refused, and leaves what it was to write as it was.
//!
//! A binary of its own: the limit is one of the process, and would hit whatever ran beside it.
#![cfg(target_os = "linux")]

#[path = "common/errors.rs"]
mod errors;

use errors::{Kind, named};
use siskin::attention::{Attention, AttentionCall, AttentionInputs};
use siskin::ecoformer::{
    Bandwidth, BitCodes, KernelHash, LinearAttention, LinearAttentionInputs, Numerator, Sequences,
};
use siskin::{Ctx, HeadsMut, HeadsRef, MatRef, Scratch};

/// At most so many bytes of memory more than this process has now.
fn limit(more: u64) {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split_whitespace().next().unwrap().parse().unwrap();
    // SAFETY: a question that takes no memory.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64;
    let most = pages * page + more;
    let limits = libc::rlimit { rlim_cur: most, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the limits are read, and outlive the call.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limits) }, 0);
}

/// One test: the limit is one of the process. All tokens are the same, so that inputs and outputs are small beside what calls need.
#[test]
fn what_does_not_fit_memory_is_refused() {
    const TOKENS: usize = 1 << 17;
    let (ctx, mut scratch) = (Ctx::serial().unwrap(), Scratch::new());
    let own = Sequences::own(TOKENS, 1);

    let hash = KernelHash::from_parts(1, 256, vec![0.5; 256], vec![0.1], vec![1.0]).unwrap();
    let (x, before) = (vec![0.5; 256], BitCodes::from_words(vec![1, 2, 3], 7).unwrap());
    let tokens = HeadsRef::with_strides(&x, TOKENS, 1, 256, 0, 0).unwrap();
    let mut codes = before.clone();

    let qk = BitCodes::from_words(vec![5; 4 * TOKENS], 256).unwrap();
    let (value, mut context) = ([1.0f32], vec![7.0f32; TOKENS]);
    let v = HeadsRef::with_strides(&value, TOKENS, 1, 1, 0, 0).unwrap();
    let linear = LinearAttention::new(1, 256).unwrap();

    let attention = Attention::new(1, 1, 256).unwrap();
    let keys = 1 << 27;
    let k = HeadsRef::with_strides(&x, keys, 1, 256, 0, 0).unwrap();

    let many = vec![1u8; 1 << 23];

    limit(32 << 20);
    // The sums of each sequence's unit vectors are 1,088 bytes, a code is 8.
    let encoded = hash.encode(tokens, &own, Bandwidth::Sequence, &mut codes, &ctx, &mut scratch);
    named(encoded, Kind::Shape, "tokens");
    assert_eq!(codes, before);
    named(codes.set_signs(MatRef::new(&many, 1 << 23, 1).unwrap()), Kind::Shape, "x");
    assert_eq!(codes, before);
    for linear in [linear, linear.numerator(Numerator::Consistent).causal()] {
        let out = HeadsMut::new(&mut context, TOKENS, 1, 1).unwrap();
        let inputs = LinearAttentionInputs::new(&qk, &qk, v);
        named(linear.forward(inputs, &own, out, &ctx, &mut scratch), Kind::Shape, "tokens");
        assert!(context.iter().all(|x| *x == 7.0));
    }
    for queries in [1, 100] {
        let q = HeadsRef::with_strides(&x, queries, 1, 256, 0, 0).unwrap();
        let out = HeadsMut::new(&mut context[..256 * queries], queries, 1, 256).unwrap();
        let call = AttentionCall::new(Sequences::Batch { batch: 1, q_len: queries, kv_len: keys });
        let inputs = AttentionInputs::new(q, k, k);
        named(attention.forward(inputs, &call, out, &ctx, &mut scratch), Kind::Shape, "k");
        assert!(context.iter().all(|x| *x == 7.0));
    }
    // What fits is still computed.
    let few = HeadsRef::with_strides(&x, 3, 1, 256, 0, 0).unwrap();
    hash.encode(few, &Sequences::own(1, 3), Bandwidth::Sequence, &mut codes, &ctx, &mut scratch).unwrap();
    assert_eq!(codes.len(), 3);
}
