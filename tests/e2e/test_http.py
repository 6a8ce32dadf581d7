"""Every endpoint of the interface, as a client sees it, against the demonstration shop."""

import concurrent.futures
import json
import os
import re
import sqlite3
import threading
import time

import harness
import prometheus
from harness import TIMEOUT_MS, TOKEN

ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}\Z")
ANSWER_KEYS = {"request_id", "release", "scenario", "experiments", "degraded", "ignored", "items"}
METADATA = {"title", "category", "brand", "price", "currency", "stock", "image_url", "url",
            "created_at", "attributes"}


def ids(answer):
    return [item["id"] for item in answer["items"]]


class ServiceTest(harness.TestCase):
    """One service for the tests of a class."""

    args = ()

    @classmethod
    def setUpClass(cls):
        cls.shop = harness.shop()
        cls.catalogue = cls.shop.items()
        cls.all_ids = sorted(cls.catalogue)
        cls._folder = harness.temporary_folder()
        cls.folder = cls._folder.__enter__()
        cls.history_path = os.path.join(cls.folder, "history.db")
        cls.serve = harness.Serve(cls.shop.releases, f"sqlite:{cls.history_path}", *cls.args,
                                  token=TOKEN)
        cls.n_users = 0

    @classmethod
    def tearDownClass(cls):
        try:
            cls.serve.stop()
        finally:
            cls._folder.__exit__(None, None, None)

    def new_user(self):
        type(self).n_users += 1
        return f"{type(self).__name__}-{self.n_users}"

    def view(self, user, *items, kind="view"):
        return self.serve.events([{"user_id": user, "item_id": item, "type": kind}
                                  for item in items])


class Recommendations(ServiceTest):
    def check_answer(self, answer, limit=20):
        self.assertEqual(set(answer), ANSWER_KEYS)
        self.assertRegex(answer["request_id"], ULID)
        self.assertEqual(answer["release"], self.serve.get("/v1/release").json()["version"])
        self.assertEqual(answer["degraded"], [])
        self.assertEqual(len(answer["items"]), limit)
        self.assertEqual(len(set(ids(answer))), limit)
        for item in answer["items"]:
            row = self.catalogue[item["id"]]
            self.assertEqual(item["title"], row["title"])
            self.assertAlmostEqual(item["price"], float(row["price"]), places=4)
            self.assertEqual(item["currency"], row["currency"])
            self.assertIsInstance(item["score"], (int, float))
            self.assertTrue(item["sources"])

    def test_an_anonymous_visitor_gets_popular_items(self):
        answer = self.serve.recommend()
        self.check_answer(answer)
        self.assertEqual(answer["scenario"], "for_you")
        for item in answer["items"]:
            self.assertIn("popular", item["sources"])

    def test_every_scenario_answers(self):
        item = self.all_ids[0]
        for scenario in ("for_you", "related", "cart", "popular"):
            answer = self.serve.recommend(scenario=scenario, items=[item])
            with self.subTest(scenario):
                self.check_answer(answer)
                self.assertEqual(answer["scenario"], scenario)
        for scenario in ("related", "cart"):
            self.assertNotIn(item, ids(self.serve.recommend(scenario=scenario, items=[item])))

    def test_related_and_cart_need_items(self):
        for scenario in ("related", "cart"):
            for body in ({"scenario": scenario}, {"scenario": scenario, "items": []}):
                answer = self.serve.post("/v1/recommendations", body)
                self.assert_problem(answer, 400, "items")

    def test_popular_is_in_the_order_of_popularity(self):
        counts = {}
        with open(self.shop.events_path, encoding="utf-8") as file:
            next(file)
            for line in file:
                item = line.split(",")[1]
                counts[item] = counts.get(item, 0) + 1
        first = ids(self.serve.recommend(scenario="popular", limit=10, exclude_seen="none"))
        best = sorted(counts.values(), reverse=True)
        # Popularity may weigh types and age, so no exact order: all ten are among the top fifty.
        for item in first:
            self.assertGreaterEqual(counts.get(item, 0), best[49])

    def test_taste_shows_in_the_answer(self):
        """Views of one department bring more of it than an anonymous visitor sees."""
        tops = {}
        for item, row in self.catalogue.items():
            tops.setdefault(row["category"].split(" > ")[0], []).append(item)
        better = 0
        for top, members in tops.items():
            seen = sorted(members)[:6]
            share = [sum(self.catalogue[i]["category"].startswith(top) for i in ids(answer))
                     for answer in (self.serve.recommend(items=seen), self.serve.recommend())]
            better += share[0] > share[1]
        self.assertGreaterEqual(better, len(tops) * 2 // 3)

    def test_limit_is_kept_at_both_ends(self):
        for limit in (1, 2, 200):
            self.assertEqual(len(self.serve.recommend(limit=limit)["items"]), limit)

    def test_without_diversity_scores_fall(self):
        answer = self.serve.recommend(items=[self.all_ids[5]], diversity=0, limit=50)
        scores = [item["score"] for item in answer["items"]]
        self.assertEqual(scores, sorted(scores, reverse=True))
        mixed = self.serve.recommend(items=[self.all_ids[5]], diversity=1, limit=50)
        self.assertNotEqual(ids(answer), ids(mixed))

    def test_the_same_request_gets_the_same_items(self):
        request = {"items": self.all_ids[10:13], "limit": 50}
        first = self.serve.recommend(**request)
        second = self.serve.recommend(**request)
        self.assertEqual(first["items"], second["items"])
        self.assertNotEqual(first["request_id"], second["request_id"])

    def test_requests_scored_together_get_what_they_get_alone(self):
        requests = [{"items": [self.all_ids[i * 7 % len(self.all_ids)]], "limit": 10,
                     "explain": True} for i in range(48)]
        alone = [self.serve.recommend(**request) for request in requests]
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            together = list(pool.map(lambda request: self.serve.recommend(**request), requests))
        for one, other in zip(alone, together):
            self.assertEqual(ids(one), ids(other))
            for a, b in zip(one["items"], other["items"]):
                self.assertAlmostEqual(a["score"], b["score"], places=4)

    def test_exclude_leaves_items_out(self):
        first = ids(self.serve.recommend(limit=50))
        answer = self.serve.recommend(limit=50, exclude=first[:30])
        self.assertFalse(set(ids(answer)) & set(first[:30]))
        self.assertEqual(len(answer["items"]), 50)

    def test_exclude_all_but_a_few_leaves_these(self):
        kept = set(self.all_ids[100:105])
        answer = self.serve.recommend(limit=200, exclude=[i for i in self.all_ids if i not in kept])
        self.assertEqual(set(ids(answer)), kept)

    def test_unknown_ids_are_ignored_and_told(self):
        answer = self.serve.recommend(scenario="related", items=["no-such", self.all_ids[0]],
                                      exclude=["nor-this"])
        self.assertIn("no-such", answer["ignored"])
        self.assertEqual(len(answer["items"]), 20)
        answer = self.serve.recommend(scenario="cart", items=["no-such"])
        self.assertIn("no-such", answer["ignored"])
        self.assertEqual(len(answer["items"]), 20)

    def test_fields_choose_the_metadata(self):
        answer = self.serve.recommend(fields=["title", "price"])
        for item in answer["items"]:
            self.assertEqual(set(item) & METADATA, {"title", "price"})
        answer = self.serve.recommend(fields=[])
        for item in answer["items"]:
            self.assertEqual(set(item), {"id", "score", "sources"})
        answer = self.serve.recommend(fields=["attributes", "created_at", "category", "stock"])
        for item in answer["items"]:
            row = self.catalogue[item["id"]]
            self.assertEqual(item["category"], row["category"])
            self.assertEqual(item["stock"], float(row["stock"]))
            self.assertEqual(item["attributes"].get("colour", ""), row["colour"])
        self.assert_problem(self.serve.post("/v1/recommendations", {"fields": ["weight"]}), 400,
                            "fields")

    def test_explain_adds_up_and_says_because(self):
        seen = self.all_ids[20:23]
        answer = self.serve.recommend(items=seen, explain=True, diversity=0)
        for item in answer["items"]:
            features = item["explanation"]["features"]
            self.assertIn("similarity", features)
            self.assertAlmostEqual(sum(features.values()), item["score"], places=3)
            self.assertLessEqual(set(item["explanation"]["because"]), set(seen))
        self.assertTrue(any(item["explanation"]["because"] for item in answer["items"]))
        for item in self.serve.recommend(items=seen)["items"]:
            self.assertNotIn("explanation", item)

    def test_pages_show_no_item_twice(self):
        seen, after = [], {}
        for _ in range(5):
            answer = self.serve.recommend(items=[self.all_ids[3]], limit=30, **after)
            self.assertEqual(len(answer["items"]), 30)
            seen += ids(answer)
            after = {"after": answer["request_id"]}
        self.assertEqual(len(set(seen)), len(seen))

    def test_pages_end_when_the_catalogue_does(self):
        seen, after = [], {}
        while True:
            answer = self.serve.recommend(limit=90, exclude_seen="none", **after)
            seen += ids(answer)
            if len(answer["items"]) < 90:
                break
            after = {"after": answer["request_id"]}
        self.assertEqual(sorted(seen), self.all_ids)
        for _ in range(2):
            answer = self.serve.recommend(limit=90, exclude_seen="none",
                                          after=answer["request_id"])
            self.assertEqual(answer["items"], [])

    def test_after_an_unknown_answer_is_a_problem(self):
        body = {"after": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "timeout_ms": TIMEOUT_MS}
        self.assert_problem(self.serve.post("/v1/recommendations", body), 400, "after")

    def test_profile_must_exist(self):
        self.serve.recommend(profile="default")
        body = {"profile": "no-such"}
        self.assert_problem(self.serve.post("/v1/recommendations", body), 400, "profile")

    def test_a_long_deadline_and_a_short_one_both_answer(self):
        for timeout_ms in (1, 10000):
            answer = self.serve.post("/v1/recommendations",
                                     {"user_id": "u000001", "timeout_ms": timeout_ms})
            self.assertEqual(answer.status, 200, answer)
            self.assertEqual(len(answer.json()["items"]), 20)

    def test_server_timing_names_the_stages(self):
        answer = self.serve.post("/v1/recommendations", {"user_id": "u000001",
                                                         "timeout_ms": TIMEOUT_MS})
        header = answer.headers["Server-Timing"]
        stages = dict(re.fullmatch(r"([a-z]+);dur=(\d+\.\d+)", part).groups()
                      for part in header.split(", "))
        self.assertLessEqual({"parse", "history", "retrieve", "rank", "describe", "answer"},
                             set(stages))

    # ---- filters, against the item file ----

    def matching(self, test):
        return {i for i, row in self.catalogue.items() if test(row)}

    def test_filters_agree_with_the_item_file(self):
        price = lambda row: float(row["price"])
        cases = [
            ({"field": "price", "lte": 30}, lambda r: price(r) <= 30),
            ({"field": "price", "lt": 30}, lambda r: price(r) < 30),
            ({"field": "price", "gte": 100}, lambda r: price(r) >= 100),
            ({"field": "stock", "gt": 0}, lambda r: float(r["stock"]) > 0),
            ({"field": "stock", "eq": 0}, lambda r: float(r["stock"]) == 0),
            ({"field": "category", "under": "Home"}, lambda r: r["category"].startswith("Home >")),
            ({"field": "category", "under": "Home > Lighting"},
             lambda r: r["category"].startswith("Home > Lighting >")),
            ({"field": "brand", "eq": "Oriel"}, lambda r: r["brand"] == "Oriel"),
            ({"field": "brand", "ne": "Oriel"}, lambda r: r["brand"] != "Oriel"),
            ({"field": "brand", "in": ["Oriel", "Westgate"]},
             lambda r: r["brand"] in ("Oriel", "Westgate")),
            ({"field": "attributes.colour", "eq": "Ivory"}, lambda r: r["colour"] == "Ivory"),
            ({"field": "attributes.size", "exists": True}, lambda r: r["size"] != ""),
            ({"field": "attributes.size", "exists": False}, lambda r: r["size"] == ""),
            ({"field": "attributes.rating", "gte": 4.5},
             lambda r: r["rating"] != "" and float(r["rating"]) >= 4.5),
            ({"field": "created_at", "gte": "2025-06-01T00:00:00Z"},
             lambda r: r["created_at"] >= "2025-06-01"),
            ({"field": "id", "in": self.all_ids[:3]}, lambda r: r["id"] in self.all_ids[:3]),
            ({"all": [{"field": "price", "lte": 50}, {"field": "stock", "gt": 0}]},
             lambda r: price(r) <= 50 and float(r["stock"]) > 0),
            ({"any": [{"field": "price", "lt": 10}, {"field": "price", "gt": 200}]},
             lambda r: price(r) < 10 or price(r) > 200),
            ({"not": {"field": "category", "under": "Home"}},
             lambda r: not r["category"].startswith("Home >")),
            ({"all": [{"not": {"any": [{"field": "price", "lt": 20},
                                       {"field": "stock", "eq": 0}]}},
                      {"field": "category", "under": "Kitchen"}]},
             lambda r: price(r) >= 20 and float(r["stock"]) != 0
             and r["category"].startswith("Kitchen >")),
            ({"field": "attributes.nothing", "eq": "x"}, lambda r: False),
            ({"field": "attributes.nothing", "exists": False}, lambda r: True),
        ]
        for condition, test in cases:
            expected = self.matching(test)
            for scenario, limit in (("for_you", 200), ("popular", 15), ("related", 40)):
                with self.subTest(condition=condition, scenario=scenario):
                    answer = self.serve.recommend(filter=condition, limit=limit, scenario=scenario,
                                                  items=["LMP-00001"], exclude_seen="none")
                    got = set(ids(answer))
                    self.assertLessEqual(got, expected)
                    if scenario in ("related", "for_you"):
                        expected_n = len(expected - {"LMP-00001"} if "LMP-00001" not in got
                                         else expected)
                    else:
                        expected_n = len(expected)
                    self.assertGreaterEqual(len(got), min(limit, expected_n - (
                        1 if scenario == "popular" and "LMP-00001" in expected else 0)))

    def test_a_bad_filter_names_its_place(self):
        cases = [
            {"field": "price"}, {"price": 3}, {"field": "price", "under": "Home"},
            {"field": "price", "lte": "cheap"}, {"field": "nonsense", "eq": 1}, {"all": {}},
            {"field": "price", "lte": 3, "gte": 1}, {"all": [{"field": "price", "lte": []}]},
            {"field": "brand", "in": []}, {"not": []}, {},
        ]
        for condition in cases:
            answer = self.serve.post("/v1/recommendations", {"filter": condition})
            if condition in ({"field": "brand", "in": []}, {}):
                self.assertIn(answer.status, (200, 400), answer)
                continue
            with self.subTest(condition):
                problem = self.assert_problem(answer, 400)
                self.assertTrue(problem["field"].startswith("filter"), problem)

    # ---- the GET forms ----

    def test_related_of_an_item(self):
        answer = self.serve.get("/v1/items/LMP-00001/related?limit=7&timeout_ms=10000").json()
        self.assertEqual(answer["scenario"], "related")
        posted = self.serve.recommend(scenario="related", items=["LMP-00001"], limit=7)
        self.assertEqual(answer["items"], posted["items"])
        answer = self.serve.get("/v1/items/LMP-00001/related?limit=200&category=Home%20%3E%20"
                                "Lighting&price_max=40&in_stock=true&user_id=u000001"
                                "&timeout_ms=10000").json()
        expected = self.matching(lambda r: r["category"].startswith("Home > Lighting >") and
                                 float(r["price"]) <= 40 and float(r["stock"]) > 0)
        self.assertLessEqual(set(ids(answer)), expected)
        self.assertGreaterEqual(len(answer["items"]), len(expected) - 1 - len(
            self.serve.history("u000001")))

    def test_related_of_an_unknown_item_answers_all_the_same(self):
        answer = self.serve.get("/v1/items/no-such/related?timeout_ms=10000").json()
        self.assertEqual(answer["ignored"], ["no-such"])
        self.assertEqual(len(answer["items"]), 20)

    def test_recommendations_of_a_user(self):
        user = self.new_user()
        self.view(user, *self.all_ids[30:33])
        answer = self.serve.get(f"/v1/users/{user}/recommendations?limit=5&timeout_ms=10000").json()
        posted = self.serve.recommend(user_id=user, limit=5)
        self.assertEqual(ids(answer), ids(posted))
        self.assertEqual(len(answer["items"]), 5)

    def test_bad_query_parameters_are_named(self):
        for query, field in (("limit=0", "limit"), ("limit=201", "limit"), ("limit=x", "limit"),
                             ("limit=", "limit"), ("nonsense=1", "nonsense"), ("limit=1&limit=2", "limit"),
                             ("in_stock=maybe", "in_stock"), ("price_max=NaN", "price_max"),
                             ("user_id=%zz", "user_id"), ("user_id=" + "a" * 129, "user_id")):
            with self.subTest(query):
                self.assert_problem(self.serve.get(f"/v1/items/LMP-00001/related?{query}"), 400,
                                    field)

    def test_path_ids_are_percent_decoded_and_bounded(self):
        user = "A user/with spaces & ümlauts+%"
        self.view(user, self.all_ids[0])
        self.assertEqual(len(self.serve.history(
            "A%20user%2Fwith%20spaces%20%26%20%C3%BCmlauts+%25")), 1)
        self.assertEqual(self.serve.get(f"/v1/users/{'a' * 128}/history").status, 200)
        for bad in ("a" * 129, "%00", "%ff", "%2", "%0a"):
            with self.subTest(bad):
                self.assert_problem(self.serve.get(f"/v1/users/{bad}/history"), 400, "id")


class Scoring(ServiceTest):
    def test_score_ranks_exactly_the_candidates(self):
        user = self.new_user()
        self.view(user, *self.all_ids[40:44])
        candidates = self.all_ids[::9]
        answer = self.serve.post("/v1/score", {"user_id": user, "items": candidates + ["no-such"],
                                               "timeout_ms": TIMEOUT_MS}).json()
        self.assertEqual(set(ids(answer)), set(candidates))
        self.assertEqual(answer["ignored"], ["no-such"])
        scores = [item["score"] for item in answer["items"]]
        self.assertEqual(scores, sorted(scores, reverse=True))

    def test_score_follows_the_visitor(self):
        user = self.new_user()
        lamps = [i for i in self.all_ids if self.catalogue[i]["category"].startswith("Home >")]
        others = [i for i in self.all_ids if not self.catalogue[i]["category"].startswith("Home >")]
        self.view(user, *lamps[:8])
        answer = self.serve.post("/v1/score", {"user_id": user, "items": lamps[8:28] + others[:20],
                                               "timeout_ms": TIMEOUT_MS}).json()
        self.assertEqual(len(answer["items"]), 40)
        first = ids(answer)[:20]
        self.assertGreater(sum(item in lamps for item in first), 10)

    def test_a_thousand_candidates_and_one_more(self):
        many = [f"x{i}" for i in range(1000 - len(self.all_ids))] + self.all_ids
        answer = self.serve.post("/v1/score", {"items": many, "timeout_ms": TIMEOUT_MS})
        self.assertEqual(answer.status, 200, answer)
        self.assertEqual(len(answer.json()["items"]), len(self.all_ids))
        self.assert_problem(self.serve.post("/v1/score", {"items": many + ["y"]}), 400, "items")

    def test_score_needs_items_and_knows_its_fields(self):
        self.assert_problem(self.serve.post("/v1/score", {}), 400, "items")
        self.assert_problem(self.serve.post("/v1/score", {"items": []}), 400, "items")
        self.assert_problem(self.serve.post("/v1/score", {"items": ["a"], "scenario": "cart"}),
                            400, "scenario")


class Batch(ServiceTest):
    path = "/v1/recommendations/batch"

    def test_answers_come_in_order_with_problems_in_their_place(self):
        requests = [{"items": [i], "limit": 3, "timeout_ms": TIMEOUT_MS, "scenario": "related"}
                    for i in self.all_ids[:150]]
        requests[70] = {"limit": 0}
        requests[71] = 7
        answer = self.serve.post(self.path, requests)
        self.assertEqual(answer.status, 200, answer)
        answers = answer.json()
        self.assertEqual(len(answers), len(requests))
        for i, (request, one) in enumerate(zip(requests, answers)):
            if i in (70, 71):
                self.assertEqual(one["status"], 400)
                continue
            alone = self.serve.recommend(**request)
            self.assertEqual(ids(one), ids(alone))
        self.assertEqual(answers[70]["field"], "limit")

    def test_a_thousand_and_one_more(self):
        requests = [{"user_id": f"u{i:06}", "limit": 2, "timeout_ms": TIMEOUT_MS}
                    for i in range(1000)]
        answers = self.serve.post(self.path, requests).json()
        self.assertEqual(len(answers), 1000)
        for one in answers:
            self.assertEqual(len(one["items"]), 2)
        self.assertEqual(len({one["request_id"] for one in answers}), 1000)
        self.assert_problem(self.serve.post(self.path, requests + requests[:1]), 400)

    def test_none_and_not_an_array(self):
        answer = self.serve.post(self.path, [])
        self.assertIn(answer.status, (200, 400), answer)
        if answer.status == 200:
            self.assertEqual(answer.json(), [])
        self.assert_problem(self.serve.post(self.path, {"limit": 1}), 400)


class Events(ServiceTest):
    def test_an_event_is_in_the_next_request(self):
        user = self.new_user()
        item = self.all_ids[50]
        self.assertEqual(self.view(user, item), {"accepted": 1})
        history = self.serve.history(user)
        self.assertEqual([(e["item_id"], e["type"]) for e in history], [(item, "view")])
        answer = self.serve.recommend(user_id=user, explain=True)
        because = {i for one in answer["items"] for i in one["explanation"]["because"]}
        self.assertEqual(because, {item})
        self.assertNotEqual(ids(answer), ids(self.serve.recommend()))

    def test_one_an_array_and_lines(self):
        user = self.new_user()
        event = lambda i, kind: {"user_id": user, "item_id": self.all_ids[i], "type": kind,
                                 "timestamp": 1700000000000 + i}
        self.assertEqual(self.serve.events(event(0, "view")), {"accepted": 1})
        self.assertEqual(self.serve.events([event(1, "cart"), event(2, "purchase")]),
                         {"accepted": 2})
        lines = "\n".join(json.dumps(event(i, "click")) for i in (3, 4, 5)) + "\n"
        answer = self.serve.request("POST", "/v1/events", lines,
                                    {"Content-Type": "application/x-ndjson"})
        self.assertEqual((answer.status, answer.json()), (202, {"accepted": 3}))
        history = self.serve.history(user)
        self.assertEqual([e["item_id"] for e in history], self.all_ids[5::-1])
        self.assertEqual([e["type"] for e in history],
                         ["click", "click", "click", "purchase", "cart", "view"])
        self.assertEqual(history[-1]["timestamp"], "2023-11-14T22:13:20.000Z")

    def test_a_time_in_words_and_in_milliseconds(self):
        user = self.new_user()
        for timestamp in ("2026-01-02T03:04:05Z", 1767323045000, "2026-01-02T04:04:05+01:00"):
            self.serve.events({"user_id": user, "item_id": "x", "type": "view",
                               "timestamp": timestamp})
        self.assertEqual({e["timestamp"] for e in self.serve.history(user)},
                         {"2026-01-02T03:04:05.000Z"})

    def test_a_repeated_event_id_counts_once(self):
        user = self.new_user()
        event = {"user_id": user, "item_id": self.all_ids[0], "type": "view", "event_id": "e1"}
        self.assertEqual(self.serve.events(event), {"accepted": 1})
        for _ in range(2):
            self.assertEqual(self.serve.events(event), {"accepted": 1, "duplicates": 1})
        self.assertEqual(self.serve.events([event, dict(event, event_id="e2"), event]),
                         {"accepted": 3, "duplicates": 2})
        self.assertEqual(len(self.serve.history(user)), 2)
        other = self.new_user()
        self.serve.events(dict(event, user_id=other))
        self.assertEqual(len(self.serve.history(other)), 1)

    def test_a_repeated_event_id_counts_once_when_sent_at_the_same_time(self):
        user = self.new_user()
        event = {"user_id": user, "item_id": self.all_ids[0], "type": "view", "event_id": "e1"}
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: self.serve.events(event), range(32)))
        self.assertEqual(len(self.serve.history(user)), 1)

    def test_all_fields_are_taken(self):
        user = self.new_user()
        answer = self.serve.recommend(user_id=user)
        self.serve.events({"user_id": user, "item_id": ids(answer)[0], "type": "click",
                           "timestamp": "2026-11-01T00:00:00Z", "value": 12.5, "session_id": "s",
                           "request_id": answer["request_id"], "event_id": "e"})
        with sqlite3.connect(f"file:{self.history_path}?mode=ro", uri=True) as database:
            rows = database.execute("SELECT item_id, value, request_id, event_id, session_id FROM "
                                    "events WHERE user_id = ?", (user,)).fetchall()
        self.assertEqual(rows, [(ids(answer)[0], 12.5, answer["request_id"], "e", "s")])

    def test_one_bad_event_and_none_is_stored(self):
        user = self.new_user()
        good = {"user_id": user, "item_id": "x", "type": "view"}
        for bad, field in (({"item_id": "x", "type": "view"}, "user_id"),
                           (dict(good, type="glance"), "type"), (dict(good, extra=1), "extra"),
                           (dict(good, timestamp="yesterday"), "timestamp"),
                           (dict(good, timestamp=-5), "timestamp"),
                           (dict(good, value="much"), "value"), (dict(good, item_id=""), "item_id"),
                           (dict(good, event_id="a\nb"), "event_id")):
            with self.subTest(bad):
                self.assert_problem(self.serve.post("/v1/events", bad), 400, field)
                self.assert_problem(self.serve.post("/v1/events", [good, good, bad]), 400,
                                    f"[2].{field}")
        self.assert_problem(self.serve.post("/v1/events", []), 400)
        self.assertEqual(self.serve.history(user), [])

    def test_ten_thousand_at_once(self):
        user = self.new_user()
        events = [{"user_id": user, "item_id": self.all_ids[i % 400], "type": "view"}
                  for i in range(10000)]
        self.assertEqual(self.serve.events(events), {"accepted": 10000})
        history = self.serve.history(user)
        self.assertGreaterEqual(len(history), 100)
        self.assertEqual(history[0]["item_id"], self.all_ids[9999 % 400])
        self.assert_problem(self.serve.post("/v1/events", events + events[:1]), (400, 413))

    def test_what_was_bought_is_not_shown_again(self):
        user = self.new_user()
        bought, viewed = self.all_ids[60:63], self.all_ids[63:66]
        self.view(user, *bought, kind="purchase")
        self.view(user, *viewed)
        everything = {"user_id": user, "limit": 200, "filter":
                      {"field": "id", "in": bought + viewed + self.all_ids[70:75]}}
        rest = set(self.all_ids[70:75])
        self.assertEqual(set(ids(self.serve.recommend(**everything))), rest | set(viewed))
        self.assertEqual(set(ids(self.serve.recommend(**everything, exclude_seen="purchased"))),
                         rest | set(viewed))
        self.assertEqual(set(ids(self.serve.recommend(**everything, exclude_seen="viewed"))), rest)
        self.assertEqual(set(ids(self.serve.recommend(**everything, exclude_seen="none"))),
                         rest | set(viewed) | set(bought))

    def test_without_consent_nothing_is_used_or_kept(self):
        user = self.new_user()
        self.view(user, *self.all_ids[80:84])
        plain = self.serve.recommend(items=[self.all_ids[90]])
        without = self.serve.recommend(user_id=user, items=[self.all_ids[90]], consent=False)
        self.assertEqual(ids(without), ids(plain))
        secret = "nobody-may-know-me"
        self.serve.recommend(user_id=secret, session_id=secret, consent=False)
        self.serve.recommend(user_id=secret + "2")  # reading stores nothing either
        self.assertEqual(self.serve.history(secret), [])
        for name in os.listdir(self.folder):
            with open(os.path.join(self.folder, name), "rb") as file:
                self.assertNotIn(secret.encode(), file.read(), name)
        self.assertNotIn(secret, self.serve.stderr())

    def test_erasing_a_user_leaves_nothing(self):
        user, other = self.new_user(), self.new_user()
        self.view(user, *self.all_ids[:5])
        self.view(other, *self.all_ids[:5])
        answer = self.serve.request("DELETE", f"/v1/users/{user}")
        self.assertEqual(answer.status, 200, answer)
        self.assertEqual(answer.json(), {"erased": 5})
        self.assertEqual(self.serve.history(user), [])
        self.assertEqual(len(self.serve.history(other)), 5)
        self.assertEqual(ids(self.serve.recommend(user_id=user)), ids(self.serve.recommend()))
        with sqlite3.connect(f"file:{self.history_path}?mode=ro", uri=True) as database:
            tables = [name for name, in database.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table'")]
            for table in tables:
                for row in database.execute(f'SELECT * FROM "{table}"'):
                    self.assertNotIn(user, row)
        again = self.serve.request("DELETE", f"/v1/users/{user}")
        self.assertEqual((again.status, again.json()), (200, {"erased": 0}))


class Reading(ServiceTest):
    def test_an_item_with_its_etag(self):
        answer = self.serve.get("/v1/items/LMP-00001")
        self.assertEqual(answer.status, 200)
        item, row = answer.json(), self.catalogue["LMP-00001"]
        self.assertEqual((item["id"], item["title"], item["brand"], item["category"]),
                         (row["id"], row["title"], row["brand"], row["category"]))
        self.assertEqual(item["price"], float(row["price"]))
        self.assertEqual(item["attributes"]["material"], row["material"])
        self.assertEqual(item["created_at"], row["created_at"])
        etag = answer.headers["ETag"]
        for known in (etag, f'"x", {etag}', "*", f"W/{etag}"):
            again = self.serve.get("/v1/items/LMP-00001", headers={"If-None-Match": known})
            self.assertEqual((again.status, again.body), (304, b""), known)
            self.assertEqual(again.headers["ETag"], etag)
        changed = self.serve.get("/v1/items/LMP-00001", headers={"If-None-Match": '"x"'})
        self.assertEqual(changed.status, 200)

    def test_no_such_item(self):
        self.assert_problem(self.serve.get("/v1/items/no-such"), 404)

    def test_the_release_with_its_figures(self):
        release = self.serve.get("/v1/release").json()
        self.assertEqual(release["version"], os.path.basename(self.shop.release_dir()))
        self.assertEqual(release["n_items"], len(self.catalogue))
        self.assertEqual(release["dim"], 32)
        self.assertIn("recall", json.dumps(release["index"]["measured"]))
        self.assertRegex(release["created_at"], r"\d{4}-\d\d-\d\dT")

    def test_health(self):
        self.assertEqual(self.serve.get("/healthz").status, 200)
        answer = self.serve.get("/readyz")
        self.assertEqual(answer.status, 200)
        self.assertEqual((answer.json()["ready"], answer.json()["history"]), (True, "sqlite"))

    def metrics(self):
        answer = self.serve.get("/metrics")
        self.assertEqual(answer.status, 200)
        self.assertTrue(answer.headers["Content-Type"].startswith("text/plain"))
        return prometheus.parse(answer.body.decode("utf-8"))

    def test_metrics_move(self):
        count = lambda samples, **labels: prometheus.total(samples, "aisle_requests_total", **labels)
        before = self.metrics()
        for _ in range(3):
            self.serve.recommend()
        self.serve.get("/v1/items/no-such")
        self.view(self.new_user(), "a", "b")
        self.serve.get("/nowhere")
        after = self.metrics()
        for labels, by in (({"endpoint": "recommendations", "status": "200"}, 3),
                           ({"endpoint": "item", "status": "404"}, 1),
                           ({"endpoint": "events", "status": "202"}, 1),
                           ({"endpoint": "none", "status": "404"}, 1)):
            self.assertEqual(count(after, **labels) - count(before, **labels), by, labels)
        for name, by in (("aisle_events_accepted_total", 2), ("aisle_batch_size_sum", 3)):
            self.assertEqual(prometheus.total(after, name) - prometheus.total(before, name), by)
        self.assertEqual(prometheus.total(
            after, "aisle_request_seconds_count", endpoint="recommendations"),
            count(after, endpoint="recommendations"))
        self.assertGreater(prometheus.total(after, "process_resident_memory_bytes"), 1 << 20)
        version = self.serve.get("/v1/release").json()["version"]
        self.assertEqual(prometheus.total(after, "aisle_release_info", version=version), 1)

    def test_every_documented_route_answers_something_documented(self):
        document = self.serve.get("/openapi.json").json()
        self.assertTrue(document["openapi"].startswith("3.1"))
        bodies = {"/v1/recommendations": {}, "/v1/recommendations/batch": [{}],
                  "/v1/score": {"items": ["LMP-00001"]},
                  "/v1/events": {"user_id": "openapi", "item_id": "x", "type": "view"}}
        seen = set()
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                if method not in ("get", "put", "post", "delete", "patch", "head", "options"):
                    continue
                codes = set(operation["responses"])
                for name, body, token in (("as wanted", bodies.get(path), True),
                                          ("without token", bodies.get(path), False),
                                          ("nonsense", {"nonsense": 1}, True)):
                    if body is not None and method not in ("post", "put", "patch"):
                        continue
                    for one in ("LMP-00001", "no-such", "a" * 129):
                        answer = self.serve.request(method.upper(), path.replace("{id}", one), body,
                                                    token=token)
                        with self.subTest(path=path, method=method, case=name, id=one):
                            self.assertIn(str(answer.status), codes)
                            content = operation["responses"][str(answer.status)]
                            if "$ref" in content:
                                content = self.resolve(document, content["$ref"])
                            if answer.body:
                                self.assertIn(answer.headers.get_content_type(),
                                              [t.split(";")[0] for t in content["content"]])
                        seen.add((method.upper(), path))
        for wanted in (("POST", "/v1/recommendations"), ("POST", "/v1/score"),
                       ("POST", "/v1/events"), ("GET", "/v1/items/{id}/related"),
                       ("GET", "/v1/users/{id}/recommendations"), ("GET", "/v1/users/{id}/history"),
                       ("DELETE", "/v1/users/{id}"), ("GET", "/v1/items/{id}"),
                       ("GET", "/v1/release"), ("GET", "/healthz"), ("GET", "/readyz"),
                       ("GET", "/metrics"), ("GET", "/openapi.json")):
            self.assertIn(wanted, seen)

    @staticmethod
    def resolve(document, reference):
        for part in reference.lstrip("#/").split("/"):
            document = document[part]
        return document

    def test_every_reference_of_the_document_leads_somewhere(self):
        document = self.serve.get("/openapi.json").json()

        def walk(node):
            if isinstance(node, dict):
                if isinstance(node.get("$ref"), str):
                    self.resolve(document, node["$ref"])
                for value in node.values():
                    walk(value)
            elif isinstance(node, list):
                for value in node:
                    walk(value)
        walk(document)


class Protocol(ServiceTest):
    def test_one_connection_serves_many_requests(self):
        connection = self.serve.connect()
        connection.connect()
        port = connection.sock.getsockname()[1]
        for i in range(200):
            path = ("/healthz", "/v1/items/LMP-00001", "/nowhere")[i % 3]
            answer = harness.request_on(connection, "GET", path)
            self.assertEqual(answer.status, (200, 200, 404)[i % 3])
            self.assertIsNotNone(connection.sock, "the connection was closed")
            self.assertEqual(connection.sock.getsockname()[1], port)
        connection.close()

    def test_head_is_get_without_its_body(self):
        for path in ("/healthz", "/v1/items/LMP-00001", "/v1/release", "/openapi.json",
                     "/v1/items/no-such"):
            connection = self.serve.connect()
            with self.subTest(path):
                head = harness.request_on(connection, "HEAD", path)
                get = harness.request_on(connection, "GET", path)
                self.assertEqual((head.status, head.body), (get.status, b""))
                self.assertEqual(head.headers["Content-Type"], get.headers["Content-Type"])
                self.assertEqual(int(head.headers["Content-Length"]), len(get.body))
            connection.close()

    def test_nothing_here(self):
        for path in ("/nowhere", "/v1", "/v1/", "/v1/recommendations/", "/v1/items//related",
                     "/v1/items", "//healthz", "/healthz/", "/v1/../healthz"):
            with self.subTest(path):
                self.assert_problem(self.serve.get(path), (404, 405))

    def test_wrong_methods_are_told_the_right_ones(self):
        for method, path, allowed in (("GET", "/v1/recommendations", "POST"),
                                      ("DELETE", "/healthz", "GET"), ("PUT", "/v1/events", "POST"),
                                      ("POST", "/v1/users/u/history", "GET"),
                                      ("PATCH", "/v1/score", "POST")):
            with self.subTest(path):
                answer = self.serve.request(method, path)
                self.assert_problem(answer, 405)
                self.assertIn(allowed, answer.headers["Allow"].split(", "))
                self.assertNotIn(method, answer.headers["Allow"].split(", "))

    def test_options_tells_the_methods(self):
        answer = self.serve.request("OPTIONS", "/v1/events")
        self.assertEqual(answer.status, 204)
        self.assertIn("POST", answer.headers["Allow"])

    def test_answers_are_not_cached_and_not_sniffed(self):
        answer = self.serve.post("/v1/recommendations", {"timeout_ms": TIMEOUT_MS})
        self.assertEqual(answer.headers["Cache-Control"], "no-store")
        self.assertEqual(answer.headers["X-Content-Type-Options"], "nosniff")
        self.assertEqual(answer.headers.get_content_type(), "application/json")

    def test_the_body_is_json_whatever_it_is_called(self):
        for kind in ("application/json; charset=utf-8", "text/plain", "application/x-ndjson"):
            answer = self.serve.request("POST", "/v1/recommendations", b'{"limit": 1}',
                                        {"Content-Type": kind})
            self.assertEqual(answer.status, 200, answer)

    def test_the_storefront_is_there_in_demo_mode_only(self):
        self.assert_problem(self.serve.get("/"), 404)
        with harness.Serve(self.shop.releases, f"sqlite:{self.folder}/demo.db", "--demo") as serve:
            page = serve.get("/")
            self.assertEqual(page.status, 200)
            self.assertEqual(page.headers.get_content_type(), "text/html")
            links = re.findall(r'(?:src|href)="(/[^"]+)"', page.body.decode())
            self.assertTrue(links)
            for link in links:
                self.assertEqual(serve.get(link).status, 200, link)


class Token(ServiceTest):
    def test_writing_needs_the_token(self):
        event = {"user_id": "u", "item_id": "x", "type": "view"}
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer"},
                        {"Authorization": f"Basic {TOKEN}"}, {"Authorization": f"Bearer {TOKEN}x"},
                        {"Authorization": f"Bearer {TOKEN[:-1]}"}):
            with self.subTest(headers):
                answer = self.serve.post("/v1/events", event, headers=headers, token=False)
                self.assert_problem(answer, 401)
                self.assertIn("Bearer", answer.headers["WWW-Authenticate"])
        self.assertEqual(self.serve.post("/v1/events", event).status, 202)
        for method, path in (("GET", "/v1/users/u/history"), ("DELETE", "/v1/users/u")):
            self.assert_problem(self.serve.request(method, path, token=False), 401)
        self.assertEqual(len(self.serve.history("u")), 1)

    def test_reading_on_loopback_is_open(self):
        for path in ("/v1/items/LMP-00001", "/healthz", "/readyz", "/v1/release",
                     "/v1/items/LMP-00001/related"):
            self.assertEqual(self.serve.get(path, token=False).status, 200, path)
        self.assertEqual(self.serve.post("/v1/recommendations", {}, token=False).status, 200)

    def test_the_token_is_in_no_answer_and_no_log(self):
        self.assertNotIn(TOKEN, self.serve.stderr())

    def test_beyond_loopback_a_token_is_needed(self):
        for address in ("0.0.0.0:0", "[::]:0"):
            result = harness.run_aisle("serve", "--releases", self.shop.releases, "--listen",
                                       address, "--history", f"sqlite:{self.folder}/beyond.db")
            with self.subTest(address):
                self.assert_failed(result, "token")
        with harness.Serve(self.shop.releases, f"sqlite:{self.folder}/beyond.db",
                           token=TOKEN, listen="0.0.0.0:0") as serve:
            serve.host = "127.0.0.1"
            self.assertEqual(serve.get("/healthz", token=False).status, 200)
            self.assert_problem(serve.post("/v1/recommendations", {}, token=False), 401)
            self.assertEqual(serve.post("/v1/recommendations", {}).status, 200)


class Life(harness.TestCase):
    def test_stopping_finishes_what_is_under_way(self):
        shop = harness.shop()
        with harness.temporary_folder() as folder:
            serve = harness.Serve(shop.releases, f"sqlite:{folder}/history.db")
            faults, done, started = [], [0], threading.Event()

            def client():
                connection = serve.connect()
                while True:
                    try:
                        answer = harness.request_on(connection, "POST", "/v1/recommendations",
                                                    {"user_id": "u000001",
                                                     "timeout_ms": TIMEOUT_MS})
                    except (OSError, harness.http.client.HTTPException):
                        return  # closed between requests, or not accepted any more
                    if answer.status not in (200, 503) or (
                            answer.status == 200 and len(answer.json()["items"]) != 20):
                        faults.append(answer)
                    done[0] += 1
                    started.set()
                    if answer.headers.get("Connection", "") == "close":
                        return
            threads = [threading.Thread(target=client) for _ in range(8)]
            for thread in threads:
                thread.start()
            started.wait(harness.WAIT_S)
            time.sleep(0.2)
            serve.stop()
            for thread in threads:
                thread.join(harness.WAIT_S)
                self.assertFalse(thread.is_alive())
            self.assertEqual(faults, [])
            self.assertGreater(done[0], 0)

    def test_history_outlives_the_service(self):
        shop = harness.shop()
        with harness.temporary_folder() as folder:
            for i in range(3):
                with harness.Serve(shop.releases, f"sqlite:{folder}/history.db") as serve:
                    self.assertEqual(len(serve.history("u")), i)
                    serve.events({"user_id": "u", "item_id": "x", "type": "view"})

    def test_the_configuration_file_the_environment_and_the_command_line(self):
        shop = harness.shop()
        with harness.temporary_folder() as folder:
            path = os.path.join(folder, "aisle.conf")
            with open(path, "w", encoding="utf-8") as file:
                file.write(f"# a comment\nreleases = {shop.releases}\nworkers = 1\n"
                           f"history = sqlite:{folder}/file.db\ntimeout-ms = 77\n")
            result = harness.aisle_done("serve", "--config", path, "--timeout-ms", "99",
                                        "--print-config", env={"AISLE_WORKERS": "3"})
            settings = dict(line.split(" = ", 1) for line in result.out.splitlines()
                            if " = " in line)
            self.assertEqual((settings["workers"], settings["timeout-ms"], settings["releases"]),
                             ("3", "99", f'"{shop.releases}"'))
            with open(path, "a", encoding="utf-8") as file:
                file.write("wrokers = 1\n")
            result = harness.run_aisle("serve", "--config", path)
            self.assertEqual(result.code, 2, result)
            self.assertIn("wrokers", result.err)
            self.assertIn("6", result.err)


if __name__ == "__main__":
    harness.main()
