"""What the acceptance run compares with, through PyTorch: prints a figure for each WORK.

    torch_peer.py [--device cpu] WORK...

    gemm:M:N:K                            FLOP/s of a bf16 product of random normal matrices
    copy:BYTES                            bytes read and written per second by a copy in the device
    train:FILE:LAYERS:SEQUENCE:BATCH      tokens/s of a training step of a model of configs/models

Products and copies: medians over iterations that are timed by events for half a second after as much
warm-up; operands rotate through several sets, so that the L2 cache does not serve them.

A training step is that of `trainstep`: bf16 weights and activations, f32 master weights and moments,
the gradients' norm clipped, one batch again and again, no biases but those of LayerNorm. It is made
as fast as PyTorch is without changing it: blocks and loss compiled, whichever of the fused attentions
is faster for the shape, fused AdamW.
"""
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import model as models

SETS = 8
DEVICE = "cuda"


def sync():
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def marks(count):
    """Points in the device's time."""
    if DEVICE == "cuda":
        return [torch.cuda.Event(enable_timing=True) for _ in range(count)]
    return [0.0] * count


def mark(points, index):
    if DEVICE == "cuda":
        points[index].record()
    else:
        points[index] = time.perf_counter()


def between(points, index):
    """Seconds from one point to the next."""
    if DEVICE == "cuda":
        return points[index].elapsed_time(points[index + 1]) * 1e-3
    return points[index + 1] - points[index]


def measure(run, batch=8, least=16, seconds=0.5):
    """The median time of run(i), in seconds; `batch` of them are queued at once."""
    begin = time.monotonic()
    index = 0
    while time.monotonic() - begin < seconds or index < 2 * batch:
        run(index % SETS)
        index += 1
        if index % batch == 0:
            sync()
    sync()
    times = []
    begin = time.monotonic()
    while time.monotonic() - begin < seconds or len(times) < least:
        points = marks(batch + 1)
        mark(points, 0)
        for i in range(batch):
            run(i % SETS)
            mark(points, i + 1)
        sync()
        times += [between(points, i) for i in range(batch)]
    return statistics.median(times)


def gemm(m, n, k):
    a = [torch.randn(m, k, device=DEVICE, dtype=torch.bfloat16) for _ in range(SETS)]
    b = [torch.randn(k, n, device=DEVICE, dtype=torch.bfloat16) for _ in range(SETS)]
    c = [torch.empty(m, n, device=DEVICE, dtype=torch.bfloat16) for _ in range(SETS)]
    return 2.0 * m * n * k / measure(lambda i: torch.matmul(a[i], b[i], out=c[i]))


def copy(size):
    source = [torch.randn(size // 4, device=DEVICE) for _ in range(SETS)]
    target = [torch.empty(size // 4, device=DEVICE) for _ in range(SETS)]
    return 2.0 * size / measure(lambda i: target[i].copy_(source[i]))


# ---- a training step ----


class Norm(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.epsilon = model.epsilon
        self.weight = torch.nn.Parameter(torch.ones(model.hidden))
        self.bias = torch.nn.Parameter(torch.zeros(model.hidden)) if model.layer_norm else None

    def forward(self, x):
        if self.bias is not None:
            return F.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.epsilon)
        return F.rms_norm(x, x.shape[-1:], self.weight, self.epsilon)


def matrix(rows, columns):
    return torch.nn.Parameter(torch.randn(rows, columns) * 0.02)


def rotate(x, turns):
    cosine, sine = turns
    a, b = x.float().chunk(2, -1)
    return torch.cat((a * cosine - b * sine, b * cosine + a * sine), -1).to(x.dtype)


class Block(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model
        self.norm1, self.norm2 = Norm(model), Norm(model)
        self.sizes = [n * model.head_size for n in (model.heads, model.kv_heads, model.kv_heads)]
        self.qkv = matrix(sum(self.sizes), model.hidden)
        self.out = matrix(model.hidden, self.sizes[0])
        self.up = matrix(model.ffn * (2 if model.gated else 1), model.hidden)
        self.down = matrix(model.hidden, model.ffn)

    def forward(self, x, turns):
        model = self.model
        batch, length, _ = x.shape
        q, k, v = (part.view(batch, length, -1, model.head_size).transpose(1, 2)
                   for part in F.linear(self.norm1(x), self.qkv).split(self.sizes, -1))
        if turns is not None:
            q, k = rotate(q, turns), rotate(k, turns)
        o = F.scaled_dot_product_attention(q, k, v, is_causal=True,
                                           enable_gqa=model.heads != model.kv_heads)
        x = x + F.linear(o.transpose(1, 2).reshape(batch, length, -1), self.out)
        y = F.linear(self.norm2(x), self.up)
        if model.gated:
            gate, value = y.chunk(2, -1)
            y = F.silu(gate) * value
        else:
            y = F.gelu(y, approximate="tanh")
        return x + F.linear(y, self.down)


class Model(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model
        self.table = matrix(model.rows, model.hidden)
        self.learned = matrix(model.sequence, model.hidden) if model.learned else None
        self.blocks = torch.nn.ModuleList(Block(model) for _ in range(model.layers))
        self.norm = Norm(model)
        self.head = None if model.tied else matrix(model.rows, model.hidden)

    def turns(self):
        model = self.model
        if model.learned:
            return None
        power = torch.arange(0, model.head_size, 2, device=DEVICE) / model.head_size
        angles = torch.outer(torch.arange(model.sequence, device=DEVICE), model.rope_base ** -power)
        return angles.cos(), angles.sin()

    def loss(self, x, targets):
        logits = F.linear(self.norm(x), self.table if self.head is None else self.head)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]).float(), targets.view(-1))

    def make_fast(self):
        for block in self.blocks:
            block.compile(fullgraph=True, dynamic=False)
        self.loss = torch.compile(self.loss, fullgraph=True, dynamic=False)

    def forward(self, tokens, targets, turns):
        x = F.embedding(tokens, self.table)
        if self.learned is not None:
            x = x + self.learned
        for block in self.blocks:
            x = block(x, turns)
        return self.loss(x, targets)


def choose_attention(model, batch):
    """The fused attention that is faster for the shape, forward and backward."""
    def shape(heads):
        return torch.randn(batch, heads, model.sequence, model.head_size, device=DEVICE,
                           dtype=torch.bfloat16, requires_grad=True)
    q, k, v = shape(model.heads), shape(model.kv_heads), shape(model.kv_heads)
    times = {}
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION):
        def run(_):
            F.scaled_dot_product_attention(q, k, v, is_causal=True,
                                           enable_gqa=model.heads != model.kv_heads).sum().backward()
        try:
            with sdpa_kernel(backend):
                times[backend] = measure(run, batch=4, least=8, seconds=0.1)
        except RuntimeError:
            continue  # not for this shape or device
    best = min(times, key=times.get, default=None)
    if best is not None:
        torch.backends.cuda.enable_flash_sdp(best == SDPBackend.FLASH_ATTENTION)
        torch.backends.cuda.enable_cudnn_sdp(best == SDPBackend.CUDNN_ATTENTION)
        torch.backends.cuda.enable_mem_efficient_sdp(False)
        torch.backends.cuda.enable_math_sdp(False)
    print(f"attention: {best}", file=sys.stderr)


def train(path, layers, sequence, batch):
    shape = models.read(path, int(layers), int(sequence))
    batch = int(batch)
    if shape.experts:
        raise SystemExit(f"torch_peer.py: {path}: no mixtures of experts")
    if DEVICE == "cuda":
        choose_attention(shape, batch)
    model = Model(shape).to(DEVICE)
    masters = [p.detach().clone() for p in model.parameters()]  # f32
    for master in masters:
        master.requires_grad_(True)
        master.grad = torch.zeros_like(master)
    model.to(torch.bfloat16)
    weights = list(model.parameters())
    rate = 3e-4 * min(1, 768 / shape.hidden)  # as trainstep has it
    optimizer = torch.optim.AdamW(masters, lr=rate, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1,
                                  fused=True)
    all_tokens = torch.randint(shape.vocabulary, (batch, shape.sequence + 1), device=DEVICE)
    tokens, targets = all_tokens[:, :-1].contiguous(), all_tokens[:, 1:].contiguous()
    turns = model.turns()
    model.make_fast()
    losses = []

    def step(_):
        loss = model(tokens, targets, turns)
        loss.backward()
        with torch.no_grad():
            torch._foreach_copy_([m.grad for m in masters], [w.grad for w in weights])
            torch.nn.utils.clip_grad_norm_(masters, 1.0, foreach=True)
            optimizer.step()
            torch._foreach_copy_(weights, masters)
        for weight in weights:
            weight.grad = None
        losses[1:] = [loss.detach()]  # the first and the last

    figure = batch * shape.sequence / measure(step, batch=2, least=6, seconds=1)
    first, last = float(losses[0]), float(losses[-1])
    print(f"loss {first:.4f} to {last:.4f}", file=sys.stderr)
    if not last < first:
        raise SystemExit("torch_peer.py: the loss did not fall")
    return figure


def main():
    global DEVICE
    words = sys.argv[1:]
    if words[:1] == ["--device"]:
        DEVICE, words = words[1], words[2:]
    for word in words:
        kind, *rest = word.split(":")
        if kind == "train":
            print(train(*rest), flush=True)
        elif kind == "gemm":
            print(gemm(*map(int, rest)), flush=True)
        else:
            print(copy(int(rest[0])), flush=True)
        if DEVICE == "cuda":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
