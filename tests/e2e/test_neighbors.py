"""Session neighbours from training to an answer: in the release, in scores, in what is shown of them."""

import os
import shutil

import harness
from harness import aisle_done

USERS = 150
ITEMS = 60
STEPS = 8


class Neighbors(harness.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = os.path.join(harness.WORK, "neighbors-%d" % os.getpid())
        os.makedirs(cls.folder, exist_ok=True)
        with open(cls.path("items.csv"), "w", encoding="utf-8") as out:
            out.write("id,title,category\n")
            # The last one has no event: the model has no vector for it, the neighbours no session.
            out.writelines(f"i{i},Item {i},Shelf > {i % 3}\n" for i in range(ITEMS + 1))
        with open(cls.path("events.csv"), "w", encoding="utf-8") as out:
            out.write("user_id,item_id,timestamp\n")
            for user in range(USERS):  # each walks round a circle from somewhere
                for step in range(STEPS):
                    out.write(f"u{user},i{(user * 7 + step) % ITEMS},"
                              f"{1700000000000 + user * 10000000 + step * 1000}\n")

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder, ignore_errors=True)

    @classmethod
    def path(cls, *names):
        return os.path.join(cls.folder, *names)

    def releases(self, name, *train):
        aisle_done("train", "--items", self.path("items.csv"), "--events",
                   self.path("events.csv"), "--out", self.path(name), "--dim", "16", "--threads",
                   "1", *train)
        aisle_done("build", "--items", self.path("items.csv"), "--model-dir", self.path(name),
                   "--events", self.path("events.csv"), "--releases", self.path(name + "-releases"))
        return self.path(name + "-releases")

    def check_scores(self, items):
        scores = [item["score"] for item in items]
        self.assertEqual(scores, sorted(scores, reverse=True))
        for item in items:
            features = item["explanation"]["features"]
            self.assertAlmostEqual(sum(features.values()), item["score"],
                                   delta=1e-5 * max(1, abs(item["score"])))
            self.assertEqual("neighbors" in item["sources"], features["neighbors"] > 0)

    def test_beside_a_model(self):
        releases = self.releases("blend", "--model", "sasrec", "--neighbors", "vmis", "--epochs", "2",
                                 "--negatives", "16", "--batch-events", "256")
        release = os.path.join(releases, "channels", "stable")
        aisle_done("verify", release)
        shown = aisle_done("inspect", release, "--json").json()
        self.assertIn("neighbors.safetensors", [file["name"] for file in shown["files"]])
        settings = shown["model"]["settings"]["neighbors"]
        self.assertEqual(settings["kind"], "vmis")
        self.assertGreater(settings["n_sessions"], 0)
        self.assertFalse(settings["blend"]["is_primary"])
        self.assertGreater(shown["measured"]["neighbors_p99_us"], 0)
        text = aisle_done("inspect", release).out
        for line in ("    kind: vmis", "      is_primary: no", "  model: sasrec", "  curve:"):
            self.assertIn(line + "\n", text)
        with harness.Serve(releases, f"sqlite:{self.path('blend.db')}", token=harness.TOKEN) as serve:
            self.assertEqual(serve.get("/v1/release").json()["model"]["settings"]["neighbors"],
                             settings)
            serve.events([{"user_id": "ann", "item_id": item, "type": "view"}
                          for item in ("i10", "i11", "i12")])
            items = serve.recommend(user_id="ann", limit=50, explain=True)["items"]
            self.assertEqual(len(items), 50)
            self.check_scores(items)
            sources = {tuple(item["sources"]) for item in items}
            self.assertIn(("vector", "neighbors"), sources)
            self.assertNotIn("popular", {name for names in sources for name in names})
            nobody = serve.recommend(user_id="nobody", limit=5, explain=True)["items"]
            self.assertEqual({tuple(item["sources"]) for item in nobody}, {("popular",)})

    def test_as_the_model(self):
        releases = self.releases("vmis", "--model", "vmis", "--epochs", "1")
        with harness.Serve(releases, f"sqlite:{self.path('vmis.db')}", token=harness.TOKEN) as serve:
            items = serve.recommend(items=["i20"], limit=ITEMS, explain=True)["items"]
            self.check_scores(items)
            known = [item for item in items if "neighbors" in item["sources"]]
            self.assertEqual(items[:len(known)], known)  # the others only fill up
            self.assertIn("i21", [item["id"] for item in known])
            for item in known:
                self.assertGreater(item["score"], 0)
            for item in items[len(known):]:
                self.assertLessEqual(item["score"], 0)
                self.assertGreaterEqual(item["score"], -1)


if __name__ == "__main__":
    harness.main()
