"""An encoder of the BERT family as a graph of ONNX operators, from tokens to vectors. It is a plain description, without weights:
encoder_export.py makes a model of it. Operators are those that PyTorch's exporter writes, so ONNX Runtime knows how to fuse them.

Inputs are input_ids and attention_mask, [texts, tokens], 1 where a token is and 0 where a text is padded. The output is vectors,
[texts, features]: the sum of a text's tokens, scaled to the length 1, which is their mean scaled so."""

import math
from typing import NamedTuple

OPSET = 17
# What is added to the scores of padded tokens: the lowest f32.
LOWEST = -3.4028234663852886e38


class Node(NamedTuple):
    """An operator with one output; it has the name of the output."""

    op: str
    inputs: tuple
    output: str
    attributes: dict


class Tensor(NamedTuple):
    """A constant that the checkpoint has. Linear layers are stored [outputs, inputs] and multiplied transposed."""

    name: str
    transposed: bool = False


class Graph:
    """Nodes in the order in which they run, and constants by their names: tensors of the checkpoint, or values."""

    def __init__(self):
        self.nodes, self.tensors, self.values = [], {}, {}

    def add(self, op, inputs, output, **attributes):
        self.nodes.append(Node(op, tuple(inputs), output, attributes))
        return output

    def tensor(self, name, transposed=False):
        self.tensors[name] = Tensor(name, transposed)
        return name

    def value(self, name, value):
        """A number is f32, a list is of int64, as shapes and axes are."""
        self.values[name] = value
        return name

    def linear(self, x, layer):
        product = self.add("MatMul", [x, self.tensor(f"{layer}.weight", transposed=True)], f"{layer}.product")
        return self.add("Add", [product, self.tensor(f"{layer}.bias")], f"{layer}.output")

    def norm(self, x, layer, epsilon):
        inputs = [x, self.tensor(f"{layer}.weight"), self.tensor(f"{layer}.bias")]
        return self.add("LayerNormalization", inputs, f"{layer}.output", axis=-1, epsilon=epsilon)


# What parts of a layer are called, by model_type; and fields of config.json that are not called as BERT calls them.
NAMES = {
    "bert": {
        "layer": "encoder.layer", "query": "attention.self.query", "key": "attention.self.key", "value": "attention.self.value",
        "joined": "attention.output.dense", "norm": "attention.output.LayerNorm", "wide": "intermediate.dense", "narrow": "output.dense",
        "last_norm": "output.LayerNorm",
    },
    "distilbert": {
        "layer": "transformer.layer", "query": "attention.q_lin", "key": "attention.k_lin", "value": "attention.v_lin",
        "joined": "attention.out_lin", "norm": "sa_layer_norm", "wide": "ffn.lin1", "narrow": "ffn.lin2", "last_norm": "output_layer_norm",
    },
}
FIELDS = {
    "distilbert": {"hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads", "hidden_act": "activation"},
}


def field(config, name):
    """A field of config.json by BERT's name."""
    return config.get(FIELDS.get(config["model_type"], {}).get(name, name))


def unsupported(config):
    """Why there is no graph for a config.json, or nothing."""
    if config.get("model_type") not in NAMES:
        return f"config.json: expected model_type to be one of {', '.join(NAMES)}, and it is {config.get('model_type')!r}"
    if field(config, "hidden_act") != "gelu":
        return f"config.json: expected the activation (hidden_act) to be 'gelu', and it is {field(config, 'hidden_act')!r}"
    if (positions := config.get("position_embedding_type", "absolute")) != "absolute":
        return f"config.json: expected position_embedding_type to be 'absolute', and it is {positions!r}"
    return None


def encoder(config):
    """The graph of a model with this config.json."""
    graph, epsilon, names = Graph(), config.get("layer_norm_eps", 1e-12), NAMES[config["model_type"]]
    heads, hidden = field(config, "num_attention_heads"), field(config, "hidden_size")
    graph.value("zero", [0])
    graph.value("one", 1.0)
    graph.value("half", 0.5)
    graph.value("root_of_two", math.sqrt(2))
    graph.value("score_scale", math.sqrt(hidden // heads))
    graph.value("split_heads", [0, 0, heads, hidden // heads])
    graph.value("join_heads", [0, 0, hidden])
    x = embeddings(graph, epsilon, config["model_type"] == "bert")
    mask = added_mask(graph)
    for index in range(field(config, "num_hidden_layers")):
        layer = f"{names['layer']}.{index}"
        part = {name: f"{layer}.{of}" for name, of in names.items() if name != "layer"}
        y = attention(graph, x, mask, layer, part)
        x = graph.norm(graph.add("Add", [y, x], f"{layer}.attention.residual"), part["norm"], epsilon)
        y = feed_forward(graph, x, layer, part)
        x = graph.norm(graph.add("Add", [y, x], f"{layer}.residual"), part["last_norm"], epsilon)
    pooled(graph, x)
    return graph


def embeddings(graph, epsilon, typed):
    """Words, positions from 0 on, and the first type of tokens where there are types."""
    words = graph.add("Gather", [graph.tensor("embeddings.word_embeddings.weight"), "input_ids"], "embeddings.words")
    tokens = graph.add("Shape", ["input_ids"], "embeddings.tokens", start=1, end=2)
    table = graph.tensor("embeddings.position_embeddings.weight")
    positions = graph.add("Slice", [table, "zero", tokens, "zero"], "embeddings.positions")
    if typed:
        types = graph.tensor("embeddings.token_type_embeddings.weight")
        first = graph.add("Gather", [types, "zero"], "embeddings.first_type")
        positions = graph.add("Add", [positions, first], "embeddings.positions_and_type")
    return graph.norm(graph.add("Add", [words, positions], "embeddings.sum"), "embeddings.LayerNorm", epsilon)


def added_mask(graph):
    """[texts, 1, 1, tokens], 0 where a token is and the lowest number where none is."""
    there = graph.add("Cast", ["attention_mask"], "mask.f32", to="FLOAT")
    there = graph.add("Unsqueeze", [there, graph.value("axes_of_heads_and_queries", [1, 2])], "mask.unsqueezed")
    padded = graph.add("Sub", ["one", there], "mask.padded")
    return graph.add("Mul", [padded, graph.value("lowest", LOWEST)], "mask.added")


def attention(graph, x, mask, layer, names):
    of = f"{layer}.attention"
    # Keys lie transposed, as the product of queries and keys takes them.
    orders = {"query": [0, 2, 1, 3], "key": [0, 2, 3, 1], "value": [0, 2, 1, 3]}
    parts = {}
    for part, order in orders.items():
        split = graph.add("Reshape", [graph.linear(x, names[part]), "split_heads"], f"{of}.{part}.split")
        parts[part] = graph.add("Transpose", [split], f"{of}.{part}.heads", perm=order)
    scores = graph.add("MatMul", [parts["query"], parts["key"]], f"{of}.products")
    scores = graph.add("Div", [scores, "score_scale"], f"{of}.scores")
    scores = graph.add("Add", [scores, mask], f"{of}.masked")
    weights = graph.add("Softmax", [scores], f"{of}.weights", axis=-1)
    y = graph.add("MatMul", [weights, parts["value"]], f"{of}.heads")
    y = graph.add("Transpose", [y], f"{of}.tokens", perm=[0, 2, 1, 3])
    y = graph.add("Reshape", [y, "join_heads"], f"{of}.joined")
    return graph.linear(y, names["joined"])


def feed_forward(graph, x, layer, names):
    """Two linear layers with the GELU of the error function between them."""
    x, of = graph.linear(x, names["wide"]), f"{layer}.gelu"
    error = graph.add("Erf", [graph.add("Div", [x, "root_of_two"], f"{of}.scaled")], f"{of}.erf")
    gate = graph.add("Add", [error, "one"], f"{of}.gate")
    x = graph.add("Mul", [graph.add("Mul", [x, gate], f"{of}.gated"), "half"], f"{of}.output")
    return graph.linear(x, names["narrow"])


def pooled(graph, x):
    row = graph.add("Unsqueeze", ["mask.f32", graph.value("axis_of_sums", [1])], "pooling.mask")
    total = graph.add("Squeeze", [graph.add("MatMul", [row, x], "pooling.sums"), "axis_of_sums"], "pooling.sum")
    length = graph.add("ReduceL2", [total], "pooling.length", axes=[1], keepdims=1)
    return graph.add("Div", [total, length], "vectors")
