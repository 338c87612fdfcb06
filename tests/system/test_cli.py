#!/usr/bin/env python3
"""The command line of the built program. Usage: test_cli.py PROGRAM CONFIGS

Bad input gets one line on stderr, the right exit code, and leaves nothing behind. Good input gives
data on stdout, the result's path as the last line on stderr, and a file that says the same. What
cannot be written is an error. Under mpirun the program is a rank of that world.
"""
import glob
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

PROGRAM, CONFIGS = (os.path.abspath(path) for path in sys.argv[1:3])
TINY = """[global]
runs = 1
warmup_time = 0.01s
min_time = 0.02s
max_time = 0.1s
max_iterations = 200
[products]
workload = gemm
m = 32
n = 32
k = 32
[memory]
workload = membw
op = copy,triad
size = 256KiB
[launch]
"""
PEERS = TINY + """[allreduce]
workload = collective
size = 1KiB,64KiB
"""
HWLOC_WITHOUT_GPUS = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE topology SYSTEM "hwloc2.dtd">
<topology version="2.0">
  <object type="Machine" os_index="0" cpuset="0x00000001" complete_cpuset="0x00000001"
   allowed_cpuset="0x00000001" nodeset="0x00000001" complete_nodeset="0x00000001"
   allowed_nodeset="0x00000001" gp_index="1">
    <object type="Package" os_index="0" cpuset="0x00000001" complete_cpuset="0x00000001"
     nodeset="0x00000001" complete_nodeset="0x00000001" gp_index="3">
      <object type="NUMANode" os_index="0" cpuset="0x00000001" complete_cpuset="0x00000001"
       nodeset="0x00000001" complete_nodeset="0x00000001" gp_index="4" local_memory="1073741824"/>
      <object type="Core" os_index="0" cpuset="0x00000001" complete_cpuset="0x00000001"
       nodeset="0x00000001" complete_nodeset="0x00000001" gp_index="2">
        <object type="PU" os_index="0" cpuset="0x00000001" complete_cpuset="0x00000001"
         nodeset="0x00000001" complete_nodeset="0x00000001" gp_index="5"/>
      </object>
    </object>
  </object>
</topology>
"""


class InFolder(unittest.TestCase):
    """Each test has an empty folder with a few suites, and looks at all that is there."""

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="cm-cli-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.write("tiny.ini", TINY)
        self.write("peers.ini", PEERS)
        self.write("empty.ini", "")
        self.write("file", "")
        with open(os.path.join(self.folder, "binary.ini"), "wb") as file:
            file.write(bytes(range(256)) * 8)
        os.mkdir(os.path.join(self.folder, "folder.ini"))
        self.write("good.xml", HWLOC_WITHOUT_GPUS)
        self.write("cut.xml", HWLOC_WITHOUT_GPUS[:700])

    def write(self, name, text):
        with open(os.path.join(self.folder, name), "w") as file:
            file.write(text)

    def environment(self, **changes):
        env = {key: value for key, value in os.environ.items()
               if not re.match(r"OMPI_|PMI|SLURM_|RANK$|WORLD_SIZE$|LOCAL_RANK$|NO_COLOR$|COLUMNS$",
                               key)}
        env.update(LC_ALL="C.UTF-8", OMPI_ALLOW_RUN_AS_ROOT="1",
                   OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
        env.update(changes)
        return env

    def run_program(self, *words, stdout=subprocess.PIPE, before=(), **changes):
        return subprocess.run([*before, PROGRAM, *words], cwd=self.folder, stdout=stdout,
                              stderr=subprocess.PIPE, text=True, timeout=100,
                              env=self.environment(**changes))

    def files(self):
        return sorted(os.path.relpath(path, self.folder) for path in
                      glob.glob(os.path.join(self.folder, "**"), recursive=True, include_hidden=True)
                      ) if sys.version_info >= (3, 11) else sorted(
            os.path.relpath(os.path.join(where, name), self.folder)
            for where, folders, names in os.walk(self.folder) for name in folders + names)

    def load(self, name):
        with open(os.path.join(self.folder, name)) as file:
            return json.load(file)


class BadInput(InFolder):
    def refuse(self, code, pattern, *words, **changes):
        before = self.files()
        done = self.run_program(*words, **changes)
        with self.subTest(words=words):
            self.assertEqual(done.returncode, code, done.stderr)
            self.assertRegex(done.stderr, r"\Aclustermark: [^\n]+\n\Z")
            self.assertRegex(done.stderr, pattern)
            self.assertEqual(done.stdout, "")
            self.assertEqual(self.files(), before)

    def test_commands(self):
        self.refuse(64, "no command given")
        self.refuse(64, "did you mean run", "rnu")
        self.refuse(64, "unknown command 'frobnicate'", "frobnicate")
        self.refuse(64, "unknown command '--nonsense'", "--nonsense")
        self.refuse(64, "did you mean --ranks", "run", "--rank", "2")
        self.refuse(64, "unknown option -x", "run", "-x")
        self.refuse(64, "needs a value", "run", "--ranks")
        self.refuse(64, "takes no value", "run", "--json=yes")
        self.refuse(64, "unexpected argument 'b'", "run", "tiny.ini", "b")
        self.refuse(64, "no such list", "list", "everything")
        self.refuse(64, "did you mean gemm", "help", "gemn")
        self.refuse(64, "no command or workload", "help", "frobnicate")
        self.refuse(64, ".", "rank")

    def test_numbers(self):
        for value in ("0", "-1", "abc", "1e9", "1.5", "", "99999999999999999999"):
            self.refuse(64, "--ranks", "run", "tiny.ini", "--ranks", value)
            self.refuse(64, "--runs", "run", "tiny.ini", "--runs", value)
        for value in ("abc", "0", "-5s", "5 parsecs", "nan", "inf"):
            self.refuse(64, "--budget", "run", "tiny.ini", "--budget", value)
        self.refuse(64, "--color", "run", "tiny.ini", "--color", "mauve")

    def test_suites(self):
        self.refuse(64, "missing.ini", "run", "missing.ini")
        self.refuse(64, "no suite 'missing'", "run", "missing")
        self.refuse(64, "folder", "run", "folder.ini")
        self.refuse(64, "empty.ini", "run", "empty.ini")
        self.refuse(64, "binary.ini", "run", "binary.ini")
        self.refuse(64, "name too long|No such file|not", "run", "x" * 5000 + ".ini")
        self.refuse(64, "nothing-like-this", "run", "tiny.ini", "--only", "nothing-like-this")

    def test_settings(self):
        for setting, pattern in (
                ("products.workload=gemn", "did you mean gemm"),
                ("products.dtpye=f32", "did you mean dtype"),
                ("products.dtype=f31", "dtype"),
                ("prodcts.m=1", "prodcts"),
                ("products.batch=0", "batch"),
                ("products.m=abc", "m"),
                ("products.m=4294967296000000000", "."),
                ("memory.size=3 parsecs", "size"),
                ("memory.size=5", "size"),
                ("memory.min_time=3kg", "min_time"),
                ("*.runs=0", "runs"),
                ("nonsense", "nonsense"),
                ("products.=1", "."),
                (".m=1", "."),
                ("products.m", ".")):
            self.refuse(64, pattern, "run", "tiny.ini", "--set", setting)
        big = [word for key in "mnk" for word in ("--set", f"products.{key}=2000000000000")]
        self.refuse(64, "products", "run", "tiny.ini", *big)

    def test_clusters(self):
        for setting, pattern in (("price=-1", "price '-1'"), ("pue=0.9", "of 1 or more"),
                                 ("mtbf_gpu_days=0", "above 0"), ("colour=red", "no 'colour'")):
            self.refuse(64, pattern, "project", "--cluster", "openai-aws", "--set", setting)
        self.refuse(64, "no cluster 'nowhere'", "project", "--cluster", "nowhere")
        self.refuse(64, "give one of --cluster", "project", "--gpus", "8")
        self.refuse(64, "needs --cluster", "project", "--model", "llama3-8b")
        self.refuse(64, "--set goes with", "project", "--fit", "runs.csv", "--set", "pue=1.1")
        done = self.run_program("project", "--cluster", "openai-aws", "--json")
        self.assertEqual(done.returncode, 0)
        document = json.loads(done.stdout)
        self.assertEqual([size["gpus"] for size in document["sizes"]], [200000, 300000, 500000])
        for name in ("goodput", "energy", "cost"):
            self.assertLess(document[name]["p10"], document[name]["p90"])

    def test_explain(self):
        settings = ("--only", "trainstep", "--set", "trainstep.plan=pp=2", "--set",
                    "trainstep.micro_batches=2")
        texts = []
        for explain in ("--explain", "--explain=1"):
            done = self.run_program("run", "smoke", explain, "--ranks", "2", *settings)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertRegex(done.stdout, r"\Atrainstep\ntiny, ")
            texts.append(done.stdout)
        self.assertIn(" send ", texts[0])
        self.assertIn("embed", texts[0])
        self.assertIn("cross_entropy", texts[1])
        self.assertNotIn("cross_entropy", texts[0])
        self.assertFalse(os.path.exists(os.path.join(self.folder, "results")))
        self.refuse(64, "ranks 0 to 1", "run", "smoke", "--explain=2", "--ranks", "2", *settings)
        self.refuse(64, "no rank", "run", "smoke", "--explain=first", *settings)
        self.refuse(64, "no case of trainstep", "run", "tiny.ini", "--explain")

    def test_results_that_cannot_be_written(self):
        for path in ("file/r.json", "no/such/folder/r.json", "/proc/r.json", "."):
            self.refuse(64, "cannot write", "run", "tiny.ini", "-o", path)

    def test_devices(self):
        self.refuse(64, "nonsense", "run", "tiny.ini", "--device", "nonsense")
        done = self.run_program("list", "devices", "--json")
        usable = {row["name"]: row["usable"] for row in json.loads(done.stdout)["devices"]}
        if not usable["cuda"]:
            self.refuse(77, "cuda", "run", "tiny.ini", "--device", "cuda")

    def test_launcher_missing(self):
        done = self.run_program("run", "tiny.ini", "--ranks", "2", "--only", "launch", "-o",
                                "r.json", PATH="/nowhere")
        if done.returncode == 0:
            self.assertEqual(self.load("r.json")["ranks"], 2)
            self.skipTest("the build's own mpirun is found without PATH")
        self.refuse(64, "mpirun", "run", "tiny.ini", "--ranks", "2", PATH="/nowhere")

    def test_launcher_disagrees(self):
        world = {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2",
                 "OMPI_COMM_WORLD_LOCAL_RANK": "0", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}
        self.refuse(64, "--ranks 3", "run", "tiny.ini", "--ranks", "3", **world)

    def test_machines(self):
        self.refuse(64, "cut.xml", "topo", "--xml", "cut.xml")
        self.refuse(64, "missing.xml", "topo", "--xml", "missing.xml")
        self.refuse(64, "binary.ini", "topo", "--xml", "binary.ini")
        done = self.run_program("topo", "--xml", "good.xml", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(json.loads(done.stdout)["gpus"], [])


class Help(InFolder):
    def test_texts(self):
        for words in (["--help"], ["-h"], ["help"], ["run", "--help"], ["help", "run"], ["run", "-h"],
                      ["list", "--help"], ["help", "list"], ["help", "topo"], ["--version"],
                      ["help", "gemm"], ["list"], ["list", "workloads", "-v"], ["topo", "--help"],
                      ["help", "compare"], ["gate", "--help"]):
            with self.subTest(words=words):
                done = self.run_program(*words)
                self.assertEqual((done.returncode, done.stderr), (0, ""))
                self.assertGreater(len(done.stdout), 10)
        self.assertNotIn("  rank ", self.run_program("--help").stdout)
        self.assertRegex(self.run_program("--version").stdout, r"\Aclustermark \d+\.\d+\.\d+")

    def test_every_option_of_a_workload_is_explained(self):
        lists = json.loads(self.run_program("list", "--json").stdout)
        self.assertTrue({"workloads", "devices", "communicators", "suites", "models",
                         "clusters"} <= set(lists))
        for workload in lists["workloads"]:
            text = self.run_program("help", workload["name"]).stdout
            for option in workload["options"]:
                self.assertIn(option["name"], text)
                self.assertIn(option["help"], text)

    def test_suites_of_this_folder_come_first(self):
        os.mkdir(os.path.join(self.folder, "configs"))
        self.write("configs/quick.ini", "# ours\n[launch]\n")
        self.write("configs/data.ini", "[no workload]\nkey = 1\n")
        self.write("configs/broken.ini", "[gemm]\nnonsense = 1\n")
        suites = json.loads(self.run_program("list", "suites", "--json").stdout)["suites"]
        mine = {suite["name"]: suite for suite in suites if suite["path"].startswith("configs/")}
        self.assertEqual(set(mine), {"quick", "broken"})
        self.assertEqual(mine["quick"]["summary"], "ours")
        self.assertIn("nonsense", mine["broken"]["summary"])
        self.assertEqual([suite["name"] for suite in suites].count("quick"), 1)

    def test_models(self):
        os.makedirs(os.path.join(self.folder, "configs", "models"))
        self.write("configs/models/mine.ini", "[model]\nlayers = 1\nhidden = 128\nheads = 2\n"
                   "ffn = 256\nvocabulary = 1000\nsequence = 64\n")
        self.write("configs/models/broken.ini", "[model]\nhidden = 7\n")
        models = json.loads(self.run_program("list", "models", "--json").stdout)["models"]
        rows = {model["name"]: model for model in models}
        # Its tables have 1000 rows, its block 4 h h + 3 h ffn and two norms, and there is one more.
        mine = 2 * 1000 * 128 + 4 * 128 * 128 + 3 * 128 * 256 + 3 * 128
        self.assertEqual((rows["mine"]["parameters"], rows["mine"]["layers"]), (mine, 1))
        self.assertEqual(rows["mine"]["path"], "configs/models/mine.ini")
        self.assertEqual(rows["mine"]["summary"], "0.42 million parameters, 1 layer")
        self.assertIsNone(rows["broken"]["parameters"])
        self.assertIn("broken.ini", rows["broken"]["summary"])
        self.assertEqual(rows["llama3-8b"]["parameters"], 8030261248)
        self.assertEqual(rows["llama3-8b"]["summary"], "8.03 billion parameters, 32 layers")
        text = self.run_program("list", "models").stdout
        self.assertRegex(text, r"(?m)^models$")
        self.assertRegex(text, r"(?m)^  gpt3-175b +17\d(\.\d)? billion parameters, 96 layers  \S+\.ini$")

    def test_clusters(self):
        os.makedirs(os.path.join(self.folder, "configs", "clusters"))
        self.write("configs/clusters/mine.ini", "[cluster]\ngpu = H100\nnetwork_rate = 25e9\n")
        self.write("configs/clusters/broken.ini", "[cluster]\ngpu = H900\n")
        clusters = json.loads(self.run_program("list", "clusters", "--json").stdout)["clusters"]
        rows = {cluster["name"]: cluster for cluster in clusters}
        self.assertEqual(rows["mine"]["summary"], "H100, 8 to a domain, 200 Gb/s of each to others")
        self.assertEqual(rows["mine"]["path"], "configs/clusters/mine.ini")
        self.assertIn("'H900' is not in configs/gpus.ini", rows["broken"]["summary"])
        self.assertIn("72 to a domain", rows["openai-aws"]["summary"])
        self.assertEqual(rows["GB200"]["path"], "")
        self.assertRegex(self.run_program("list", "clusters").stdout, r"(?m)^  hgx-h100 +H100, 8 ")

    def test_output_that_goes_nowhere(self):
        for words in (["--help"], ["--version"], ["list"], ["list", "--json"], ["help", "gemm"]):
            with self.subTest(words=words), open("/dev/full", "w") as full:
                done = self.run_program(*words, stdout=full)
                self.assertEqual(done.returncode, 70)
                self.assertRegex(done.stderr, r"\Aclustermark: [^\n]*standard output[^\n]*\n\Z")
        closed = self.run_program("-c", 'exec "$0" "$@" >&-', PROGRAM, "list",
                                  before=["sh", "-c", 'shift; exec sh "$@"', "sh"])
        self.assertEqual(closed.returncode, 70, closed.stderr)


class Runs(InFolder):
    def test_one_rank(self):
        done = self.run_program("run", "tiny.ini", "--ranks", "1", "-o", "r.json")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stderr.splitlines()[-1], "r.json")
        self.assertRegex(done.stdout, r"verdict: fine; 4 ok\n\Z")
        self.assertIn("no interval: 1 run", done.stdout)
        self.assertTrue(all(len(line) <= 100 for line in done.stdout.splitlines()))
        self.assertNotIn("\033", done.stdout)
        result = self.load("r.json")
        self.assertEqual(result["ending"], "complete")
        self.assertEqual([case["status"] for case in result["cases"]], ["ok"] * 4)
        for case in result["cases"]:
            for run in case["runs"]:
                self.assertGreater(len(run["samples_s"]), 0)
                self.assertGreater(len(run["bindings"]), 0)
        self.assertEqual(result["suite"]["command"][0], "run")
        self.assertIn("packages", result["machine"])

    def test_default_path(self):
        done = self.run_program("run", "tiny.ini", "--ranks", "1", "--only", "launch")
        self.assertEqual(done.returncode, 0, done.stderr)
        path = done.stderr.splitlines()[-1]
        self.assertRegex(path, r"\Aresults/\d{8}T\d{6}Z-tiny\.json\Z")
        self.assertEqual(len(self.load(path)["cases"]), 1)

    def test_two_ranks(self):
        done = self.run_program("run", "peers.ini", "--ranks", "2", "-o", "r.json", "--only",
                                "allreduce", "--color", "always")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("\033[32m", done.stdout)
        result = self.load("r.json")
        run = result["cases"][0]["runs"][0]
        self.assertEqual(result["cases"][0]["ranks"], 2)
        self.assertEqual([len(samples) for samples in run["rank_samples_s"]],
                         [len(run["samples_s"])] * 2)
        for slowest, *ranks in zip(run["samples_s"], *run["rank_samples_s"]):
            self.assertEqual(slowest, max(ranks))
        self.assertEqual(set(result["sweeps"][0]["metrics"]) - {"half_peak_size"},
                         {"latency_small", "busbw_peak"})

    def test_interval(self):
        done = self.run_program("run", "tiny.ini", "--ranks", "1", "--runs", "6", "-o", "r.json",
                                "--only", "launch")
        self.assertEqual(done.returncode, 0, done.stderr)
        case = self.load("r.json")["cases"][0]
        self.assertEqual([run["run"] for run in case["runs"]], list(range(6)))
        metric = case["metrics"]["time"]
        self.assertLessEqual(metric["interval"]["low"], metric["value"])
        self.assertLessEqual(metric["value"], metric["interval"]["high"])
        self.assertGreaterEqual(metric["interval"]["coverage"], 0.95)
        self.assertRegex(done.stdout, "95 %: interval")

    def test_json_and_quiet(self):
        done = self.run_program("run", "tiny.ini", "--ranks", "1", "--only", "launch", "--json",
                                "-o", "r.json")
        self.assertEqual(json.loads(done.stdout), self.load("r.json"))
        done = self.run_program("run", "tiny.ini", "--ranks", "1", "--only", "launch", "--quiet",
                                "-o", "r.json")
        self.assertEqual(done.stdout, "verdict: fine; 1 ok\n")
        self.assertEqual(done.stderr, "r.json\n")

    def test_more_ranks_than_cores(self):
        ranks = len(os.sched_getaffinity(0)) + 1
        if ranks > 9:
            self.skipTest("too many cores here")
        done = self.run_program("run", "tiny.ini", "--ranks", str(ranks), "--only", "launch",
                                "-o", "r.json")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("oversubscribed", done.stderr)
        result = self.load("r.json")
        self.assertEqual(result["ranks"], ranks)
        bindings = result["cases"][0]["runs"][0]["bindings"]
        self.assertEqual([text.endswith(" batch") for text in bindings], [True] * ranks, bindings)

    def test_nothing_measured(self):
        done = self.run_program("run", "peers.ini", "--ranks", "1", "--only", "allreduce",
                                "-o", "r.json")
        self.assertEqual(done.returncode, 77, done.stderr)
        self.assertIn("nothing was measured", done.stderr)
        self.assertEqual({case["status"] for case in self.load("r.json")["cases"]}, {"skipped"})

    def test_report_that_cannot_be_written(self):
        with open("/dev/full", "w") as full:
            done = self.run_program("run", "tiny.ini", "--ranks", "1", "--only", "launch",
                                    "-o", "r.json", stdout=full)
        self.assertEqual(done.returncode, 70)
        self.assertIn("No space left", done.stderr)
        self.assertEqual(done.stderr.splitlines()[-1], "r.json")
        self.assertEqual(self.load("r.json")["ending"], "complete")

    def test_disk_full_in_the_middle(self):
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (12288, 12288))
        done = subprocess.run([PROGRAM, "run", "tiny.ini", "--ranks", "1", "-o", "r.json"],
                              cwd=self.folder, capture_output=True, text=True, timeout=100,
                              env=self.environment(), preexec_fn=limit)
        self.assertEqual(done.returncode, 70, done.stderr)
        self.assertIn("measuring goes on", done.stderr)
        self.assertIn("the result is not saved", done.stderr.splitlines()[-1])
        self.assertIn("verdict: fine; 4 ok", done.stdout)
        self.assertEqual(self.load("r.json")["ending"], "running")  # an older state, but whole
        self.assertEqual([name for name in self.files() if "tmp" in name], [])

    def test_budget(self):
        done = self.run_program("run", "tiny.ini", "--ranks", "1", "--runs", "1000", "--budget",
                                "2s", "-o", "r.json")
        self.assertEqual(done.returncode, 0, done.stderr)
        result = self.load("r.json")
        self.assertEqual(result["ending"], "budget")
        self.assertIn("ended early: budget", done.stdout)
        for case in result["cases"]:
            self.assertLess(len(case["runs"]), 1000)
            self.assertRegex(case["reason"], "of 1000 runs|budget")

    def test_host_names_only_when_asked_for(self):
        host = os.uname().nodename
        for words, shown in (([], False), (["--show-hosts"], True)):
            self.run_program("run", "tiny.ini", "--ranks", "1", "--only", "launch", "-o", "r.json",
                             *words)
            self.assertEqual(self.load("r.json")["machine"]["host"] == host, shown)

    def test_interrupted(self):
        slow = TINY + "[endless]\nworkload = gemm\nm = 512\nn = 512\nk = 512\nmin_time = 90s\n" \
                      "max_time = 95s\nmax_iterations = 1000000\n"
        self.write("slow.ini", slow)
        process = subprocess.Popen([PROGRAM, "run", "slow.ini", "--ranks", "1", "-o", "r.json"],
                                   cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   text=True, env=self.environment())
        path = os.path.join(self.folder, "r.json")
        deadline = time.monotonic() + 60
        finished = 0
        while finished < 4 and time.monotonic() < deadline:
            time.sleep(0.05)
            if os.path.exists(path):
                finished = len(self.load("r.json")["cases"])
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 130, stderr)
        result = self.load("r.json")
        self.assertEqual(result["ending"], "interrupted")
        self.assertEqual([case["status"] for case in result["cases"]], ["ok"] * 4 + ["skipped"])
        self.assertIn("ended early: interrupted", stdout)
        self.assertEqual(stderr.splitlines()[-1], "r.json")

    def test_under_mpirun(self):
        launcher = shutil.which("mpirun")
        if launcher is None:
            self.skipTest("no mpirun")
        done = self.run_program("run", "peers.ini", "-o", "r.json",
                                before=[launcher, "-n", "2", "--oversubscribe"])
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout.count("verdict: fine"), 1)
        self.assertEqual(done.stderr.count("r.json"), 1)
        result = self.load("r.json")
        self.assertEqual(result["ranks"], 2)
        self.assertFalse(result["suite"]["fresh_processes"])
        self.assertFalse([name for name in result["environment"] if "orte" in name])


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
