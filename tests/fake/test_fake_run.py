#!/usr/bin/env python3
"""Runs the program on pretend GPUs.

    test_fake_run.py PROGRAM CONFIGS

Every workload on 1, 2, 4 and 8 of them; the same figures from every order that streams allow; two
models in one machine; a GPU that is lost, a rank that is killed, a call that hangs; no driver, an
old one, no GPU; a wait that is left out; what a training step hides.
"""
import json
import os
import subprocess
import sys
import tempfile
import unittest

PROGRAM, CONFIGS = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
HERE = os.path.dirname(os.path.abspath(__file__))
QUICK = ["*.warmup_time=0", "*.warmup_iterations=1", "*.min_time=0", "*.min_iterations=3",
         "*.max_iterations=4", "*.max_time=1ms",
         # Every thread of every kernel is emulated.
         "trainstep.layers=1", "trainstep.sequence=16", "trainstep.micro_batches=1"]
LIMIT_S = 150


class Run:
    """One run of the program and its result."""

    def __init__(self, suite, ranks, *arguments, settings=(), **environment):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "result.json")
            log = os.path.join(folder, "left")
            command = [PROGRAM, "run", suite, "--device", "fake", "--ranks", str(ranks),
                       "-o", path, *arguments]
            for setting in settings:
                command += ["--set", setting]
            env = dict(os.environ, FAKE_GPUS=str(ranks), FAKE_LOG=log, **environment)
            env = {name: value.replace("FOLDER", folder) for name, value in env.items()}
            done = subprocess.run(command, env=env, capture_output=True, text=True, check=False,
                                  timeout=LIMIT_S, stdin=subprocess.DEVNULL)
            self.code, self.out, self.err = done.returncode, done.stdout, done.stderr
            self.result, self.left = None, ""
            if os.path.exists(path):
                with open(path) as file:
                    self.result = json.load(file)
            if os.path.exists(log):
                with open(log) as file:
                    self.left = file.read()

    def cases(self, status):
        return [case for case in self.result["cases"] if case["status"] == status]

    def samples(self):
        return {case["name"]: [run["samples_s"] for run in case["runs"]]
                for case in self.result["cases"]}


def smoke(ranks, *arguments, settings=(), **environment):
    return Run(os.path.join(CONFIGS, "smoke.ini"), ranks, *arguments,
               settings=QUICK + list(settings), **environment)


class Fine(unittest.TestCase):
    def check(self, run, ranks):
        text = f"exit {run.code}\n{run.err}\n{run.out}"
        self.assertEqual(run.code, 0, text)
        self.assertEqual(run.left, "", "objects outlived their process")
        self.assertEqual(run.result["device"], "fake")
        self.assertEqual(len(run.result["devices"]), ranks)
        self.assertEqual({device["kind"] for device in run.result["devices"]}, {"fake"})
        for case in run.result["cases"]:
            if case["status"] == "skipped" and ranks == 1:
                self.assertIn("needs at least two ranks", case["reason"])
            else:
                self.assertEqual(case["status"], "ok", f"{case['name']}: {case['reason']}")
                self.assertGreater(case["check"]["checked"] + (case["workload"] == "launch"), 0)
        buses = [device["bus_id"] for device in run.result["devices"]]
        self.assertEqual(len(set(buses)), ranks)

    def test_1(self):
        self.check(smoke(1), 1)

    def test_2(self):
        self.check(smoke(2), 2)

    def test_4(self):
        self.check(smoke(4), 4)

    def test_8(self):
        self.check(smoke(8), 8)

    def test_gpu_suite(self):
        blocks = {"types:dtype=mxfp8", "types:dtype=nvfp4", "narrow_out:dtype=mxfp8",
                  "narrow_out:dtype=nvfp4"}
        eight = {"types:dtype=f8e4m3", "narrow_out:dtype=f8e4m3"}
        for model in ("B200", "H200", "A100"):
            run = Run(os.path.join(HERE, "gpu.ini"), 2, FAKE_MODELS=model)
            self.assertEqual(run.code, 0, run.err + run.out)
            skipped = {case["name"]: case["reason"] for case in run.cases("skipped")}
            names = {"B200": set(), "H200": blocks, "A100": blocks | eight}[model]
            for name in blocks & names:
                self.assertIn("they begin with sm_100", skipped[name])
            far = {name for name in skipped if "no NUMA node farther" in skipped[name]}
            self.assertEqual(set(skipped) - far, names, skipped)
            self.assertEqual(len(run.cases("ok")) + len(skipped), len(run.result["cases"]))
            self.assertEqual(run.left, "")


class Repeats(unittest.TestCase):
    """The clock is virtual: neither the order nor the load of the machine shows."""

    def test_seeds(self):
        runs = [smoke(2, FAKE_SEED=str(seed)) for seed in (1, 2, 3)]
        for run in runs:
            self.assertEqual(run.code, 0, run.err)
        names = [name for name in runs[0].samples() if "gemm" not in name]
        for run in runs[1:]:
            for name in names:
                for one, other in zip(runs[0].samples()[name], run.samples()[name]):
                    self.assertEqual(len(one), len(other), name)
                    for a, b in zip(one, other):
                        self.assertAlmostEqual(a, b, delta=2e-9, msg=name)


class Gelu(unittest.TestCase):
    """Within the products or after them: what is faster, or as asked; the step trains alike."""

    def test_ways(self):
        with tempfile.NamedTemporaryFile("w", suffix=".ini") as suite:
            suite.write("[global]\nruns = 1\n[trainstep]\nmodel = tiny-gpt\n"
                        "gelu = auto,kernel,fused\n")
            suite.flush()
            run = Run(suite.name, 2, settings=QUICK)
        self.assertEqual(run.code, 0, run.err + run.out)
        for case in run.result["cases"]:
            self.assertEqual(case["status"], "ok", case["reason"])
            notes = case["runs"][0]["algorithm"].split("; ")
            self.assertEqual(notes[:2], ["tiny-gpt, 1 of 2 layers", "dp=2,zero=1"])
            self.assertEqual("gelu fused" in notes, "gelu=kernel" not in case["name"], notes)


class Fp8(unittest.TestCase):
    """Products of 8-bit floats: trained with where there are any, skipped where there are none."""

    def run_on(self, model):
        with tempfile.NamedTemporaryFile("w", suffix=".ini") as suite:
            suite.write("[global]\nruns = 1\n[trainstep]\nmodel = tiny,tiny-moe\ncompute = fp8\n")
            suite.flush()
            return Run(suite.name, 2, settings=QUICK, FAKE_MODELS=model)

    def test_trains(self):
        run = self.run_on("H200")
        self.assertEqual(run.code, 0, run.err + run.out)
        for case in run.result["cases"]:
            self.assertEqual(case["status"], "ok", case["reason"])
            self.assertIn("fp8", case["runs"][0]["algorithm"].split("; "))
            self.assertGreater(case["metrics"]["op_time.cast"]["value"], 0)
            self.assertNotIn("mfu_full", case["metrics"])

    def test_old_gpus(self):
        for case in self.run_on("A100").result["cases"]:
            self.assertEqual(case["status"], "skipped")
            self.assertIn("f8e4m3", case["reason"])


class Broken(unittest.TestCase):
    def one_bad(self, run, *words):
        """One case is marked, the others are well, and the exit code tells."""
        self.assertEqual(run.code, 5, run.err + run.out)
        bad = [case for case in run.result["cases"] if case["status"] != "ok"]
        self.assertEqual([case["status"] for case in bad], ["failed"], run.out)
        for word in words:
            self.assertIn(word, bad[0]["reason"])
        return bad[0]["name"]

    def test_mixed_machine(self):
        run = smoke(2, "--only", "gemm", FAKE_MODELS="H200,H100")
        self.assertEqual(run.code, 0, run.err)
        names = [device["name"] for device in run.result["devices"]]
        self.assertEqual(names, ["NVIDIA H200 (fake)", "NVIDIA H100 80GB HBM3 (fake)"])
        self.assertIn("1 x NVIDIA H200 (fake), 1 x NVIDIA H100", run.out)

    def test_lost_gpu(self):
        run = smoke(2, FAKE_FAIL="1:cudaStreamQuery:40:719", FAKE_ONCE="FOLDER/once")
        self.one_bad(run, "rank 1", "cudaErrorLaunchFailure", "0000:43:00.0")

    def test_gpu_that_stays_lost(self):
        run = smoke(2, "--only", "membw", FAKE_FAIL="1:cudaMalloc:2:214")
        self.assertEqual(run.code, 5, run.err)
        self.assertEqual(len(run.cases("failed")), len(run.result["cases"]))
        for case in run.result["cases"]:
            self.assertIn("rank 1 failed while opening the device", case["reason"])
            self.assertIn("cudaErrorECCUncorrectable", case["reason"])

    def test_killed_rank(self):
        run = smoke(2, FAKE_KILL="1:ncclAllReduce:9", FAKE_ONCE="FOLDER/once")
        self.one_bad(run, "rank 1 died", "killed by signal 9")

    def test_hung_kernel(self):
        run = smoke(2, settings=["*.timeout=1s"], FAKE_HANG="1:kernel launch:12",
                    FAKE_ONCE="FOLDER/once")
        self.one_bad(run, "rank", "1", "not done after 1 s", "fake 0000:")

    def test_hung_call(self):
        run = smoke(2, settings=["*.timeout=1s"], FAKE_HANG="1:cudaEventCreate:60",
                    FAKE_ONCE="FOLDER/once")
        self.one_bad(run, "rank 1 gave no sign of life", "in setup of gemm")

    def test_dead_peer_that_nccl_does_not_notice(self):
        run = smoke(2, settings=["*.timeout=1s"], FAKE_KILL="1:ncclAllReduce:9",
                    FAKE_ONCE="FOLDER/once", FAKE_NCCL_DEATH="hang")
        self.one_bad(run, "rank 1 died")

    def test_no_gpu(self):
        rows = [({"FAKE_DRIVER": "none"}, "no NVIDIA driver is installed"),
                ({"FAKE_DRIVER": "11.4"}, "the NVIDIA driver is too old: it serves CUDA 11.4"),
                ({"FAKE_GPUS": "0"}, "no GPU that it serves")]
        for environment, words in rows:
            done = subprocess.run([PROGRAM, "run", "smoke", "--device", "fake"],
                                  env=dict(os.environ, **environment), capture_output=True,
                                  text=True, check=False, timeout=LIMIT_S)
            self.assertEqual(done.returncode, 77, done.stderr)
            self.assertIn(words, done.stderr)

    def test_old_nccl(self):
        run = smoke(2, "--only", "launch", FAKE_NCCL_VERSION="21805")
        self.assertEqual(run.code, 5, run.err)
        self.assertIn("NCCL 2.18.5", run.result["cases"][0]["reason"])

    def test_nccl_without_all_to_all(self):
        run = smoke(2, "--only", "collective:op=all_to_all*", FAKE_NCCL_VERSION="22705")
        self.assertEqual(run.code, 0, run.err)
        self.assertEqual(len(run.cases("ok")), 2)
        self.assertIn("before 2.28.9", run.err)

    def attention(self, *settings, ranks=2, **environment):
        """A training step: its label, and the times of both attentions."""
        run = smoke(ranks, "--only", "trainstep", settings=["trainstep.dtype=bf16", *settings],
                    **environment)
        self.assertIn(run.code, (0, 77), run.err + run.out)
        self.assertEqual(run.left, "")
        case = run.result["cases"][0]
        times = [case["metrics"].get("attention_time." + by, {}).get("value")
                 for by in ("own", "cudnn")]
        label = case["runs"][0]["algorithm"] if case["runs"] else None
        return case, label, times

    def test_faster_attention(self):
        case, label, (own, library) = self.attention()
        if "built without cuDNN" in label:
            self.skipTest("no cuDNN's headers")
        self.assertEqual(case["status"], "ok", case["reason"])
        self.assertIn("; attention by cuDNN 9.", label)
        self.assertLess(library, own)
        case, label, (own, library) = self.attention(FAKE_CUDNN="late=50")
        self.assertEqual(case["status"], "ok", case["reason"])
        self.assertIn("; own attention, faster than cuDNN 9.", label)
        self.assertLess(own, library)
        case, label, times = self.attention("trainstep.attention=cudnn", FAKE_CUDNN="late=50")
        self.assertIn("; attention by cuDNN 9.", label)
        case, label, times = self.attention("trainstep.attention=own")
        self.assertEqual(times, [None, None])
        self.assertNotIn("cuDNN", label)

    def test_no_faster_attention(self):
        """Whatever is missing or fails, the step goes on with its own."""
        rows = [({"FAKE_CUDNN": "none"}, "libcudnn.so.9: cannot open"),
                ({"FAKE_CUDNN": "version=90501"}, "this is cuDNN 9.5.1"),
                ({"FAKE_CUDNN": "version=91001"}, "cuDNN 9.10.1 has errors"),
                ({"FAKE_CUDNN": "lacks=cudnnSetStream"}, "has no cudnnSetStream"),
                ({"FAKE_CUDNN": "refuses=99"}, "this plan is refused"),
                ({"FAKE_CUDNN": "workspace=99999999999"}, "no room for cuDNN's workspace of 99"),
                ({"FAKE_FAIL": "1:cudnnCreate:1"}, "cudnnCreate: CUDNN_STATUS_INTERNAL_ERROR"),
                ({"FAKE_FAIL": "0:cudnnBackendExecute:2"}, "cudnnBackendExecute: CUDNN_STATUS_EX")]
        if "built without cuDNN" in self.attention(ranks=1)[1]:
            self.skipTest("no cuDNN's headers")
        for environment, words in rows:
            case, label, times = self.attention(ranks=1 + ("FAKE_FAIL" in environment),
                                                **environment)
            self.assertEqual(case["status"], "ok", case["reason"])
            self.assertIn("; own attention: ", label)
            self.assertIn(words, label)
            self.assertEqual(times, [None, None])

    def test_attention_that_is_asked_for(self):
        case, label, times = self.attention("trainstep.attention=cudnn", "trainstep.dtype=f32")
        self.assertEqual(case["status"], "skipped")
        self.assertIn("attention = cudnn: ", case["reason"])

    def test_hung_attention(self):
        run = smoke(2, "--only", "trainstep", settings=["*.timeout=1s", "trainstep.dtype=bf16"],
                    FAKE_HANG="1:cudnnBackendExecute:1", FAKE_ONCE="FOLDER/once")
        if run.code == 0 and "built without cuDNN" in run.result["cases"][0]["runs"][0]["algorithm"]:
            self.skipTest("no cuDNN's headers")
        self.one_bad(run, "gave no sign of life", "in setup of trainstep")

    def test_throttled(self):
        run = smoke(1, "--only", "gemm", FAKE_NVML="reasons=4,clock=1200,lacks=nvmlDeviceGetRemappedRows")
        self.assertEqual(run.code, 0, run.err)
        telemetry = run.result["cases"][0]["runs"][0]["telemetry"][0]
        self.assertEqual(telemetry["throttled_fraction"], 1)
        self.assertIn("power cap", telemetry["throttle_reasons"])
        self.assertEqual(telemetry["clock"], 1.2e9)
        self.assertIsNone(telemetry.get("remapped_rows"))


class MissingWait(unittest.TestCase):
    """overlap without one of its two waits."""

    def overlap(self, **environment):
        return smoke(2, "--only", "overlap", settings=["overlap.m=256", "overlap.n=256",
                                                       "overlap.k=256", "overlap.max_iterations=20",
                                                       "overlap.min_iterations=20"], **environment)

    def test_all_waits(self):
        run = self.overlap()
        self.assertEqual(run.code, 0, run.err)

    def test_join(self):
        run = self.overlap(FAKE_DROP_WAIT="0")
        self.assertEqual(run.code, 5)
        self.assertIn("did not wait for it", run.result["cases"][0]["reason"])

    def test_fork(self):
        run = self.overlap(FAKE_DROP_WAIT="1")
        self.assertEqual(run.code, 5)
        self.assertIn("did not wait for its iteration", run.result["cases"][0]["reason"])


class TrainingOverlap(unittest.TestCase):
    """A training step on GPUs whose links and products are slow. The clock is virtual, so the
    figures are those of the schedule alone."""

    def step(self, plan, sequence, overlap):
        run = Run(os.path.join(CONFIGS, "smoke.ini"), 2, "--only", "trainstep",
                  settings=QUICK + [f"trainstep.plan={plan}", "trainstep.layers=2",
                                    "trainstep.bucket=1", f"trainstep.sequence={sequence}",
                                    f"trainstep.overlap={overlap}"], FAKE_MODELS="SLOW")
        self.assertEqual(run.code, 0, run.err + run.out)
        return {name: metric["value"] for name, metric in
                run.result["cases"][0]["metrics"].items()}

    def check(self, plan):
        before = None
        for sequence in (16, 32):
            on, off = (self.step(plan, sequence, overlap) for overlap in ("on", "off"))
            exposed, comm = on["exposed_comm_time"], on["comm_time"]
            hidden = on["hidden_fraction"] * comm
            text = f"{plan}, sequence {sequence}: {on}, without overlap {off}"
            self.assertGreater(hidden, comm / 3, text)
            # What is hidden is what it costs to hide nothing.
            self.assertAlmostEqual(hidden, comm - exposed, delta=1e-9, msg=text)
            self.assertAlmostEqual(off["step_time"] - on["step_time"], hidden, delta=0.2 * hidden,
                                   msg=text)
            self.assertLess(abs(off["hidden_fraction"]), 0.05, text)
            # Leaving it out and looking at the waits tell the same where nothing competes.
            self.assertAlmostEqual(on["exposed_comm_time.waits"], exposed, delta=0.05 * exposed,
                                   msg=text)
            if before is not None:  # more work, the same messages
                self.assertAlmostEqual(comm, before["comm_time"], delta=0.01 * comm, msg=text)
                self.assertGreater(on["time.no_comm"], 1.5 * before["time.no_comm"], text)
                self.assertLess(exposed, 0.95 * before["exposed_comm_time"], text)
            before = on

    def test_all_reduce(self):
        self.check("dp=2")

    def test_sharded(self):
        self.check("dp=2,zero=1")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[3:], verbosity=2)
