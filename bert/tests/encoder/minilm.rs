//! A real model, all-MiniLM-L6-v2, where there is one: `bert/fetch_minilm.sh` fetches it, SISKIN_MINILM names its folder.

use crate::common::{cosine, embed};
use siskin::Ctx;
use siskin_bert::{
    Calibration, Encoder, Model, Options, PoolingMode, Precision, Range, Tokenizer, TooLong, sample_texts,
};

const TEXTS: &str = include_str!("../texts.txt");

#[test]
fn minilm_in_int8_stays_near_f32() {
    let Some(dir) = std::env::var_os("SISKIN_MINILM") else {
        println!("SISKIN_MINILM names no folder of all-MiniLM-L6-v2: nothing was tested");
        return;
    };
    let (ctx, model) = (Ctx::new().unwrap(), Model::read(&dir).unwrap());
    assert_eq!((model.pooling().mode, model.pooling().normalize), (PoolingMode::Mean, true));
    let tokenizer = Tokenizer::read(&dir, model.config()).unwrap();
    let texts: Vec<&str> = TEXTS.lines().collect();
    let tokens = tokenizer.encode(&texts, TooLong::Refuse).unwrap().batch;
    let tokens = tokens.tokens();
    // What is measured is not what was calibrated on.
    let samples: Vec<&str> = sample_texts().collect();
    let samples = tokenizer.encode(&samples, TooLong::Refuse).unwrap().batch;
    let calibration = Calibration::collect(&model, [samples.tokens()], Range::Absolute, &ctx).unwrap();

    let run = |options: Options<'_>| embed(&Encoder::build(&model, &ctx, &options).unwrap(), tokens, &ctx);
    let exact = run(Options::new(Precision::F32));
    for (name, options, least) in [
        ("bf16", Options::new(Precision::Bf16), 0.9999),
        ("int8", Options::new(Precision::Int8), 0.993),
        ("int8, static", Options::calibrated(&calibration), 0.985),
    ] {
        let got = run(options);
        let hidden = model.config().hidden_size;
        let cosines: Vec<f64> =
            got.chunks(hidden).zip(exact.chunks(hidden)).map(|(a, b)| cosine(a, b)).collect();
        let worst = (0..cosines.len()).min_by(|&a, &b| cosines[a].total_cmp(&cosines[b])).unwrap();
        let mean = cosines.iter().sum::<f64>() / cosines.len() as f64;
        println!(
            "{name}: cosine to f32 {mean:.4} in the mean, {:.4} at worst: {:.60}",
            cosines[worst], texts[worst]
        );
        assert!(cosines[worst] >= least, "{name}: {} of {}", cosines[worst], texts[worst]);
    }
}

#[test]
fn minilm_knows_what_is_alike() {
    let Some(dir) = std::env::var_os("SISKIN_MINILM") else {
        println!("SISKIN_MINILM names no folder of all-MiniLM-L6-v2: nothing was tested");
        return;
    };
    let (ctx, model) = (Ctx::new().unwrap(), Model::read(&dir).unwrap());
    let tokenizer = Tokenizer::read(&dir, model.config()).unwrap();
    let texts =
        ["A man is eating food.", "A man is eating a piece of bread.", "The girl is carrying a baby."];
    let tokens = tokenizer.encode(&texts, TooLong::Refuse).unwrap().batch;
    let vectors = embed(&Encoder::build(&model, &ctx, &Options::default()).unwrap(), tokens.tokens(), &ctx);
    let [a, b, c] = [0, 1, 2].map(|i| &vectors[i * 384..][..384]);
    // As the card of the model and sentence-transformers have them.
    assert!((cosine(a, b) - 0.755).abs() < 0.01, "{}", cosine(a, b));
    assert!(cosine(a, c) < 0.2, "{}", cosine(a, c));
}
