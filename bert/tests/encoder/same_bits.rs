//! A text has the same bits alone, in any batch, and at any number of threads.

use crate::common::{batch, config, embed, encoders};
use siskin::sparse::BlockShape;
use siskin::{Ctx, Executor, Parallelism};
use siskin_bert::{Batch, Family, Model, Pruning};
use std::sync::Arc;

/// Threads that are started for each call.
struct Threads(usize);

impl Executor for Threads {
    fn threads(&self) -> usize {
        self.0
    }

    fn for_each(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        let next = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..self.0 {
                scope.spawn(|| {
                    loop {
                        let i = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        if i >= tasks {
                            break;
                        }
                        task(i);
                    }
                });
            }
        });
    }
}

#[test]
fn alone_and_in_any_batch_at_any_number_of_threads() {
    let serial = Ctx::serial().unwrap();
    let contexts: Vec<Ctx> = [2, 5]
        .map(|n| serial.clone().with_parallelism(Parallelism::Custom(Arc::new(Threads(n)))))
        .into_iter()
        .chain([serial.clone()])
        .collect();
    for sparsity in [0.0, 0.75] {
        let mut model = Model::generated(config(Family::Bert), 2).unwrap();
        let pruning = Pruning::uniform(model.config(), BlockShape::B4X1, sparsity);
        model.prune(&pruning).unwrap();
        let texts = batch(&[11, 1, 160, 129, 25, 128, 38, 16], 21);
        let reversed = {
            let (mut reversed, all) = (Batch::new(), texts.tokens());
            for ends in all.cu_seqlens().windows(2).rev() {
                reversed.push(&all.ids()[ends[0] as usize..ends[1] as usize]).unwrap();
            }
            reversed
        };
        for (name, encoder) in encoders(&model, &serial) {
            let all = texts.tokens();
            let alone: Vec<Vec<f32>> = all
                .cu_seqlens()
                .windows(2)
                .map(|ends| {
                    let mut one = Batch::new();
                    one.push(&all.ids()[ends[0] as usize..ends[1] as usize]).unwrap();
                    embed(&encoder, one.tokens(), &serial)
                })
                .collect();
            assert!(alone.iter().flatten().all(|v| v.is_finite()));
            for ctx in &contexts {
                let threads = ctx.threads();
                assert_eq!(embed(&encoder, all, ctx), alone.concat(), "{name}, {threads} threads");
                let backwards: Vec<f32> = alone.iter().rev().flatten().copied().collect();
                assert_eq!(embed(&encoder, reversed.tokens(), ctx), backwards, "{name}, {threads} threads");
            }
        }
    }
}
