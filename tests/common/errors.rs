//! What a typed error is expected to say.

use siskin::Error;

#[derive(Debug, PartialEq)]
pub enum Kind {
    Shape,
    Value,
    Index(usize),
    Unsupported,
}
use Kind::{Index, Shape, Unsupported, Value};

#[track_caller]
pub fn named<T: std::fmt::Debug>(result: Result<T, Error>, kind: Kind, name: &str) {
    let e = result.expect_err(name);
    let (got, argument) = match &e {
        Error::Shape { argument, .. } => (Shape, *argument),
        Error::Value { argument, .. } => (Value, *argument),
        Error::Index { argument, position, .. } => (Index(*position), *argument),
        Error::Unsupported { argument, .. } => (Unsupported, *argument),
        other => panic!("{other}"),
    };
    assert_eq!((got, argument), (kind, name), "{e}");
    assert!(e.to_string().contains(name));
}
