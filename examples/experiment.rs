#![allow(missing_docs)]
fn main() {
    siskin::kernels::experiment::main()
}
