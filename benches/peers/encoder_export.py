"""What the peers need of the folder of a checkpoint: ONNX models in f32 and in INT8 by ONNX Runtime's dynamic quantization, and a tokenizer
and texts where the weights are generated, and there is none."""

import json
import logging

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from safetensors.numpy import load_file
from tokenizers import Tokenizer, models, pre_tokenizers

import encoder_graph

# Of an ONNX file that onnxruntime of README.md reads.
IR_VERSION = 9


def config_of(folder):
    """The config.json of a checkpoint that the graph can express."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if why := encoder_graph.unsupported(config) or unsupported_pooling(folder):
        raise SystemExit(f"{folder}: {why}")
    return config


def unsupported_pooling(folder):
    """Why the vectors of a checkpoint are not means scaled to the length 1, or nothing. They are so if no file says otherwise."""
    if not (folder / "modules.json").exists():
        return None
    kind = None
    for module in json.loads((folder / "modules.json").read_text(encoding="utf-8")):
        kind = module["type"].rsplit(".")[-1]
        if kind == "Pooling":
            pooling = json.loads((folder / module["path"] / "config.json").read_text(encoding="utf-8"))
            modes = [name for name, on in pooling.items() if name.startswith("pooling_mode_") and on is True]
            if modes != ["pooling_mode_mean_tokens"]:
                return f"expected the pooling to be the mean of tokens, and it is {modes}"
    return None if kind == "Normalize" else f"expected the last module to be Normalize, and it is {kind}"


def array(weights, tensor):
    """A tensor of the checkpoint in f32, whose name may have a prefix."""
    for name in (tensor.name, *(f"{family}.{tensor.name}" for family in encoder_graph.NAMES)):
        if name in weights:
            found = weights[name].astype(np.float32)
            return np.ascontiguousarray(found.T) if tensor.transposed else found
    raise SystemExit(f"model.safetensors has no {tensor.name}")


def export(folder, path):
    """Writes the f32 model of a checkpoint."""
    config = config_of(folder)
    graph, weights = encoder_graph.encoder(config), load_file(folder / "model.safetensors")
    constants = {name: array(weights, tensor) for name, tensor in graph.tensors.items()}
    constants |= {name: np.array(value, np.int64 if isinstance(value, list) else np.float32) for name, value in graph.values.items()}
    nodes = []
    for node in graph.nodes:
        attributes = node.attributes
        if "to" in attributes:
            attributes = {"to": getattr(TensorProto, attributes["to"])}
        nodes.append(helper.make_node(node.op, node.inputs, [node.output], name=node.output, **attributes))
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["texts", "tokens"]) for name in ("input_ids", "attention_mask")]
    outputs = [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["texts", encoder_graph.field(config, "hidden_size")])]
    initializers = [numpy_helper.from_array(constant, name) for name, constant in constants.items()]
    made = helper.make_graph(nodes, "encoder", inputs, outputs, initializers)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", encoder_graph.OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def quantize(path, to):
    """Linear layers in INT8: weights with a scale for each output feature, as siskin has them, inputs by the range of the tensor. A scale
    for each matrix would be a little faster, and vectors of MiniLM would lose much."""
    # It recommends to infer shapes beforehand, which dynamic quantization of these operators does not need.
    logging.disable(logging.WARNING)
    quantize_dynamic(path, to, op_types_to_quantize=["MatMul"], per_channel=True, weight_type=QuantType.QInt8)


def with_tokenizer(model, folder):
    """The folder of a checkpoint that has none, with a tokenizer: each token is a word, "w" and its number."""
    folder.mkdir()
    for entry in model.iterdir():
        (folder / entry.name).symlink_to(entry.resolve())
    words = {f"w{token}": token for token in range(config_of(model)["vocab_size"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def random_texts(lengths, vocabulary, seed):
    """Texts of so many words of that tokenizer."""
    random = np.random.default_rng(seed)
    return [" ".join(f"w{token}" for token in random.integers(0, vocabulary, length)) for length in lengths]
