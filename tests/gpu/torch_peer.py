"""What the acceptance run compares with, through PyTorch: prints one figure.

    torch_peer.py gemm M N K        FLOP/s of a bf16 product of random normal matrices
    torch_peer.py copy BYTES        bytes read and written per second by a copy within the device

Medians over iterations that are timed by events for a second after a second of warm-up; operands
rotate through several sets, so that the L2 cache does not serve them.
"""
import statistics
import sys
import time

import torch

SETS = 8


def measure(run):
    """The median time of run(i), in seconds."""
    begin = time.monotonic()
    index = 0
    while time.monotonic() - begin < 1:
        run(index % SETS)
        index += 1
        if index % 8 == 0:
            torch.cuda.synchronize()
    torch.cuda.synchronize()
    times = []
    begin = time.monotonic()
    while time.monotonic() - begin < 1 or len(times) < 16:
        events = [torch.cuda.Event(enable_timing=True) for _ in range(9)]
        events[0].record()
        for i in range(8):
            run(i % SETS)
            events[i + 1].record()
        torch.cuda.synchronize()
        times += [events[i].elapsed_time(events[i + 1]) * 1e-3 for i in range(8)]
    return statistics.median(times)


def main():
    if sys.argv[1] == "gemm":
        m, n, k = map(int, sys.argv[2:5])
        a = [torch.randn(m, k, device="cuda", dtype=torch.bfloat16) for _ in range(SETS)]
        b = [torch.randn(k, n, device="cuda", dtype=torch.bfloat16) for _ in range(SETS)]
        c = [torch.empty(m, n, device="cuda", dtype=torch.bfloat16) for _ in range(SETS)]
        print(2.0 * m * n * k / measure(lambda i: torch.matmul(a[i], b[i], out=c[i])))
    else:
        size = int(sys.argv[2])
        source = [torch.randn(size // 4, device="cuda") for _ in range(SETS)]
        target = [torch.empty(size // 4, device="cuda") for _ in range(SETS)]
        print(2.0 * size / measure(lambda i: target[i].copy_(source[i])))


if __name__ == "__main__":
    main()
