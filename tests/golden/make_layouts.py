#!/usr/bin/env python3
"""Makes tests/golden/layout_*.safetensors: small random models in the layouts that `aisle
import-model` reads, and the user vectors that they give in PyTorch, for
tests/unit/embeddings/test_layouts.c.

Needs PyTorch and NumPy; run by hand, the files are committed. The modules are written from the
layouts' definitions (embeddings/sasrec.h, gru4rec.h, layout_tables.c) with PyTorch's own attention,
layer norm and GRU, padded and masked as the programs do, in double precision over float32 weights.
Beside the layout's tensors a file holds "golden.histories" [U x (L + 2)] int32, item numbers from 1,
oldest first, 0 before them, and "golden.users" [U x D] float32. Seed 31.
"""
import json
import math
import os
import struct

import numpy as np
import torch
from torch import nn

ITEMS, D, FFN, HEADS, HISTORY, HIDDEN = 12, 8, 12, 2, 6, 10
LENGTHS = (1, 2, 4, HISTORY - 1, HISTORY, HISTORY + 2)
HERE = os.path.dirname(os.path.abspath(__file__))
TYPES = {np.dtype("float32"): "F32", np.dtype("int32"): "I32"}


def write(name, tensors):
    """The safetensors format: header length, JSON, data."""
    header, at = {}, 0
    for key, t in tensors.items():
        header[key] = {"dtype": TYPES[t.dtype], "shape": list(t.shape),
                       "data_offsets": [at, at + t.nbytes]}
        at += t.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % 64)
    with open(os.path.join(HERE, name), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for t in tensors.values():
            f.write(np.ascontiguousarray(t).tobytes())


class Attention(nn.Module):
    """Multi-head attention with separate projections, `dense` after it and a norm over the sum."""

    def __init__(self):
        super().__init__()
        self.query, self.key = nn.Linear(D, D), nn.Linear(D, D)
        self.value, self.dense = nn.Linear(D, D), nn.Linear(D, D)
        self.LayerNorm = nn.LayerNorm(D, eps=1e-12)

    def forward(self, x, mask):
        def heads(t):
            return t.view(*t.shape[:2], HEADS, D // HEADS).transpose(1, 2)
        q, k, v = heads(self.query(x)), heads(self.key(x)), heads(self.value(x))
        scores = q @ k.transpose(2, 3) / math.sqrt(D // HEADS) + mask
        context = (torch.softmax(scores, -1) @ v).transpose(1, 2).reshape(x.shape)
        return self.LayerNorm(x + self.dense(context))


class FeedForward(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense_1, self.dense_2 = nn.Linear(D, FFN), nn.Linear(FFN, D)
        self.LayerNorm = nn.LayerNorm(D, eps=1e-12)

    def forward(self, x):
        return self.LayerNorm(x + self.dense_2(nn.functional.gelu(self.dense_1(x))))


class Block(nn.Module):
    def __init__(self, attention, feed_forward):
        super().__init__()
        self.names = attention, feed_forward
        setattr(self, attention, Attention())
        setattr(self, feed_forward, FeedForward())

    def forward(self, x, mask):
        return getattr(self, self.names[1])(getattr(self, self.names[0])(x, mask))


class Encoder(nn.Module):
    def __init__(self, *names):
        super().__init__()
        self.layer = nn.ModuleList(Block(*names) for _ in range(2))


def masked(sequences):
    """0 where a position may look, -10000 at padding and at later positions, [U x 1 x L x L]."""
    length = sequences.shape[1]
    seen = (sequences > 0)[:, None, None, :] & torch.tril(torch.ones(length, length)).bool()
    return (~seen).double() * -10000.0


class S3Rec(nn.Module):
    """Left-padded; the table has a padding row before and a mask row after the items."""

    def __init__(self):
        super().__init__()
        self.item_embeddings = nn.Embedding(ITEMS + 2, D)
        self.position_embeddings = nn.Embedding(HISTORY, D)
        self.LayerNorm = nn.LayerNorm(D, eps=1e-12)
        self.item_encoder = Encoder("attention", "intermediate")

    def forward(self, histories):
        s = torch.tensor(histories[:, -HISTORY:]).long()
        x = self.LayerNorm(self.item_embeddings(s) + self.position_embeddings.weight)
        for block in self.item_encoder.layer:
            x = block(x, masked(s))
        return x[:, -1]


class RecBoleSASRec(nn.Module):
    """Right-padded; the newest event is at position length - 1."""

    def __init__(self):
        super().__init__()
        self.item_embedding = nn.Embedding(ITEMS + 1, D)
        self.position_embedding = nn.Embedding(HISTORY, D)
        self.trm_encoder = Encoder("multi_head_attention", "feed_forward")
        self.LayerNorm = nn.LayerNorm(D, eps=1e-12)

    def forward(self, histories):
        s, lengths = right_padded(histories)
        x = self.LayerNorm(self.item_embedding(s) + self.position_embedding.weight)
        for block in self.trm_encoder.layer:
            x = block(x, masked(s))
        return x[torch.arange(len(s)), lengths - 1]


def right_padded(histories):
    newest = [[i for i in h if i > 0][-HISTORY:] for h in histories.tolist()]
    s = torch.tensor([h + [0] * (HISTORY - len(h)) for h in newest])
    return s, torch.tensor([len(h) for h in newest])


class RecBoleGRU4Rec(nn.Module):
    def __init__(self, n_layers, bias):
        super().__init__()
        self.item_embedding = nn.Embedding(ITEMS + 1, D)
        self.gru_layers = nn.GRU(D, HIDDEN, n_layers, bias=bias, batch_first=True)
        self.dense = nn.Linear(HIDDEN, D)

    def forward(self, histories):
        s, lengths = right_padded(histories)
        output = self.dense(self.gru_layers(self.item_embedding(s))[0])
        return output[torch.arange(len(s)), lengths - 1]


class PointWise(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv1d(D, FFN, 1), nn.Conv1d(FFN, D, 1)

    def forward(self, x):
        return x + self.conv2(torch.relu(self.conv1(x.transpose(1, 2)))).transpose(1, 2)


class SASRecPyTorch(nn.Module):
    """Left-padded with zero vectors that no mask hides; positions from 1."""

    def __init__(self):
        super().__init__()
        self.item_emb = nn.Embedding(ITEMS + 1, D)
        self.pos_emb = nn.Embedding(HISTORY + 1, D)
        self.attention_layernorms = nn.ModuleList(nn.LayerNorm(D, eps=1e-8) for _ in range(2))
        self.attention_layers = nn.ModuleList(nn.MultiheadAttention(D, HEADS) for _ in range(2))
        self.forward_layernorms = nn.ModuleList(nn.LayerNorm(D, eps=1e-8) for _ in range(2))
        self.forward_layers = nn.ModuleList(PointWise() for _ in range(2))
        self.last_layernorm = nn.LayerNorm(D, eps=1e-8)

    def zero_padding(self):
        self.item_emb.weight[0] = 0
        self.pos_emb.weight[0] = 0

    def forward(self, histories):
        s = torch.tensor(histories[:, -HISTORY:]).long()
        positions = torch.arange(1, HISTORY + 1) * (s > 0)
        x = self.item_emb(s) * math.sqrt(D) + self.pos_emb(positions)
        later = ~torch.tril(torch.ones(HISTORY, HISTORY)).bool()
        for i in range(2):
            q = self.attention_layernorms[i](x).transpose(0, 1)
            kv = x.transpose(0, 1)
            y = q + self.attention_layers[i](q, kv, kv, attn_mask=later, need_weights=False)[0]
            x = self.forward_layers[i](self.forward_layernorms[i](y.transpose(0, 1)))
        return self.last_layernorm(x)[:, -1]


def make(name, module, prefix=""):
    """Random weights of float32, wide enough that every part of the network shows."""
    with torch.no_grad():
        module = module.double()
        for key, p in module.named_parameters():
            values = torch.randn(p.shape, dtype=torch.double) * 0.4
            if "norm" in key.lower() and key.endswith("weight"):
                values += 1.0
            p.copy_(values.float().double())
        if hasattr(module, "zero_padding"):
            module.zero_padding()
        rng = np.random.default_rng(31)
        histories = np.zeros((len(LENGTHS), HISTORY + 2), np.int32)
        for row, length in zip(histories, LENGTHS):
            row[len(row) - length:] = rng.integers(1, ITEMS + 1, length)
        users = module.eval()(histories)
        tensors = {prefix + k: p.float().numpy() for k, p in module.named_parameters()}
        tensors[prefix + "golden.histories"] = histories
        tensors[prefix + "golden.users"] = users.float().numpy()
        write(f"layout_{name}.safetensors", tensors)


def main():
    torch.manual_seed(31)
    make("sasrec_pytorch", SASRecPyTorch())
    make("s3rec", S3Rec())
    make("recbole_sasrec", RecBoleSASRec(), "model.")
    make("recbole_gru4rec", RecBoleGRU4Rec(2, False), "module.")
    make("recbole_gru4rec_bias", RecBoleGRU4Rec(1, True))


main()
