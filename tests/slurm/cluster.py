"""A Slurm of its own on this machine: munged, slurmctld and several slurmd, in a folder of its own.

    with Cluster(4) as cluster:
        cluster.run("srun", "-N", "4", "hostname")

Each slurmd is a node cm0, cm1 ... in namespaces of its own: of mounts, since PMIx's folders in /tmp
and MPI's shared memory have the same names on all nodes of a job, and of processes, so that nothing of a job can stay behind.
The system's own Slurm and munge are not touched. `why_not()` says what is missing.
"""
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "scontrol", "unshare", "mount")
PR_SET_PDEATHSIG = 1

CONFIGURATION = """
ClusterName=clustermark
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdPidFile={folder}/%n.pid
SlurmdLogFile={folder}/%n.log
SlurmdSpoolDir={folder}/%n.spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
SelectType=select/linear
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
KillWait=5
NodeName={nodes} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports} CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""

# In the node's namespaces: /dev/shm and /tmp of its own, in which the folders named behind stay as they were.
NODE = """
set -e
own=$1; was=$2; shift 2
mount --make-rprivate /
mount --bind /tmp "$was"
mount --bind "$own" /tmp
mount -t tmpfs tmpfs /dev/shm
while [ "$1" != -- ]; do
    mkdir -p "/tmp/$1"
    mount --bind "$was/$1" "/tmp/$1"
    shift
done
shift
exec "$@"
"""


def end_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="utf-8") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for sock in sockets:
        sock.bind(("127.0.0.1", 0))
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


def why_not():
    """Why there can be no such cluster here; None where there can."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if missing:
        return f"no {', '.join(missing)} here (Debian: slurm-wlm, munge)"
    if os.geteuid() != 0:
        return "Slurm's daemons and namespaces need root"
    probe = subprocess.run(["unshare", "--mount", "--pid", "--fork", "--mount-proc", "true"],
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return None if probe.returncode == 0 else f"no namespaces: {probe.stdout.strip()}"


class Cluster:
    """Nodes cm0, cm1, ...; `keep` are paths that jobs must see even if they are below /tmp."""

    def __init__(self, nodes, keep=(), cpus=2):
        self.nodes, self.cpus, self.keep = nodes, cpus, list(keep)
        self.daemons = []
        self.folder = None
        self.env = None

    def __enter__(self):
        self.folder = tempfile.mkdtemp(prefix="cm-slurm-", dir="/var/tmp")
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for daemon in reversed(self.daemons):
            # The first process of the namespace, with which all others go; then unshare ends too.
            for child in children(daemon.pid):
                os.kill(child, signal.SIGKILL)
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def daemon(self, name, *words):
        with open(self.path(f"{name}.out"), "w", encoding="utf-8") as out:
            self.daemons.append(subprocess.Popen(
                ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", *words],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=self.env,
                preexec_fn=end_with_parent, start_new_session=True))

    def start(self):
        os.chmod(self.folder, 0o755)
        host = socket.gethostname().split(".")[0]
        ports = free_ports(1 + self.nodes)
        names = [f"cm{i}" for i in range(self.nodes)]
        with open(self.path("slurm.conf"), "w", encoding="utf-8") as file:
            file.write(CONFIGURATION.format(
                host=host, port=ports[0], folder=self.folder, cpus=self.cpus,
                nodes=",".join(names), ports=",".join(map(str, ports[1:]))))
        with open(self.path("cgroup.conf"), "w", encoding="utf-8") as file:
            file.write("CgroupAutomount=no\n")
        with open(self.path("munge.key"), "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(os.urandom(1024))
        os.mkdir(self.path("state"))
        self.env = {key: value for key, value in os.environ.items()
                    if not key.startswith(("SLURM_", "PMI", "OMPI_COMM_", "CLUSTERMARK_"))}
        self.env["SLURM_CONF"] = self.path("slurm.conf")
        self.env["PATH"] = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
        self.daemon("munged", "munged", "--foreground", "--force", "--num-threads=4",
                    *(f"--{what}={self.path(f'munge.{end}')}" for what, end in
                      (("socket", "sock"), ("key-file", "key"), ("log-file", "log"),
                       ("pid-file", "pid"), ("seed-file", "seed"))))
        self.until(lambda: os.path.exists(self.path("munge.sock")), "munged's socket")
        self.daemon("slurmctld", "slurmctld", "-D")
        tops = sorted({path.split("/")[2] for path in map(os.path.realpath, self.keep)
                       if path.startswith("/tmp/")})
        for name in names:
            for folder in (f"{name}.tmp", f"{name}.was", f"{name}.spool"):
                os.mkdir(self.path(folder))
            os.chmod(self.path(f"{name}.tmp"), 0o1777)
            self.daemon(name, "sh", "-c", NODE, "node", self.path(f"{name}.tmp"),
                        self.path(f"{name}.was"), *tops, "--", "slurmd", "-D", "-N", name)
        self.until(self.all_idle, "idle nodes")

    def all_idle(self):
        told = self.run("sinfo", "--noheader", "--format=%D %t", check=False)
        return told.stdout.split() == [str(self.nodes), "idle"]

    def until(self, what, name, seconds=60):
        end = time.monotonic() + seconds
        while not what():
            gone = [daemon.args for daemon in self.daemons if daemon.poll() is not None]
            if gone or time.monotonic() > end:
                raise RuntimeError(f"no {name}: {'a daemon ended; ' if gone else ''}{self.logs()}")
            time.sleep(0.1)

    def logs(self):
        """The ends of all logs, for messages."""
        texts = []
        for name in sorted(os.listdir(self.folder)):
            if name.endswith((".log", ".out")):
                with open(self.path(name), encoding="utf-8", errors="replace") as file:
                    texts.append(f"--- {name}\n{file.read()[-1500:]}")
        return "\n".join(texts)

    def run(self, *words, seconds=300, check=True, cwd=None, **variables):
        done = subprocess.run(words, cwd=cwd or self.folder, env={**self.env, **variables},
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, timeout=seconds, check=False)
        if check and done.returncode != 0:
            raise RuntimeError(f"{' '.join(words)}: exit {done.returncode}\n{done.stdout}"
                               f"{done.stderr}")
        return done
