"""OpenVINO, one thread, compiled for each shape that is timed: fixed shapes are faster than open ones. INT8 is NNCF's post-training
quantization for transformers, calibrated on sample texts, with floats between layers in f32 or in what OpenVINO prefers on this CPU."""

import json

import numpy as np
import openvino

OPTIONS = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False}


def version():
    return f"OpenVINO {openvino.__version__.split('-')[0]}"


class Encoder:
    def __init__(self, form, _, folder):
        self.core, self.compiled = openvino.Core(), {}
        self.options = OPTIONS | ({} if form == "int8-preferred" else {"INFERENCE_PRECISION_HINT": "f32"})
        self.path = folder / "f32.onnx"
        if form != "f32":
            self.path = folder / "nncf.xml"
            if not self.path.exists():
                quantize(self.core.read_model(folder / "f32.onnx"), folder / "samples.json", self.path)

    def call(self, ids, often):
        shape = ids.shape if often else None
        if shape not in self.compiled:
            model = self.core.read_model(self.path)
            if shape:
                model.reshape({name: list(shape) for name in ("input_ids", "attention_mask")})
            self.compiled[shape] = self.core.compile_model(model, "CPU", self.options).create_infer_request()
        request, feed = self.compiled[shape], {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        return lambda: request.infer(feed)["vectors"]


def quantize(model, samples, path):
    import nncf

    texts = [np.array([text], np.int64) for text in json.loads(samples.read_text(encoding="utf-8"))]
    data = nncf.Dataset([{"input_ids": text, "attention_mask": np.ones_like(text)} for text in texts])
    quantized = nncf.quantize(
        model, data, model_type=nncf.ModelType.TRANSFORMER, preset=nncf.QuantizationPreset.MIXED, subset_size=len(texts)
    )
    openvino.save_model(quantized, path, compress_to_fp16=False)
