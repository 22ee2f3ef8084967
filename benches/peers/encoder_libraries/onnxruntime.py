"""ONNX Runtime, one thread. Dynamic INT8 is measured as it comes, and tuned: without the optimizer that makes one operator of each sum of
a residual and the norm behind it, which in INT8 models takes longer than the two."""

import numpy as np
import onnxruntime

FORMS = {"f32": ("f32.onnx", []), "int8": ("int8.onnx", []), "int8-tuned": ("int8.onnx", ["SkipLayerNormFusion"])}


def version():
    return f"ONNX Runtime {onnxruntime.__version__}"


class Encoder:
    def __init__(self, form, _, folder):
        name, disabled = FORMS[form]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(
            folder / name, options, providers=["CPUExecutionProvider"], disabled_optimizers=disabled
        )

    def call(self, ids, often):
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        return lambda: self.session.run(["vectors"], feed)[0]
