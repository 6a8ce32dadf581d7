"""Training as its users meet it: every model on a tiny shop, stopping and going on, refusals; and the
published session models on the published data, where these are there."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import unittest

import harness
from harness import aisle_done

SEQUENCES = 120
ITEMS = 40
FAST = ["--dim", "16", "--negatives", "16", "--batch-events", "256", "--history-max", "10",
        "--threads", "1"]


def run(*args, **kwargs):
    return subprocess.run([harness.AISLE, *args], capture_output=True, text=True,
                          env=harness.environment(), timeout=harness.COMMAND_S, **kwargs)


class TrainTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = os.path.join(harness.WORK, "train-%d" % os.getpid())
        os.makedirs(cls.folder, exist_ok=True)
        with open(cls.path("items.csv"), "w", encoding="utf-8") as out:
            out.write("id,title\n")
            out.writelines(f"i{i},Item {i}\n" for i in range(ITEMS))
        with open(cls.path("events.csv"), "w", encoding="utf-8") as out:
            out.write("user_id,item_id,timestamp\n")
            for user in range(SEQUENCES):  # each walks round a circle from somewhere
                for step in range(8):
                    out.write(f"u{user},i{(user * 7 + step) % ITEMS},"
                              f"{1700000000000 + user * 1000000 + step * 1000}\n")

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder, ignore_errors=True)

    @classmethod
    def path(cls, *names):
        return os.path.join(cls.folder, *names)

    def train(self, out, *args):
        return run("train", "--items", self.path("items.csv"), "--events",
                   self.path("events.csv"), "--out", self.path(out), *args)

    def release(self, model):
        result = run("build", "--items", self.path("items.csv"), "--model-dir", self.path(model),
                     "--releases", self.path(model + "-releases"), "--events",
                     self.path("events.csv"), "--force")
        self.assertEqual(result.returncode, 0, result.stderr)
        return self.path(model + "-releases", "channels", "stable")

    def top(self, release, history, limit=3):
        result = run("recommend", "--release", release, "--history", history, "--limit", str(limit),
                     "--json")
        self.assertEqual(result.returncode, 0, result.stderr)
        return json.loads(result.stdout)["items"]


class Models(TrainTest):
    def test_each_model_trains_and_answers(self):
        for model in ("sasrec", "gru4rec", "attention"):
            with self.subTest(model=model):
                trained = self.train(model, "--model", model, "--epochs", "25", "--patience", "0",
                                     "--learning-rate", "0.01", "--json", *FAST)
                self.assertEqual(trained.returncode, 0, trained.stderr)
                result = json.loads(trained.stdout)
                self.assertGreater(result["validation"]["hr@10"], 0.8)
                items = self.top(self.release(model), "i12,i11,i10", 10)
                self.assertIn("i13", [item["id"] for item in items[:5]])

    def test_neighbors_as_models(self):
        for model in ("vmis", "vsknn", "vstan", "sr", "ar"):
            with self.subTest(model=model):
                trained = self.train(model, "--model", model, "--epochs", "1", *FAST[:2])
                self.assertEqual(trained.returncode, 0, trained.stderr)
                items = self.top(self.release(model), "i12", 5)
                self.assertGreater(items[0]["score"], 0)
                self.assertIn("i13", [item["id"] for item in items])

    def test_neighbors_beside_a_model(self):
        trained = self.train("blend", "--model", "sasrec", "--epochs", "3", "--neighbors", "vmis",
                             "--refit", "1", "--json", *FAST)
        self.assertEqual(trained.returncode, 0, trained.stderr)
        self.assertIn("neighbors_weight", json.loads(trained.stdout))
        release = self.release("blend")
        self.assertTrue(os.path.exists(os.path.join(release, "neighbors.safetensors")))
        shown = run("inspect", release, "--json")
        self.assertEqual(json.loads(shown.stdout)["training"]["neighbors"]["kind"], "vmis")

    def test_neighbors_beside_decay_count(self):
        trained = self.train("decayed", "--neighbors", "vmis", "--epochs", "1",
                             "--threads", "1", *FAST[:2])
        self.assertEqual(trained.returncode, 0, trained.stderr)
        with open(self.path("decayed", "training.json"), encoding="utf-8") as file:
            self.assertEqual(json.load(file)["neighbors"]["blend_weight"], 1)
        release = self.release("decayed")
        pairs = self.path("pairs.tsv")
        with open(pairs, "w", encoding="utf-8") as out:
            out.writelines(f"i{i}\ti{i + 1}\n" for i in range(ITEMS - 1))
        result = run("evaluate", "offline", "--release", release, "--pairs", pairs, "--k", "5",
                     "--json")
        self.assertEqual(result.returncode, 0, result.stderr)
        rows = json.loads(result.stdout)
        self.assertGreater(rows["metrics"]["hr@5"], rows["rows"]["vector"]["metrics"]["hr@5"])

    def test_same_seed_same_bytes(self):
        for out, threads in (("a", "1"), ("b", "2")):
            trained = self.train(out, "--model", "sasrec", "--epochs", "2", *FAST[:-1], threads)
            self.assertEqual(trained.returncode, 0, trained.stderr)
        for name in ("vectors.safetensors", "model.safetensors"):
            with open(self.path("a", name), "rb") as a, open(self.path("b", name), "rb") as b:
                self.assertEqual(a.read(), b.read(), name)


class Stopping(TrainTest):
    ARGS = ["--model", "sasrec", "--epochs", "400", "--patience", "0", *FAST]

    def test_stopped_and_gone_on_gives_the_same_model(self):
        whole = self.train("whole", *self.ARGS[:3], "12", *self.ARGS[4:])
        self.assertEqual(whole.returncode, 0, whole.stderr)
        command = [harness.AISLE, "train", "--items", self.path("items.csv"), "--events",
                   self.path("events.csv"), "--out", self.path("parts"), *self.ARGS[:3], "12",
                   *self.ARGS[4:]]
        stops = 0
        for _ in range(40):
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                       text=True, env=harness.environment())
            for line in process.stderr:
                if 'msg="epoch"' in line or "msg=epoch" in line:
                    process.send_signal(signal.SIGINT)
                    break
            _, rest = process.communicate(timeout=harness.COMMAND_S)
            if process.returncode == 0:
                break
            self.assertEqual(process.returncode, 1, rest)
            self.assertIn("interrupted", rest)
            self.assertTrue(os.path.exists(self.path("parts.checkpoint")))
            self.assertFalse(os.path.exists(self.path("parts")))
            stops += 1
        self.assertEqual(process.returncode, 0, rest)
        self.assertGreater(stops, 0)
        self.assertFalse(os.path.exists(self.path("parts.checkpoint")))
        for name in ("vectors.safetensors", "model.safetensors"):
            with open(self.path("whole", name), "rb") as a, open(self.path("parts", name),
                                                                 "rb") as b:
                self.assertEqual(a.read(), b.read(), name)

    def test_other_settings_do_not_go_on(self):
        command = [harness.AISLE, "train", "--items", self.path("items.csv"), "--events",
                   self.path("events.csv"), "--out", self.path("mixed"), *self.ARGS]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   text=True, env=harness.environment())
        for line in process.stderr:
            if 'msg="epoch"' in line or "msg=epoch" in line:
                process.send_signal(signal.SIGTERM)
                break
        process.communicate(timeout=harness.COMMAND_S)
        self.assertEqual(process.returncode, 1)
        before = os.stat(self.path("mixed.checkpoint")).st_mtime_ns
        other = self.train("mixed", *self.ARGS, "--dropout", "0.1")
        self.assertEqual(other.returncode, 1)
        self.assertIn("other settings or data", other.stderr)
        self.assertEqual(os.stat(self.path("mixed.checkpoint")).st_mtime_ns, before)
        anew = self.train("mixed", *self.ARGS[:3], "1", *self.ARGS[4:], "--dropout", "0.1",
                          "--anew")
        self.assertEqual(anew.returncode, 0, anew.stderr)

    def test_killed_leaves_the_old_model(self):
        first = self.train("kept", *self.ARGS[:3], "1", *self.ARGS[4:])
        self.assertEqual(first.returncode, 0, first.stderr)
        with open(self.path("kept", "vectors.safetensors"), "rb") as file:
            before = file.read()
        command = [harness.AISLE, "train", "--items", self.path("items.csv"), "--events",
                   self.path("events.csv"), "--out", self.path("kept"), *self.ARGS]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                   env=harness.environment())
        time.sleep(0.3)  # anywhere will do
        process.kill()
        process.wait()
        with open(self.path("kept", "vectors.safetensors"), "rb") as file:
            self.assertEqual(file.read(), before)


class Refusals(TrainTest):
    def refused(self, code, text, *args):
        result = self.train("refused", *args)
        self.assertEqual(result.returncode, code, result.stderr)
        self.assertIn(text, result.stderr)
        self.assertEqual(result.stderr.strip().count("\n"), 0, result.stderr)
        self.assertFalse(os.path.exists(self.path("refused")))

    def test_flags(self):
        self.refused(2, "unknown model", "--model", "nonsense")
        self.refused(2, "--loss", "--model", "sasrec", "--loss", "nonsense")
        self.refused(2, "--sequences", "--model", "sasrec", "--sequences", "nonsense")
        self.refused(2, "--validation", "--model", "sasrec", "--validation", "nonsense")
        self.refused(2, "--neighbors", "--model", "sasrec", "--neighbors", "nonsense")
        self.refused(2, "--budget", "--model", "sasrec", "--budget", "soon")
        self.refused(1, "blocks", "--model", "gru4rec", "--blocks", "2")
        self.refused(2, "dropout", "--model", "sasrec", "--dropout", "1.5")

    def test_nothing_to_learn_from(self):
        with open(self.path("single.csv"), "w", encoding="utf-8") as out:
            out.write("user_id,item_id,timestamp\nu1,i1,1000\nu2,i2,1000\n")
        result = run("train", "--items", self.path("items.csv"), "--events",
                     self.path("single.csv"), "--out", self.path("single"), "--model", "sasrec")
        self.assertEqual(result.returncode, 1)
        self.assertIn("two events", result.stderr)
        self.assertFalse(os.path.exists(self.path("single")))

    def test_odd_events_train(self):
        """One item in all, one time for all, unsorted, one visitor with most events."""
        with open(self.path("odd.csv"), "w", encoding="utf-8") as out:
            out.write("user_id,item_id,timestamp\n")
            for i in range(3000):
                out.write(f"u0,i{i * i % ITEMS},1000\n")
            for i in range(50, 0, -1):
                out.write(f"u1,i1,{i * 1000}\nu{i + 2},i2,5\nu{i + 2},i2,4\n")
        result = run("train", "--items", self.path("items.csv"), "--events", self.path("odd.csv"),
                     "--out", self.path("odd"), "--model", "sasrec", "--epochs", "1", *FAST)
        self.assertEqual(result.returncode, 0, result.stderr)


class PublishedModels(TrainTest):
    """Lists that the published implementations gave on the published clicks."""

    def unpacked(self, *names):
        path = os.path.join(harness.SHARED_DATA, *names)
        if harness.SLOW:
            self.skipTest("plain builds only")
        if not harness.SHARED_DATA or not os.path.exists(path) or not shutil.which("zstd"):
            self.skipTest("the data sets are not there")
        target = self.path(os.path.basename(path)[:-4])
        subprocess.run(["zstd", "-q", "-f", "-d", path, "-o", target], check=True)
        return target

    def test_rules_on_yoochoose(self):
        clicks = self.unpacked("yoochoose_100k", "yoochoose-clicks-100k_train_full.txt.zst")
        test = self.unpacked("yoochoose_100k", "yoochoose-clicks-100k_test.txt.zst")
        aisle_done("import", "--from", "clicks", "--out", self.path("yoo"), clicks)
        with open(test, encoding="utf-8") as file:
            next(file)
            rows = [line.split("\t") for line in file]
        sessions = {}
        for session, item, moment in sorted(rows, key=lambda r: (int(r[0]), float(r[2]))):
            sessions.setdefault(session, []).append(item)
        for model in ("sr", "ar"):
            aisle_done("train", "--items", self.path("yoo", "items.csv"), "--events",
                       self.path("yoo", "events.csv"), "--out", self.path("m-" + model),
                       "--model", model, "--epochs", "1", "--dim", "8")
            aisle_done("build", "--items", self.path("yoo", "items.csv"), "--model-dir",
                       self.path("m-" + model), "--releases", self.path("r-" + model),
                       "--force")
            release = self.path("r-" + model, "channels", "stable")
            stored = self.unpacked("yoochoose_100k", f"recoms_rsc15_100k_{model}.csv.zst")
            with open(stored, encoding="utf-8") as file:
                next(file)
                lists = [line.strip().split(";") for line in file]
            answers = {}
            for session, position, items, scores in lists:
                current = sessions[session][int(position)]
                if current not in answers:  # both look at the newest item alone
                    answers[current] = self.top(release, current, 50)
                wanted = {item: float(score)
                          for item, score in zip(items.split(","), scores.split(","))
                          if float(score) > 0}
                ours = {item["id"]: item["score"] for item in answers[current]
                        if item["score"] > 0}
                self.assertEqual(set(ours), set(wanted), (model, session, position))
                for item, score in wanted.items():
                    self.assertAlmostEqual(ours[item], score, delta=1e-6)


if __name__ == "__main__":
    sys.exit(harness.main())
