#!/usr/bin/env python3
"""How much faster does Aisle train than PyTorch? train_peer.py BENCH_TRAIN [ROUNDS]: runs bench_train
and the same model in PyTorch in turns and prints the medians and their ratio, one JSON line a loss.
train_peer.py --alone LOSS: PyTorch's part, events a second.

The peer is what a PyTorch user writes: histories padded to 50 on the left with masks,
scaled dot-product attention over the padded batch, hidden vectors of real positions picked before
the loss (many public versions score the padding too and are slower still), dense AdamW.
Same model, batch (2,048 events), dropout and threads; float32. Both wait passively for their threads
(OMP_WAIT_POLICY), unless the environment says otherwise: on a busy machine spinning costs either more
than a thread brings. Skipped without PyTorch (exit 77).
"""
import json
import math
import os
import statistics
import subprocess
import sys
import time

N, D, HEADS, BLOCKS, HISTORY, BATCH, NEGATIVES, THREADS = 12000, 64, 2, 2, 50, 2048, 1024, 2
INPUTS_MEAN, DROPOUT, STEPS = 9, 0.2, 12


def alone(loss_kind):
    try:
        import numpy as np
        import torch
        import torch.nn.functional as F
    except ImportError:
        print("train_peer: skipped, no PyTorch here", file=sys.stderr)
        sys.exit(77)
    torch.set_num_threads(THREADS)
    torch.manual_seed(1)
    rng = np.random.default_rng(5)

    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm_a, self.norm_f = torch.nn.LayerNorm(D), torch.nn.LayerNorm(D)
            self.qkv, self.out = torch.nn.Linear(D, 3 * D), torch.nn.Linear(D, D)
            self.up, self.down = torch.nn.Linear(D, 4 * D), torch.nn.Linear(4 * D, D)

        def forward(self, x, mask):
            b = len(x)
            q, k, v = (t.view(b, HISTORY, HEADS, D // HEADS).transpose(1, 2)
                       for t in self.qkv(self.norm_a(x)).chunk(3, -1))
            weights = (q @ k.transpose(-1, -2) / math.sqrt(D // HEADS) + mask).softmax(-1)
            context = (weights @ v).transpose(1, 2).reshape(b, HISTORY, D)
            x = x + F.dropout(self.out(context), DROPOUT)
            active = F.dropout(F.gelu(self.up(self.norm_f(x))), DROPOUT)
            return x + F.dropout(self.down(active), DROPOUT)

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.items = torch.nn.Embedding(N + 1, D, padding_idx=0)
            self.positions = torch.nn.Embedding(HISTORY, D)
            self.blocks = torch.nn.ModuleList(Block() for _ in range(BLOCKS))
            self.norm_e, self.norm_o = torch.nn.LayerNorm(D), torch.nn.LayerNorm(D)
            torch.nn.init.normal_(self.items.weight, 0.0, 0.02)
            self.causal = torch.full((HISTORY, HISTORY), -1e9).triu(1)

        def forward(self, rows):
            x = F.dropout(self.items(rows), DROPOUT) + self.positions.weight
            x = self.norm_e(x)
            mask = self.causal + (rows == 0)[:, None, None, :] * -1e9
            for block in self.blocks:
                x = block(x, mask)
            return self.norm_o(x)

    def make_batch():
        rows, n = [], 0
        while True:
            length = min(int(rng.geometric(1.0 / INPUTS_MEAN)), HISTORY)
            if n + length > BATCH:
                break
            row = np.zeros(HISTORY + 1, dtype=np.int64)
            row[HISTORY - length:] = 1 + (N * rng.random(length + 1) ** 2).astype(np.int64)
            rows.append(row)
            n += length
        rows = torch.tensor(np.stack(rows))
        return rows[:, :-1], rows[:, 1:], n

    model = Model()
    decayed = [p for k, p in model.named_parameters() if p.dim() == 2 and "blocks" in k]
    plain = [p for k, p in model.named_parameters() if not (p.dim() == 2 and "blocks" in k)]
    optimiser = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.01},
                                   {"params": plain, "weight_decay": 0.0}],
                                  lr=1e-3, betas=(0.9, 0.98), eps=1e-8)
    q = torch.ones(N) / N

    def step(inputs, targets):
        real = inputs != 0
        hidden, wanted = model(inputs)[real], targets[real]
        if loss_kind == "full":
            loss = F.cross_entropy(hidden @ model.items.weight[1:].t(), wanted - 1)
        else:
            drawn = torch.multinomial(q, NEGATIVES, replacement=True) + 1
            negatives = hidden @ model.items(drawn).t() - math.log(NEGATIVES / N)
            negatives = negatives.masked_fill(drawn[None, :] == wanted[:, None], -1e9)
            positives = (hidden * model.items(wanted)).sum(-1, keepdim=True)
            loss = F.cross_entropy(torch.cat([positives, negatives], 1),
                                   torch.zeros(len(hidden), dtype=torch.long))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()

    batches = [make_batch() for _ in range(STEPS + 2)]
    for inputs, targets, _ in batches[:2]:
        step(inputs, targets)
    begin = time.perf_counter()
    for inputs, targets, _ in batches[2:]:
        step(inputs, targets)
    print(sum(n for _, _, n in batches[2:]) / (time.perf_counter() - begin))


def run(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.returncode)
    return done.stdout


def main():
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    for loss_kind in ("full", "sampled"):
        ours, theirs = [], []
        for _ in range(rounds):
            ours.append(json.loads(run([sys.argv[1], loss_kind]))["events_per_second"])
            theirs.append(float(run([sys.executable, __file__, "--alone", loss_kind])))
        a, b = statistics.median(ours), statistics.median(theirs)
        print(json.dumps({"bench": "train_peer", "loss": loss_kind, "ours_events_per_second": a,
                          "pytorch_events_per_second": round(b), "ratio": round(a / b, 2),
                          "rounds": rounds}), flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    if sys.argv[1] == "--alone":
        alone(sys.argv[2])
    else:
        main()
