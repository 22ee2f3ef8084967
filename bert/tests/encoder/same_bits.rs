//! A text has the same bits alone, in any batch, and at any number of threads.

use crate::attention::variants;
use crate::common::{batch, config, embed, encoders};
use siskin::sparse::BlockShape;
use siskin::{Ctx, Executor, MatMut, Parallelism};
use siskin_bert::{Batch, Encoder, Family, Model, Options, Pruning, Workspace};
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
    let contexts: Vec<Ctx> = [2, 3]
        .map(|n| serial.clone().with_parallelism(Parallelism::Custom(Arc::new(Threads(n)))))
        .into_iter()
        .chain([serial.clone()])
        .collect();
    let gated = variants(Family::Bert).remove(8);
    for (config, sparsity) in [(config(Family::Bert), 0.0), (config(Family::Bert), 0.75), (gated, 0.0)] {
        let mut model = Model::generated(config, 2).unwrap();
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

/// What is not a kernel's is shared out too.
#[test]
fn many_texts_have_the_same_bits_at_any_number_of_threads() {
    let serial = Ctx::serial().unwrap();
    let model = Model::generated(config(Family::Bert), 3).unwrap();
    let lengths: Vec<usize> = (0..90).map(|i| if i % 7 == 0 { 0 } else { (i * 37) % 90 }).collect();
    let texts = batch(&lengths, 3);
    let encoder = Encoder::build(&model, &serial, &Options::default()).unwrap();
    let (tokens, count) = (texts.tokens().tokens(), lengths.len());
    assert!(tokens > 3000);
    let states = |ctx: &Ctx| {
        // Rows further apart than they are long.
        let mut out = vec![7.0; tokens * 40];
        let to = MatMut::with_stride(&mut out, tokens, 32, 40).unwrap();
        encoder.hidden_states(texts.tokens(), to, ctx, &mut Workspace::new()).unwrap();
        let mut pooled = vec![7.0; count * 33];
        let to = MatMut::with_stride(&mut pooled, count, 32, 33).unwrap();
        encoder.forward(texts.tokens(), to, ctx, &mut Workspace::new()).unwrap();
        assert!(
            out.chunks(40).all(|row| row[32..] == [7.0; 8]) && pooled.chunks(33).all(|row| row[32] == 7.0)
        );
        (out, pooled)
    };
    let expected = states(&serial);
    assert_eq!(
        expected.1.chunks(33).map(|row| row[..32].to_vec()).collect::<Vec<_>>().concat(),
        embed(&encoder, texts.tokens(), &serial)
    );
    for threads in [2, 3] {
        let ctx = serial.clone().with_parallelism(Parallelism::Custom(Arc::new(Threads(threads))));
        assert!(states(&ctx) == expected, "{threads} threads");
    }
}
