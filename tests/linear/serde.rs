//! Plain parameters through JSON and back; what a constructor refuses is refused when it is read.

use serde_json::{from_str, to_string};
use siskin::Element;
use siskin::quant::{QuantParams, Scheme};
use siskin::sparse::BlockShape;

#[test]
fn parameters_survive_json() {
    for element in [Element::U8, Element::I8] {
        let params = QuantParams::new(0.25, 7, element).unwrap();
        let text = to_string(&params).unwrap();
        assert_eq!(text, format!(r#"{{"scale":0.25,"zero_point":7,"dtype":"{element}"}}"#));
        assert_eq!(from_str::<QuantParams>(&text).unwrap(), params);
    }
    for element in [Element::U16, Element::I32, Element::F32, Element::Bf16, Element::F16] {
        assert_eq!(to_string(&element).unwrap(), format!("\"{element}\""));
    }
    for scheme in [Scheme::Asymmetric(Element::U8), Scheme::Symmetric(Element::I8), Scheme::SymmetricAuto] {
        assert_eq!(from_str::<Scheme>(&to_string(&scheme).unwrap()).unwrap(), scheme);
    }
    let block = BlockShape::B16X4;
    assert_eq!(to_string(&block).unwrap(), "\"16x4\"");
    assert_eq!(from_str::<BlockShape>("\"16x4\"").unwrap(), block);
}

#[test]
fn what_a_constructor_refuses_is_refused() {
    for text in [
        r#"{"scale":0.0,"zero_point":0,"dtype":"u8"}"#,
        r#"{"scale":1.0,"zero_point":-1,"dtype":"u8"}"#,
        r#"{"scale":1.0,"zero_point":0,"dtype":"f32"}"#,
        r#"{"scale":1.0,"zero_point":0,"dtype":"u8","more":1}"#,
    ] {
        assert!(from_str::<QuantParams>(text).is_err(), "{text}");
    }
    for text in ["\"0x4\"", "\"4\"", "4"] {
        assert!(from_str::<BlockShape>(text).is_err(), "{text}");
    }
}
