"""`aisle import-model` to its users: from weights to recommendations, what it refuses and how it says
it, and the README's recipe for PyTorch files (where PyTorch is installed)."""

import importlib.util
import json
import os
import re
import struct
import subprocess
import sys

import harness
from harness import aisle_done, run_aisle

GOLDEN = os.path.join(os.path.dirname(harness.HERE), "golden")
README = os.path.join(os.path.dirname(os.path.dirname(harness.HERE)), "README.md")
IDS = "abcdefghijkl"
LAYOUTS = {"sasrec-pytorch": "sasrec_pytorch", "s3rec": "s3rec",
           "recbole-sasrec": "recbole_sasrec", "recbole-gru4rec": "recbole_gru4rec"}


def golden(layout):
    return os.path.join(GOLDEN, f"layout_{LAYOUTS[layout]}.safetensors")


def read_safetensors(path):
    """Name → [dtype, shape, bytes]."""
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        data = file.read()
    return {name: [value["dtype"], value["shape"], data[slice(*value["data_offsets"])]]
            for name, value in header.items() if name != "__metadata__"}


def write_safetensors(path, tensors, metadata=None):
    header, end = {}, 0
    if metadata:
        header["__metadata__"] = metadata
    for name, (dtype, shape, data) in tensors.items():
        begin, end = end, end + len(data)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 64 + 56)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.write(b"".join(data for _, _, data in tensors.values()))
    return path


class ImportModelTest(harness.TestCase):
    def setUp(self):
        folder = harness.temporary_folder()
        self.folder = folder.__enter__()
        self.addCleanup(folder.__exit__, None, None, None)
        self.ids = self.write("ids.txt", "".join(i + "\n" for i in IDS))
        self.out = self.path("model")

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)
        return self.path(name)

    def run_import(self, layout, weights, *args):
        return run_aisle("import-model", "--layout", layout, "--item-ids", self.ids, "--out",
                         self.out, *args, weights)

    def assert_refused(self, result, *words, code=1):
        self.assert_failed(result, *words, code=code)
        self.assertEqual([n for n in os.listdir(self.folder) if n.startswith("model")], [])


class Works(ImportModelTest):
    def test_weights_become_recommendations(self):
        items = self.write("items.csv", "id,title\n" + "".join(f"{i},Item {i}\n" for i in IDS))
        for layout in LAYOUTS:
            with self.subTest(layout):
                result = self.run_import(layout, golden(layout), "--json")
                self.assertEqual(result.code, 0, result)
                answer = result.json()
                self.assertEqual(answer["items"], len(IDS))
                self.assertEqual(answer["dim"], 8)
                self.assertEqual(answer["unused_tensors"], 2)
                self.assertIn("golden.users", result.err)
                releases = self.path("releases-" + layout)
                aisle_done("build", "--items", items, "--model-dir", self.out, "--releases",
                           releases, "--force")
                release = os.path.join(releases, "channels", "stable")
                asked = aisle_done("recommend", "--release", release, "--history", "a,c,f",
                                   "--limit", 3, "--json").json()
                self.assertEqual(asked["n_history_used"], 3)
                self.assertEqual(len(asked["items"]), 3)
                shown = aisle_done("inspect", release, "--json").json()
                self.assertIn(layout, json.dumps(shown))

    def test_native_file_of_readme(self):
        metadata = {"aisle.architecture": "decay",
                    "aisle.settings": json.dumps({"version": 1, "dim": 2})}
        vectors = struct.pack("<24f", *range(24))
        path = write_safetensors(self.path("native.safetensors"),
                                 {"item_vectors": ["F32", [12, 2], vectors]}, metadata)
        self.assertEqual(self.run_import("aisle", path).code, 0)
        written = read_safetensors(os.path.join(self.out, "vectors.safetensors"))
        self.assertEqual(written["item_vectors"], ["F32", [12, 2], vectors])

    def test_readme_recipe_exports_a_pytorch_file(self):
        if importlib.util.find_spec("torch") is None:
            self.skipTest("PyTorch is not installed")
        with open(README, encoding="utf-8") as file:
            found = re.search(r"((?:^    .*\n)*^    import json, struct, sys, torch\n(?:^    .*\n)*)",
                              file.read(), re.MULTILINE)
        recipe = "".join(line[4:] + "\n" for line in found.group(1).splitlines())
        self.assertLessEqual(len(recipe.splitlines()), 10)
        self.write("export.py", recipe)
        tensors = read_safetensors(golden("s3rec"))
        self.write("save.py", "\n".join([
            "import json, struct, sys, torch",
            "tensors = json.load(open(sys.argv[1]))",
            "state = {k: torch.tensor(v).reshape(s) for k, (s, v) in tensors.items()}",
            "torch.save({'epoch': 3, 'state_dict': state}, sys.argv[2])"]))
        with open(self.path("tensors.json"), "w", encoding="ascii") as file:
            json.dump({k: [s, struct.unpack(f"<{len(d) // 4}f", d)]
                       for k, (t, s, d) in tensors.items() if t == "F32"}, file)
        for script, source, target in (("save.py", "tensors.json", "w.pth"),
                                       ("export.py", "w.pth", "w.safetensors")):
            subprocess.run([sys.executable, self.path(script), self.path(source),
                            self.path(target)], check=True)
        self.assertEqual(self.run_import("s3rec", self.path("w.safetensors")).code, 0)
        exported = self.out
        self.out = self.path("direct")
        self.assertEqual(self.run_import("s3rec", golden("s3rec")).code, 0)
        for name in ("model.safetensors", "vectors.safetensors"):
            self.assertEqual(read_safetensors(os.path.join(exported, name)),
                             read_safetensors(os.path.join(self.out, name)))


class Refuses(ImportModelTest):
    def changed(self, change, layout="s3rec"):
        tensors = read_safetensors(golden(layout))
        change(tensors)
        return write_safetensors(self.path("changed.safetensors"), tensors)

    def test_missing_tensor_is_named(self):
        path = self.changed(lambda t: t.pop("item_encoder.layer.1.attention.key.bias"))
        self.assert_refused(self.run_import("s3rec", path), "changed.safetensors",
                            "item_encoder.layer.1.attention.key.bias")

    def test_shape_is_named_with_the_one_wanted(self):
        def change(tensors):
            tensors["LayerNorm.weight"][1] = [2, 4]
        self.assert_refused(self.run_import("s3rec", self.changed(change)), "LayerNorm.weight",
                            "2×4", "wanted 8")

    def test_nan_is_named_with_its_place(self):
        def change(tensors):
            data = tensors["LayerNorm.bias"][2]
            tensors["LayerNorm.bias"][2] = data[:20] + struct.pack("<f", float("nan")) + data[24:]
        self.assert_refused(self.run_import("s3rec", self.changed(change)), "LayerNorm.bias",
                            "value 5")

    def test_ids_that_do_not_fit_are_named(self):
        self.ids = self.write("few.txt", "a\nb\n")
        self.assert_refused(self.run_import("s3rec", golden("s3rec")), "14 rows", "2 item ids")
        self.ids = self.write("twice.txt", "a\nb\na\n")
        self.assert_refused(self.run_import("s3rec", golden("s3rec")), "twice.txt", "lines 1 and 3")
        self.ids = self.write("blank.txt", "a\n\n")
        self.assert_refused(self.run_import("s3rec", golden("s3rec")), "blank.txt", "line 2")

    def test_usage(self):
        weights = golden("s3rec")
        self.assert_refused(self.run_import("bert", weights), "--layout", "s3rec", code=2)
        self.assert_refused(self.run_import("s3rec", weights, "--heads", 3), "--heads", code=2)
        self.assert_refused(self.run_import("s3rec", weights, "--activation", "swish"),
                            "--activation", code=2)
        self.assert_refused(self.run_import("recbole-gru4rec", weights, "--heads", 2), "--heads",
                            code=2)
        self.assert_failed(run_aisle("import-model", "--layout", "s3rec", weights), "--item-ids",
                           "--out", code=2)
        self.assert_failed(run_aisle("import-model", "--layout", "s3rec"), code=2)

    def test_damaged_file_leaves_nothing(self):
        with open(golden("s3rec"), "rb") as file:
            whole = file.read()
        for length in (0, 7, 100, len(whole) - 1):
            with open(self.path("cut.safetensors"), "wb") as file:
                file.write(whole[:length])
            with self.subTest(length):
                self.assert_refused(self.run_import("s3rec", self.path("cut.safetensors")),
                                    "cut.safetensors")

    def test_folder_of_something_else_is_kept(self):
        os.mkdir(self.out)
        self.write(os.path.join("model", "letters"), "dear")
        self.assert_failed(self.run_import("s3rec", golden("s3rec")), self.out)
        self.assertEqual(os.listdir(self.out), ["letters"])


if __name__ == "__main__":
    harness.main()
