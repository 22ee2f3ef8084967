import json
import tempfile
import unittest
from pathlib import Path

try:
    import numpy as np
    from safetensors.numpy import load_file, save_file

    import checkpoint
except ImportError as error:
    raise unittest.SkipTest(f"SKIPPED, checkpoints are not tested: {error}; see requirements.txt") from error


def tensors() -> dict:
    chance = np.random.default_rng(0)
    linear = {name: chance.normal(size=(4, 4)).astype(np.float32) for name in checkpoint.linear_names(1)}
    return linear | {"embeddings.word_embeddings.weight": chance.normal(size=(9, 4)).astype(np.float32)}


class Checkpoint(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.source = Path(self.folder.name) / "source"
        (self.source / "1_Pooling").mkdir(parents=True)
        (self.source / "config.json").write_text(json.dumps({"model_type": "bert"}))
        (self.source / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
        self.tensors = tensors()
        save_file({"bert." + n: v for n, v in self.tensors.items()} | {"ids": np.arange(3)}, self.source / "model.safetensors")

    def test_a_checkpoint_is_copied_with_its_names_and_other_files(self):
        out, read = self.source.with_name("out"), checkpoint.read_tensors(self.source)
        self.assertEqual(set(read), set(self.tensors))
        changed = {n: v * 2 for n, v in read.items()}
        for _ in range(2):  # the second time replaces
            checkpoint.write(changed, self.source, out)
        written = load_file(out / "model.safetensors")
        self.assertEqual(set(written), {"bert." + n for n in self.tensors} | {"ids"})
        for name, value in self.tensors.items():
            np.testing.assert_array_equal(written["bert." + name], value * 2)
        np.testing.assert_array_equal(written["ids"], np.arange(3))
        self.assertTrue((out / "1_Pooling" / "config.json").exists())

    def test_masks_are_the_zeros_and_a_dense_checkpoint_is_refused(self):
        with self.assertRaisesRegex(checkpoint.CheckpointError, "siskin bert prune"):
            checkpoint.masks(self.tensors, 1)
        name = checkpoint.linear_names(1)[0]
        self.tensors[name][1, 2] = 0
        masks = checkpoint.masks(self.tensors, 1)
        self.assertEqual((masks[name][1, 2], masks[name].sum()), (0, 15))
        self.assertNotIn("embeddings.word_embeddings.weight", masks)

    def test_what_cannot_be_taught_is_refused_by_name(self):
        (self.source / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_act": "relu"}))
        with self.assertRaisesRegex(checkpoint.CheckpointError, "expected hidden_act 'gelu', and it is 'relu'"):
            checkpoint.read_config(self.source)
        (self.source / "config.json").write_text("{}")
        (self.source / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
        with self.assertRaisesRegex(checkpoint.CheckpointError, "mean of the tokens"):
            checkpoint.read_config(self.source)

    def test_a_state_comes_back(self):
        path = self.source.with_name("run.state")
        self.tensors["count"] = np.array(3, np.int32)
        checkpoint.save_state(path, self.tensors, {"step": 7})
        arrays, about = checkpoint.load_state(path)
        self.assertEqual(about, {"step": 7})
        for name, value in self.tensors.items():
            np.testing.assert_array_equal(arrays[name], value)
            self.assertEqual(arrays[name].shape, value.shape)
        self.assertEqual([p.name for p in path.parent.glob("*.partial")], [])


if __name__ == "__main__":
    unittest.main()
