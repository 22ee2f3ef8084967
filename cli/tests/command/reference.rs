//! The plain reference of attention: which keys a query meets, and what comes of few or none.

use siskin::attention::EmptyRow;
use siskin_cli::internal::attention::{Case, Problem};
use siskin_cli::internal::{check, from_json};

fn problem(case: &str) -> Problem {
    let case: Case = from_json("case", case.as_bytes()).unwrap();
    check(&case).unwrap();
    Problem::new(&case).unwrap()
}

#[test]
fn a_query_meets_what_the_masks_leave() {
    let mut p = problem(r#"{"seq":2,"kv_len":5,"heads":1,"head_dim":4,"causal":true}"#);
    assert_eq!((p.reach(0, 0), p.reach(0, 1)), (0..4, 0..5));
    p.window = Some([1, 9]);
    assert_eq!((p.reach(0, 0), p.reach(0, 1)), (2..4, 3..5));
    p.positions = Some(vec![0]);
    assert_eq!((p.reach(0, 0), p.reach(0, 1)), (0..1, 0..2));
    p.key_lengths = Some(vec![1]);
    p.causal = false;
    assert_eq!((p.reach(0, 0), p.reach(0, 1)), (0..1, 0..1));
    p.positions = Some(vec![7]);
    assert!(p.reach(0, 0).is_empty());
    // More queries than keys: the first are before all of them.
    let p = problem(r#"{"seq":3,"kv_len":2,"heads":1,"head_dim":4,"causal":true}"#);
    assert_eq!((p.reach(0, 0).len(), p.reach(0, 1), p.reach(0, 2)), (0, 0..1, 0..2));
    assert_eq!(p.pairs(), (3, 3));
}

#[test]
fn a_single_key_is_its_own_context() {
    for case in [
        r#"{"seq":1,"heads":2,"head_dim":3}"#,
        r#"{"seq":1,"heads":2,"head_dim":3,"layout":"fused","softmax":{"gamma":-0.5}}"#,
        r#"{"seq":1,"heads":2,"head_dim":3,"layout":"heads","dtype":"int8"}"#,
        r#"{"seq":1,"heads":2,"kv_heads":1,"head_dim":3,"dtype":"bf16"}"#,
    ] {
        let p = problem(case);
        for head in 0..2 {
            let (v, step) = p.real(2, 0, head * p.kv_heads / 2);
            for (got, v) in p.plain(0, head).values.iter().zip(v) {
                assert!((got - v * step).abs() < 1e-7, "{case}: {got} {}", v * step);
            }
        }
    }
}

#[test]
fn rows_without_keys_are_zeros_or_uniform() {
    let mut p = problem(r#"{"seq":2,"heads":1,"head_dim":3,"softmax":{"gamma":-0.1}}"#);
    p.key_lengths = Some(vec![0]);
    assert_eq!(p.plain(0, 0).values, [0.0; 3]);
    p.empty_rows = EmptyRow::Uniform;
    let (a, b) = (p.real(2, 0, 0).0, p.real(2, 1, 0).0);
    let weight = (1.0 + f64::from(0.1f32)) * 0.5 - f64::from(0.1f32);
    for (f, got) in p.plain(1, 0).values.iter().enumerate() {
        assert!((got - weight * (a[f] + b[f])).abs() < 1e-12);
    }
}
