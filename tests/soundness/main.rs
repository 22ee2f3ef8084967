//! Memory: every kind of call on shapes so small that Miri, which watches each access, runs them all in minutes; and
//! executors that say what no executor should. `.ci/run miri` runs this with Miri on the scalar tier.

#[path = "../common/attention.rs"]
mod attention;
mod calls;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/ecoformer.rs"]
mod ecoformer;
mod executors;
#[path = "../common/float.rs"]
mod float;
#[path = "../common/layer.rs"]
mod layer;
