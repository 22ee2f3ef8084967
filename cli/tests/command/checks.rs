//! Checks of results find what is wrong with them.

use siskin::ecoformer::BitCodes;
use siskin::{Ctx, Isa, Scratch};
use siskin_cli::internal::hamming::Out;
use siskin_cli::internal::{Data, attention, check, ecoformer, from_json, hamming, tier};

/// The scalar tier's result is right, and not right any more with one number a little off.
#[test]
fn a_number_that_is_off_is_noticed() {
    for case in [
        r#"{"seq":9,"kv_len":30,"heads":2,"head_dim":8}"#,
        r#"{"seq":9,"heads":2,"head_dim":8,"softmax":{"gamma":-0.05},"gate":true}"#,
        r#"{"seq":9,"heads":2,"head_dim":8,"dtype":"f16","y":"f16","layout":"fused"}"#,
        r#"{"seq":9,"heads":2,"head_dim":8,"dtype":"bf16","y":"bf16","layout":"heads"}"#,
        r#"{"seq":9,"heads":2,"head_dim":8,"dtype":"int8"}"#,
        r#"{"seq":9,"heads":2,"head_dim":8,"dtype":"int8","y":"f32"}"#,
    ] {
        // Of bytes, two may be as near to a weight.
        let off = if case.contains("int8") { 0.02 } else { 1e-4 };
        let case: attention::Case = from_json("case", case.as_bytes()).unwrap();
        check(&case).unwrap();
        let problem = attention::Problem::new(&case).unwrap();
        let ctx = tier(Isa::Scalar, 1).unwrap();
        let (mut y, mut scratch) = (problem.output(), Scratch::new());
        let attention = problem.attention().unwrap();
        problem.forward(&attention, &mut y, &ctx, &mut scratch).unwrap();
        problem.check(&y, Isa::Scalar, 1 << 20).unwrap();
        for i in [0, 50, problem.y_place.elements() - 1] {
            let mut wrong = y.clone();
            match &mut wrong {
                Data::F32(y) => y[i] += off,
                Data::Bf16(y) => y[i] = siskin::bf16::from_f32(y[i].to_f32() * 1.01 + 0.01),
                Data::F16(y) => y[i] = siskin::f16::from_f32(y[i].to_f32() * 1.01 + 0.01),
                Data::U8(y) => y[i] ^= 2,
                Data::I8(y) => y[i] ^= 2,
            }
            assert!(problem.check(&wrong, Isa::Scalar, 1 << 20).is_err(), "{case:?} {i}");
            assert!(problem.same(&wrong, &y, Isa::Scalar).is_err());
        }
    }
}

/// The scalar tier's results are right, and not right any more with a bit or a number off.
#[test]
fn what_is_off_is_noticed() {
    for case in [
        r#"{"n":20,"heads":2,"head_dim":8}"#,
        r#"{"n":9,"batch":2,"heads":2,"head_dim":8,"bits":70,"numerator":"consistent","bandwidth":"frozen"}"#,
        r#"{"n":20,"heads":2,"head_dim":8,"numerator":"consistent","causal":true,"v":"f16"}"#,
        r#"{"n":20,"heads":1,"head_dim":8,"v":"int8","anchors":3}"#,
    ] {
        let case: ecoformer::Case = from_json("case", case.as_bytes()).unwrap();
        check(&case).unwrap();
        let problem = ecoformer::Problem::new(&case).unwrap();
        let (ctx, mut scratch) = (tier(Isa::Scalar, 1).unwrap(), Scratch::new());
        let (mut codes, mut y) = (problem.codes().unwrap(), problem.output());
        problem.encode(&mut codes, &ctx, &mut scratch).unwrap();
        problem.attend(&codes, &codes, &mut y, &ctx, &mut scratch).unwrap();
        problem.check_codes(&codes, 1 << 20).unwrap();
        problem.check_context(&codes, &codes, &y, 1 << 20).unwrap();
        for i in [0, y.len() / 2, y.len() - 1] {
            let mut wrong = y.clone();
            wrong[i] += 1e-3;
            assert!(problem.check_context(&codes, &codes, &wrong, 1 << 20).is_err(), "{case:?} {i}");
            wrong[i] = f32::NAN;
            assert!(problem.check_context(&codes, &codes, &wrong, 1 << 20).is_err());
        }
        for i in [0, codes.len() - 1] {
            let mut words = codes.words().to_vec();
            words[i * case.bits.div_ceil(64)] ^= 2;
            let wrong = BitCodes::from_words(words, case.bits).unwrap();
            assert!(problem.check_codes(&wrong, 1 << 20).is_err(), "{case:?} {i}");
        }
    }
}

#[test]
fn what_is_wrong_is_found() {
    for case in [r#"{"m":3,"n":5,"bits":70}"#, r#"{"m":3,"n":5,"bits":70,"k":6}"#] {
        let problem = hamming::Problem::new(&from_json("case", case.as_bytes()).unwrap()).unwrap();
        let mut out = problem.output();
        problem.forward(&mut out, &Ctx::serial().unwrap(), &mut Scratch::new()).unwrap();
        problem.check(&out, 1 << 20).unwrap();
        match &mut out {
            Out::All(distances) => distances[7] += 1,
            Out::Nearest { indices, .. } => indices.swap(12, 13),
        }
        assert!(problem.check(&out, 1 << 20).is_err(), "{case}");
    }
}
