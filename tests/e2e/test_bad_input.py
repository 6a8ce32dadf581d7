"""What a client can get wrong, or do on purpose: the answer is a 4xx that says what is wrong, and
the service goes on, in bounded memory."""

import json
import resource
import socket
import struct
import threading
import time

import harness
from harness import TIMEOUT_MS, TOKEN, read_all, status_line

RECOMMEND = "/v1/recommendations"
ROUTES = (RECOMMEND, "/v1/score", "/v1/events", "/v1/recommendations/batch")
BODY_MAX = 1 << 20
IDLE_CONNECTIONS = 2000


class BadInput(harness.TestCase):
    @classmethod
    def setUpClass(cls):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = 3 * IDLE_CONNECTIONS
        if soft < wanted and (hard == resource.RLIM_INFINITY or hard >= wanted):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        cls.shop = harness.shop()
        cls._folder = harness.temporary_folder()
        cls.folder = cls._folder.__enter__()
        cls.serve = harness.Serve(cls.shop.releases, f"sqlite:{cls.folder}/history.db", token=TOKEN)
        cls.serve.recommend()
        cls.memory = cls.serve.resident_bytes()

    @classmethod
    def tearDownClass(cls):
        try:
            if cls.serve.get("/healthz").status != 200:
                raise AssertionError("not healthy after all this")
            grown = cls.serve.resident_bytes() - cls.memory
            # A sanitizer's shadow memory is not the program's: judged in plain builds.
            if not harness.SANITIZE and grown > (256 << 20):
                raise AssertionError(f"{grown >> 20} MiB more than at the beginning")
            cls.serve.stop()
        finally:
            cls._folder.__exit__(None, None, None)

    def tearDown(self):
        self.assertIsNone(self.serve.process.poll(), "the service ended")
        self.assertEqual(self.serve.get("/healthz").status, 200)

    def post(self, body, path=RECOMMEND):
        return self.serve.post(path, body)

    def head(self, path, *lines):
        return "\r\n".join([f"POST {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {TOKEN}",
                            *lines, "", ""]).encode()

    # ---- values ----

    def test_limits_at_the_edge_and_one_past_it(self):
        for field, good, bad in (
                ("limit", [1, 200, 20.0], [0, 201, -1, 1.5, "20", None, True, [], 1e300]),
                ("timeout_ms", [1, 10000], [0, 10001, "50"]),
                ("diversity", [0, 1, 0.5], [-0.1, 1.1, "0.5", None]),
                ("user_id", ["a", "a" * 128, "ü" * 64], ["", "a" * 129, "ü" * 65, 7, None, "a\tb",
                                                         "a\u0000b", "\u007f"]),
                ("session_id", ["s" * 128], ["s" * 129, {}]),
                ("items", [[], ["a" * 128], [f"i{i}" for i in range(200)]],
                 [[f"i{i}" for i in range(201)], "a", {}, None]),
                ("exclude", [[f"i{i}" for i in range(1000)]], [[f"i{i}" for i in range(1001)], 3]),
                ("consent", [True, False], [0, "false", None]),
                ("explain", [True, False], [1, "yes"]),
                ("scenario", ["for_you"], ["", "FOR_YOU", "search", 1, None]),
                ("exclude_seen", ["none"], ["", "all", True]),
                ("fields", [[], ["title"]], ["title", ["titel"], [1], {}]),
                ("filter", [{"field": "price", "gt": 1}], [[], "price", 1, None]),
                ("profile", ["default"], ["", 5, "../default", "a" * 129]),
                ("after", [], ["", 1, "a" * 129])):
            for value in good:
                with self.subTest(field=field, good=value):
                    answer = self.post({field: value, **({} if field == "timeout_ms" else
                                                         {"timeout_ms": TIMEOUT_MS})})
                    self.assertEqual(answer.status, 200, answer)
            for value in bad:
                with self.subTest(field=field, bad=value):
                    problem = self.assert_problem(self.post({field: value}), 400)
                    if not isinstance(value, str) or "\u0000" not in value:
                        self.assertEqual(problem.get("field"), field, problem)

    def test_a_bad_id_in_a_list_is_pointed_at(self):
        for bad in ("", "a" * 129, 7, None, [], "a\n"):
            for field in ("items", "exclude"):
                self.assert_problem(self.post({field: ["a", "b", bad]}), 400, f"{field}[2]")

    def test_unknown_fields_are_named(self):
        for name in ("limt", "Limit", "", "x" * 63, "ünbekannt", "constructor", "user_id "):
            with self.subTest(name):
                problem = self.assert_problem(self.post({name: 1}), 400)
                self.assertEqual(problem.get("field", ""), name)
        problem = self.assert_problem(self.post({"y" * 100000: 1}), 400)
        self.assertTrue(problem["field"].startswith("yyy"))
        self.assertLess(len(problem["detail"]), 1000)
        self.assert_problem(self.post({"a\"b\\c<script>": 1}), 400, "a\"b\\c<script>")

    def test_repeated_fields_are_named(self):
        self.assert_problem(self.post('{"limit": 5, "limit": 6}'), 400, "limit")
        self.assert_problem(self.post('{"limit": 5, "l\\u0069mit": 6}'), 400, "limit")
        self.assert_problem(self.post('{"user_id": "a", "item_id": "b", "type": "view", '
                                      '"user_id": "c"}', "/v1/events"), 400, "user_id")

    # ---- JSON ----

    def test_what_is_no_json(self):
        cases = [b"", b" ", b"\n", b"{", b"}", b"[", b"{]", b'{"limit": }', b'{"limit": 5,}',
                 b'{limit: 5}', b"{'limit': 5}", b'{"limit": 05}', b'{"limit": +5}',
                 b'{"limit": .5}', b'{"limit": 5.}', b'{"limit": 0x5}', b'{"limit": NaN}',
                 b'{"limit": Infinity}', b'{"limit": -Infinity}', b'{"limit": nan}',
                 b'{"limit": 1e}', b'{"limit": 5} x', b'{"limit": 5}{"limit": 6}', b'"text"', b"5",
                 b"null", b"true", b'{"user_id": "a}', b'{"user_id": "\x01"}',
                 b'{"user_id": "\\x"}', b'{"user_id": "\\u12"}', b'{"user_id": "\\ud800"}',
                 b'{"user_id": "\\udc00\\ud800"}', b'{"user_id": "\xff"}', b'{"user_id": "\xc0\xaf"}',
                 b'{"user_id": "\xed\xa0\x80"}', b'{"user_id": "\xf4\x90\x80\x80"}',
                 b'\xef\xbb\xbf{"limit": 5}', b'{"limit": 5 /* five */}', b"\x00", b"{\x00}",
                 b'{"limit"\x00: 5}', b"<xml/>", b"limit=5", b'{"limit": tru}', b'{"limit" 5}',
                 b'[{"limit": 5}', b'{"limit": 5]', b'{"a": [}', b"\xff\xfe{\x00}\x00"]
        for body in cases:
            for path in ROUTES:
                with self.subTest(body=body, path=path):
                    self.assert_problem(self.serve.request("POST", path, body), 400)

    def test_huge_numbers_are_numbers(self):
        for number in ("1e999", "-1e999", "9" * 400, "1" + "0" * 5000, "-0", "1e-999"):
            with self.subTest(number[:20]):
                self.assert_problem(self.post(f'{{"limit": {number}}}'), 400, "limit")

    def test_too_deep(self):
        for depth in (25, 1000, 200000):
            for open_, close in (("[", "]"), ('{"a":', "}")):
                deep = open_ * depth + "1" + close * depth
                with self.subTest(depth=depth, bracket=open_):
                    self.assert_problem(self.post(deep), (400, 413))
                    self.assert_problem(self.post(f'{{"filter": {deep}}}'), (400, 413))
                    self.assert_problem(self.post(open_ * depth), 400)
                    self.assert_problem(self.post(deep, "/v1/events"), (400, 413))
        condition = {"field": "price", "gt": 0}
        for _ in range(10):
            condition = {"not": condition}
        self.assertEqual(self.post({"filter": condition, "timeout_ms": TIMEOUT_MS}).status, 200)
        for _ in range(8):
            condition = {"not": condition}
        problem = self.assert_problem(self.post({"filter": condition}), 400)
        self.assertTrue(problem.get("field", "filter").startswith("filter"), problem)

    def test_a_filter_with_too_much_in_it(self):
        condition = {"field": "price", "gt": 0}
        self.assertEqual(self.post({"filter": {"any": [condition] * 900},
                                    "timeout_ms": TIMEOUT_MS}).status, 200)
        self.assert_problem(self.post({"filter": {"any": [condition] * 1100}}), 400)
        self.assert_problem(self.post({"filter": {"field": "id", "in": [f"{i}" for i in
                                                                       range(10001)]}}), 400)
        self.assert_problem(self.post({"filter": {"field": "brand", "eq": "x" * 300000}}),
                            (400, 413))

    def test_many_different_filters_use_bounded_memory(self):
        before = self.serve.resident_bytes()
        for i in range(300 if harness.SLOW else 3000):
            answer = self.post({"filter": {"field": "price", "gt": i / 7}, "limit": 1,
                                "timeout_ms": TIMEOUT_MS, "fields": []})
            self.assertEqual(answer.status, 200, answer)
        self.assertLess(self.serve.resident_bytes() - before,
                        harness.MEMORY_FACTOR * (128 << 20))

    # ---- sizes ----

    def test_bodies_at_the_limit_and_one_byte_past_it(self):
        for size, status in ((BODY_MAX, 200), (BODY_MAX + 1, 413), (3 * BODY_MAX, 413)):
            body = b'{"limit": 1, "timeout_ms": 10000}'
            answer = self.serve.raw(self.head(RECOMMEND, f"Content-Length: {size}",
                                              "Connection: close") + body.ljust(size))
            self.assertEqual(status_line(answer), status, (size, answer[:300]))

    def test_chunked_bodies_at_the_limit_and_past_it(self):
        def chunked(size):
            body = b'{"limit": 1, "timeout_ms": 10000}'.ljust(size)
            pieces = [body[i:i + 60000] for i in range(0, len(body), 60000)]
            return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"
        for size, status in ((100, 200), (BODY_MAX, 200), (BODY_MAX + 1, 413),
                             (12 * BODY_MAX, 413)):
            answer = self.serve.raw(self.head(RECOMMEND, "Transfer-Encoding: chunked",
                                              "Connection: close") + chunked(size))
            self.assertEqual(status_line(answer), status, (size, answer[:300]))

    def test_an_endless_body_is_cut_off(self):
        with self.serve.raw_socket() as sock:
            sock.sendall(self.head(RECOMMEND, "Transfer-Encoding: chunked"))
            piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
            sent = 0
            try:
                while sent < 256 << 20:
                    sock.sendall(piece)
                    sent += len(piece)
            except (BrokenPipeError, ConnectionResetError, socket.timeout):
                pass
            self.assertLess(sent, 128 << 20)

    def test_announced_sizes_that_make_no_sense(self):
        for line in ("Content-Length: -1", "Content-Length: 99999999999999999999",
                     "Content-Length: x", "Content-Length: 9223372036854775807",
                     "Content-Length: 1e3", "Content-Length: "):
            answer = self.serve.raw(self.head(RECOMMEND, line) + b"{}", half_close=True)
            self.assertIn(status_line(answer), (None, 400, 413), (line, answer[:200]))

    def test_bad_chunks(self):
        for chunk in (b"zz\r\n{}\r\n0\r\n\r\n", b"-1\r\n{}\r\n0\r\n\r\n",
                      b"ffffffffffffffff\r\n{}\r\n", b"7fffffffffffffff\r\n{}\r\n",
                      b"fffffffffffffffffffffffff\r\n{}\r\n", b"\r\n\r\n\r\n",
                      b"2\r\n{}xx\r\n0\r\n\r\n", b"5;ext=" + b"y" * 100000 + b"\r\n"):
            answer = self.serve.raw(self.head(RECOMMEND, "Transfer-Encoding: chunked") + chunk,
                                    half_close=True)
            self.assertIn(status_line(answer), (None, 200, 400, 413), (chunk[:40], answer[:200]))

    def test_huge_headers_and_request_lines(self):
        many = "".join(f"X-{i}: {'y' * 100}\r\n" for i in range(5000))
        for request in (f"GET /healthz HTTP/1.1\r\nX: {'y' * 100000}\r\n\r\n",
                        f"GET /healthz HTTP/1.1\r\n{many}\r\n",
                        f"GET /{'y' * 100000} HTTP/1.1\r\n\r\n",
                        f"GET /healthz?{'y' * 100000} HTTP/1.1\r\n\r\n",
                        "y" * 1000000):
            answer = self.serve.raw(request.encode(), half_close=True)
            self.assertIn(status_line(answer), (None, 400, 404, 413, 414, 431), answer[:200])

    def test_many_small_headers_are_fine(self):
        headers = {f"X-{i}": "y" for i in range(100)}
        self.assertEqual(self.serve.get("/healthz", headers=headers).status, 200)

    # ---- clients that misbehave ----

    def test_garbage(self):
        rng = harness.seeded()
        for i in range(200):
            data = bytes(rng.randrange(256) for _ in range(rng.choice((1, 10, 100, 3000))))
            if i % 2:
                data = b"POST /v1/recommendations HTTP/1.1\r\n" + data
            answer = self.serve.raw(data, half_close=True)
            self.assertIn(status_line(answer), (None, 400, 404, 405, 411, 413, 414, 431, 501, 505),
                          (data[:100], answer[:100]))

    def test_bytes_changed_in_a_good_request(self):
        """One to three bytes of a good request changed: any answer but a 5xx from a fault."""
        rng = harness.seeded()
        body = json.dumps({"scenario": "cart", "user_id": "u", "items": ["LMP-00001"], "limit": 5,
                           "filter": {"all": [{"field": "price", "lte": 50}]},
                           "timeout_ms": TIMEOUT_MS}).encode()
        good = self.head(RECOMMEND, f"Content-Length: {len(body)}", "Connection: close") + body
        for _ in range(400):
            data = bytearray(good)
            for _ in range(rng.randrange(1, 4)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            answer = self.serve.raw(bytes(data), half_close=True)
            status = status_line(answer)
            self.assertTrue(status is None or status < 500 or status in (501, 505),
                            (bytes(data), answer[:300]))

    def test_clients_that_hang_up_half_way(self):
        body = b'{"user_id": "u", "limit": 5}'
        whole = self.head(RECOMMEND, f"Content-Length: {len(body)}") + body
        for cut in range(1, len(whole), 3):
            with self.serve.raw_socket() as sock:
                sock.sendall(whole[:cut])

    def test_clients_that_reset_before_the_answer(self):
        body = json.dumps([{"limit": 20, "timeout_ms": TIMEOUT_MS}] * 50).encode()
        event = json.dumps([{"user_id": "reset", "item_id": "x", "type": "view"}] * 100).encode()
        for _ in range(40):
            for path, data in (("/v1/recommendations/batch", body), ("/v1/events", event)):
                with self.serve.raw_socket() as sock:
                    sock.sendall(self.head(path, f"Content-Length: {len(data)}") + data)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def test_more_batches_at_once_than_fit_are_refused(self):
        body = json.dumps([{"limit": 200, "timeout_ms": TIMEOUT_MS}] * 200).encode()
        whole = self.head("/v1/recommendations/batch", f"Content-Length: {len(body)}",
                          "Connection: close") + body
        before = self.serve.resident_bytes()
        sockets = []
        try:
            for _ in range(60):
                sockets.append(self.serve.raw_socket())
                sockets[-1].sendall(whole)
            answers = [read_all(sock) for sock in sockets]
        finally:
            for sock in sockets:
                sock.close()
        statuses = [status_line(answer) for answer in answers]
        self.assertEqual(set(statuses), {200, 503})
        self.assertIn(b"Retry-After", answers[statuses.index(503)])
        self.assertGreaterEqual(statuses.count(200), 8)
        self.assertLess(self.serve.resident_bytes() - before, harness.MEMORY_FACTOR << 30)
        self.assertEqual(len(self.serve.post("/v1/recommendations/batch", [{}] * 10).json()), 10)

    def test_a_batch_keeps_no_visitor_waiting(self):
        body = json.dumps([{"limit": 200, "timeout_ms": TIMEOUT_MS, "explain": True}] * 300)
        with harness.temporary_folder() as folder, \
                harness.Serve(self.shop.releases, f"sqlite:{folder}/history.db",
                              workers=1) as serve:
            answers = []
            threads = [threading.Thread(target=lambda: answers.append(serve.post(
                "/v1/recommendations/batch", body).status)) for _ in range(3)]
            for thread in threads:
                thread.start()
            worst = 0.0
            while any(thread.is_alive() for thread in threads):
                start = time.monotonic()
                self.assertEqual(serve.get("/healthz").status, 200)
                worst = max(worst, time.monotonic() - start)
            self.assertEqual(answers, [200] * 3)
            self.assertLess(worst, 10.0 if harness.SLOW else 0.5)

    def test_a_missing_store_and_a_flood_of_failures_take_few_lines(self):
        event = {"user_id": "u", "item_id": "LMP-00001", "type": "view"}
        address = f"redis://127.0.0.1:{harness.free_port()}"
        with harness.Serve(self.shop.releases, address, workers=1) as serve:
            harness.wait_until(lambda: "cannot be reached" in serve.stderr(), "the store's line")
            start = time.monotonic()
            for _ in range(100):
                self.assert_problem(serve.post("/v1/events", event), 503)
            seconds = time.monotonic() - start
            self.assertLessEqual(serve.stderr().count("request failed"), seconds + 2)
            self.assertEqual(serve.stderr().count("cannot be reached"), 1)

    def test_an_announced_body_over_the_limit_is_refused_at_once(self):
        for more in ((), ("Expect: 100-continue",)):
            with self.serve.raw_socket() as sock:
                sock.sendall(self.head(RECOMMEND, "Content-Length: 99999999", *more))
                answer = read_all(sock)
            self.assertEqual(status_line(answer), 413)
            self.assertIn(b"application/problem+json", answer)

    def test_a_client_that_never_reads_its_answers(self):
        body = json.dumps({"limit": 200, "timeout_ms": TIMEOUT_MS}).encode()
        one = self.head(RECOMMEND, f"Content-Length: {len(body)}") + body
        before = self.serve.resident_bytes()
        sockets = []
        try:
            for _ in range(20):
                sock = self.serve.raw_socket()
                sock.setblocking(False)
                sockets.append(sock)
                try:
                    for _ in range(200):
                        sock.sendall(one)
                except (BlockingIOError, BrokenPipeError, ConnectionResetError):
                    pass
            self.assertEqual(self.serve.get("/healthz").status, 200)
            self.serve.recommend()
            self.assertLess(self.serve.resident_bytes() - before,
                            harness.MEMORY_FACTOR * (256 << 20))
        finally:
            for sock in sockets:
                sock.close()

    def test_pipelined_requests_are_answered_in_order(self):
        requests = b"".join(
            b"GET /v1/items/%s HTTP/1.1\r\nHost: x\r\n\r\n" % item.encode()
            for item in ("LMP-00001", "no-such", "LMP-00002"))
        requests += b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        answer = self.serve.raw(requests)
        statuses = [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]]
        self.assertEqual(statuses, [b"200", b"404", b"200", b"200"])
        self.assertLess(answer.index(b"LMP-00001"), answer.index(b"LMP-00002"))

    def test_a_slow_client_is_answered_and_holds_nobody_up(self):
        body = b'{"limit": 1, "timeout_ms": 10000}'
        whole = self.head(RECOMMEND, f"Content-Length: {len(body)}", "Connection: close") + body
        answers = []

        def slow():
            with self.serve.raw_socket() as sock:
                for i in range(len(whole)):
                    sock.sendall(whole[i:i + 1])
                    time.sleep(0.005)
                answers.append(read_all(sock))
        threads = [threading.Thread(target=slow) for _ in range(20)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            self.assertEqual(self.serve.get("/healthz").status, 200)
            time.sleep(0.02)
        self.assertEqual([status_line(answer) for answer in answers], [200] * 20)

    def test_thousands_of_idle_connections(self):
        if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < IDLE_CONNECTIONS + 200:
            self.skipTest("too few file descriptors allowed")
        sockets = []
        try:
            for i in range(IDLE_CONNECTIONS):
                sock = self.serve.raw_socket()
                sockets.append(sock)
                if i % 2:
                    sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")  # half a request
            self.assertEqual(self.serve.get("/healthz").status, 200)
            self.assertEqual(len(self.serve.recommend()["items"]), 20)
            sockets[0].sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            self.assertEqual(status_line(sockets[0].recv(65536)), 200)
            sockets[1].sendall(b"\r\n")
            self.assertEqual(status_line(sockets[1].recv(65536)), 200)
        finally:
            for sock in sockets:
                sock.close()

    def test_a_limit_on_connections_leaves_the_service_usable(self):
        with harness.temporary_folder() as folder, \
                harness.Serve(self.shop.releases, f"sqlite:{folder}/history.db",
                              "--connections-max", 20, workers=1) as serve:
            sockets = [serve.raw_socket() for _ in range(60)]
            for sock in sockets:
                sock.close()
            harness.wait_until(lambda: self.answers(serve), "a connection is taken again")

    @staticmethod
    def answers(serve):
        try:
            return serve.get("/healthz").status == 200
        except OSError:
            return False

    def test_other_protocols(self):
        for data in (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
                     b"GET /healthz\r\n\r\n", b"GET /healthz HTTP/9.9\r\n\r\n",
                     b"CONNECT x:1 HTTP/1.1\r\n\r\n", b"TRACE / HTTP/1.1\r\n\r\n",
                     b"GET http://[::1 HTTP/1.1\r\n\r\n", b"BREW /healthz HTTP/1.1\r\n\r\n",
                     b"*1\r\n$4\r\nPING\r\n"):
            answer = self.serve.raw(data, half_close=True)
            self.assertNotIn(status_line(answer), (500, 503), (data, answer[:200]))

    def test_expect_continue(self):
        body = b'{"limit": 1, "timeout_ms": 10000}'
        with self.serve.raw_socket() as sock:
            sock.sendall(self.head(RECOMMEND, f"Content-Length: {len(body)}",
                                   "Expect: 100-continue", "Connection: close"))
            self.assertIn(b"100", sock.recv(100))
            sock.sendall(body)
            self.assertEqual(status_line(read_all(sock)), 200)
        # A client that is told nothing sends its body after a moment; here it is cut short.
        answer = self.serve.raw(self.head(RECOMMEND, f"Content-Length: {50 << 20}",
                                          "Expect: 100-continue") + b"x" * (2 << 20),
                                half_close=True)
        self.assertIn(status_line(answer), (None, 413, 417))


if __name__ == "__main__":
    harness.main()
