"""What the end-to-end tests share: the demonstration shop, the service, a private Redis, clients.

The program under test is $AISLE; $AISLE_SANITIZE says how it was built (empty: plainly). All
waiting is for a condition, with a generous limit: sanitizer builds are ten times slower.
"""

import contextlib
import csv
import ctypes
import fcntl
import http.client
import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
AISLE = os.path.abspath(os.environ.get("AISLE", "aisle"))
SANITIZE = os.environ.get("AISLE_SANITIZE", "")
SLOW = bool(SANITIZE)
SHARED_DATA = os.environ.get("AISLE_SHARED_DATA", "")
WORK = os.environ.get("AISLE_E2E_DIR") or os.path.join(tempfile.gettempdir(), "aisle-e2e")
WAIT_S = 300 if SLOW else 60  # until a condition must hold
COMMAND_S = 1200 if SLOW else 240  # until a command must have ended
MEMORY_FACTOR = 6 if SLOW else 1  # shadow memory, quarantine
TIMEOUT_MS = 10000  # of requests where lateness is not the subject
TOKEN = "e2e-token"
SKIPPED = 77

SHOP_ITEMS, SHOP_USERS, SHOP_EVENTS = 400, 600, 8000
SANITIZER_MARKS = ("ERROR: AddressSanitizer", "ERROR: LeakSanitizer", "WARNING: ThreadSanitizer",
                   "runtime error:", "ThreadSanitizer:DEADLYSIGNAL", "AddressSanitizer:DEADLYSIGNAL")


def environment(extra=None):
    """Of a child: no AISLE_* of ours reaches it, the sanitizers find their suppressions."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("AISLE")}
    env["LC_ALL"] = "C.UTF-8"
    tests = os.path.dirname(HERE)
    env.setdefault("TSAN_OPTIONS",
                   f"suppressions={tests}/tsan.supp halt_on_error=1 second_deadlock_stack=1")
    env.setdefault("ASAN_OPTIONS", "detect_leaks=1")
    env.setdefault("LSAN_OPTIONS", f"suppressions={tests}/lsan.supp")
    env.setdefault("UBSAN_OPTIONS", "print_stacktrace=1")
    # The threads of BLAS and OpenMP are more than the machine has cores when tests run side by
    # side; results do not depend on them.
    if "thread" in SANITIZE:  # OpenMP's order is invisible to it, see tests/tsan.supp
        env["OMP_THREAD_LIMIT"] = "1"
    env.setdefault("OMP_NUM_THREADS", "2")
    env.setdefault("OPENBLAS_NUM_THREADS", "2")
    env.update(extra or {})
    return env


def sanitizer_report(text):
    """The part of text from a sanitizer's report on, or None."""
    places = [text.find(mark) for mark in SANITIZER_MARKS if mark in text]
    return text[min(places):][:6000] if places else None


def wait_until(condition, what, seconds=WAIT_S):
    """Returns the condition's first true value."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(0.02)


class Result:
    """How a command ended."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    def json(self):
        return json.loads(self.out)

    def __repr__(self):
        return f"exit {self.code}\nstdout: {self.out[-2000:]}\nstderr: {self.err[-4000:]}"


def run_aisle(*args, env=None, cwd=None, preexec_fn=None, stdin=None):
    """Runs a command to its end. A sanitizer's report fails whoever calls."""
    process = subprocess.run([AISLE, *map(str, args)], env=environment(env), cwd=cwd,
                             stdin=stdin or subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, timeout=COMMAND_S, preexec_fn=preexec_fn,
                             check=False)
    result = Result(process.returncode, process.stdout.decode("utf-8", "replace"),
                    process.stderr.decode("utf-8", "replace"))
    report = sanitizer_report(result.err)
    if report:
        raise AssertionError(f"aisle {' '.join(map(str, args))}:\n{report}")
    return result


def aisle_done(*args, **kwargs):
    """Runs a command that must succeed."""
    result = run_aisle(*args, **kwargs)
    if result.code != 0:
        raise AssertionError(f"aisle {' '.join(map(str, args))}: {result!r}")
    return result


def commands():
    """Names of the program's commands."""
    names = []
    for line in aisle_done("--help").out.splitlines():
        if line.startswith("  ") and len(line.split()) > 1:
            names.append(line.split()[0])
    return names


# ---- the demonstration shop ----

class Shop:
    """items.csv, events.csv, model/ and releases/ (channel stable) of one folder."""

    def __init__(self, folder):
        self.folder = folder
        self.items_path = os.path.join(folder, "items.csv")
        self.events_path = os.path.join(folder, "events.csv")
        self.model = os.path.join(folder, "model")
        self.releases = os.path.join(folder, "releases")

    def items(self):
        """Rows of the item file by id."""
        with open(self.items_path, newline="", encoding="utf-8") as file:
            return {row["id"]: row for row in csv.DictReader(file)}

    def release_dir(self, channel="stable"):
        return os.path.realpath(os.path.join(self.releases, "channels", channel))

    def copy_releases(self, into):
        """A copy that a test may damage."""
        target = os.path.join(into, "releases")
        shutil.copytree(self.releases, target, symlinks=True)
        return target


def _make_shop(folder):
    shop = Shop(folder)
    aisle_done("synth", "--out", folder, "--items", SHOP_ITEMS, "--users", SHOP_USERS, "--events",
               SHOP_EVENTS)
    aisle_done("train", "--items", shop.items_path, "--events", shop.events_path, "--out",
               shop.model, "--dim", 32, "--epochs", 4 if SLOW else 20, "--threads", 2)
    # Latency gates mean nothing on a busy machine, or under a sanitizer.
    aisle_done("build", "--items", shop.items_path, "--events", shop.events_path, "--model-dir",
               shop.model, "--releases", shop.releases, "--threads", 2, "--force")


def shop():
    """The shop, made once for each build of the program, by whichever test comes first."""
    info = os.stat(AISLE)
    name = f"shop-{info.st_mtime_ns:x}-{info.st_size:x}"
    os.makedirs(WORK, exist_ok=True)
    folder = os.path.join(WORK, name)
    with open(os.path.join(WORK, "lock"), "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.isdir(folder):
            for old in os.listdir(WORK):
                if old.startswith("shop-"):
                    shutil.rmtree(os.path.join(WORK, old))
            unfinished = os.path.join(WORK, f"unfinished-{os.getpid()}")
            try:
                _make_shop(unfinished)
                os.rename(unfinished, folder)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    return Shop(folder)


@contextlib.contextmanager
def temporary_folder():
    """In the system's folder, because a Unix socket's path must be short."""
    folder = tempfile.mkdtemp(prefix="aisle-e2e-")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


PR_SET_PDEATHSIG = 1


def die_with_parent(then=None):
    """For a child, before it becomes the program: it ends when the test is killed."""
    libc = ctypes.CDLL(None)

    def prepare():
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if then:
            then()
    return prepare


# ---- the service ----

class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"{self.status} {dict(self.headers)} {self.body[:1000]!r}"


def request_on(connection, method, path, body=None, headers=None):
    """One request on an open connection. A body that is no text or bytes goes as JSON."""
    headers = dict(headers or {})
    if body is not None and not isinstance(body, (bytes, str)):
        body = json.dumps(body)
        headers.setdefault("Content-Type", "application/json")
    if isinstance(body, str):
        body = body.encode("utf-8")
    connection.request(method, path, body=body, headers=headers)
    response = connection.getresponse()
    return Answer(response.status, response.headers, response.read())


class Serve:
    """`aisle serve` on a free port. A context: leaving it stops the service cleanly."""

    def __init__(self, releases, history=None, *args, token=None, env=None, workers=2,
                 listen="127.0.0.1:0", ready=True, preexec_fn=None):
        command = [AISLE, "serve", "--releases", releases, "--listen", listen, "--workers",
                   str(workers)]
        if history:
            command += ["--history", history]
        command += [str(arg) for arg in args]
        self.token = token
        self.url = None
        self._err = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            command, env=environment({**(env or {}), **({"AISLE_TOKEN": token} if token else {})}),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._err,
            preexec_fn=die_with_parent(preexec_fn))
        self._lines = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if ready:
            self._wait_ready()

    def _read(self):
        for line in self.process.stdout:
            self._lines.append(line.decode("utf-8", "replace").rstrip("\n"))

    def _wait_ready(self):
        def ready_line():
            for line in list(self._lines):
                if line.startswith("ready http"):
                    return line.split()[1]
            if self.process.poll() is not None:
                raise AssertionError(f"serve ended with {self.process.returncode}: "
                                     f"{self.stderr()[-4000:]}")
            return None
        try:
            self.url = wait_until(ready_line, "serve says that it is ready")
        except AssertionError:
            self.kill()
            raise
        host, port = self.url.split("//", 1)[1].rstrip("/").rsplit(":", 1)
        self.host, self.port = host.strip("[]"), int(port)

    def stderr(self):
        if not self._err.closed:
            self._err.seek(0)
            self._said = self._err.read().decode("utf-8", "replace")
        return self._said

    def connect(self):
        return http.client.HTTPConnection(self.host, self.port, timeout=WAIT_S)

    def request(self, method, path, body=None, headers=None, token=True):
        headers = dict(headers or {})
        if token and self.token:
            headers.setdefault("Authorization", f"Bearer {self.token}")
        connection = self.connect()
        try:
            return request_on(connection, method, path, body, headers)
        finally:
            connection.close()

    def get(self, path, **kwargs):
        return self.request("GET", path, **kwargs)

    def post(self, path, body, **kwargs):
        return self.request("POST", path, body, **kwargs)

    def recommend(self, **fields):
        """An answer, which must be a 200."""
        fields.setdefault("timeout_ms", TIMEOUT_MS)
        answer = self.post("/v1/recommendations", fields)
        if answer.status != 200:
            raise AssertionError(f"{fields}: {answer!r}")
        return answer.json()

    def events(self, events):
        """Posts events, which must be taken."""
        answer = self.post("/v1/events", events)
        if answer.status != 202:
            raise AssertionError(repr(answer))
        return answer.json()

    def history(self, user):
        answer = self.get(f"/v1/users/{user}/history")
        if answer.status != 200:
            raise AssertionError(repr(answer))
        return answer.json()["events"]

    def raw(self, data, half_close=False):
        """Sends bytes, returns all that comes until the other side closes or nothing more does."""
        with self.raw_socket() as sock:
            try:
                sock.sendall(data)
                if half_close:
                    sock.shutdown(socket.SHUT_WR)
            except (BrokenPipeError, ConnectionResetError):
                pass  # refused before all was sent: the answer may be there
            return read_all(sock)

    def raw_socket(self):
        return socket.create_connection((self.host, self.port), timeout=WAIT_S)

    def resident_bytes(self):
        with open(f"/proc/{self.process.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * resource.getpagesize()

    def kill(self):
        self.process.kill()
        self.process.wait()
        self._close()

    def _close(self):
        self._reader.join(WAIT_S)
        self.process.stdout.close()
        self.stderr()
        self._err.close()

    def wait(self, seconds=WAIT_S):
        """The exit code of a service that ends on its own."""
        code = self.process.wait(seconds)
        self._close()
        report = sanitizer_report(self.stderr())
        if report:
            raise AssertionError(report)
        return code

    def stop(self):
        """SIGTERM: must end with 0 and without a sanitizer's report."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError("serve did not end on SIGTERM") from None
        self._close()
        report = sanitizer_report(self.stderr())
        if report or code != 0:
            raise AssertionError(f"serve ended with {code}: {report or self.stderr()[-4000:]}")

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind is None:
            self.stop()
        elif self.process.poll() is None:
            self.kill()
            sys.stderr.write(f"stderr of serve:\n{self.stderr()[-4000:]}\n")


def read_all(sock):
    data = b""
    try:
        while True:
            piece = sock.recv(65536)
            if not piece:
                return data
            data += piece
    except (ConnectionResetError, socket.timeout):
        return data


def status_line(data):
    """Status of the first answer in raw bytes, or None."""
    parts = data.split(b" ", 2)
    return int(parts[1]) if len(parts) > 2 and parts[0].startswith(b"HTTP/1.") else None


# ---- Redis ----

class Redis:
    """A private redis-server, on a Unix socket and, if wanted, a TCP port; nothing on disk."""

    def __init__(self, folder, tcp=False, password=None):
        self.folder, self.password = folder, password
        self.socket_path = os.path.join(folder, "redis.sock")
        self.port = free_port() if tcp else 0
        self.process = None
        self.start()

    @property
    def unix_address(self):
        return f"redis+unix://{self.socket_path}"

    @property
    def tcp_address(self):
        secret = f":{self.password}@" if self.password else ""
        return f"redis://{secret}127.0.0.1:{self.port}"

    def start(self):
        command = ["redis-server", "--save", "", "--appendonly", "no", "--dir", self.folder,
                   "--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket",
                   self.socket_path, "--daemonize", "no"]
        if self.password:
            command += ["--requirepass", self.password]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                        preexec_fn=die_with_parent())

        def answers():
            if self.process.poll() is not None:
                raise AssertionError(f"redis-server ended with {self.process.returncode}")
            try:
                return self.command("PING") == "PONG"
            except OSError:
                return False
        wait_until(answers, "Redis answers")

    def command(self, *args, db=0):
        """One command on a connection of its own; an error reply is raised as RedisError."""
        return self.commands([args], db=db)[0]

    def commands(self, many, db=0):
        many = [tuple(map(str_bytes, args)) for args in many]
        before = ([("AUTH", self.password)] if self.password else []) + \
                 ([("SELECT", str(db))] if db else [])
        everything = [tuple(map(str_bytes, args)) for args in before] + many
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(WAIT_S)
            sock.connect(self.socket_path)
            sock.sendall(b"".join(encode_command(args) for args in everything))
            with sock.makefile("rb") as stream:
                replies = [read_reply(stream) for _ in everything]
        for reply in replies:
            if isinstance(reply, RedisError):
                raise reply
        return replies[len(before):]

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def kill(self):
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.socket_path)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.kill()


class RedisError(Exception):
    pass


def str_bytes(value):
    return value if isinstance(value, bytes) else str(value).encode("utf-8")


def encode_command(args):
    return b"*%d\r\n" % len(args) + b"".join(b"$%d\r\n%s\r\n" % (len(a), a) for a in args)


def read_reply(stream):
    line = stream.readline()
    if not line.endswith(b"\r\n"):
        raise ConnectionError("Redis hung up")
    kind, rest = line[:1], line[1:-2]
    if kind == b"+":
        return rest.decode()
    if kind == b"-":
        return RedisError(rest.decode())
    if kind == b":":
        return int(rest)
    if kind == b"$":
        n = int(rest)
        return None if n < 0 else stream.read(n + 2)[:-2].decode("utf-8", "surrogateescape")
    if kind == b"*":
        return [read_reply(stream) for _ in range(int(rest))]
    raise ConnectionError(f"Redis says {line!r}")


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


# ---- the tests' frame ----

def seeded():
    """A generator whose seed is printed; AISLE_TEST_SEED sets it."""
    seed = int(os.environ.get("AISLE_TEST_SEED", "20261124"))
    print(f"seed {seed}", file=sys.stderr)
    return random.Random(seed)


def need_program(name):
    """Ends a test file as skipped when a program that it needs is not installed."""
    if shutil.which(name) is None:
        print(f"skipped: {name} is not installed")
        sys.exit(SKIPPED)


class TestCase(unittest.TestCase):
    maxDiff = None
    longMessage = True

    def assert_problem(self, answer, status, field=None):
        """A problem of RFC 9457 with this status (or one of these), naming the field."""
        wanted = status if isinstance(status, (tuple, list, set)) else (status,)
        self.assertIn(answer.status, wanted, answer)
        self.assertEqual(answer.headers.get_content_type(), "application/problem+json", answer)
        problem = answer.json()
        self.assertEqual(problem["status"], answer.status)
        for name in ("type", "title", "detail"):
            self.assertIsInstance(problem[name], str)
            self.assertTrue(problem[name])
        self.assertLessEqual(set(problem), {"type", "title", "status", "detail", "field"})
        if field is not None:
            self.assertEqual(problem.get("field"), field, problem)
        return problem

    def assert_failed(self, result, *words, code=1):
        """A command that failed: one line on stderr with these words, nothing on stdout."""
        self.assertEqual(result.code, code, result)
        self.assertEqual(result.out, "", result)
        lines = [line for line in result.err.splitlines() if line.strip()]
        self.assertTrue(lines, result)
        for word in words:
            self.assertIn(word, lines[-1], result)
        said = [line for line in lines if line.startswith("aisle")]
        self.assertEqual(len(said), 1, result)
        return lines[-1]


def main():
    unittest.main(verbosity=2)
