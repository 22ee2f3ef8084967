//! The commands, which know the families by their list alone, but for those that are about a few of them.

pub mod bench;
pub mod bert;
pub mod embed;
pub mod energy;
pub mod info;
pub mod plot;
pub mod run;
pub mod serve;
pub mod survey;
pub mod tour;
pub mod tune;
pub mod verify;
