//! What a case may say, and what is refused before memory is taken for it.

use siskin_cli::internal::attention::{Case, Softmax};
use siskin_cli::internal::{Result, check, ecoformer, from_json, hamming};

fn parse(text: &str) -> Result<Case> {
    let case: Case = from_json("case", text.as_bytes())?;
    check(&case)?;
    Ok(case)
}

#[test]
fn a_softmax_is_a_name_or_an_object() {
    let softmax = |text: &str| parse(&format!(r#"{{"softmax":{text}}}"#)).map(|case| case.softmax);
    assert_eq!(softmax(r#""standard""#).unwrap(), Softmax::default());
    assert_eq!(softmax(r#"{"gamma":-0.5}"#).unwrap(), Softmax::Clipped { gamma: -0.5, zeta: 1.0 });
    let alpha = Softmax::Alpha { alpha: 12.0, max_len: 512 };
    assert_eq!(softmax(r#"{"alpha":12,"max_len":512}"#).unwrap(), alpha);
    assert_eq!(alpha.clipped().unwrap().unwrap().gamma(), -12.0 / 512.0);
    for bad in [
        r#""clipped""#,
        r#"{"gamma":1}"#,
        r#"{"gamma":-0.5,"zeta":0.5}"#,
        r#"{"gamma":-0.5,"alpha":1}"#,
        r#"{"alpha":12}"#,
        "1",
    ] {
        assert!(softmax(bad).is_err(), "{bad}");
    }
}

#[test]
fn sizes_of_attention_are_limited_before_memory_is_taken() {
    for bad in [
        r#"{"seq":0}"#,
        r#"{"kv_len":0}"#,
        r#"{"heads":0}"#,
        r#"{"heads":12,"kv_heads":5}"#,
        r#"{"head_dim":257}"#,
        r#"{"seq":18446744073709551615,"kv_len":18446744073709551615,"batch":18446744073709551615}"#,
        r#"{"seq":1,"kv_len":100000000}"#,
        r#"{"seq":60000,"heads":12,"head_dim":1}"#,
        r#"{"cu_seqlens":[1,2]}"#,
        r#"{"cu_seqlens":[0,5,4]}"#,
        r#"{"cu_seqlens":[0,2147483647]}"#,
        r#"{"cu_seqlens":[0,5],"seq":5}"#,
        r#"{"cu_seqlens":[0,5],"cu_seqlens_k":[0,5,6]}"#,
        r#"{"cu_seqlens_k":[0,5]}"#,
        r#"{"layout":"fused","kv_len":5}"#,
        r#"{"layout":"fused","kv_heads":1}"#,
        r#"{"threads":0}"#,
        r#"{"y":"i32"}"#,
        r#"{"window":[1]}"#,
        r#"{"window":[-1,0]}"#,
        r#"{"m":5}"#,
        r#"{"op":"linear"}"#,
    ] {
        assert!(parse(bad).is_err(), "{bad}");
    }
    let packed = parse(r#"{"cu_seqlens":[0,5,5,9],"layout":"fused","window":[3,0]}"#).unwrap();
    assert_eq!(packed.tokens(), (9, 9));
    assert!(parse(r#"{"seq":1,"kv_len":4096}"#).unwrap().is_decode());
}

#[test]
fn sizes_of_ecoformer_are_limited_before_memory_is_taken() {
    let parse = |text: &str| -> Result<()> { check(&from_json::<ecoformer::Case>("case", text.as_bytes())?) };
    for bad in [
        r#"{"n":0}"#,
        r#"{"batch":0}"#,
        r#"{"heads":0}"#,
        r#"{"head_dim":0}"#,
        r#"{"head_dim":257}"#,
        r#"{"bits":0}"#,
        r#"{"bits":257}"#,
        r#"{"anchors":0}"#,
        r#"{"anchors":4097}"#,
        r#"{"n":18446744073709551615,"batch":18446744073709551615,"heads":18446744073709551615}"#,
        r#"{"n":1,"heads":100000}"#,
        r#"{"n":3000000}"#,
        r#"{"n":100000,"softmax":true}"#,
        r#"{"causal":true}"#,
        r#"{"v":"i32"}"#,
        r#"{"numerator":"both"}"#,
        r#"{"bandwidth":"own"}"#,
        r#"{"threads":0}"#,
        r#"{"kv_len":5}"#,
        r#"{"n":5,"seq":5}"#,
        r#"{"op":"linear"}"#,
    ] {
        assert!(parse(bad).is_err(), "{bad}");
    }
    parse(r#"{"n":100000,"causal":true,"numerator":"consistent","bandwidth":"frozen"}"#).unwrap();
    parse(r#"{"seq":100,"dtype":"int8"}"#).unwrap();
    parse("{}").unwrap();
}

#[test]
fn sizes_of_codes_are_limited_before_memory_is_taken() {
    for bad in [
        r#"{"n":0}"#,
        r#"{"m":0}"#,
        r#"{"k":0}"#,
        r#"{"bits":0}"#,
        r#"{"bits":257}"#,
        r#"{"n":100000}"#,
        r#"{"m":18446744073709551615,"n":18446744073709551615}"#,
        r#"{"m":1000,"k":18446744073709551615}"#,
        r#"{"threads":0}"#,
        r#"{"op":"linear"}"#,
    ] {
        let case = from_json::<hamming::Case>("case", bad.as_bytes());
        assert!(case.and_then(|case| check(&case)).is_err(), "{bad}");
    }
}
