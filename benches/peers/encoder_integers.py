"""Linear layers of an ONNX model as products of bytes, in the form that DeepSparse takes: inputs quantized by the range that sample texts
have, weights with a scale for each output feature, in which what is pruned stays 0."""

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper


def layers(graph, constants):
    """Pairs of the product and the sum of each linear layer."""
    sums = {node.input[0]: node for node in graph.node if node.op_type == "Add"}
    return [(node, sums[node.output[0]]) for node in graph.node if node.op_type == "MatMul" and node.input[1] in constants]


def ranges(model, names, texts):
    """The least and the largest number of each tensor of these names, over texts, lists of tokens."""
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    exposed.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(exposed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    # A quantizer has 0 among its numbers.
    found = {name: (0.0, 0.0) for name in names}
    for text in texts:
        ids = np.array([text], np.int64)
        values = session.run(names, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        for name, value in zip(names, values):
            found[name] = min(found[name][0], value.min()), max(found[name][1], value.max())
    return found


def quantized(low, high):
    """The scale and the zero point of bytes that reach from one number to another."""
    scale = np.float32((high - low) / 255)
    return scale, np.uint8(np.rint(-low / scale))


def of_weights(w, bias, x_scale):
    """Weights [inputs, outputs] as bytes, the bias as one more sum, and what a sum stands for."""
    steps = np.abs(w).max(0) / np.float32(127)
    # Of an output feature of which nothing is left, any step will do with which its bias is no large number.
    steps[steps == 0] = steps.max()
    scale = (x_scale * steps).astype(np.float32)
    return np.rint(w / steps).astype(np.int8), np.rint(bias / scale).astype(np.int32), scale


def convert(path, to, texts):
    """Writes the model of bytes of a model in f32."""
    model = onnx.load(path)
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    found = layers(graph, constants)
    inputs = list(dict.fromkeys(product.input[0] for product, _ in found))
    made, bytes_of = {}, {}
    reach = ranges(model, inputs, texts)
    for x in inputs:
        made[f"{x}.scale"], made[f"{x}.zero"] = bytes_of[x] = quantized(*reach[x])
    made["no_zero_point"] = np.int8(0)
    replaced, sums = {}, set()
    for product, sum_ in found:
        (x, w), y = product.input, sum_.output[0]
        bias = next(name for name in sum_.input if name in constants)
        made[f"{w}.bytes"], made[f"{bias}.sums"], made[f"{w}.scale"] = of_weights(
            numpy_helper.to_array(constants.pop(w)), numpy_helper.to_array(constants.pop(bias)), bytes_of[x][0]
        )
        sums.add(y)
        replaced[product.output[0]] = [
            helper.make_node("MatMulInteger", [f"{x}.bytes", f"{w}.bytes", f"{x}.zero", "no_zero_point"], [f"{y}.products"]),
            helper.make_node("Add", [f"{y}.products", f"{bias}.sums"], [f"{y}.sums"]),
            helper.make_node("Cast", [f"{y}.sums"], [f"{y}.floats"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{y}.floats", f"{w}.scale"], [y]),
        ]
    nodes = []
    for node in graph.node:
        if node.output[0] not in sums:
            nodes += replaced.get(node.output[0], [node])
        if (x := node.output[0]) in bytes_of and x not in sums:
            nodes.append(helper.make_node("QuantizeLinear", [x, f"{x}.scale", f"{x}.zero"], [f"{x}.bytes"]))
    initializers = [*constants.values(), *(numpy_helper.from_array(np.asarray(value), name) for name, value in made.items())]
    of_bytes = helper.make_graph(nodes, graph.name, graph.input, graph.output, initializers)
    model = helper.make_model(of_bytes, opset_imports=model.opset_import, ir_version=model.ir_version)
    onnx.checker.check_model(model)
    onnx.save(model, to)
