#!/usr/bin/env python3
"""The recipes of configs/launch, as far as one machine without a cluster can run them.
Usage: test_recipes.py PROGRAM CONFIGS

mpirun-hostfile.sh is executed, and so are the containers' commands of the two Kubernetes recipes, as
processes with the environment that the kubelet, the job controller and the MPI operator would give.
The providers' files are sourced by a shell that stops at every error, with the folders that they look
for made here. What is left out says why.
"""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

from ports import free_port

try:
    import yaml
except ImportError:
    yaml = None

PROGRAM, CONFIGS = (os.path.abspath(path) for path in sys.argv[1:3])
LAUNCH = os.path.join(CONFIGS, "launch")
SUITE = """[global]
runs = 1
warmup_time = 1ms
warmup_iterations = 1
min_time = 1ms
min_iterations = 3
max_time = 50ms
timeout = 60s
[one]
workload = collective
size = 1KiB
"""
PREFIXES = ("NCCL_", "CUDA_", "OMP_", "FI_", "UCX_", "OMPI_MCA_")
ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMPI_MCA_rmaps_base_oversubscribe": "1"}
END_S = 150


def clean_environment(**more):
    kept = ("PATH", "HOME", "TMPDIR", "LANG", "ASAN_OPTIONS", "TSAN_OPTIONS", "LSAN_OPTIONS")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    environment.update(more)
    return environment


def expand(text, environment):
    """$(NAME) in a container's command, as the kubelet does it."""
    return re.sub(r"\$\((\w+)\)", lambda found: environment.get(found[1], found[0]), text)


def result_in(log):
    """The result that follows a report in a log."""
    decoder = json.JSONDecoder()
    at = log.index('{"schema"')
    return decoder.raw_decode(log[at:])[0]


class Recipes(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="cm-recipes-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.suite = self.write("one.ini", SUITE)
        # The name under which the recipes call the program.
        os.mkdir(self.path("bin"))
        self.write("bin/clustermark", f'#!/bin/sh\nexec "{PROGRAM}" "$@"\n', 0o755)
        self.search = self.path("bin") + os.pathsep + os.environ["PATH"]

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text, mode=0o644):
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(self.path(name), mode)
        return self.path(name)

    def run_command(self, words, environment, code=0):
        done = subprocess.run(words, cwd=self.folder, env=environment, text=True, timeout=END_S,
                              capture_output=True, check=False)
        self.assertEqual(done.returncode, code, f"{words}\n{done.stdout}\n{done.stderr}")
        return done

    def source(self, name, **environment):
        """The variables that a file sets, by a shell that takes no error and no unset name."""
        command = f'set -eu; cd "{LAUNCH}"; . ./{name}; env -0'
        given = clean_environment(**environment)
        done = subprocess.run(["sh", "-c", command], env=given, text=True, capture_output=True,
                              check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stderr, "")
        after = dict(entry.split("=", 1) for entry in done.stdout.split("\0") if entry)
        return {name: value for name, value in after.items()
                if given.get(name) != value and name not in ("PWD", "OLDPWD", "_", "SHLVL")}

    def refused(self, name, part, **environment):
        command = f'set -eu; cd "{LAUNCH}"; . ./{name}; echo went on'
        done = subprocess.run(["sh", "-c", command], env=clean_environment(**environment), text=True,
                              capture_output=True, check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(done.stdout, "")
        self.assertIn(part, done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1)

    def check_variables(self, found, expected):
        for name, value in expected.items():
            self.assertEqual(found.get(name), value, name)
        for name in found:
            self.assertTrue(name.startswith(PREFIXES) or name == "LD_LIBRARY_PATH",
                            f"{name} is set, and a result would not tell of it")

    def test_shellcheck(self):
        if shutil.which("shellcheck") is None:
            self.skipTest("no shellcheck (apt-get install shellcheck)")
        for name in sorted(os.listdir(LAUNCH)):
            if name.endswith((".sh", ".sbatch")):
                shell = ["-s", "sh"] if name.startswith("env-") else []
                self.run_command(["shellcheck", *shell, os.path.join(LAUNCH, name)],
                                 clean_environment())

    def test_every_line_is_explained(self):
        """A variable of a provider has a comment above it, and the file its source with a date."""
        for name in sorted(os.listdir(LAUNCH)):
            if not name.startswith("env-"):
                continue
            with open(os.path.join(LAUNCH, name), encoding="utf-8") as file:
                lines = file.read().split("\n")
            self.assertRegex("\n".join(lines[:16]), r"Source: .*")
            self.assertRegex("\n".join(lines[:16]), r"20\d\d-\d\d-\d\d")
            for i, line in enumerate(lines):
                if re.match(r"\s*export [A-Z_]+=", line) and not line.lstrip().startswith(
                        "export LD_LIBRARY_PATH"):
                    self.assertRegex(lines[i - 1], r"^\s*#", f"{name}: {line}")

    def test_aws(self):
        self.refused("env-aws-efa.sh", "no ", EFA_ROOT=self.path("nowhere"))
        for folder in ("efa/lib", "ofi-nccl/lib/x86_64-linux-gnu"):
            os.makedirs(self.path("amazon/" + folder))
        found = self.source("env-aws-efa.sh", EFA_ROOT=self.path("amazon"))
        self.assertNotIn("EFA_ROOT", found)
        self.check_variables(found, {"NCCL_SOCKET_IFNAME": "en", "FI_EFA_USE_HUGE_PAGE": "0"})
        self.assertEqual(found["LD_LIBRARY_PATH"].split(":"), [
            self.path("amazon/ofi-nccl/lib/x86_64-linux-gnu"), self.path("amazon/ofi-nccl/lib"),
            self.path("amazon/efa/lib")])

    def test_azure(self):
        self.refused("env-azure.sh", "AZURE_TOPOLOGY", AZURE_TOPOLOGY=self.path("nowhere.xml"))
        topology = self.write("topo.xml", "<system/>")
        found = self.source("env-azure.sh", AZURE_TOPOLOGY=topology)
        self.check_variables(found, {
            "NCCL_TOPO_FILE": topology, "NCCL_IB_PCI_RELAXED_ORDERING": "1",
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID", "NCCL_NET_GDR_LEVEL": "5",
            "NCCL_SOCKET_IFNAME": "eth0"})

    def test_gcp(self):
        nowhere = {"GIB_ROOT": self.path("no-gib"), "TCPXO_LIB": self.path("no-tcpxo")}
        self.refused("env-gcp.sh", "neither", **nowhere)
        self.write("gib/scripts/set_nccl_env.sh", "export NCCL_NET=gIB\n")
        found = self.source("env-gcp.sh", **{**nowhere, "GIB_ROOT": self.path("gib")})
        self.check_variables(found, {"NCCL_NET": "gIB", "LD_LIBRARY_PATH": self.path("gib/lib64")})
        self.write("tcpxo/nccl-env-profile.sh", 'export NCCL_TUNER_PLUGIN="$NCCL_LIB_DIR/x"\n')
        found = self.source("env-gcp.sh", **{**nowhere, "TCPXO_LIB": self.path("tcpxo")})
        self.check_variables(found, {
            "NCCL_TUNER_PLUGIN": self.path("tcpxo/x"), "LD_LIBRARY_PATH": self.path("tcpxo"),
            "NCCL_FASTRAK_LLCM_DEVICE_DIRECTORY": "/dev/aperture_devices"})

    def test_oci(self):
        self.refused("env-oci.sh", "BM.GPU.H200.8")
        found = self.source("env-oci.sh", OCI_SHAPE="BM.GPU.H100.8")
        self.check_variables(found, {"NCCL_IB_GID_INDEX": "3", "NCCL_IB_TC": "41"})
        self.assertEqual(len(found["NCCL_IB_HCA"].split(",")), 16)
        found = self.source("env-oci.sh", OCI_SHAPE="BM.GPU.H200.8")
        self.assertEqual(len(found["NCCL_IB_HCA"].split(",")), 8)

    def mpirun(self):
        if shutil.which("mpirun") is None:
            self.skipTest("no mpirun (apt-get install openmpi-bin)")

    def test_mpirun_hostfile(self):
        """Two ranks of this machine; a provider's variables reach them and the result."""
        self.mpirun()
        hosts = self.write("hosts", "# the only machine\n\nlocalhost slots=2\n")
        environment = clean_environment(**ROOT, CLUSTERMARK=PROGRAM, OCI_SHAPE="BM.GPU.H200.8",
                                        CLUSTERMARK_ENV="env-oci.sh", NCCL_DEBUG="WARN")
        script = os.path.join(LAUNCH, "mpirun-hostfile.sh")
        self.run_command([script, hosts, "2", self.suite, "-o", self.path("r.json")], environment)
        with open(self.path("r.json"), encoding="utf-8") as file:
            result = json.load(file)
        self.assertEqual((result["ranks"], result["ending"]), (2, "complete"))
        self.assertEqual(result["cases"][0]["status"], "ok")
        self.assertEqual(result["environment"]["NCCL_IB_TC"], "41")
        self.assertEqual(result["environment"]["NCCL_DEBUG"], "WARN")

    def test_mpirun_hostfile_refuses(self):
        script = os.path.join(LAUNCH, "mpirun-hostfile.sh")
        environment = clean_environment()
        done = self.run_command([script], environment, 64)
        self.assertIn("usage", done.stderr)
        empty = self.write("empty", "# none\n")
        done = self.run_command([script, empty, "2"], environment, 64)
        self.assertIn("no machine", done.stderr)
        hosts = self.write("hosts", "localhost\n")
        environment["CLUSTERMARK_ENV"] = "env-oci.sh"  # without its shape
        done = self.run_command([script, hosts, "2"], environment, 64)
        self.assertIn("OCI_SHAPE", done.stderr)

    def documents(self, name):
        if yaml is None:
            self.skipTest("no module yaml (apt-get install python3-yaml)")
        with open(os.path.join(LAUNCH, name), encoding="utf-8") as file:
            return list(yaml.safe_load_all(file))

    @staticmethod
    def container(pod):
        return pod["spec"]["containers"][0]

    def environment_of(self, container, **given):
        """A container's variables; what is `given` stands for what differs here."""
        environment = clean_environment(PATH=self.search)
        environment.update({row["name"]: row["value"] for row in container["env"]})
        environment.update(given)
        return environment

    @staticmethod
    def words_of(container, environment):
        return [expand(word, environment)
                for word in container["command"] + container.get("args", [])]

    def test_indexed_job(self):
        self.mpirun()
        service, job = self.documents("indexed-job.yaml")
        spec, pod = job["spec"], job["spec"]["template"]
        container = self.container(pod)
        values = {row["name"]: row["value"] for row in container["env"]}
        name, subdomain = job["metadata"]["name"], pod["spec"]["subdomain"]
        # What must fit together on a cluster.
        self.assertEqual(service["metadata"]["name"], subdomain)
        self.assertEqual(service["spec"]["selector"], {"job-name": name})
        self.assertEqual(service["spec"]["clusterIP"], "None")
        self.assertEqual(values["MASTER_ADDR"], f"{name}-0.{subdomain}")
        self.assertEqual(spec["completionMode"], "Indexed")
        self.assertEqual(spec["completions"], spec["parallelism"])
        self.assertEqual(int(values["WORLD_SIZE"]),
                         spec["completions"] * int(values["LOCAL_WORLD_SIZE"]))
        self.assertEqual(container["resources"]["limits"]["nvidia.com/gpu"],
                         int(values["LOCAL_WORLD_SIZE"]))
        mounts = {row["name"] for row in container["volumeMounts"]}
        self.assertEqual(mounts, {row["name"] for row in pod["spec"]["volumes"]})
        # Two pods of one rank each, and one of two: several of several would need a /dev/shm each,
        # which pods have.
        self.run_pods(container, pods=2, local=1)
        self.run_pods(container, pods=1, local=2)

    def run_pods(self, container, pods, local):
        port, running = str(free_port()), []
        path = self.path(f"job-{pods}.json")
        for index in range(pods):
            environment = self.environment_of(
                container, JOB_COMPLETION_INDEX=str(index), LOCAL_WORLD_SIZE=str(local),
                WORLD_SIZE=str(pods * local), MASTER_ADDR="localhost", MASTER_PORT=port,
                CLUSTERMARK_SUITE=self.suite, CLUSTERMARK_RESULT=path)
            running.append(subprocess.Popen(
                self.words_of(container, environment), cwd=self.folder, env=environment, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
        logs = [pod.communicate(timeout=END_S)[0] for pod in running]
        self.assertEqual([pod.returncode for pod in running], [0] * pods, logs)
        result = result_in(logs[0])
        self.assertEqual((result["ranks"], result["ending"]), (pods * local, "complete"))
        for log in logs[1:]:
            self.assertNotIn('{"schema"', log)

    def test_mpijob(self):
        self.mpirun()
        (job,) = self.documents("mpijob.yaml")
        replicas = job["spec"]["mpiReplicaSpecs"]
        launcher = self.container(replicas["Launcher"]["template"])
        worker = self.container(replicas["Worker"]["template"])
        values = {row["name"]: row["value"] for row in launcher["env"]}
        self.assertEqual(int(values["RANKS"]),
                         replicas["Worker"]["replicas"] * job["spec"]["slotsPerWorker"])
        self.assertEqual(worker["resources"]["limits"]["nvidia.com/gpu"],
                         job["spec"]["slotsPerWorker"])
        self.assertEqual(worker["image"], launcher["image"])
        # The operator's host file and variables, for the launcher alone.
        hosts = self.write("hostfile", "localhost slots=2\n")
        environment = self.environment_of(
            launcher, RANKS="2", CLUSTERMARK_SUITE=self.suite,
            CLUSTERMARK_RESULT=self.path("mpi.json"), OMPI_MCA_orte_default_hostfile=hosts,
            OMPI_MCA_orte_keep_fqdn_hostnames="true",
            OMPI_MCA_plm_rsh_args="-o ConnectionAttempts=10", **ROOT)
        done = self.run_command(self.words_of(launcher, environment), environment)
        result = result_in(done.stdout)
        self.assertEqual((result["ranks"], result["ending"]), (2, "complete"))

    def test_dockerfile(self):
        """What can be seen without building: names of images are arguments, and what is copied,
        built and installed is there."""
        with open(os.path.join(LAUNCH, "Dockerfile"), encoding="utf-8") as file:
            text = file.read()
        instructions = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", text))
        images = re.findall(r"(?m)^FROM\s+(\S+)", instructions)
        self.assertEqual(images, ["${CUDA_IMAGE}"])
        self.assertRegex(instructions, r"(?m)^ARG CUDA_IMAGE$")
        top = os.path.dirname(CONFIGS)
        if os.path.exists(os.path.join(top, "bootstrap")):
            self.assertIn("./bootstrap build", instructions)
            with open(os.path.join(top, "bootstrap"), encoding="utf-8") as file:
                self.assertIn("build/release", file.read())
        for recipe in ("indexed-job.yaml", "mpijob.yaml"):
            with open(os.path.join(LAUNCH, recipe), encoding="utf-8") as file:
                self.assertIn("image: clustermark:latest", file.read())


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[3:], verbosity=2)
