"""fastembed, which is ONNX Runtime behind a tokenizer, with the f32 model and one thread. It takes texts: those that it is given are of so
many words as there are tokens beside the special ones, and their tokens count in its times."""

import importlib.metadata
import json
import os
import shutil

import numpy as np

os.environ["HF_HUB_OFFLINE"] = "1"

from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType
from tokenizers import Tokenizer

import encoder_graph

NAME = "peer/encoder"


def version():
    return f"fastembed {importlib.metadata.version('fastembed')}"


class Encoder:
    def __init__(self, _, model, folder):
        config = json.loads((model / "config.json").read_text(encoding="utf-8"))
        own = folder / "fastembed"
        shutil.copytree(model, own, ignore=shutil.ignore_patterns("*.safetensors", "*_Pooling"))
        shutil.copy(folder / "f32.onnx", own / "model.onnx")
        # Without a limit of its own it cuts texts.
        limit = {"model_max_length": config["max_position_embeddings"], "pad_token": "[PAD]"}
        (own / "tokenizer_config.json").write_text(json.dumps(limit), encoding="utf-8")
        source, dim = ModelSource(hf=NAME), encoder_graph.field(config, "hidden_size")
        TextEmbedding.add_custom_model(NAME, PoolingType.DISABLED, False, source, dim, model_file="model.onnx")
        self.model = TextEmbedding(NAME, specific_model_path=str(own), threads=1, providers=["CPUExecutionProvider"])
        self.tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()

    def text(self, ids, often):
        """A text of these tokens, or to be timed one of as many."""
        text = self.tokenizer.decode(ids.tolist())
        if often and self.tokenizer.encode(text).ids != ids.tolist():
            special = len(self.tokenizer.encode("").ids)
            text = " ".join(["the"] * (len(ids) - special))
        if len(got := self.tokenizer.encode(text).ids) != len(ids) or not often and got != ids.tolist():
            raise SystemExit(f"fastembed: expected a text of {len(ids)} tokens that are given, got one of {len(got)}, or of others")
        return text

    def call(self, ids, often):
        texts = [self.text(row, often) for row in ids]
        return lambda: np.array(list(self.model.embed(texts, batch_size=len(texts))))
