"""PyTorch with the model of Transformers, one thread: f32 as it runs and compiled, and INT8 by PyTorch's dynamic quantization of linear
layers."""

import os
import warnings

# The model is in a folder: nothing is to be looked for elsewhere.
os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers

warnings.simplefilter("ignore")
transformers.logging.set_verbosity_error()
torch.set_num_threads(1)
torch.set_grad_enabled(False)


def version():
    return f"PyTorch {torch.__version__.split('+')[0]}"


class Encoder:
    def __init__(self, form, model, _):
        self.model = transformers.AutoModel.from_pretrained(model, attn_implementation="sdpa", dtype=torch.float32).eval()
        if form == "int8":
            self.model = torch.ao.quantization.quantize_dynamic(self.model, {torch.nn.Linear}, dtype=torch.qint8)
        self.compiled = {} if form == "f32-compiled" else None

    def vectors(self, ids):
        """Texts that are not padded need no mask."""
        return torch.nn.functional.normalize(self.model(input_ids=ids).last_hidden_state.mean(1), dim=1)

    def call(self, ids, often):
        run, ids = self.vectors, torch.from_numpy(ids)
        if self.compiled is not None:
            run = self.of_shape(ids.shape if often else None)
        return lambda: run(ids).numpy()

    def of_shape(self, shape):
        """The compiled model, for this shape or for any."""
        if shape not in self.compiled:
            from torch._inductor import config

            # Weights do not change: they may be packed ahead.
            config.freezing = True
            # What was compiled for any shape would be taken for this one too.
            if self.compiled.pop(None, None):
                torch._dynamo.reset()
            self.compiled[shape] = torch.compile(self.vectors, dynamic=shape is None)
        return self.compiled[shape]
