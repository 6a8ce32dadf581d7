"""Offline evaluation on the demonstration shop, and against a ranking made here."""

import csv
import json
import math
import os

import harness
from harness import aisle_done, run_aisle


class Offline(harness.TestCase):
    def setUp(self):
        folder = harness.temporary_folder()
        self.folder = folder.__enter__()
        self.addCleanup(folder.__exit__, None, None, None)
        self.shop = harness.shop()
        self.release = self.shop.release_dir()

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)
        return self.path(name)

    def evaluate(self, *args):
        return aisle_done("evaluate", "offline", "--release", self.release, "--json", *args).json()

    def by_events(self, protocol, *args):
        return self.evaluate("--events", self.shop.events_path, "--protocol", protocol, *args)

    def users(self):
        """Events of each user, in the order of time."""
        users = {}
        with open(self.shop.events_path, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                users.setdefault(row["user_id"], []).append((int(row["timestamp"]), row["item_id"]))
        return {user: [item for _, item in sorted(events, key=lambda e: e[0])]
                for user, events in users.items()}

    def check(self, result, cutoffs=(5, 10, 20)):
        self.assertEqual(set(result["metrics"]),
                         {f"{name}@{k}" for name in ("hr", "recall", "ndcg", "mrr")
                          for k in cutoffs})
        self.assertGreater(result["n"], 0)
        for metrics in (result["metrics"], result["rows"]["popularity"]["metrics"]):
            for k in cutoffs:
                self.assertEqual(metrics[f"recall@{k}"], metrics[f"hr@{k}"])
                hr, ndcg, mrr = (metrics[f"{name}@{k}"] for name in ("hr", "ndcg", "mrr"))
                self.assertTrue(0 <= mrr <= ndcg <= hr <= 1, (k, mrr, ndcg, hr))
            for name in ("hr", "ndcg", "mrr"):
                values = [metrics[f"{name}@{k}"] for k in cutoffs]
                self.assertEqual(values, sorted(values))
        for k in cutoffs:
            self.assertTrue(0 < result[f"coverage@{k}"] <= 1)

    def test_the_model_beats_popularity_by_far(self):
        for protocol in ("leave-last-out", "every-position"):
            result = self.by_events(protocol)
            with self.subTest(protocol):
                self.check(result)
                self.assertEqual(result["protocol"], protocol)
                self.assertGreater(result["metrics"]["hr@20"],
                                   2 * result["rows"]["popularity"]["metrics"]["hr@20"])
                self.assertGreater(result["coverage@20"], result["rows"]["popularity"]["coverage@20"])

    def test_on_events_that_it_was_not_trained_on(self):
        """Trained on all but each user's last event, asked for it: still far above popularity."""
        with open(self.shop.events_path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        last = {}
        for i, row in enumerate(rows):
            if row["user_id"] not in last or int(row["timestamp"]) >= int(
                    rows[last[row["user_id"]]]["timestamp"]):
                last[row["user_id"]] = i
        with open(self.path("before.csv"), "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(row for i, row in enumerate(rows) if last[row["user_id"]] != i)
        aisle_done("train", "--items", self.shop.items_path, "--events", self.path("before.csv"),
                   "--out", self.path("model"), "--dim", 32, "--epochs", 4 if harness.SLOW else 20)
        aisle_done("build", "--items", self.shop.items_path, "--events", self.path("before.csv"),
                   "--model-dir", self.path("model"), "--releases", self.path("releases"),
                   "--force")
        self.release = os.path.realpath(self.path("releases/channels/stable"))
        result = self.by_events("leave-last-out")
        self.check(result)
        self.assertGreater(result["metrics"]["hr@20"],
                           1.5 * result["rows"]["popularity"]["metrics"]["hr@20"])

    def test_leave_last_out_counts_a_case_a_user(self):
        users = self.users()
        result = self.by_events("leave-last-out")
        self.assertEqual(result["n"], sum(len(items) > 1 for items in users.values()))

    def test_cutoffs(self):
        result = self.by_events("leave-last-out", "--k", "1,7,100")
        self.check(result, (1, 7, 100))
        self.assertEqual(result["metrics"]["hr@1"], result["metrics"]["mrr@1"])
        for bad in ("0", "5,5", "10,5", "x", "", "5,,6", "1001", "1,2,3,4,5,6,7,8,9"):
            result = run_aisle("evaluate", "offline", "--release", self.release, "--events",
                               self.shop.events_path, "--protocol", "leave-last-out", "--k", bad)
            with self.subTest(bad):
                self.assertIn(result.code, (1, 2), result)
                self.assertEqual(len(result.err.splitlines()), 1, result)

    def test_pairs_and_the_ranks_of_each_case(self):
        lines, n = [], 0
        for items in self.users().values():
            if len(items) > 2:
                lines.append(" ".join(items[:-1]) + "\t" + items[-1])
            n += len(items) > 2
        pairs = self.write("pairs.tsv", "\n".join(lines) + "\n")
        result = self.evaluate("--pairs", pairs, "--per-user", self.path("ranks.tsv"))
        self.check(result)
        self.assertEqual(result["n"], n)
        with open(self.path("ranks.tsv"), newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        self.assertEqual(len(rows), n)
        self.assertEqual([row["next_item"] for row in rows],
                         [line.split("\t")[1] for line in lines])
        for key, metrics in (("rank", result["metrics"]),
                             ("popularity_rank", result["rows"]["popularity"]["metrics"])):
            ranks = [int(row[key]) for row in rows]
            for k in (5, 10, 20):
                hits = [rank for rank in ranks if rank <= k]
                self.assertAlmostEqual(metrics[f"hr@{k}"], len(hits) / n, places=9)
                self.assertAlmostEqual(metrics[f"mrr@{k}"], sum(1 / r for r in hits) / n, places=9)
                self.assertAlmostEqual(metrics[f"ndcg@{k}"],
                                       sum(1 / math.log2(1 + r) for r in hits) / n, places=9)

    def test_leaving_out_the_history_moves_ranks_up_only(self):
        ranks = []
        for args in ((), ("--exclude-history",)):
            self.by_events("leave-last-out", "--per-user", self.path("ranks.tsv"), *args)
            with open(self.path("ranks.tsv"), newline="", encoding="utf-8") as file:
                ranks.append([int(row["rank"]) for row in csv.DictReader(file, delimiter="\t")])
        self.assertTrue(all(b <= a for a, b in zip(*ranks)))
        self.assertNotEqual(ranks[0], ranks[1])

    def test_threads_change_nothing(self):
        one = self.by_events("every-position", "--threads", 1)
        four = self.by_events("every-position", "--threads", 4)
        for result in (one, four):
            result.pop("seconds")
            self.assertGreater(result.pop("user_us")["p50"], 0)
        self.assertEqual(one, four)

    def test_both_variants_in_one_run_are_those_of_two(self):
        both = self.by_events("leave-last-out", "--both", "--per-user", self.path("ranks.tsv"))
        one = self.by_events("leave-last-out")
        other = self.by_events("leave-last-out", "--exclude-history")
        for key in ("metrics", "rows", "coverage@20", "seen_items"):
            self.assertEqual(both[key], one[key])
            self.assertEqual(both["without_seen"][key], other[key])
        self.assertEqual((one["ranking"], one["seen_items"], other["seen_items"]),
                         ("full catalogue", "ranked", "excluded"))
        with open(self.path("ranks.tsv"), newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        hits = sum(int(row["rank_without_seen"]) <= 10 for row in rows)
        self.assertAlmostEqual(other["metrics"]["hr@10"], hits / len(rows), places=9)

    def test_sampled_negatives_are_easier_and_labelled(self):
        whole = self.by_events("leave-last-out")
        sampled = self.by_events("leave-last-out", "--negatives", 20, "--seed", 3)
        self.assertEqual(sampled["ranking"], "20 sampled negatives")
        self.assertGreater(sampled["metrics"]["hr@5"], whole["metrics"]["hr@5"])
        self.assertIsNone(sampled["coverage@5"])
        again = self.by_events("leave-last-out", "--negatives", 20, "--seed", 3)
        self.assertEqual(sampled["metrics"], again["metrics"])
        text = aisle_done("evaluate", "offline", "--release", self.release, "--events",
                          self.shop.events_path, "--protocol", "leave-last-out", "--negatives", 20)
        self.assertIn("20 sampled negatives", text.out)

    def test_a_time_split_has_a_case_for_each_later_event(self):
        with open(self.shop.events_path, newline="", encoding="utf-8") as file:
            times = sorted(int(row["timestamp"]) for row in csv.DictReader(file))
        since = times[len(times) * 4 // 5]
        result = self.by_events("time-split", "--since", since, "--popularity-events",
                                self.shop.events_path, "--popularity-days", 3)
        self.check(result)
        self.assertEqual(result["n"], sum(time > since for time in times))
        self.assertGreater(result["rows"]["popularity_recent"]["metrics"]["hr@20"], 0)
        for args in (("--since", times[-1]), ("--since", "yesterday"), ()):
            failed = run_aisle("evaluate", "offline", "--release", self.release, "--events",
                               self.shop.events_path, "--protocol", "time-split", *args)
            with self.subTest(args):
                self.assertEqual(failed.code, 1 if times[-1] in args else 2, failed)

    def test_releases_are_compared_case_by_case(self):
        """With itself: no difference. With one of half the items: what it lacks, it misses."""
        with open(self.shop.items_path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        with open(self.path("half.csv"), "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows[::2])
        aisle_done("build", "--items", self.path("half.csv"), "--events", self.shop.events_path,
                   "--model-dir", self.shop.model, "--releases", self.path("releases"), "--force")
        half = os.path.realpath(self.path("releases/channels/stable"))
        result = self.by_events("leave-last-out", "--release", self.release, "--release", half)
        same, worse = result["comparisons"]
        self.assertEqual([release["n_items"] for release in result["releases"]],
                         [len(rows), len(rows), len(rows[::2])])
        self.assertEqual(result["metrics"], result["releases"][1]["metrics"])
        self.assertEqual(same["metrics"]["hr@20"], {"difference": 0, "ci": [0, 0]})
        self.assertEqual(result["n_unknown"], 0)
        self.assertGreater(result["releases"][2]["n_unknown"], 0)
        difference = worse["metrics"]["mrr@20"]
        self.assertTrue(difference["ci"][0] < difference["difference"] < difference["ci"][1])
        self.assertAlmostEqual(difference["difference"],
                               result["releases"][2]["metrics"]["mrr@20"] -
                               result["metrics"]["mrr@20"], places=9)

    def test_unknown_items_count_as_missed(self):
        known = sorted(self.shop.items())
        pairs = self.write("pairs.tsv", f"{known[0]}\tno-such\nno-such nor-this\t{known[1]}\n")
        result = self.evaluate("--pairs", pairs)
        self.assertEqual((result["n"], result["n_unknown"], result["n_empty"]), (2, 1, 1))
        self.assertLessEqual(result["metrics"]["hr@20"], 0.5)

    def test_what_cannot_be_evaluated(self):
        base = ("evaluate", "offline", "--release", self.release)
        for text in ("", "\n", "a b c\n", "a\tb\tc\n", "a\t\n", "a\t" + "b" * 129 + "\n"):
            result = run_aisle(*base, "--pairs", self.write("pairs.tsv", text))
            with self.subTest(text[:20]):
                self.assert_failed(result)
        for args in (("--pairs", self.path("nothing")),
                     ("--events", self.path("nothing"), "--protocol", "leave-last-out")):
            self.assert_failed(run_aisle(*base, *args))
        for args in ((), ("--events", self.shop.events_path, "--protocol", "nonsense"),
                     ("--events", self.shop.events_path, "--pairs", "x", "--protocol",
                      "leave-last-out"),
                     ("--events", self.shop.events_path, "--protocol", "leave-last-out",
                      "--since", "2020-01-01"),
                     ("--pairs", "x", "--both", "--exclude-history"),
                     ("--pairs", "x", "--negatives", "-1"), ("--pairs", "x", "--seed", "x"),
                     ("--pairs", "x", "--popularity-days", "0")):
            result = run_aisle(*base, *args)
            with self.subTest(args):
                self.assertEqual(result.code, 2, result)
        result = run_aisle(*base, "--events", self.shop.events_path, "--protocol",
                           "leave-last-out", "--per-user", self.path("no/such/ranks.tsv"))
        self.assert_failed(result)

    def test_without_json_it_is_for_people(self):
        result = aisle_done("evaluate", "offline", "--release", self.release, "--events",
                            self.shop.events_path, "--protocol", "leave-last-out")
        self.assertIn("popularity", result.out)
        self.assertRaises(ValueError, json.loads, result.out)


if __name__ == "__main__":
    harness.main()
