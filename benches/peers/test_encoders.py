"""Tests of the comparison of encoders; they need none of the libraries: python3 -m unittest discover benches/peers."""

import json
import unittest

import encoder_graph
import encoder_table
from encoder_table import ORT_F32, ORT_INT8, ORT_TUNED, Shape, Times, Who

CONFIG = {
    "model_type": "bert", "hidden_act": "gelu", "layer_norm_eps": 1e-12,
    "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2,
}


class Graph(unittest.TestCase):
    def setUp(self):
        self.graph = encoder_graph.encoder(CONFIG)
        self.nodes = {node.output: node for node in self.graph.nodes}

    def test_names_are_unique_and_made_before_they_are_read(self):
        made = {"input_ids", "attention_mask", *self.graph.tensors, *self.graph.values}
        self.assertEqual(len(made), 2 + len(self.graph.tensors) + len(self.graph.values))
        for node in self.graph.nodes:
            self.assertLessEqual(set(node.inputs), made, node)
            self.assertNotIn(node.output, made)
            made.add(node.output)

    def test_all_that_is_made_is_read_but_the_vectors(self):
        read = {name for node in self.graph.nodes for name in node.inputs}
        self.assertEqual(({*self.nodes, *self.graph.tensors, *self.graph.values} - read), {"vectors"})

    def test_the_tensors_are_those_of_a_checkpoint(self):
        expected = {f"embeddings.{table}_embeddings.weight" for table in ("word", "position", "token_type")}
        layers = [f"attention.self.{part}" for part in ("query", "key", "value")]
        layers += ["attention.output.dense", "attention.output.LayerNorm", "intermediate.dense", "output.dense", "output.LayerNorm"]
        names = ["embeddings.LayerNorm"] + [f"encoder.layer.{index}.{layer}" for index in (0, 1) for layer in layers]
        expected |= {f"{name}.{part}" for name in names for part in ("weight", "bias")}
        self.assertEqual(set(self.graph.tensors), expected)

    def test_weights_of_linear_layers_are_transposed_and_no_others(self):
        transposed = {name for name, tensor in self.graph.tensors.items() if tensor.transposed}
        products = {name for node in self.graph.nodes if node.op == "MatMul" for name in node.inputs} & set(self.graph.tensors)
        self.assertEqual(transposed, products)
        self.assertEqual(len(transposed), 12)

    def test_a_layer_reads_what_the_one_before_made(self):
        query = self.nodes["encoder.layer.1.attention.self.query.product"]
        self.assertEqual(query.inputs, ("encoder.layer.0.output.LayerNorm.output", "encoder.layer.1.attention.self.query.weight"))
        self.assertIn("encoder.layer.1.output.LayerNorm.output", self.nodes["pooling.sums"].inputs)

    def test_scores_are_divided_by_the_root_of_the_features_of_a_head(self):
        self.assertEqual(self.graph.values["score_scale"], 4)
        self.assertEqual(self.graph.values["split_heads"], [0, 0, 4, 16])

    def test_other_models_are_refused_by_name(self):
        self.assertIsNone(encoder_graph.unsupported(CONFIG))
        self.assertIn("'distilbert'", encoder_graph.unsupported(CONFIG | {"model_type": "distilbert"}))
        self.assertIn("hidden_act", encoder_graph.unsupported(CONFIG | {"hidden_act": "relu"}))
        self.assertIn("relative_key", encoder_graph.unsupported(CONFIG | {"position_embedding_type": "relative_key"}))


class Vectors(unittest.TestCase):
    def test_the_least_cosine_counts(self):
        self.assertAlmostEqual(encoder_table.least_cosine([[1, 0], [3, 4]], [[2, 0], [0, 1]]), 0.8)

    def test_other_shapes_are_errors(self):
        for others in ([[1, 0]], [[1, 0], [1, 0, 0]]):
            with self.assertRaises(ValueError):
                encoder_table.least_cosine([[1, 0], [1, 0]], others)

    def test_times_are_refused_where_vectors_differ(self):
        self.assertIsNone(encoder_table.refusal(0.99995))
        self.assertIn("0.999800", encoder_table.refusal(0.9998))
        self.assertIsNotNone(encoder_table.refusal(float("nan")))


class Table(unittest.TestCase):
    def test_the_last_line_of_siskins_output_counts(self):
        output = 'a table\n{"us_min": 1}\n' + json.dumps({"us_min": 400.5, "us_p50": 420, "us_p99": 500}) + "\n"
        self.assertEqual(encoder_table.times_of(output), (400.5, 420))

    def test_the_least_time_and_the_median_of_all_rounds(self):
        times = Times()
        for turn in ((10, 12), (8, 20), (9, 14)):
            times.add(Shape(1, 16), ORT_F32, turn)
        self.assertEqual((times.least(Shape(1, 16), ORT_F32), times.median(Shape(1, 16), ORT_F32)), (8, 14))

    def test_a_ratio_is_the_time_of_the_peer_at_the_same_shape(self):
        times, siskin = Times(), Who("siskin INT8", ORT_TUNED, ("--dtype", "int8"), "int8")
        for shape, tuned, ours in ((Shape(1, 16), (100, 120), (50, 40)), (Shape(8, 128), (900, 900), (300, 600))):
            times.add(shape, ORT_TUNED, tuned)
            times.add(shape, siskin.name, ours)
        shapes = [Shape(1, 16), Shape(8, 128)]
        lines = encoder_table.table(times, shapes, [Who(ORT_TUNED, ORT_TUNED), siskin], {siskin.name: 0.998765})
        self.assertEqual(len(lines), 2 + 4)
        self.assertEqual(lines[2], f"| 1x16 | {ORT_TUNED} | 100 | 120 | {ORT_TUNED} | 1.00 | 1.00 |  |")
        self.assertEqual(lines[3], f"| 1x16 | siskin INT8 | 50 | 40 | {ORT_TUNED} | 2.00 | 3.00 | 0.99877 |")
        self.assertEqual(lines[5], f"| 8x128 | siskin INT8 | 300 | 600 | {ORT_TUNED} | 3.00 | 1.50 | 0.99877 |")

    def test_f32_is_compared_with_f32_and_all_else_with_tuned_int8(self):
        peers = {who.name: who.peer for who in encoder_table.everyone()}
        of_f32 = {name for name, peer in peers.items() if peer == ORT_F32}
        self.assertEqual(of_f32, {ORT_F32, "siskin f32"})
        self.assertEqual({peer for name, peer in peers.items() if name not in of_f32}, {ORT_TUNED})
        self.assertEqual(list(peers)[:3], [ORT_F32, ORT_INT8, ORT_TUNED])

    def test_vectors_of_pruned_weights_are_not_compared(self):
        pruned = [who for who in encoder_table.everyone() if "--sparsity" in who.flags]
        self.assertEqual([who.flags[-3:] for who in pruned], [(s, "--block", b) for b in ("4x1", "4x4") for s in ("0.8", "0.9")])
        self.assertTrue(all(who.precision is None for who in pruned))

    def test_quick_leaves_long_texts_out(self):
        names = lambda *flags: [shape.name for shape in encoder_table.shapes(*flags)]
        self.assertEqual(names(), ["1x16", "1x128", "1x512"])
        self.assertEqual(names(True), ["1x16", "1x128"])
        self.assertEqual(names(False, True), ["1x16", "1x128", "1x512", "8x128"])


if __name__ == "__main__":
    unittest.main()
