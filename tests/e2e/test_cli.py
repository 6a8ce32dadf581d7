"""The commands: what they refuse and how they say it, that nothing half-written is left, that the
same seed gives the same bytes, and the importers."""

import csv
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import struct
import subprocess

import harness
from harness import aisle_done, run_aisle

NOBODY = 65534
DIM = 32


def write(path, content):
    with open(path, "wb") as file:
        file.write(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def read(path):
    with open(path, "rb") as file:
        return file.read()


def tree(folder):
    """Every path below folder with the hash of its content, or where a link leads."""
    found = {}
    for base, folders, files in os.walk(folder):
        for name in folders + files:
            path = os.path.join(base, name)
            key = os.path.relpath(path, folder)
            if os.path.islink(path):
                found[key] = "-> " + os.readlink(path)
            elif os.path.isfile(path):
                found[key] = hashlib.sha256(read(path)).hexdigest()
            else:
                found[key] = "folder"
    return found


class CliTest(harness.TestCase):
    def setUp(self):
        folder = harness.temporary_folder()
        self.folder = folder.__enter__()
        self.addCleanup(folder.__exit__, None, None, None)
        self.shop = harness.shop()

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def build(self, *args, items=None, model=None, releases=None, **kwargs):
        return run_aisle("build", "--items", items or self.shop.items_path, "--model-dir",
                         model or self.shop.model, "--releases", releases or self.path("releases"),
                         "--force", *args, **kwargs)

    def train(self, *args, items=None, events=None, out=None, **kwargs):
        return run_aisle("train", "--items", items or self.shop.items_path, "--events",
                         events or self.shop.events_path, "--out", out or self.path("model"),
                         "--dim", 8, "--epochs", 1, *args, **kwargs)


class Usage(CliTest):
    def test_help_of_everything_has_examples(self):
        names = harness.commands()
        for wanted in ("synth", "import", "train", "build", "verify", "inspect", "serve",
                       "recommend", "evaluate"):
            self.assertIn(wanted, names)
        for args in [(name,) for name in names] + [("evaluate", "offline")]:
            for flag in ("--help", "-h"):
                result = aisle_done(*args, flag)
                with self.subTest(args):
                    self.assertEqual(result.err, "")
                    self.assertIn("xamples:", result.out)
                    self.assertIn(f"aisle {args[0]} ", result.out.split("xamples:")[1])
        self.assertEqual(aisle_done("help").out, aisle_done("--help").out)
        self.assertRegex(aisle_done("--version").out, r"^aisle \d+\.\d+\.\d+")

    def test_usage_faults_are_exit_2(self):
        cases = [(), ("frobnicate",), ("--nonsense",)]
        for name in harness.commands():
            cases += [(name, "--nonsense"), (name, "--nonsense=1"), (name, "-x"),
                      (name, "--json=maybe") if name not in ("serve", "build") else
                      (name, "--releases")]
            if name not in ("help",):
                cases.append((name,))
        cases += [("synth", "--out", self.path("o"), "--items", "0"),
                  ("synth", "--out", self.path("o"), "--items", "many"),
                  ("synth", "--out", self.path("o"), "--items", "-5"),
                  ("synth", "--out", self.path("o"), "--items", "99999999999999999999"),
                  ("synth", "--out", self.path("o"), "extra"),
                  ("train", "--items", "a", "--events", "b", "--out", "c", "--dim", "0"),
                  ("build", "--items", "a", "--model-dir", "b", "--releases", "c",
                   "--target-recall", "2"),
                  ("serve", "--releases", "x", "--workers", "100000"),
                  ("serve", "--releases", "x", "--log-level", "loud"),
                  ("recommend", "--history", "x"),
                  ("evaluate", "nothing"),
                  ("evaluate", "offline", "--release", "x")]
        for args in cases:
            result = run_aisle(*args)
            with self.subTest(args):
                self.assertEqual((result.code, result.out), (2, ""), result)
                if args:
                    self.assertEqual(len(result.err.splitlines()), 1, result)
        self.assertFalse(os.path.exists(self.path("o")))

    def test_a_mistyped_command_gets_a_suggestion(self):
        self.assertIn("train", run_aisle("trian").err)
        self.assertIn("serve", run_aisle("server").err)

    def test_standard_output_that_is_full_is_a_failure(self):
        for args in (("inspect", self.shop.release_dir(), "--json"),
                     ("recommend", "--release", self.shop.release_dir(), "--history", "LMP-00001")):
            with open("/dev/full", "wb") as full:
                process = subprocess.run([harness.AISLE, *args], env=harness.environment(),
                                         stdout=full, stderr=subprocess.PIPE, check=False,
                                         timeout=harness.COMMAND_S)
            self.assertEqual(process.returncode, 1, args)


class Files(CliTest):
    """Item and event files with something wrong in them."""

    def refused(self, result, *words):
        line = self.assert_failed(result, *words)
        self.assertNotIn("\x00", line)
        return line

    def test_item_files(self):
        cases = {
            "no id column": ("sku,title\nA,Lamp\n", ["id"]),
            "no title column": ("id,name\nA,Lamp\n", ["title"]),
            "an empty id": ("id,title\nA,Lamp\n,Lamp\n", [":3", "id"]),
            "an empty title": ("id,title\nA,\n", [":2", "title"]),
            "a long id": (f"id,title\n{'a' * 129},Lamp\n", [":2", "id"]),
            "the same id twice": ("id,title\nA,Lamp\nB,Lamp\nA,Lamp\n", ["A", "2", "4"]),
            "no UTF-8": (b"id,title\nA,Lamp\nB,L\xffmp\n", [":3", "UTF-8"]),
            "NaN": ("id,title,price\nA,Lamp,NaN\n", [":2", "price"]),
            "a negative price": ("id,title,price\nA,Lamp,-1\n", [":2", "price"]),
            "a price in words": ("id,title,price\nA,Lamp,cheap\n", [":2", "price"]),
            "a time in words": ("id,title,created_at\nA,Lamp,lately\n", [":2", "created_at"]),
            "an open quote": ('id,title\nA,"Lamp\nB,Lamp\n', []),
            "an empty file": ("", []),
            "only a header": ("id,title\n", []),
            "a NUL": (b"id,title\nA,La\x00mp\n", []),
        }
        for name, (content, words) in cases.items():
            path = write(self.path("items.csv"), content)
            with self.subTest(name, command="build"):
                self.refused(self.build(items=path), *words)
                self.assertFalse(os.path.exists(self.path("releases", "channels", "stable")))
                self.assertEqual(self.left_in(self.path("releases")), [])
            with self.subTest(name, command="train"):
                self.refused(self.train(items=path), *words)
                self.assertEqual(os.listdir(self.folder).count("model"), 0)

    def left_in(self, releases):
        """Files below a folder of releases."""
        return [name for _, _, files in os.walk(releases) for name in files]

    def test_items_as_json_lines(self):
        cases = {
            "no object": ("7\n", [":1"]), "broken": ('{"id": "A", "title": "x"}\n{"id": \n', [":2"]),
            "an id that is a list": ('{"id": [], "title": "x"}\n', [":1", "id"]),
            "the same id twice": ('{"id": "A", "title": "x"}\n{"id": "A", "title": "x"}\n',
                                  ["A", "1", "2"]),
            "no title": ('{"id": "A"}\n', [":1", "title"]),
            "an infinite price": ('{"id": "A", "title": "x", "price": 1e999}\n', [":1", "price"]),
        }
        for name, (content, words) in cases.items():
            path = write(self.path("items.jsonl"), content)
            with self.subTest(name):
                self.refused(self.build(items=path), *words)
        rows = list(self.shop.items().values())
        path = write(self.path("good.jsonl"), "".join(
            json.dumps({"id": r["id"], "title": r["title"], "price": float(r["price"])}) + "\n"
            for r in rows))
        result = self.build(items=path)
        self.assertEqual(result.code, 0, result)

    def test_event_files(self):
        head = "user_id,item_id,timestamp,type\n"
        cases = {
            "no item_id column": ("user_id,timestamp\nu,1\n", ["item_id"]),
            "no timestamp column": ("user_id,item_id\nu,a\n", ["timestamp"]),
            "a time in words": (head + "u,LMP-00001,lately,view\n", [":2", "timestamp"]),
            "an unknown type": (head + "u,LMP-00001,1700000000000,glance\n", [":2", "type"]),
            "an empty user": (head + ",LMP-00001,1700000000000,view\n", [":2", "user_id"]),
            "no UTF-8": ((head + "u,LMP-00001,1700000000000,view\n").encode() +
                         b"\xff,LMP-00001,1700000000000,view\n", [":3", "UTF-8"]),
            "an empty file": ("", []),
            "only a header": (head, []),
        }
        for name, (content, words) in cases.items():
            path = write(self.path("events.csv"), content)
            with self.subTest(name):
                self.refused(self.train(events=path), *words)
                self.assertNotIn("model", os.listdir(self.folder))

    def test_files_that_are_not_there_or_no_files(self):
        for path in (self.path("nothing.csv"), self.folder, "/dev/null"):
            for result in (self.build(items=path), self.train(items=path), self.train(events=path),
                           self.build(model=path)):
                with self.subTest(path):
                    self.refused(result)
        for args in (("verify", self.path("nothing")), ("inspect", self.path("nothing")),
                     ("recommend", "--release", self.path("nothing"), "--history", "a"),
                     ("serve", "--releases", self.path("nothing"), "--listen", "127.0.0.1:0"),
                     ("serve", "--releases", self.shop.releases, "--channel", "no-such",
                      "--listen", "127.0.0.1:0", "--history", f"sqlite:{self.path('h.db')}"),
                     ("evaluate", "offline", "--release", self.path("nothing"), "--pairs", "x"),
                     ("import", "--from", "clicks", "--out", self.path("o"), self.path("nothing"))):
            with self.subTest(args):
                self.refused(run_aisle(*args))

    def test_a_history_file_that_is_something_else(self):
        foreign = write(self.path("foreign.db"), b"SQLite format 3\x00" + b"\x00" * 2000)
        text = write(self.path("text.db"), "not a database at all\n" * 100)
        for path in (foreign, text, self.folder, self.path("no", "such", "folder.db"),
                     os.path.join(self.shop.release_dir(), "items.db")):
            before = tree(path) if os.path.isdir(path) else (
                read(path) if os.path.exists(path) else None)
            result = run_aisle("serve", "--releases", self.shop.releases, "--listen",
                               "127.0.0.1:0", "--history", f"sqlite:{path}")
            with self.subTest(path):
                self.refused(result)
                if os.path.isfile(path):
                    self.assertEqual(read(path), before)


def npy(shape, values, dtype="<f4", order=False, version=1, code="f"):
    """The bytes of an .npy file."""
    header = f"{{'descr': '{dtype}', 'fortran_order': {order}, 'shape': {shape}, }}"
    header = header.ljust((len(header) + 10) // 64 * 64 + 64 - 11) + "\n"
    return (b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H", len(header)) + header.encode() +
            struct.pack(f"<{len(values)}{code}", *values))


class Models(CliTest):
    """Model folders made elsewhere: vectors.npy with something wrong in it."""

    N = 40

    def model(self, vectors, n_ids=None):
        folder = self.path("model")
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        ids = sorted(self.shop.items())[:self.N if n_ids is None else n_ids]
        write(os.path.join(folder, "item_ids.txt"), "".join(f"{i}\n" for i in ids))
        write(os.path.join(folder, "vectors.npy"), vectors)
        shutil.copy(os.path.join(self.shop.model, "model.safetensors"), folder)
        return folder

    def values(self, n=None):
        rng = random.Random(7)
        return [rng.gauss(0, 1) for _ in range((n or self.N) * DIM)]

    def test_good_vectors_make_a_release(self):
        result = self.build("--events", self.shop.events_path,
                            model=self.model(npy((self.N, DIM), self.values())))
        self.assertEqual(result.code, 0, result)
        aisle_done("verify", self.path("releases", "channels", "stable"))

    def test_bad_vectors_are_refused(self):
        nan = self.values()
        nan[5 * DIM + 3] = float("nan")
        infinite = self.values()
        infinite[7 * DIM] = float("-inf")
        good = npy((self.N, DIM), self.values())
        cases = {
            "NaN": (npy((self.N, DIM), nan), None, ["vectors.npy"]),
            "infinite": (npy((self.N, DIM), infinite), None, ["vectors.npy"]),
            "another dimension than the model's":
                (npy((self.N, DIM // 2), self.values()[:self.N * DIM // 2]), None, ["16", "32"]),
            "more ids than vectors": (good, self.N + 3, ["40", "43"]),
            "fewer ids than vectors": (good, self.N - 3, ["40", "37"]),
            "cut short": (good[:-5], None, ["vectors.npy"]),
            "no header": (good[:8], None, ["vectors.npy"]),
            "empty": (b"", None, ["vectors.npy"]),
            "no npy": (b"hello" * 100, None, ["vectors.npy"]),
            "integers": (npy((self.N, DIM), [1] * (self.N * DIM), "<i4", code="i"), None,
                         ["vectors.npy"]),
            "one axis": (npy((self.N * DIM,), self.values()), None, ["vectors.npy"]),
            "three axes": (npy((self.N, DIM, 1), self.values()), None, ["vectors.npy"]),
            "a shape beyond all memory": (npy((1 << 40, 1 << 40), self.values()), None,
                                          ["vectors.npy"]),
            "a negative shape": (npy((-self.N, DIM), self.values()), None, ["vectors.npy"]),
            "columns first": (npy((self.N, DIM), self.values(), order=True), None,
                              ["vectors.npy"]),
            "a version from the future": (npy((self.N, DIM), self.values(), version=9), None,
                                          ["vectors.npy"]),
        }
        for name, (vectors, n_ids, words) in cases.items():
            result = self.build("--events", self.shop.events_path, model=self.model(vectors, n_ids))
            with self.subTest(name):
                self.assert_failed(result, *words)
                self.assertFalse(os.path.lexists(self.path("releases", "channels", "stable")))

    def test_bad_model_files_are_refused(self):
        good = npy((self.N, DIM), self.values())
        for name in ("item_ids.txt", "vectors.npy", "model.safetensors"):
            folder = self.model(good)
            os.unlink(os.path.join(folder, name))
            with self.subTest(name, fault="missing"):
                self.assert_failed(self.build("--events", self.shop.events_path, model=folder),
                                   name if name != "vectors.npy" else "vectors")
        for cut in (0, 4, 8, 20, 100):
            folder = self.model(good)
            path = os.path.join(folder, "model.safetensors")
            write(path, read(path)[:cut])
            with self.subTest(cut=cut):
                self.assert_failed(self.build("--events", self.shop.events_path, model=folder),
                                   "model.safetensors")
        for content in ("", "\n", "a\na\n", "b" * 129 + "\n", b"\xff\n"):
            folder = self.model(good)
            write(os.path.join(folder, "item_ids.txt"), content)
            with self.subTest(ids=content):
                self.assert_failed(self.build("--events", self.shop.events_path, model=folder),
                                   "item_ids.txt")

    def test_an_index_that_faiss_does_not_know(self):
        for factory in ("Nonsense", "IVF", "HNSW0", "PQ7", "", "IVF100000,Flat"):
            result = self.build("--events", self.shop.events_path, "--index", factory)
            with self.subTest(factory):
                self.assertIn(result.code, (1, 2), result)
                self.assertFalse(os.path.lexists(self.path("releases", "channels", "stable")))


class Releases(CliTest):
    """A release with something wrong in it: everything that opens one refuses, naming the file."""

    def setUp(self):
        super().setUp()
        self.releases = self.shop.copy_releases(self.folder)
        self.release = os.path.realpath(os.path.join(self.releases, "channels", "stable"))
        self.good = {name: read(os.path.join(self.release, name))
                     for name in os.listdir(self.release)}

    def put(self, name, content):
        path = os.path.join(self.release, name)
        if os.path.lexists(path):
            os.chmod(self.release, 0o755)
            os.unlink(path)
        if content is not None:
            write(path, content)

    def restore(self):
        for name in os.listdir(self.release):
            if name not in self.good:
                os.unlink(os.path.join(self.release, name))
        for name, content in self.good.items():
            self.put(name, content)

    def refused(self, *words, everywhere=True):
        commands = [("verify", self.release),
                    ("serve", "--releases", self.releases, "--listen", "127.0.0.1:0", "--history",
                     f"sqlite:{self.path('history.db')}")]
        if everywhere:
            commands += [("recommend", "--release", self.release, "--history", "LMP-00001"),
                         ("evaluate", "offline", "--release", self.release, "--events",
                          self.shop.events_path, "--protocol", "leave-last-out")]
        for args in commands:
            with self.subTest(args[0]):
                self.assert_failed(run_aisle(*args), *words)

    def test_a_good_release_is_verified(self):
        result = aisle_done("verify", self.release)
        self.assertIn(os.path.basename(self.release), result.out + result.err)
        manifest = json.loads(self.good["manifest.json"])
        self.assertEqual(aisle_done("inspect", self.release, "--json").json(), manifest)
        self.assertIn(manifest["version"], aisle_done("inspect", self.release).out)

    def test_each_file_cut_short_flipped_or_missing(self):
        rng = harness.seeded()
        for name, content in self.good.items():
            flipped = bytearray(content)
            flipped[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
            faults = {"cut": content[:-1], "half": content[:len(content) // 2], "empty": b"",
                      "missing": None, "longer": content + b"\n"}
            if name != "manifest.json":
                faults["flipped"] = bytes(flipped)
            else:
                del faults["longer"], faults["cut"]  # a line end more or less changes nothing
            for fault, damaged in faults.items():
                self.put(name, damaged)
                with self.subTest(name, fault=fault):
                    self.refused(name, everywhere=fault == "flipped")
            self.restore()
        aisle_done("verify", self.release)

    def manifest(self, change):
        manifest = json.loads(self.good["manifest.json"])
        change(manifest)
        self.put("manifest.json", json.dumps(manifest))

    def test_a_manifest_that_is_newer_or_not_right(self):
        def remove(key):
            return lambda manifest: manifest.pop(key)

        def settle(key, value):
            return lambda manifest: manifest.update({key: value})
        cases = [(settle("format_version", 2), "2"), (settle("format_version", "1"), "format_version"),
                 (remove("format_version"), "format_version"), (remove("files"), "files"),
                 (settle("files", {}), "files"), (settle("n_items", -1), "n_items"),
                 (settle("n_items", 399), ""), (settle("dim", 31), ""), (settle("dim", 0), "dim"),
                 (settle("dim", 1 << 60), "dim"),
                 (settle("version", "../../etc"), "version"), (settle("model", []), "model"),
                 (settle("index", None), "index")]
        for change, word in cases:
            self.manifest(change)
            with self.subTest(word):
                self.refused(word, everywhere=False)
        for text in ("", "{", "[]", "null", '{"format_version": 1}', "\x00", "{}" * 100,
                     "[" * 100000):
            self.put("manifest.json", text)
            with self.subTest(text[:30]):
                self.refused("manifest.json", everywhere=False)

    def test_files_that_the_manifest_should_not_name(self):
        for name in ("../items.db", "/etc/passwd", "", ".", "a/b"):
            def change(manifest, name=name):
                files = manifest["files"]
                if isinstance(files, dict):
                    files[name] = next(iter(files.values()))
                else:
                    files.append(dict(files[0], name=name))
            self.manifest(change)
            with self.subTest(name):
                self.refused(everywhere=False)

    def test_a_release_whose_answers_are_not_those_of_its_build(self):
        """The checksums agree, but the vectors are others: the probes tell."""
        name = "vectors.safetensors"
        content = bytearray(self.good[name])
        for at in range(len(content) - 200 * 4 * DIM, len(content), 4):
            content[at:at + 4] = struct.pack("<f", 0.25)
        self.put(name, bytes(content))

        def change(manifest):
            for file in manifest["files"]:
                if file["name"] == name:
                    file["sha256"] = hashlib.sha256(content).hexdigest()
        self.manifest(change)
        self.refused("probe")

    def test_a_probe_that_was_changed(self):
        name = "probes.jsonl"
        lines = self.good[name].decode().splitlines()
        probe = json.loads(lines[0])

        def other(value):
            if isinstance(value, float):
                return -value
            if isinstance(value, list):
                return [other(v) for v in value]
            if isinstance(value, dict):
                return {k: other(v) for k, v in value.items()}
            return value
        content = "\n".join([json.dumps(other(probe))] + lines[1:]) + "\n"
        self.put(name, content)

        def change(manifest):
            for file in manifest["files"]:
                if file["name"] == name:
                    file.update(sha256=hashlib.sha256(content.encode()).hexdigest())
                    for key in ("bytes", "n_bytes", "size"):
                        if key in file:
                            file[key] = len(content.encode())
        self.manifest(change)
        self.refused("probe")

    def test_channels_that_lead_astray(self):
        channel = os.path.join(self.releases, "channels", "stable")
        for target in ("../releases/no-such", "/etc", "../../elsewhere", "../releases/.."):
            os.unlink(channel)
            os.symlink(target, channel)
            result = run_aisle("serve", "--releases", self.releases, "--listen", "127.0.0.1:0",
                               "--history", f"sqlite:{self.path('history.db')}")
            with self.subTest(target):
                self.assert_failed(result, "stable")

    def test_a_release_is_not_written_to(self):
        before = tree(self.release)
        with harness.Serve(self.releases, f"sqlite:{self.path('history.db')}") as serve:
            serve.recommend()
            serve.events({"user_id": "u", "item_id": "x", "type": "view"})
        aisle_done("verify", self.release)
        self.assertEqual(tree(self.release), before)


class Obstacles(CliTest):
    """No permission, no space: exit 1, one line, nothing half-written."""

    def writers(self):
        """Commands that write, by name, each into its own folder below self.folder."""
        return {
            "synth": ["synth", "--out", self.path("out"), "--items", 200, "--users", 100,
                      "--events", 3000],
            "train": ["train", "--items", self.shop.items_path, "--events", self.shop.events_path,
                      "--out", self.path("out"), "--dim", 8, "--epochs", 1],
            "build": ["build", "--items", self.shop.items_path, "--events", self.shop.events_path,
                      "--model-dir", self.shop.model, "--releases", self.path("out"), "--force"],
            "import": ["import", "--from", "generic", "--out", self.path("out"),
                       self.shop.events_path],
        }

    def test_no_permission(self):
        os.chmod(self.folder, 0o555)
        self.addCleanup(os.chmod, self.folder, 0o755)

        def become_nobody():
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
        reachable = subprocess.run([harness.AISLE, "--version"], preexec_fn=become_nobody,
                                   env=harness.environment(), check=False, capture_output=True)
        if reachable.returncode != 0:
            self.skipTest("the program cannot be run by another user here")
        for name, command in self.writers().items():
            with self.subTest(name):
                result = run_aisle(*command, preexec_fn=become_nobody)
                self.assert_failed(result, "ermission")
                self.assertEqual(os.listdir(self.folder), [])

    def test_a_file_that_may_not_be_read(self):
        secret = write(self.path("secret.csv"), "id,title\nA,Lamp\n")
        os.chmod(secret, 0)
        os.chmod(self.folder, 0o777)

        def become_nobody():
            if os.getuid() == 0:
                os.setgid(NOBODY)
                os.setuid(NOBODY)
        try:
            result = self.train(items=secret, preexec_fn=become_nobody)
        except OSError:
            self.skipTest("the program cannot be run by another user here")
        self.assert_failed(result, "ermission")

    def test_no_space(self):
        """A limit on the size of files stands for the end of the disk, at several places."""
        for name, command in self.writers().items():
            faults = 0
            for limit in (0, 1000, 5000, 20000, 40000, 60000, 90000, 150000, 200000, 10 << 20):
                def restrict(limit=limit):
                    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
                # stdout and stderr are pipes: no limit there.
                result = run_aisle(*command, preexec_fn=restrict)
                out = self.path("out")
                with self.subTest(name, limit=limit):
                    if result.code == 0:
                        self.assertTrue(os.listdir(out))
                    else:
                        faults += 1
                        self.assert_failed(result)
                        self.assert_nothing_half_written(name, out)
                shutil.rmtree(out, ignore_errors=True)
                self.assertEqual(os.listdir(self.folder), [])
            self.assertGreater(faults, 2, name)

    def assert_nothing_half_written(self, name, out):
        files = [os.path.join(base, one) for base, _, names in os.walk(out) for one in names]
        if name == "train":
            self.assertFalse(os.path.exists(out), files)
        elif name == "build":
            self.assertEqual(files, [])
        else:
            # Each file is whole or not there; the first may be there without the second.
            self.assertLessEqual({os.path.basename(f) for f in files}, {"items.csv", "events.csv"})
            for path in files:
                self.assertTrue(read(path).endswith(b"\n"), path)

    def test_no_space_for_a_second_release_keeps_the_first(self):
        releases = self.shop.copy_releases(self.folder)
        before = tree(releases)

        def restrict():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (30000, 30000))
        result = self.build("--events", self.shop.events_path, releases=releases,
                            preexec_fn=restrict)
        self.assert_failed(result)
        self.assertEqual(tree(releases), before)

    def test_a_service_without_space_takes_no_events_and_goes_on(self):
        path = self.path("history.db")
        event = {"user_id": "u", "item_id": "x", "type": "view"}

        def ignore():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        with harness.Serve(self.shop.releases, f"sqlite:{path}", preexec_fn=ignore) as serve:
            serve.events([event] * 10)
            free = resource.RLIM_INFINITY
            _, hard = resource.prlimit(serve.process.pid, resource.RLIMIT_FSIZE)
            size = max(os.path.getsize(os.path.join(self.folder, n)) for n in
                       os.listdir(self.folder))
            resource.prlimit(serve.process.pid, resource.RLIMIT_FSIZE, (size, hard))
            refused = 0
            stored = 10
            for _ in range(20):
                answer = serve.post("/v1/events", [event] * 2000)
                if answer.status == 202:
                    stored += 2000
                else:
                    self.assert_problem(answer, (500, 503))
                    refused += 1
            self.assertGreater(refused, 0)
            self.assertEqual(serve.recommend(user_id="u")["degraded"], [])
            resource.prlimit(serve.process.pid, resource.RLIMIT_FSIZE, (hard, hard)
                             if hard != free else (free, free))
            serve.events(event)
        import sqlite3
        with sqlite3.connect(path) as database:
            self.assertEqual(database.execute("PRAGMA integrity_check").fetchall(), [("ok",)])
            count = database.execute("SELECT count(*) FROM events").fetchone()[0]
            self.assertEqual(count, stored + 1)

    def test_a_folder_that_is_no_model_is_not_replaced(self):
        out = self.path("out")
        os.makedirs(out)
        write(os.path.join(out, "thesis.txt"), "the only copy")
        result = self.train(out=out)
        self.assert_failed(result)
        self.assertEqual(read(os.path.join(out, "thesis.txt")), b"the only copy")
        self.assertEqual(os.listdir(self.folder), ["out"])


class Seeds(CliTest):
    def test_the_same_seed_makes_the_same_shop(self):
        for out, seed in (("a", 5), ("b", 5), ("c", 6)):
            aisle_done("synth", "--out", self.path(out), "--items", 300, "--users", 200,
                       "--events", 5000, "--seed", seed)
        self.assertEqual(tree(self.path("a")), tree(self.path("b")))
        for name in ("items.csv", "events.csv"):
            self.assertNotEqual(read(self.path("a", name)), read(self.path("c", name)))

    def test_a_made_up_shop_has_the_sizes_asked_for(self):
        aisle_done("synth", "--out", self.path("s"), "--items", 123, "--users", 45, "--events", 678)
        with open(self.path("s", "items.csv"), newline="", encoding="utf-8") as file:
            items = [row["id"] for row in csv.DictReader(file)]
        with open(self.path("s", "events.csv"), newline="", encoding="utf-8") as file:
            events = list(csv.DictReader(file))
        self.assertEqual((len(items), len(set(items)), len(events)), (123, 123, 678))
        self.assertLessEqual({e["item_id"] for e in events}, set(items))
        self.assertLessEqual(len({e["user_id"] for e in events}), 45)
        self.assertLessEqual({e["type"] for e in events}, {"view", "cart", "purchase"})

    def test_the_same_seed_trains_the_same_model(self):
        for out, seed in (("a", 3), ("b", 3), ("c", 4)):
            result = self.train("--threads", 1, "--seed", seed, out=self.path(out))
            self.assertEqual(result.code, 0, result)
        for name in os.listdir(self.path("a")):
            a, b, c = (read(self.path(out, name)) for out in "abc")
            if name == "training.json":  # holds how long it took
                a, b, c = (json.loads(text) for text in (a, b, c))
                for one in (a, b, c):
                    one.pop("seconds")
            with self.subTest(name):
                self.assertEqual(a, b)
                if name == "vectors.safetensors":
                    self.assertNotEqual(a, c)

    def test_the_same_seed_builds_the_same_files(self):
        for index in ("auto", "HNSW16"):
            found = []
            for out in ("a", "b"):
                result = self.build("--events", self.shop.events_path, "--threads", 1, "--index",
                                    index, releases=self.path(index + out))
                self.assertEqual(result.code, 0, result)
                release = os.path.realpath(self.path(index + out, "channels", "stable"))
                found.append({k: v for k, v in tree(release).items() if k != "manifest.json"})
            self.assertEqual(found[0], found[1], index)


class Recommend(CliTest):
    def test_it_agrees_with_the_service(self):
        release = self.shop.release_dir()
        history = sorted(self.shop.items())[7:10]
        answer = aisle_done("recommend", "--release", release, "--history", ",".join(history),
                            "--limit", 30, "--json").json()
        self.assertEqual(len(answer["items"]), 30)
        with harness.Serve(self.shop.releases, f"sqlite:{self.path('history.db')}") as serve:
            for item in reversed(history):
                serve.events({"user_id": "u", "item_id": item, "type": "view"})
            served = serve.recommend(user_id="u", limit=30)
        self.assertEqual({i["id"] for i in answer["items"][:20]} - {i["id"] for i in
                                                                   served["items"]}, set())

    def test_a_user_of_an_event_file(self):
        with open(self.shop.events_path, newline="", encoding="utf-8") as file:
            user = next(csv.DictReader(file))["user_id"]
        args = ("recommend", "--release", self.shop.release_dir(), "--events",
                self.shop.events_path, "--user")
        answer = aisle_done(*args, user, "--json", "--limit", 5).json()
        self.assertEqual(len(answer["items"]), 5)
        self.assertGreater(answer["n_history_used"], 0)
        result = run_aisle(*args, "nobody-by-this-name", "--json")
        if result.code != 0:
            self.assert_failed(result, "nobody-by-this-name")

    def test_a_filter_and_a_bad_one(self):
        args = ("recommend", "--release", self.shop.release_dir(), "--history", "LMP-00001")
        answer = aisle_done(*args, "--filter", '{"field": "price", "lte": 20}', "--json").json()
        self.assertEqual(len(answer["items"]), 20)
        for item in answer["items"]:
            self.assertLessEqual(item["price"], 20)
        for bad in ("{", "{}x", '{"field": "nothing", "eq": 1}'):
            self.assertIn(run_aisle(*args, "--filter", bad).code, (1, 2), bad)


class Imports(CliTest):
    def imported(self, form, *files, args=()):
        paths = [write(self.path(f"in{i}"), content) for i, content in enumerate(files)]
        result = aisle_done("import", "--from", form, "--out", self.path("out"), "--json", *args,
                            *paths)
        with open(self.path("out", "items.csv"), newline="", encoding="utf-8") as file:
            items = list(csv.DictReader(file))
        with open(self.path("out", "events.csv"), newline="", encoding="utf-8") as file:
            events = list(csv.DictReader(file))
        counts = result.json()
        self.assertEqual((counts["items"], counts["events"]), (len(items), len(events)))
        return items, events, counts

    def test_sequences(self):
        items, events, counts = self.imported("sequences", "u1 a b c\nu2 b\n\nu3 c c\n")
        self.assertEqual([i["id"] for i in items], ["a", "b", "c"])
        self.assertEqual([(e["user_id"], e["item_id"]) for e in events],
                         [("u1", "a"), ("u1", "b"), ("u1", "c"), ("u2", "b"), ("u3", "c"),
                          ("u3", "c")])
        times = [int(e["timestamp"]) for e in events if e["user_id"] == "u1"]
        self.assertEqual(times, sorted(set(times)))
        self.assertEqual(counts["users"], 3)

    def test_sessions(self):
        items, events, _ = self.imported("sessions", "a b c\nd e\n")
        self.assertEqual([i["id"] for i in items], list("abcde"))
        self.assertEqual(len({e["user_id"] for e in events}), 2)

    def test_clicks(self):
        items, events, _ = self.imported(
            "clicks", "SessionId\tItemId\tTime\n1\ta\t1600000000\n1\tb\t1600000005.5\n2\ta\t"
            "1600000009\n")
        self.assertEqual([i["id"] for i in items], ["a", "b"])
        self.assertEqual(events[0]["timestamp"], "1600000000000")
        self.assertEqual([e["session_id"] for e in events], ["1", "1", "2"])

    def test_online_retail(self):
        head = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
        items, events, counts = self.imported(
            "online-retail", head +
            "536365,85123A,WHITE HANGING HEART,6,2010-12-01 08:26:00,2.55,17850,United Kingdom\n"
            "536366,85123A,\"HEART, WHITE\",1,2010-12-01 08:28:00,2.55,,United Kingdom\n"
            "536367,85123A,WHITE HANGING HEART,1,2010-12-01 08:29:00,2.75,1,United Kingdom\n"
            "C536379,85123A,WHITE HANGING HEART,-1,2010-12-01 09:41:00,2.55,1,United Kingdom\n"
            "536380,POST,POSTAGE,1,2010-12-01 09:42:00,18.00,1,France\n"
            "536381,22139,,56,2010-12-01 11:52:00,0,,United Kingdom\n")
        self.assertEqual([(i["id"], i["title"]) for i in items], [("85123A", "WHITE HANGING HEART")])
        self.assertEqual({e["type"] for e in events}, {"purchase"})
        self.assertEqual(len(events), 3)
        self.assertEqual(counts["rows"], 6)
        self.assertEqual(sum(counts["dropped"].values()), 3)
        self.assertEqual(counts["dropped"]["cancelled"], 1)

    def test_retailrocket(self):
        items, events, _ = self.imported(
            "retailrocket", "timestamp,visitorid,event,itemid,transactionid\n"
            "1433221332117,257597,view,355908,\n1433224214164,992329,addtocart,248676,\n"
            "1433222276276,111016,transaction,318965,4000\n")
        self.assertEqual({i["id"] for i in items}, {"355908", "248676", "318965"})
        self.assertEqual({e["item_id"]: e["type"] for e in events},
                         {"355908": "view", "248676": "cart", "318965": "purchase"})

    def test_generic(self):
        items, events, _ = self.imported(
            "generic", "customer,sku,at,what,name\nc1,A,2026-01-01T00:00:00Z,view,Lamp\n"
            "c2,B,2026-01-02T00:00:00Z,purchase,\"Chair, oak\"\n",
            args=("--map", "user_id=customer,item_id=sku,timestamp=at,type=what,title=name"))
        self.assertEqual([(i["id"], i["title"]) for i in items], [("A", "Lamp"),
                                                                  ("B", "Chair, oak")])
        self.assertEqual([(e["user_id"], e["type"]) for e in events], [("c1", "view"),
                                                                       ("c2", "purchase")])

    def test_the_same_input_gives_the_same_bytes(self):
        found = []
        for _ in range(2):
            self.imported("sessions", "a b c\nd e\n")
            found.append(tree(self.path("out")))
        self.assertEqual(found[0], found[1])

    def test_what_was_imported_can_be_trained_and_served(self):
        rng = random.Random(5)
        lines = "".join(" ".join(str(10 * rng.randrange(8) + rng.randrange(10))
                                 for _ in range(6)) + "\n" for _ in range(300))
        self.imported("sessions", lines)
        items, events = self.path("out", "items.csv"), self.path("out", "events.csv")
        aisle_done("train", "--items", items, "--events", events, "--out", self.path("model"),
                   "--dim", 8, "--epochs", 1)
        aisle_done("build", "--items", items, "--events", events, "--model-dir",
                   self.path("model"), "--releases", self.path("releases"), "--force")
        with harness.Serve(self.path("releases"), f"sqlite:{self.path('h.db')}") as serve:
            self.assertEqual(len(serve.recommend(items=["11"])["items"]), 20)

    def test_what_cannot_be_imported(self):
        cases = [
            ("nonsense", "a b\n", ["nonsense"]),
            ("clicks", "a\tb\n1\t2\n", []), ("clicks", "", []),
            ("clicks", "SessionId\tItemId\tTime\n1\ta\tlately\n", ["not a time"]),
            ("clicks", "SessionId\tItemId\tTime\n1\ta\n", ["Time"]),
            ("online-retail", "InvoiceNo,StockCode\n1,2\n", []),
            ("online-retail", "", []),
            ("sequences", b"u1 a \xff\n", ["UTF-8"]), ("sessions", b"\x00\x01\n", []),
            ("sequences", "u1 " + "a" * 129 + "\n", []), ("sessions", "", []),
            ("retailrocket", "timestamp,visitorid,event,itemid,transactionid\nx,1,view,2,\n",
             ["not a time"]),
            ("generic", "a,b\n1,2\n", []),
        ]
        for form, content, words in cases:
            path = write(self.path("in.txt"), content)
            result = run_aisle("import", "--from", form, "--out", self.path("bad"), path)
            with self.subTest(form, content=content[:60]):
                if result.code == 0:
                    # Rows of no use are dropped and counted rather than a reason to stop.
                    self.assertIn("dropped", result.out, result)
                else:
                    self.assertIn(result.code, (1, 2), result)
                    self.assertEqual(result.out, "")
                    for word in words:
                        self.assertIn(word, result.err)
                    self.assertFalse(os.path.exists(self.path("bad", "items.csv")))
            shutil.rmtree(self.path("bad"), ignore_errors=True)


class SharedData(CliTest):
    """The importers on complete data sets, where they are there."""

    def unpacked(self, *names):
        path = os.path.join(harness.SHARED_DATA, *names)
        if not harness.SHARED_DATA or not os.path.exists(path):
            self.skipTest("the data sets are not there")
        if not path.endswith(".zst"):
            return path
        if not shutil.which("zstd"):
            self.skipTest("zstd is not installed")
        target = self.path(os.path.basename(path)[:-4])
        subprocess.run(["zstd", "-q", "-d", path, "-o", target], check=True)
        return target

    def counts(self, form, *files):
        return aisle_done("import", "--from", form, "--out", self.path("out"), "--json",
                          *files).json()

    def test_bolcom(self):
        counts = self.counts("clicks", self.unpacked("bolcom_sample", "train.txt.zst"))
        self.assertEqual((counts["events"], counts["sessions"], counts["items"]),
                         (113601, 23753, 18009))

    def test_yoochoose(self):
        path = self.unpacked("yoochoose_100k", "yoochoose-clicks-100k_train_full.txt.zst")
        counts = self.counts("clicks", path)
        self.assertEqual((counts["events"], counts["sessions"], counts["items"]),
                         (70278, 17794, 2933))

    def test_beauty(self):
        counts = self.counts("sequences", self.unpacked("beauty", "Beauty.txt.zst"))
        self.assertEqual((counts["events"], counts["users"], counts["items"]),
                         (198502, 22363, 12101))

    def test_diginetica(self):
        counts = self.counts("sessions", self.unpacked("diginetica", "train_sessions.txt.zst"))
        self.assertEqual((counts["events"], counts["sessions"], counts["items"]),
                         (906140, 186670, 43097))

    def test_retailrocket(self):
        counts = self.counts("retailrocket",
                             self.unpacked("retailrocket", "train_sessions.txt.zst"))
        self.assertGreater(counts["events"], 600000)
        self.assertGreater(counts["sessions"], 100000)

    def test_online_retail(self):
        counts = self.counts("online-retail",
                             self.unpacked("online_retail", "online_retail.csv.zst"))
        self.assertEqual(counts["rows"], 541909)
        self.assertEqual(counts["dropped"]["cancelled"], 9288)
        self.assertEqual(counts["rows"], counts["events"] + sum(counts["dropped"].values()))
        self.assertLessEqual(counts["sessions"], 19960)
        self.assertGreater(counts["sessions"], 19000)
        self.assertGreater(counts["items"], 3600)


if __name__ == "__main__":
    harness.main()
