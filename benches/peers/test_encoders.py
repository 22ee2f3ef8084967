"""Tests of the comparison of encoders; they need none of the libraries: python3 -m unittest discover benches/peers."""

import json
import subprocess
import sys
import unittest
from pathlib import Path
from types import SimpleNamespace

import encoder_graph
import encoder_record
import encoder_table
from encoder_table import ORT_F32, Shape, Times, Who
from process import Process

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

    def test_distilbert_has_the_same_operators_but_for_the_types_of_tokens(self):
        config = {"model_type": "distilbert", "activation": "gelu", "dim": 64, "n_heads": 4, "n_layers": 2}
        self.assertIsNone(encoder_graph.unsupported(config))
        graph = encoder_graph.encoder(config)
        self.assertEqual(len(graph.nodes), len(self.graph.nodes) - 2)
        self.assertEqual(len(graph.tensors), len(self.graph.tensors) - 1)
        self.assertIn("transformer.layer.1.attention.q_lin.weight", graph.tensors)
        self.assertEqual(graph.values["split_heads"], self.graph.values["split_heads"])
        self.assertIn("activation", encoder_graph.unsupported(config | {"activation": "relu"}))

    def test_other_models_are_refused_by_name(self):
        self.assertIsNone(encoder_graph.unsupported(CONFIG))
        self.assertIn("'roberta'", encoder_graph.unsupported(CONFIG | {"model_type": "roberta"}))
        self.assertIn("hidden_act", encoder_graph.unsupported(CONFIG | {"hidden_act": "relu"}))
        self.assertIn("relative_key", encoder_graph.unsupported(CONFIG | {"position_embedding_type": "relative_key"}))


class Processes(unittest.TestCase):
    def started(self, program):
        process = Process([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
        self.addCleanup(process.ended)
        return process

    def test_an_answer_for_each_request(self):
        echo = self.started(
            "import sys\nprint('{\"version\": \"echo 1\"}', flush=True)\nfor line in sys.stdin: print(line, flush=True, end='')"
        )
        self.assertEqual((echo.version, echo.missing), ("echo 1", None))
        self.assertEqual([echo.asked(ms=ms) for ms in (1, 2)], [{"ms": 1}, {"ms": 2}])

    def test_one_that_ends_early_is_missing(self):
        self.assertEqual(self.started("raise SystemExit(3)").missing, "it ended with status 3")

    def test_what_libraries_print_is_no_answer(self):
        noisy = self.started(
            f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import process; say = process.channel(); "
            "print('hello'); say({'version': 'quiet'})"
        )
        self.assertEqual(noisy.version, "quiet")


class Vectors(unittest.TestCase):
    def test_the_least_cosine_counts(self):
        self.assertAlmostEqual(encoder_table.least_cosine([[1, 0], [3, 4]], [[2, 0], [0, 1]]), 0.8)

    def test_other_shapes_are_errors(self):
        for others in ([[1, 0]], [[1, 0], [1, 0, 0]]):
            with self.assertRaises(ValueError):
                encoder_table.least_cosine([[1, 0], [1, 0]], others)

    def test_times_are_refused_where_vectors_differ(self):
        self.assertIsNone(encoder_table.refusal("candle f32", 0.99995))
        self.assertIn("the vectors of candle f32", encoder_table.refusal("candle f32", 0.9998))
        self.assertIn("0.999800", encoder_table.refusal("candle f32", 0.9998))
        self.assertIsNotNone(encoder_table.refusal("candle f32", float("nan")))


class Everyone(unittest.TestCase):
    def test_names_are_unique(self):
        names = [who.name for who in encoder_table.everyone(unpublished=True)]
        self.assertEqual(len(names), len(set(names)))
        self.assertEqual(names[0], ORT_F32)
        self.assertIn("DeepSparse INT8, 4x4 90 % pruned", names)

    def test_what_must_not_be_published_takes_part_only_when_asked(self):
        self.assertNotIn(encoder_table.DEEPSPARSE, {who.library for who in encoder_table.everyone()})
        asked = [who for who in encoder_table.everyone(unpublished=True) if who.library == encoder_table.DEEPSPARSE]
        self.assertEqual([who.pruned for who in asked], [None, *encoder_table.PRUNED])

    def test_each_library_has_a_file(self):
        folder = Path(__file__).parent / "encoder_libraries"
        of_programs = {encoder_table.SISKIN, encoder_table.CANDLE}
        for library in {who.library for who in encoder_table.everyone(unpublished=True)} - of_programs:
            self.assertTrue((folder / f"{library}.py").exists(), library)

    def test_pruned_weights_of_siskin_are_named_by_its_flags(self):
        pruned = [who for who in encoder_table.everyone() if "--sparsity" in who.flags]
        self.assertEqual([who.flags[-3:] for who in pruned], [(s, "--block", b) for b in ("4x1", "4x4") for s in ("0.8", "0.9")])
        self.assertEqual([who.pruned for who in pruned], encoder_table.PRUNED)
        self.assertTrue(all(who.precision is None for who in pruned))

    def test_quick_leaves_long_texts_out(self):
        names = lambda *flags: [shape.name for shape in encoder_table.shapes(*flags)]
        self.assertEqual(names(), ["1x16", "1x128", "1x512"])
        self.assertEqual(names(True), ["1x16", "1x128"])
        self.assertEqual(names(False, True), ["1x16", "1x128", "1x512", "8x128"])


DEEP = [Who("DeepSparse INT8", "int8", encoder_table.DEEPSPARSE, pruned=pruned) for pruned in (None, ("4x1", 80))]
OURS = [Who("siskin static INT8", "int8", encoder_table.SISKIN, pruned=pruned) for pruned in (None, ("4x1", 80), ("4x4", 80))]
TUNED = Who("ONNX Runtime INT8", "int8", encoder_table.ORT)


class Tables(unittest.TestCase):
    def setUp(self):
        self.times, self.shapes = Times(), [Shape(1, 16), Shape(8, 128)]
        self.all = [Who(ORT_F32, "f32", encoder_table.ORT), TUNED, *DEEP, *OURS]
        for shape, factor in zip(self.shapes, (1, 10)):
            for who, us in zip(self.all, (400, 200, 150, 60, 100, 50, 40)):
                self.times.add(shape, who.name, (factor * us, factor * us + 8))

    def test_the_last_line_of_siskins_output_counts(self):
        output = 'a table\n{"us_min": 1}\n' + json.dumps({"us_min": 400.5, "us_p50": 420, "us_p99": 500}) + "\n"
        self.assertEqual(encoder_table.times_of(encoder_table.last_line(output)), (400.5, 420))

    def test_one_that_ended_has_no_times(self):
        with self.assertRaisesRegex(SystemExit, "status 9"):
            encoder_table.times_of({"missing": "it ended with status 9"})

    def test_the_least_time_and_the_median_of_all_rounds(self):
        times = Times()
        for turn in ((10, 12), (8, 20), (9, 14)):
            times.add(Shape(1, 16), ORT_F32, turn)
        self.assertEqual((times.least(Shape(1, 16), ORT_F32), times.median(Shape(1, 16), ORT_F32)), (8, 14))

    def test_peers_of_a_kind(self):
        self.assertEqual(encoder_table.peers_of("int8", self.all), [TUNED.label, "DeepSparse INT8"])
        self.assertEqual(encoder_table.peers_of("f32", self.all), [ORT_F32])

    def test_a_ratio_is_the_time_of_the_peer_at_the_same_shape_with_the_same_weights_pruned_if_it_has_them(self):
        rows = encoder_table.rows_of_ratios(self.times, self.shapes, self.all, "int8")
        name = "siskin static INT8"
        self.assertEqual(rows[0], ["1x16", name, 2.0, 1.5])
        self.assertEqual(rows[1], ["1x16", f"{name}, 4x1 80 % pruned", 4.0, 1.2])
        # DeepSparse has no model of these: its dense one stands beside.
        self.assertEqual(rows[2], ["1x16", f"{name}, 4x4 80 % pruned", 5.0, 3.75])
        self.assertEqual([row[0] for row in rows[3:]], ["8x128"] * 3)
        self.assertEqual(encoder_table.rows_of_ratios(self.times, self.shapes, self.all, "f32"), [])

    def test_lines_of_a_table(self):
        rows = encoder_table.rows_of_times(self.times, self.shapes, self.all, {TUNED.name: 0.998765})
        lines = encoder_table.table(encoder_table.TIMES, rows)
        self.assertEqual(lines[1], "|---|---|--:|--:|--:|")
        self.assertEqual(lines[2], f"| 1x16 | {ORT_F32} | 400 | 408 |  |")
        self.assertEqual(lines[3], f"| 1x16 | {TUNED.name} | 200 | 208 | 0.99877 |")
        self.assertEqual(len(lines), 2 + 14)

    def test_a_record_has_as_many_cells_as_columns_and_says_what_ran(self):
        found = encoder_table.tables(self.times, self.shapes, self.all, {TUNED.name: 0.9987654321})
        run = encoder_record.run("MiniLM", " --rounds 3", 3, 100, ["ONNX Runtime 1"], found)
        self.assertEqual(run["name"], "peers-minilm")
        # Of times, and of INT8; there is no siskin in f32 here.
        self.assertEqual(len(run["tables"]), 2)
        for table in run["tables"]:
            self.assertEqual({len(row) for row in table["rows"]}, {len(table["columns"])})
        self.assertEqual(run["tables"][0]["rows"][1], ["1x16", TUNED.name, 200, 208, 0.99877])
        self.assertIn("ONNX Runtime 1", run["about"][0])
        self.assertIn("encoders.py --rounds 3", run["command"])

    def test_the_command_of_a_record_does_not_name_what_is_not_published(self):
        args = SimpleNamespace(
            model=Path("/elsewhere/bert-base"), seq=128, peers="openvino,deepsparse", candle=None, rounds=5, turn_ms=300.0
        )
        self.assertEqual(
            encoder_record.flags(args), " --model models/bert-base --seq 128 --peers openvino --rounds 5 --turn-ms 300"
        )
        args = SimpleNamespace(model=Path("minilm"), seq=None, peers=None, candle=Path("x"), rounds=5, turn_ms=0.5)
        expected = " --model models/minilm --candle target/candle/release/siskin-peer-candle --rounds 5 --turn-ms 0.5"
        self.assertEqual(encoder_record.flags(args), expected)


if __name__ == "__main__":
    unittest.main()
