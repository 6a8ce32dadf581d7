"""A strict reader of Prometheus' text format 0.0.4: ValueError says which line breaks which rule."""

import math
import re

NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"')
SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)\Z")
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("", "_sum", "_count")}


def _labels(text, line):
    labels, at = {}, 0
    while at < len(text):
        match = LABEL.match(text, at)
        if not match or match.group(1) in labels:
            raise ValueError(f"bad labels: {line}")
        labels[match.group(1)] = match.group(2)
        at = match.end()
        if at < len(text):
            if text[at] != ",":
                raise ValueError(f"bad labels: {line}")
            at += 1
    return labels


def _value(text, line):
    if text in ("+Inf", "-Inf", "NaN"):
        return float(text)
    if not re.match(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?\Z", text):
        raise ValueError(f"bad value: {line}")
    return float(text)


def _check_histogram(name, samples):
    series = {}
    for (sample, labels), value in samples.items():
        rest = tuple(pair for pair in labels if pair[0] != "le")
        one = series.setdefault(rest, {"buckets": []})
        if sample == name + "_bucket":
            one["buckets"].append((float(dict(labels)["le"]), value))
        else:
            one[sample[len(name):]] = value
    for rest, one in series.items():
        bounds = [bound for bound, _ in one["buckets"]]
        counts = [count for _, count in one["buckets"]]
        if bounds != sorted(set(bounds)) or not bounds or bounds[-1] != math.inf:
            raise ValueError(f"{name}{rest}: buckets {bounds}")
        if counts != sorted(counts) or counts[-1] != one.get("_count") or "_sum" not in one:
            raise ValueError(f"{name}{rest}: counts {counts} against {one}")


def parse(text):
    """{(sample name, sorted label pairs): value}."""
    if not text.endswith("\n"):
        raise ValueError("the last line does not end")
    all_samples, types, helps, family, samples = {}, {}, set(), None, {}

    def finish():
        if family is not None and types.get(family) == "histogram":
            _check_histogram(family, samples)

    for line in text[:-1].split("\n"):
        if not line:
            continue
        if line.startswith("# HELP ") or line.startswith("# TYPE "):
            _, kind, name, rest = (line.split(" ", 3) + [""])[:4]
            if not NAME.match(name):
                raise ValueError(f"bad name: {line}")
            seen = helps if kind == "HELP" else types
            if name in seen or any(key[0] == name for key in all_samples):
                raise ValueError(f"repeated or late: {line}")
            if name != family:
                finish()
                family, samples = name, {}
            if kind == "HELP":
                helps.add(name)
            elif rest not in ("counter", "gauge", "histogram", "summary", "untyped"):
                raise ValueError(f"bad type: {line}")
            else:
                types[name] = rest
            continue
        if line.startswith("#"):
            continue
        match = SAMPLE.match(line)
        if not match:
            raise ValueError(f"no sample: {line}")
        name, labels = match.group(1), _labels(match.group(2) or "", line)
        value = _value(match.group(3), line)
        suffixes = SUFFIXES.get(types.get(family), ("",))
        if family is None or name not in [family + suffix for suffix in suffixes]:
            raise ValueError(f"not of the family {family}: {line}")
        if types.get(family) == "counter" and not name.endswith("_total"):
            raise ValueError(f"a counter's name ends in _total: {line}")
        if types.get(family) in ("counter", "histogram") and value < 0:
            raise ValueError(f"negative: {line}")
        key = (name, tuple(sorted(labels.items(), key=lambda pair: pair[0])))
        if key in all_samples:
            raise ValueError(f"repeated: {line}")
        all_samples[key] = samples[key] = value
    finish()
    missing = {name for name in types if name not in helps}
    if missing:
        raise ValueError(f"no HELP of {missing}")
    return all_samples


def total(samples, name, **labels):
    """Sum over the samples of this name that have these labels."""
    wanted = set(labels.items())
    return sum(value for (sample, pairs), value in samples.items()
               if sample == name and wanted <= set(pairs))
