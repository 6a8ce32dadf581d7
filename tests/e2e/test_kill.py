"""kill -9 at any moment: no acknowledged event is lost, no release is damaged.

$AISLE_KILL_EVENTS: events of a run (default 10,000; 1,000 under a sanitizer)."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import unittest

import harness

EVENTS = int(os.environ.get("AISLE_KILL_EVENTS", "1000" if harness.SLOW else "10000"))
CLIENTS = 6
KILLS = 20


class Events(harness.TestCase):
    """Several clients post events, each with its own id; the service is killed in the middle."""

    def setUp(self):
        self.shop = harness.shop()
        folder = harness.temporary_folder()
        self.folder = folder.__enter__()
        self.addCleanup(folder.__exit__, None, None, None)

    def post_until_killed(self, serve, kill_after):
        """Ids of acknowledged events, and of those sent without an answer."""
        acknowledged, unanswered, lock = [], [], threading.Lock()
        enough = threading.Event()

        def client(number):
            connection = serve.connect()
            for i in range(EVENTS // CLIENTS):
                # Singles and small groups, so that a kill can come in the middle of a group.
                names = [f"{number}-{i}-{k}" for k in range(1 if i % 3 else 4)]
                events = [{"user_id": f"user{number}-{i % 50}", "item_id": name, "type": "view",
                           "event_id": name} for name in names]
                try:
                    answer = harness.request_on(connection, "POST", "/v1/events", events)
                except (OSError, harness.http.client.HTTPException):
                    with lock:
                        unanswered.extend(names)
                    return
                with lock:
                    if answer.status == 202 and answer.json()["accepted"] == len(names):
                        acknowledged.extend(names)
                    else:
                        unanswered.extend(names)
                    if len(acknowledged) >= kill_after:
                        enough.set()
        threads = [threading.Thread(target=client, args=(n,)) for n in range(CLIENTS)]
        for thread in threads:
            thread.start()
        harness.wait_until(lambda: enough.is_set() or not any(t.is_alive() for t in threads),
                           "events are acknowledged", harness.COMMAND_S)
        serve.kill()
        for thread in threads:
            thread.join(harness.WAIT_S)
        self.assertGreaterEqual(len(acknowledged), min(kill_after, EVENTS // 2))
        return acknowledged, unanswered

    def check(self, acknowledged, unanswered, stored):
        self.assertEqual(len(stored), len(set(stored)), "an event is stored twice")
        self.assertFalse(set(acknowledged) - set(stored), "acknowledged events are lost")
        self.assertFalse(set(stored) - set(acknowledged) - set(unanswered))
        print(f"{len(acknowledged)} acknowledged, {len(stored)} stored, "
              f"{len(unanswered)} without an answer", file=sys.stderr)

    @unittest.skipUnless(harness.shutil.which("redis-server"), "redis-server is not installed")
    def test_killed_with_redis(self):
        with harness.Redis(self.folder) as redis:
            serve = harness.Serve(self.shop.releases, redis.unix_address)
            harness.wait_until(lambda: all(serve.get("/readyz").status == 200 for _ in range(12)),
                               "the history is connected")
            acknowledged, unanswered = self.post_until_killed(serve, EVENTS // 2)
            time.sleep(0.1)  # Redis finishes what it has got
            entries = redis.command("XRANGE", "aisle:events", "-", "+")
            stored = [dict(zip(fields[::2], fields[1::2]))["item_id"] for _, fields in entries]
            self.check(acknowledged, unanswered, stored)
            lists = redis.commands([("LRANGE", key, 0, -1)
                                    for key in redis.command("KEYS", "aisle:*:history")])
            listed = [element.split(" ")[2] for one in lists for element in one]
            self.assertEqual(sorted(listed), sorted(stored), "list and stream differ")

    def test_killed_with_the_embedded_history(self):
        address = f"sqlite:{self.folder}/history.db"
        for kill_after in (EVENTS // 10, EVENTS // 3):
            for name in os.listdir(self.folder):
                os.unlink(os.path.join(self.folder, name))
            serve = harness.Serve(self.shop.releases, address)
            acknowledged, unanswered = self.post_until_killed(serve, kill_after)
            with harness.Serve(self.shop.releases, address) as again:
                stored = []
                for number in range(CLIENTS):
                    for k in range(50):
                        stored += [e["item_id"] for e in again.history(f"user{number}-{k}")]
                self.check(acknowledged, unanswered, stored)
                # A client that repeats what got no answer stores nothing twice.
                again.events([{"user_id": f"user{n.split('-')[0]}-{int(n.split('-')[1]) % 50}",
                               "item_id": n, "type": "view", "event_id": n}
                              for n in unanswered + acknowledged[-100:]])
                repeated = []
                for number in range(CLIENTS):
                    for k in range(50):
                        repeated += [e["item_id"] for e in again.history(f"user{number}-{k}")]
                self.assertEqual(sorted(repeated), sorted(set(stored) | set(unanswered)))


class Builds(harness.TestCase):
    """`aisle build` onto a channel that exists, killed at random moments."""

    def setUp(self):
        self.shop = harness.shop()
        folder = harness.temporary_folder()
        self.folder = folder.__enter__()
        self.addCleanup(folder.__exit__, None, None, None)
        self.releases = self.shop.copy_releases(self.folder)
        self.channel = os.path.join(self.releases, "channels", "stable")

    def command(self, seed):
        return [harness.AISLE, "build", "--items", self.shop.items_path, "--events",
                self.shop.events_path, "--model-dir", self.shop.model, "--releases", self.releases,
                "--force", "--threads", "1", "--seed", str(seed)]

    def start(self, seed):
        return subprocess.Popen(self.command(seed), env=harness.environment(),
                                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                stderr=subprocess.PIPE)

    def versions(self):
        """What counts as a release: folders with a manifest."""
        folder = os.path.join(self.releases, "releases")
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))

    def check_channel(self):
        target = os.path.realpath(self.channel)
        harness.aisle_done("verify", target)
        self.assertEqual(os.path.dirname(target), os.path.join(self.releases, "releases"))

    def check_all(self):
        for version in self.versions():
            harness.aisle_done("verify", os.path.join(self.releases, "releases", version))

    def test_a_killed_build_leaves_the_old_release_or_the_new_one(self):
        rng = harness.seeded()
        started = time.monotonic()
        process = self.start(1)
        _, err = process.communicate()
        whole_s = time.monotonic() - started
        self.assertEqual(process.returncode, 0, err[-2000:])
        killed = 0
        for i in range(KILLS):
            # Half of them near the end, where the files are written and the channel is moved.
            moment_s = whole_s * (rng.random() if i % 2 else 0.8 + 0.25 * rng.random())
            process = self.start(i + 2)
            try:
                process.communicate(timeout=moment_s)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.communicate()
                killed += 1
            print(f"{moment_s:.3f} s of {whole_s:.3f} s: exit {process.returncode}",
                  file=sys.stderr)
            self.check_channel()
        self.assertGreater(killed, KILLS // 4)
        self.check_all()
        harness.aisle_done(*self.command(1)[1:])
        self.check_channel()
        with harness.Serve(self.releases, f"sqlite:{self.folder}/history.db") as serve:
            self.assertEqual(serve.get("/v1/release").json()["version"],
                             os.path.basename(os.path.realpath(self.channel)))

    def test_unfinished_folders_are_swept_when_they_are_old(self):
        process = self.start(1)
        found = []

        def unfinished():
            found[:] = [n for n in os.listdir(self.releases) if n.startswith(".tmp-")]
            return found or process.poll() is not None
        harness.wait_until(unfinished, "a build under way")
        process.kill()
        process.communicate()
        if not found:
            self.skipTest("the build was too quick")
        path = os.path.join(self.releases, found[0])
        harness.aisle_done(*self.command(2)[1:])
        self.assertTrue(os.path.isdir(path), "a young one may be another build's")
        old = time.time() - 3 * 86400
        for name in os.listdir(path):
            os.utime(os.path.join(path, name), (old, old))
        os.utime(path, (old, old))
        harness.aisle_done(*self.command(3)[1:])
        self.assertFalse(os.path.exists(path))

    def test_two_builds_onto_one_channel(self):
        before = set(self.versions())
        for _ in range(3):
            processes = [self.start(seed) for seed in (1, 2, 3)]
            for process in processes:
                _, err = process.communicate()
                self.assertEqual(process.returncode, 0, err[-2000:])
            self.check_channel()
        new = set(self.versions()) - before
        self.assertEqual(len(new), 9)
        self.assertIn(os.path.basename(os.path.realpath(self.channel)), new)
        self.check_all()
        left = [name for name in os.listdir(self.releases) if name.startswith(".tmp-")]
        left += [name for name in os.listdir(os.path.join(self.releases, "channels"))
                 if name != "stable"]
        self.assertEqual(left, [])

    def test_a_service_keeps_serving_while_builds_publish(self):
        with harness.Serve(self.releases, f"sqlite:{self.folder}/history.db") as serve:
            version = serve.get("/v1/release").json()["version"]
            process = self.start(5)
            while process.poll() is None:
                self.assertEqual(len(serve.recommend()["items"]), 20)
            _, err = process.communicate()
            self.assertEqual(process.returncode, 0, err[-2000:])
            self.assertEqual(serve.recommend()["release"], version)
            manifest = os.path.join(os.path.realpath(self.channel), "manifest.json")
            with open(manifest, encoding="utf-8") as file:
                self.assertNotEqual(json.load(file)["version"], version)


if __name__ == "__main__":
    harness.main()
