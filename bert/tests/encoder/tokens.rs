//! From texts to tokens.

use crate::common::config;
use serde_json::json;
use siskin_bert::{Error, Family, Tokenizer, TooLong};
use tempfile::TempDir;

/// A tokenizer of a few words, which asks for padding and truncation as those of sentence-transformers do.
fn folder() -> TempDir {
    let dir = TempDir::new().unwrap();
    let words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "bird", "sings", "##ing", "green"];
    let vocabulary: serde_json::Map<_, _> =
        words.iter().enumerate().map(|(i, w)| (w.to_string(), json!(i))).collect();
    let special = |id: usize| json!({ "id": id, "content": words[id], "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true });
    let piece = |name: &str| json!({ "SpecialToken": { "id": name, "type_id": 0 } });
    let tokenizer = json!({
        "version": "1.0",
        "truncation": { "max_length": 3, "strategy": "LongestFirst", "stride": 0, "direction": "Right" },
        "padding": { "strategy": { "Fixed": 16 }, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]" },
        "added_tokens": [special(0), special(1), special(2), special(3)],
        "normalizer": { "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [piece("[CLS]"), { "Sequence": { "id": "A", "type_id": 0 } }, piece("[SEP]")],
            "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 1 } }],
            "special_tokens": {
                "[CLS]": { "id": "[CLS]", "ids": [2], "tokens": ["[CLS]"] },
                "[SEP]": { "id": "[SEP]", "ids": [3], "tokens": ["[SEP]"] }
            }
        },
        "decoder": null,
        "model": { "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": vocabulary }
    });
    std::fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    dir
}

#[test]
fn texts_become_tokens_without_padding() {
    let tokenizer = Tokenizer::read(folder().path(), &config(Family::Bert)).unwrap();
    assert_eq!(tokenizer.limit(), 160);
    let all = tokenizer.encode(&["A bird sings", "", "Green birding!"], TooLong::Refuse).unwrap();
    assert_eq!(all.batch.tokens().ids(), [2, 4, 5, 6, 3, 2, 3, 2, 8, 5, 7, 1, 3]);
    assert_eq!(all.batch.tokens().cu_seqlens(), [0, 5, 7, 13]);
    assert!(all.cut.is_empty());
}

#[test]
fn long_texts_are_refused_or_cut_and_named() {
    let tokenizer = Tokenizer::read(folder().path(), &config(Family::Bert)).unwrap().with_limit(5).unwrap();
    let texts = ["a bird sings", "a bird sings a green bird sings", "a", "a green bird sings"];
    let refused = tokenizer.encode(&texts, TooLong::Refuse).unwrap_err();
    assert!(matches!(refused, Error::TooLong { text: 1, limit: 5, got: 9 }), "{refused}");
    assert_eq!(refused.to_string(), "text 1: expected at most 5 tokens, got 9");
    let cut = tokenizer.encode(&texts, TooLong::Cut).unwrap();
    assert_eq!(cut.cut, [(1, 9), (3, 6)]);
    assert_eq!(cut.batch.tokens().cu_seqlens(), [0, 5, 10, 13, 18]);
    assert_eq!(cut.batch.tokens().ids()[5..10], [2, 4, 5, 6, 3]);
    assert!(tokenizer.with_limit(2).is_err());
}

#[test]
fn wrong_tokenizers_are_refused() {
    let (dir, mut config) = (folder(), config(Family::Bert));
    config.vocab_size = 8;
    let refused = Tokenizer::read(dir.path(), &config).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "vocabulary: expected at most vocab_size = 8 tokens in tokenizer.json, got 9"
    );
    std::fs::write(dir.path().join("tokenizer.json"), "{}").unwrap();
    assert!(matches!(Tokenizer::read(dir.path(), &config), Err(Error::File { .. })));
    std::fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
    assert!(matches!(Tokenizer::read(dir.path(), &config), Err(Error::Io { .. })));
}
