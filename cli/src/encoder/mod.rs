//! Encoders of text: models of the BERT family, of a folder or generated, on the threads of a command.

pub mod batches;
pub mod build;
pub mod measure;
pub mod similar;
pub mod sink;
pub mod texts;
