"""Pretend hosts on one machine: network namespaces, joined by a bridge and a veth pair each.

    with Hosts(4) as hosts:
        subprocess.run(hosts.mpirun(["clustermark", "run", "smoke"]))

Each host has a name and an address of its own and one link, which can be cut or limited. The bridge
is in a namespace of its own, the head, where mpirun runs as it would on a login node; the ranks get
to their hosts by an agent that takes ssh's place. Nothing of the machine's own network is touched.

Needs root and iproute2; `why_not()` says what is missing.
"""
import os
import shutil
import subprocess
import tempfile

NETWORK = "10.111.0"  # seen inside the namespaces only

# Called as ssh would be: the host's name, then words for a shell there.
AGENT = """#!/bin/sh
host=$1
shift
exec ip netns exec "{prefix}$host" unshare --uts sh -c 'hostname "$0"; exec sh -c "$1"' "$host" "$*"
"""


def tell(*words):
    done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: {done.stdout.strip()}")
    return done.stdout


def why_not():
    """Why there can be no such hosts here; None where there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for name in ("ip", "tc", "unshare"):
        if shutil.which(name) is None:
            return f"no {name} here (iproute2, util-linux)"
    probe = f"cm-probe-{os.getpid()}"
    try:
        tell("ip", "netns", "add", probe)
    except RuntimeError as error:
        return str(error)
    try:
        tell("ip", "-n", probe, "link", "add", "name", "probe0", "type", "bridge")
        tell("ip", "-n", probe, "link", "add", "name", "probe1", "type", "veth",
             "peer", "name", "probe2")
    except RuntimeError as error:
        return str(error)
    finally:
        tell("ip", "netns", "del", probe)
    return None


class Hosts:
    """Hosts h0, h1, ... Their processes are killed with them."""

    def __init__(self, count=4):
        self.names = [f"h{i}" for i in range(count)]
        self.prefix = f"cm-{os.getpid()}-"
        self.head = self.prefix + "head"
        self.made = []
        self.folder = tempfile.mkdtemp(prefix="cm-hosts-")
        self.agent = os.path.join(self.folder, "agent")
        try:
            self.write_agent()
            self.build()
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def namespace(self, host):
        return self.prefix + self.names[host]

    def address(self, host):
        return f"{NETWORK}.{host + 1}"

    def write_agent(self):
        with open(self.agent, "w", encoding="utf-8") as file:
            file.write(AGENT.format(prefix=self.prefix))
        os.chmod(self.agent, 0o755)

    def add(self, namespace):
        tell("ip", "netns", "add", namespace)
        self.made.append(namespace)
        tell("ip", "-n", namespace, "link", "set", "lo", "up")
        # A launcher hears of a cut link from TCP alone, after this many tries: 3 s, not 15 min.
        tell("ip", "netns", "exec", namespace, "sh", "-c",
             "echo 3 > /proc/sys/net/ipv4/tcp_retries2")

    def build(self):
        self.add(self.head)
        tell("ip", "-n", self.head, "link", "add", "net0", "type", "bridge")
        tell("ip", "-n", self.head, "addr", "add", f"{NETWORK}.254/24", "dev", "net0")
        tell("ip", "-n", self.head, "link", "set", "net0", "up")
        for i, name in enumerate(self.names):
            space = self.namespace(i)
            self.add(space)
            tell("ip", "-n", self.head, "link", "add", f"to-{name}", "type", "veth",
                 "peer", "name", "net0", "netns", space)
            tell("ip", "-n", self.head, "link", "set", f"to-{name}", "master", "net0", "up")
            tell("ip", "-n", space, "addr", "add", f"{self.address(i)}/24", "dev", "net0")
            tell("ip", "-n", space, "link", "set", "net0", "up")

    def pids(self, host=None):
        """Processes on a host, or on all hosts and the head."""
        spaces = [self.namespace(host)] if host is not None else list(self.made)
        return [int(pid) for space in spaces
                for pid in tell("ip", "netns", "pids", space).split()]

    def kill(self, host=None):
        for pid in self.pids(host):
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                pass

    def close(self):
        for space in self.made:
            for _ in range(50):  # what a process started meanwhile
                pids = [int(pid) for pid in tell("ip", "netns", "pids", space).split()]
                for pid in pids:
                    try:
                        os.kill(pid, 9)
                    except ProcessLookupError:
                        pass
                if not pids:
                    break
            tell("ip", "netns", "del", space)
        self.made = []
        shutil.rmtree(self.folder, ignore_errors=True)

    def cut(self, host):
        """Nothing gets in or out any more, and nobody is told."""
        tell("ip", "-n", self.head, "link", "set", f"to-{self.names[host]}", "down")

    def mend(self, host):
        tell("ip", "-n", self.head, "link", "set", f"to-{self.names[host]}", "up")

    def limit(self, host, rate, burst="64kb", latency="50ms"):
        """The host's link to `rate` ("1gbit"), out and in; None takes the limit away."""
        for space, link in ((self.namespace(host), "net0"),
                            (self.head, f"to-{self.names[host]}")):
            if rate is None:
                tell("tc", "-n", space, "qdisc", "del", "dev", link, "root")
            else:
                tell("tc", "-n", space, "qdisc", "replace", "dev", link, "root", "tbf",
                     "rate", rate, "burst", burst, "latency", latency)

    def on(self, host, words):
        """The command that runs `words` on a host (None: the head), under the host's name."""
        space, name = ((self.head, "head") if host is None
                       else (self.namespace(host), self.names[host]))
        return ["ip", "netns", "exec", space, "unshare", "--uts", "sh", "-c",
                'hostname "$0"; exec "$@"', name, *words]

    def mpirun(self, words, *options, ranks=None, on=None):
        """The command that starts `words` with mpirun (Open MPI) on the head, or on the host `on`:
        a rank on each host, or `ranks` of them dealt out host by host."""
        ranks = ranks or len(self.names)
        slots = -(-ranks // len(self.names))
        settings = {
            "plm": "rsh", "plm_rsh_agent": self.agent, "plm_rsh_no_tree_spawn": "1",
            "ras": "^slurm", "oob_tcp_if_include": "net0", "btl_tcp_if_include": "net0",
            "pml": "ob1", "btl": "self,tcp",  # no memory is shared between hosts
            "hwloc_base_binding_policy": "none", "mpi_yield_when_idle": "1",
            "orte_tmpdir_base": self.folder,
        }
        command = ["mpirun", "--allow-run-as-root", "-np", str(ranks), "--map-by", "node",
                   "--host", ",".join(f"{name}:{slots}" for name in self.names)]
        for key, value in settings.items():
            command += ["--mca", key, value]
        return self.on(on, command + list(options) + list(words))
