"""Histories in Redis: what the shop writes there itself, what Aisle writes, and what happens when
Redis is slow, gone, or full of something else."""

import os
import re
import threading
import time

import harness
from harness import TIMEOUT_MS

STREAM = "aisle:events"


def ids(answer):
    return [item["id"] for item in answer["items"]]


def list_key(user):
    return f"aisle:{{{user}}}:history"


class RedisTest(harness.TestCase):
    def setUp(self):
        self.shop = harness.shop()
        self.all_ids = sorted(self.shop.items())
        folder = harness.temporary_folder()
        self.folder = folder.__enter__()
        self.addCleanup(folder.__exit__, None, None, None)

    def redis(self, **kwargs):
        redis = harness.Redis(self.folder, **kwargs)
        self.addCleanup(redis.__exit__, None, None, None)
        return redis

    def ready(self, serve):
        """Every worker has its connection: several requests in a row say so."""
        def all_ready():
            return all(serve.get("/readyz").status == 200 for _ in range(12))
        harness.wait_until(all_ready, "the history is connected")

    def event(self, user, item, **fields):
        return {"user_id": user, "item_id": item, "type": "view", **fields}


class Contents(RedisTest):
    def test_the_list_that_the_shop_writes_itself(self):
        redis = self.redis()
        with harness.Serve(self.shop.releases, redis.unix_address) as serve:
            self.ready(serve)
            key = list_key("shop-user")
            redis.command("RPUSH", key, self.all_ids[0], f"1700000000000 purchase {self.all_ids[1]}",
                          self.all_ids[2])
            history = serve.history("shop-user")
            self.assertEqual([e["item_id"] for e in history], self.all_ids[:3])
            self.assertEqual([e["type"] for e in history], ["view", "purchase", "view"])
            self.assertNotIn("timestamp", history[0])
            answer = serve.recommend(user_id="shop-user", explain=True, limit=200)
            self.assertEqual(answer["degraded"], [])
            self.assertNotIn(self.all_ids[1], ids(answer))
            because = {i for one in answer["items"] for i in one["explanation"]["because"]}
            self.assertTrue(because & {self.all_ids[0], self.all_ids[2]})

    def test_garbage_in_the_list_is_passed_over(self):
        redis = self.redis()
        with harness.Serve(self.shop.releases, redis.unix_address) as serve:
            self.ready(serve)
            key = list_key("u")
            redis.command("RPUSH", key, b"\xff\xfe", "", "a b c d e", "12 glance x", b"x" * 100000,
                          self.all_ids[0], "1 view ", b"a\x00b", f"5 cart {self.all_ids[1]}", "\n")
            history = serve.history("u")
            found = [e["item_id"] for e in history]
            self.assertIn(self.all_ids[0], found)
            self.assertIn(self.all_ids[1], found)
            answer = serve.recommend(user_id="u")
            self.assertEqual((answer["degraded"], len(answer["items"])), ([], 20))
            redis.command("RPUSH", list_key("only-garbage"), b"\xff", b"\x00", "x y z")
            answer = serve.recommend(user_id="only-garbage")
            self.assertEqual((answer["degraded"], len(answer["items"])), ([], 20))
            self.assertIn("aisle_history_garbage_total", serve.get("/metrics").body.decode())

    def test_items_that_the_catalogue_does_not_know(self):
        redis = self.redis()
        with harness.Serve(self.shop.releases, redis.unix_address) as serve:
            self.ready(serve)
            redis.command("RPUSH", list_key("u"), "gone-1", "gone-2")
            answer = serve.recommend(user_id="u")
            self.assertEqual((answer["degraded"], answer["ignored"]), ([], []))
            self.assertEqual(ids(answer), ids(serve.recommend()))

    def test_a_key_of_another_kind(self):
        redis = self.redis()
        with harness.Serve(self.shop.releases, redis.unix_address) as serve:
            self.ready(serve)
            key = list_key("u")
            redis.command("SET", key, "not a list")
            answer = serve.recommend(user_id="u")
            self.assertEqual((answer["degraded"], len(answer["items"])), (["history"], 20))
            answer = serve.post("/v1/events", self.event("u", "x", event_id="e"))
            self.assertGreaterEqual(answer.status, 500)
            self.assert_problem(answer, (500, 503))
            self.assertEqual(redis.command("GET", key), "not a list")
            self.assertEqual(sorted(redis.command("KEYS", "*")), [key])
            # With the key out of the way the same event is taken: nothing was half-written.
            redis.command("DEL", key)
            self.assertEqual(serve.events(self.event("u", "x", event_id="e")), {"accepted": 1})
            self.assertEqual(redis.command("LLEN", key), 1)

    def test_a_stream_or_id_set_of_another_kind(self):
        redis = self.redis()
        with harness.Serve(self.shop.releases, redis.unix_address) as serve:
            self.ready(serve)
            for key in (STREAM, "aisle:{u}:events"):
                redis.command("SET", key, "taken")
                answer = serve.post("/v1/events", self.event("u", "x", event_id="e"))
                self.assert_problem(answer, (500, 503))
                self.assertEqual(redis.command("KEYS", "*"), [key])
                redis.command("DEL", key)

    def test_exactly_what_an_event_leaves(self):
        redis = self.redis()
        with harness.Serve(self.shop.releases, redis.unix_address) as serve:
            self.ready(serve)
            serve.events({"user_id": "u", "item_id": "a", "type": "view",
                          "timestamp": 1700000000001})
            serve.events([{"user_id": "u", "item_id": "ü b", "type": "purchase", "value": 12.5,
                           "timestamp": "2023-11-14T22:13:20.002Z", "event_id": "e1",
                           "request_id": "r1", "session_id": "s1"},
                          {"user_id": "v", "item_id": "c", "type": "cart",
                           "timestamp": 1700000000003}])
            serve.events({"user_id": "u", "item_id": "ü b", "type": "purchase", "event_id": "e1"})
            self.assertEqual(redis.command("LRANGE", list_key("u"), 0, -1),
                             ["1700000000002 purchase ü b", "1700000000001 view a"])
            self.assertEqual(redis.command("LRANGE", list_key("v"), 0, -1),
                             ["1700000000003 cart c"])
            entries = [dict(zip(fields[::2], fields[1::2]))
                       for _, fields in redis.command("XRANGE", STREAM, "-", "+")]
            self.assertEqual(entries, [
                {"user_id": "u", "item_id": "a", "type": "view", "timestamp": "1700000000001"},
                {"user_id": "u", "item_id": "ü b", "type": "purchase", "value": "12.5",
                 "timestamp": "1700000000002", "event_id": "e1", "request_id": "r1",
                 "session_id": "s1"},
                {"user_id": "v", "item_id": "c", "type": "cart", "timestamp": "1700000000003"}])
            self.assertEqual(redis.command("ZRANGE", "aisle:{u}:events", 0, -1), ["e1"])
            for key in (list_key("u"), list_key("v"), "aisle:{u}:events"):
                self.assertGreater(redis.command("TTL", key), 80 * 86400)
            self.assertEqual(len(redis.command("KEYS", "*")), 4)

    def test_the_list_is_bounded(self):
        redis = self.redis()
        with harness.Serve(self.shop.releases, redis.unix_address) as serve:
            self.ready(serve)
            serve.events([self.event("u", f"i{i}") for i in range(500)])
            self.assertEqual(redis.command("LLEN", list_key("u")), 200)
            self.assertTrue(redis.command("LINDEX", list_key("u"), 0).endswith("i499"))
            self.assertEqual(redis.command("XLEN", STREAM), 500)

    def test_erasing_a_user_leaves_nothing_in_redis(self):
        redis = self.redis()
        with harness.Serve(self.shop.releases, redis.unix_address) as serve:
            self.ready(serve)
            serve.events([self.event(f"user{i % 3}", f"i{i}", event_id=f"e{i}")
                          for i in range(3000)])
            answer = serve.request("DELETE", "/v1/users/user1")
            self.assertEqual(answer.status, 200, answer)
            self.assertEqual(redis.command("KEYS", "*user1*"), [])
            left = [fields[fields.index("user_id") + 1]
                    for _, fields in redis.command("XRANGE", STREAM, "-", "+")]
            self.assertEqual((left.count("user0"), left.count("user1"), left.count("user2")),
                             (1000, 0, 1000))
            self.assertEqual(serve.history("user1"), [])
            self.assertEqual(len(serve.history("user0")), 200)

    def test_without_consent_redis_is_not_asked_and_not_told(self):
        redis = self.redis()
        with harness.Serve(self.shop.releases, redis.unix_address) as serve:
            self.ready(serve)
            calls = lambda: re.search(r"cmdstat_lrange:calls=(\d+)",
                                      redis.command("INFO", "commandstats"))
            serve.recommend(user_id="u")
            before = calls().group(1)
            serve.recommend(user_id="u", consent=False)
            self.assertEqual(calls().group(1), before)
            self.assertEqual(redis.command("KEYS", "*"), [])

    def test_users_with_strange_names_stay_apart(self):
        redis = self.redis()
        names = ["a}b", "{", "a:b", "a b", "*", "%u", "ü", "a\\b", "'", "a}:history"]
        with harness.Serve(self.shop.releases, redis.unix_address) as serve:
            self.ready(serve)
            for i, name in enumerate(names):
                serve.events(self.event(name, f"item-{i}"))
            for i, name in enumerate(names):
                quoted = "".join(f"%{byte:02x}" for byte in name.encode())
                self.assertEqual([e["item_id"] for e in serve.history(quoted)], [f"item-{i}"])

    def test_a_key_pattern_of_the_shops_own(self):
        redis = self.redis()
        redis.command("RPUSH", "recent:u7", self.all_ids[3])
        with harness.Serve(self.shop.releases, redis.unix_address, "--history-key",
                           "recent:%u") as serve:
            self.ready(serve)
            self.assertEqual([e["item_id"] for e in serve.history("u7")], [self.all_ids[3]])
            serve.events(self.event("u7", "new"))
            self.assertEqual(redis.command("LLEN", "recent:u7"), 2)

    def test_scripts_forgotten_by_the_server(self):
        redis = self.redis()
        with harness.Serve(self.shop.releases, redis.unix_address) as serve:
            self.ready(serve)
            serve.events(self.event("u", "a"))
            redis.command("SCRIPT", "FLUSH")
            self.assertEqual(serve.events([self.event("u", f"b{i}") for i in range(50)]),
                             {"accepted": 50})
            self.assertEqual(redis.command("LLEN", list_key("u")), 51)
            self.assertEqual([e["item_id"] for e in serve.history("u")][:2], ["b49", "b48"])


class Connections(RedisTest):
    def round_trip(self, serve):
        self.ready(serve)
        serve.events(self.event("u", self.all_ids[0]))
        self.assertEqual(len(serve.history("u")), 1)

    def test_tcp(self):
        redis = self.redis(tcp=True)
        with harness.Serve(self.shop.releases, redis.tcp_address) as serve:
            self.round_trip(serve)
        self.assertEqual(redis.command("LLEN", list_key("u")), 1)

    def test_a_database_number(self):
        redis = self.redis(tcp=True)
        for address, number in ((f"{redis.tcp_address}/5", 5), (f"{redis.unix_address}?db=3", 3)):
            with harness.Serve(self.shop.releases, address) as serve:
                self.round_trip(serve)
            self.assertEqual(redis.command("LLEN", list_key("u"), db=number), 1)
            self.assertEqual(redis.command("KEYS", "*"), [])

    def test_a_password(self):
        redis = self.redis(tcp=True, password="s3cret: /@?%")
        quoted = "".join(f"%{byte:02X}" for byte in redis.password.encode())
        with harness.Serve(self.shop.releases, f"redis://:{quoted}@127.0.0.1:{redis.port}/2") as serve:
            self.round_trip(serve)
            self.assertNotIn("s3cret", serve.stderr())
        with harness.Serve(self.shop.releases, redis.unix_address,
                           env={"AISLE_REDIS_PASSWORD": redis.password}) as serve:
            self.round_trip(serve)
        self.assertEqual(redis.command("LLEN", list_key("u"), db=2), 1)

    def test_a_wrong_password_is_an_outage_that_is_told(self):
        redis = self.redis(tcp=True, password="right")
        with harness.Serve(self.shop.releases, f"redis://:wrong@127.0.0.1:{redis.port}") as serve:
            self.assertEqual(serve.get("/readyz").status, 503)
            answer = serve.recommend(user_id="u")
            self.assertEqual((answer["degraded"], len(answer["items"])), (["history"], 20))
            self.assert_problem(serve.post("/v1/events", self.event("u", "x")), 503)

    def test_a_database_that_is_not_there(self):
        redis = self.redis()
        with harness.Serve(self.shop.releases, f"{redis.unix_address}?db=999") as serve:
            self.assertEqual(serve.get("/readyz").status, 503)
            self.assertEqual(serve.recommend(user_id="u")["degraded"], ["history"])

    def test_addresses_that_make_no_sense(self):
        for address in ("redis://", "redis://host:99999", "redis://host:port", "redis://h:1/x",
                        "redis+unix://", "mysql://x", "", "sqlite:", "redis://h:1/1/2",
                        "redis://:%zz@h:1"):
            result = harness.run_aisle("serve", "--releases", self.shop.releases, "--listen",
                                       "127.0.0.1:0", "--history", address)
            with self.subTest(address):
                self.assertIn(result.code, (1, 2), result)
                self.assertEqual(len(result.err.splitlines()), 1, result)

    def test_no_redis_at_the_start(self):
        path = os.path.join(self.folder, "redis.sock")
        with harness.Serve(self.shop.releases, f"redis+unix://{path}") as serve:
            self.assertEqual(serve.get("/healthz").status, 200)
            self.assertEqual(serve.get("/readyz").status, 503)
            self.assertEqual(serve.recommend(user_id="u")["degraded"], ["history"])
            self.assertEqual(serve.recommend()["degraded"], [])
            self.redis()
            self.round_trip(serve)
            self.assertEqual(serve.recommend(user_id="u")["degraded"], [])


class Outages(RedisTest):
    def test_a_redis_that_hangs(self):
        redis = self.redis()
        with harness.Serve(self.shop.releases, redis.unix_address) as serve:
            self.ready(serve)
            serve.events(self.event("u", self.all_ids[0]))
            redis.pause()
            try:
                for timeout_ms in (30, 200, 30, 30):
                    answer = serve.recommend(user_id="u", timeout_ms=timeout_ms,
                                             items=[self.all_ids[9]])
                    self.assertIn("history", answer["degraded"])
                    self.assertEqual(len(answer["items"]), 20)
                self.assert_problem(serve.post("/v1/events", self.event("u", "late")), 503)
                self.assert_problem(serve.get("/v1/users/u/history"), 503)
                self.assertEqual(serve.get("/healthz").status, 200)
            finally:
                redis.resume()
            self.ready(serve)
            harness.wait_until(lambda: serve.recommend(user_id="u")["degraded"] == [],
                               "histories are back")

    def test_a_hanging_redis_costs_no_more_than_the_timeout(self):
        """Not timed: with Redis paused for good, a thousand requests with a deadline of 10 s end."""
        redis = self.redis()
        with harness.Serve(self.shop.releases, redis.unix_address) as serve:
            self.ready(serve)
            redis.pause()
            try:
                connection = serve.connect()
                n = 100 if harness.SLOW else 1000
                for i in range(n):
                    answer = harness.request_on(connection, "POST", "/v1/recommendations",
                                                {"user_id": f"u{i}", "timeout_ms": 20})
                    self.assertEqual(answer.status, 200)
                    self.assertIn("history", answer.json()["degraded"])
                connection.close()
            finally:
                redis.resume()

    def test_redis_killed_and_started_again(self):
        redis = self.redis(tcp=True)
        for address in (redis.unix_address, redis.tcp_address):
            with harness.Serve(self.shop.releases, address) as serve:
                self.ready(serve)
                serve.events(self.event("u", self.all_ids[0]))
                redis.kill()
                harness.wait_until(lambda: serve.get("/readyz").status == 503, "not ready")
                answer = serve.recommend(user_id="u", items=[self.all_ids[4]])
                self.assertEqual((answer["degraded"], len(answer["items"])), (["history"], 20))
                for _ in range(10):
                    self.assert_problem(serve.post("/v1/events", self.event("u", "x")), 503)
                redis.start()
                self.ready(serve)
                self.assertEqual(serve.history("u"), [])
                serve.events(self.event("u", self.all_ids[1]))
                self.assertEqual(serve.recommend(user_id="u")["degraded"], [])
                self.assertEqual(redis.command("LLEN", list_key("u")), 1)

    def test_events_during_an_outage_are_never_said_to_be_stored(self):
        """Redis is killed in the middle of a stream of events: what was acknowledged before its
        death and what comes after is told apart by the answers alone."""
        redis = self.redis()
        with harness.Serve(self.shop.releases, redis.unix_address) as serve:
            self.ready(serve)
            answers, stop = [], threading.Event()

            def client(number):
                connection = serve.connect()
                i = 0
                while not stop.is_set():
                    i += 1
                    answer = harness.request_on(connection, "POST", "/v1/events",
                                                self.event(f"c{number}", f"i{i}"))
                    answers.append((number, i, answer.status))
                connection.close()
            threads = [threading.Thread(target=client, args=(n,)) for n in range(4)]
            for thread in threads:
                thread.start()
            harness.wait_until(lambda: len(answers) > 50, "events are taken")
            redis.pause()  # what is acknowledged from now on is a lie
            said = len(answers)
            time.sleep(0.2)
            redis.kill()
            harness.wait_until(lambda: len(answers) > said + 20, "events are refused")
            stop.set()
            for thread in threads:
                thread.join(harness.WAIT_S)
            self.assertEqual({status for _, _, status in answers} - {202, 503}, set())
            # Answers under way when Redis stopped may be positive ones: at most one a client.
            self.assertLessEqual(sum(status == 202 for _, _, status in answers[said:]), 4)
            self.assertEqual(answers[-1][2], 503)

    def test_a_full_redis_refuses_and_nothing_is_half_written(self):
        redis = self.redis()
        with harness.Serve(self.shop.releases, redis.unix_address) as serve:
            self.ready(serve)
            serve.events(self.event("u", "a", event_id="e0"))
            redis.command("CONFIG", "SET", "maxmemory", "1")
            self.assert_problem(serve.post("/v1/events", self.event("u", "b", event_id="e1")), 503)
            redis.command("CONFIG", "SET", "maxmemory", "0")
            self.assertEqual(redis.command("LLEN", list_key("u")), 1)
            self.assertEqual(redis.command("XLEN", STREAM), 1)
            self.assertEqual(redis.command("ZRANGE", "aisle:{u}:events", 0, -1), ["e0"])
            serve.events(self.event("u", "b", event_id="e1"))
            self.assertEqual(redis.command("LLEN", list_key("u")), 2)

    def test_stopping_while_redis_hangs(self):
        redis = self.redis()
        serve = harness.Serve(self.shop.releases, redis.unix_address)
        self.ready(serve)
        redis.pause()
        try:
            outcome = []

            def client():
                try:
                    outcome.append(serve.post("/v1/events", self.event("u", "x")).status)
                except OSError:
                    outcome.append(None)
            thread = threading.Thread(target=client)
            thread.start()
            time.sleep(0.2)
            serve.stop()
            thread.join(harness.WAIT_S)
            self.assertIn(outcome, ([503], [None]))
        finally:
            redis.resume()


if __name__ == "__main__":
    harness.need_program("redis-server")
    harness.main()
