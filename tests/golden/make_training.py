#!/usr/bin/env python3
"""Makes tests/golden/training_*.safetensors: what one step of training is, by PyTorch's own
differentiation in double precision, for tests/unit/embeddings/test_golden_training.c.

Needs PyTorch and NumPy; run by hand, the files are committed. Seed 20 each; the weights are random.
A file holds, all float32 but where said:
  items [N x d], offsets, rows, types, targets (int32), times (int64), weights "weight.NAME" by the
  names of the native layout, "hidden" [T x d], "loss" [1] (mean full-softmax cross-entropy of an
  event, items tied), "gradient.NAME" and "gradient.items", and "step.NAME", "step.items": the
  weights after one step of AdamW (rate 1e-3, betas 0.9 and 0.98, epsilon 1e-8, decay 0.01 for
  matrices, none for vectors, positions, types, gaps and items).
"""
import json
import math
import os
import struct

import numpy as np
import torch

D, FFN, HEADS, HISTORY, ITEMS, GAPS = 16, 32, 2, 8, 30, 9
LENGTHS = (1, 5, 8, 3)
RATE, DECAY = 1e-3, 0.01
HERE = os.path.dirname(os.path.abspath(__file__))
TYPES = {np.dtype("float32"): "F32", np.dtype("int32"): "I32", np.dtype("int64"): "I64"}


def write(name, tensors):
    """The safetensors format: header length, JSON, data; 8-byte types first, data aligned."""
    order = sorted(tensors, key=lambda k: -tensors[k].dtype.itemsize)
    header, at = {}, 0
    for key in order:
        t = tensors[key]
        header[key] = {"dtype": TYPES[t.dtype], "shape": list(t.shape),
                       "data_offsets": [at, at + t.nbytes]}
        at += t.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % 64)
    with open(os.path.join(HERE, name), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for key in order:
            f.write(np.ascontiguousarray(tensors[key]).tobytes())


class Batch:
    def __init__(self, rng):
        n = sum(LENGTHS)
        self.offsets = np.concatenate([[0], np.cumsum(LENGTHS)]).astype(np.int32)
        self.rows = rng.integers(0, ITEMS, n).astype(np.int32)
        self.types = rng.integers(0, 4, n).astype(np.int32)
        self.targets = rng.integers(0, ITEMS, n).astype(np.int32)
        self.times = np.concatenate(
            [1_700_000_000_000 + np.cumsum(rng.integers(0, 2 ** rng.integers(1, 24, k)))
             for k in LENGTHS]).astype(np.int64)
        self.times[7] = -1  # unknown

    def sequences(self):
        return [range(a, b) for a, b in zip(self.offsets, self.offsets[1:])]

    def gap(self, i, first):
        """Bucket of the time to the event before, see embeddings/sasrec.h."""
        if i == first or self.times[i] < 0 or self.times[i - 1] < 0:
            return 0
        seconds = (self.times[i] - self.times[i - 1]) / 1000.0
        return min(1 + int(math.floor(math.log2(1 + seconds))), GAPS - 1)


def norm(w, name, x, epsilon):
    return torch.nn.functional.layer_norm(x, (D,), w[name + ".weight"], w[name + ".bias"], epsilon)


def linear(w, name, x):
    return torch.nn.functional.linear(x, w[name + ".weight"], w[name + ".bias"])


def attention(w, name, query_input, key_input):
    n, width = len(query_input), D // HEADS
    q, k, v = (linear(w, f"{name}.{part}", x).view(n, HEADS, width).transpose(0, 1)
               for part, x in (("query", query_input), ("key", key_input), ("value", key_input)))
    scores = q @ k.transpose(1, 2) / math.sqrt(width)
    scores = scores.masked_fill(torch.ones(n, n, dtype=torch.bool).triu(1), -math.inf)
    return linear(w, name + ".output", (scores.softmax(-1) @ v).transpose(0, 1).reshape(n, D))


def sasrec_weights():
    shapes = {"positions": (HISTORY, D), "types": (4, D), "gaps": (GAPS, D)}
    for name in ("embedding_norm", "final_norm"):
        shapes[name + ".weight"] = shapes[name + ".bias"] = (D,)
    for b in range(2):
        for name in ("attention_norm", "ffn_norm"):
            shapes[f"blocks.{b}.{name}.weight"] = shapes[f"blocks.{b}.{name}.bias"] = (D,)
        for name, out, n_in in (("attention.query", D, D), ("attention.key", D, D),
                                ("attention.value", D, D), ("attention.output", D, D),
                                ("ffn.up", FFN, D), ("ffn.down", D, FFN)):
            shapes[f"blocks.{b}.{name}.weight"] = (out, n_in)
            shapes[f"blocks.{b}.{name}.bias"] = (out,)
    return shapes


def sasrec_pre(w, batch, inputs):
    """Trainer's default form: pre-norm with norm_keys, GELU, embedding and final norm."""
    hidden = []
    for seq in batch.sequences():
        n = len(seq)
        x = inputs[list(seq)] + w["positions"][:n] + w["types"][list(batch.types[list(seq)])]
        x = x + w["gaps"][[batch.gap(i, seq[0]) for i in seq]]
        x = norm(w, "embedding_norm", x, 1e-12)
        for b in range(2):
            q = norm(w, f"blocks.{b}.attention_norm", x, 1e-12)
            y = x + attention(w, f"blocks.{b}.attention", q, q)
            z = norm(w, f"blocks.{b}.ffn_norm", y, 1e-12)
            up = torch.nn.functional.gelu(linear(w, f"blocks.{b}.ffn.up", z))
            x = y + linear(w, f"blocks.{b}.ffn.down", up)
        hidden.append(norm(w, "final_norm", x, 1e-12))
    return torch.cat(hidden)


def sasrec_post_weights():
    drop = ("types", "gaps", "final_norm")
    return {k: v for k, v in sasrec_weights().items() if not k.startswith(drop)}


def sasrec_post(w, batch, inputs):
    """BERT's form: post-norm, ReLU, embedding norm, positions counted from the right."""
    hidden = []
    for seq in batch.sequences():
        n = len(seq)
        x = norm(w, "embedding_norm", inputs[list(seq)] + w["positions"][HISTORY - n:], 1e-12)
        for b in range(2):
            a = x + attention(w, f"blocks.{b}.attention", x, x)
            y = norm(w, f"blocks.{b}.attention_norm", a, 1e-12)
            up = torch.relu(linear(w, f"blocks.{b}.ffn.up", y))
            x = norm(w, f"blocks.{b}.ffn_norm", y + linear(w, f"blocks.{b}.ffn.down", up), 1e-12)
        hidden.append(x)
    return torch.cat(hidden)


def gru_weights():
    shapes = {}
    for i in range(2):
        for side in ("input", "hidden"):
            shapes[f"layers.{i}.{side}.weight"] = (3 * D, D)
            shapes[f"layers.{i}.{side}.bias"] = (3 * D,)
    shapes["output.weight"], shapes["output.bias"] = (D, D), (D,)
    return shapes


def gru(w, batch, inputs):
    """torch.gru itself, two layers, and an output layer."""
    flat = [w[f"layers.{i}.{side}.{kind}"] for i in range(2) for kind in ("weight", "bias")
            for side in ("input", "hidden")]
    start = torch.zeros(2, 1, D, dtype=torch.float64)
    hidden = [torch.gru(inputs[list(seq)][:, None], start, flat, True, 2, 0.0, False, False,
                        False)[0][:, 0] for seq in batch.sequences()]
    return linear(w, "output", torch.cat(hidden))


def attention_weights():
    return {"query.weight": (D, D), "recency": (HISTORY,), "types": (4,), "mix.weight": (D, D),
            "newest.weight": (D, D), "bias": (D,)}


def attention_pooling(w, batch, inputs):
    """embeddings/attention.h, for every event as the newest one."""
    hidden = []
    for seq in batch.sequences():
        for i in seq:
            events = list(range(i, seq[0] - 1, -1))
            v = inputs[events]
            a = v @ (w["query.weight"] @ v[0]) / math.sqrt(D)
            a = a + w["recency"][:len(events)] + w["types"][list(batch.types[events])]
            pooled = a.softmax(0) @ v
            hidden.append(w["mix.weight"] @ pooled + w["newest.weight"] @ v[0] + w["bias"])
    return torch.stack(hidden)


def make(name, shapes, forward):
    rng = np.random.default_rng(20)
    batch = Batch(rng)

    def leaf(shape, offset=0.0):
        values = (rng.standard_normal(shape) * 0.3 + offset).astype(np.float32)
        return torch.tensor(values, dtype=torch.float64, requires_grad=True)

    items = leaf((ITEMS, D))
    w = {k: leaf(v, 1.0 if k.endswith("norm.weight") else 0.0) for k, v in shapes.items()}
    out = {"items": items, **{"weight." + k: v for k, v in w.items()}}
    out = {k: v.detach().clone() for k, v in out.items()}
    hidden = forward(w, batch, items[list(batch.rows)])
    loss = torch.nn.functional.cross_entropy(hidden @ items.t(),
                                             torch.tensor(batch.targets, dtype=torch.long))
    loss.backward()
    out.update({"hidden": hidden, "loss": loss.reshape(1), "gradient.items": items.grad})
    out.update({"gradient." + k: v.grad for k, v in w.items()})
    out = {k: v.detach().clone() for k, v in out.items()}
    tables = ("positions", "types", "gaps", "recency")
    decayed = [v for k, v in w.items() if v.dim() == 2 and k not in tables]
    plain = [v for k, v in w.items() if not (v.dim() == 2 and k not in tables)] + [items]
    torch.optim.AdamW([{"params": decayed, "weight_decay": DECAY},
                       {"params": plain, "weight_decay": 0.0}],
                      lr=RATE, betas=(0.9, 0.98), eps=1e-8).step()
    out.update({"step.items": items, **{"step." + k: v for k, v in w.items()}})
    tensors = {k: v.detach().numpy().astype(np.float32) for k, v in out.items()}
    tensors.update({"offsets": batch.offsets, "rows": batch.rows, "types": batch.types,
                    "targets": batch.targets, "times": batch.times})
    write(f"training_{name}.safetensors", tensors)
    print(f"{name}: loss {loss.item():.6f}, {sum(t.nbytes for t in tensors.values())} bytes")


if __name__ == "__main__":
    make("sasrec_pre", sasrec_weights(), sasrec_pre)
    make("sasrec_post", sasrec_post_weights(), sasrec_post)
    make("gru4rec", gru_weights(), gru)
    make("attention", attention_weights(), attention_pooling)
