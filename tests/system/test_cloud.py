#!/usr/bin/env python3
"""run --cloud against servers that speak as the metadata services of AWS, Azure, GCP and OCI do.
Usage: test_cloud.py PROGRAM CONFIGS

Without the flag nobody is asked. What is about the owner (account, project, subscription, user data,
addresses, keys) is neither asked for nor kept. A server that is silent, slow, or says strange things
costs about a second and is told.
"""
import http.server
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

PROGRAM = os.path.abspath(sys.argv[1])
SECRET = "owner-secret"
TINY = "[global]\nruns = 1\nwarmup_time = 0\nmin_time = 0\nmax_time = 10ms\n[launch]\n"


class Handler(http.server.BaseHTTPRequestHandler):
    """A service; subclasses answer(method, path, headers) with a code and a body, or None."""
    protocol_version = "HTTP/1.1"
    asked = None  # of the class: a list
    chunked = False

    def reply(self):
        type(self).asked.append((self.command, self.path))
        code, body = self.answer(self.command, self.path, self.headers) or (404, "not here")
        body = body.encode()
        self.send_response(code)
        if self.chunked:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for part in (body[:5], body[5:]):
                if part:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        self.close_connection = True

    do_GET = do_PUT = do_POST = reply

    def log_message(self, *arguments):
        pass


class Aws(Handler):
    VALUES = {"instance-type": "p5.48xlarge", "placement/availability-zone": "us-east-1d",
              "placement/availability-zone-id": "use1-az6", "placement/region": "us-east-1",
              "ami-id": "ami-0abc", "instance-life-cycle": "spot",
              "iam/info": SECRET, "local-ipv4": SECRET, "../user-data": SECRET}

    def answer(self, method, path, headers):
        if path == "/latest/api/token":
            if method != "PUT" or not headers.get("X-aws-ec2-metadata-token-ttl-seconds"):
                return 400, ""
            return 200, "TOKEN=="
        if headers.get("X-aws-ec2-metadata-token") != "TOKEN==":
            return 401, ""
        prefix = "/latest/meta-data/"
        value = self.VALUES.get(path[len(prefix):]) if path.startswith(prefix) else None
        return (200, value) if value else None


class Gcp(Handler):
    VALUES = {"machine-type": f"projects/{SECRET}/machineTypes/a3-highgpu-8g",
              "zone": f"projects/{SECRET}/zones/us-central1-a",
              "image": "projects/debian-cloud/global/images/debian-12",
              "scheduling/preemptible": "FALSE"}

    def answer(self, method, path, headers):
        prefix = "/computeMetadata/v1/instance/"
        if method != "GET" or not path.startswith(prefix):
            return 405, ""
        if headers.get("Metadata-Flavor") != "Google":
            return 403, ""
        value = self.VALUES.get(path[len(prefix):])
        return (200, value) if value else None


class Azure(Handler):
    chunked = True

    def answer(self, method, path, headers):
        if headers.get("Metadata") != "true" or headers.get("X-Forwarded-For"):
            return 400, "{}"
        if not path.startswith("/metadata/instance/compute?api-version="):
            return None
        return 200, json.dumps({
            "vmSize": "Standard_ND96isr_H100_v5", "location": "eastus", "zone": "1",
            "placementGroupId": "", "priority": "Spot", "subscriptionId": SECRET,
            "resourceGroupName": SECRET, "name": SECRET, "userData": SECRET,
            "storageProfile": {"imageReference": {"publisher": "microsoft-dsvm", "offer": "ubuntu-hpc",
                                                  "sku": "2204", "version": "22.04.1", "id": SECRET}}})


class Oci(Handler):
    def answer(self, method, path, headers):
        if path != "/opc/v2/instance/":
            return None
        if headers.get("Authorization") != "Bearer Oracle":
            return 404, ""
        return 200, json.dumps({
            "shape": "BM.GPU.H100.8", "availabilityDomain": "EMIr:PHX-AD-1",
            "faultDomain": "FAULT-DOMAIN-3", "canonicalRegionName": "us-phoenix-1",
            "image": "ocid1.image.oc1.phx.x", "compartmentId": SECRET, "tenantId": SECRET,
            "displayName": SECRET, "metadata": {"ssh_authorized_keys": SECRET}})


class Strange(Handler):
    def answer(self, method, path, headers):
        return 200, "\x1b[31m" + "x" * 1000 + "\n" + json.dumps({"vmSize": 5, "shape": []})


class Clouds(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.suite = os.path.join(self.folder, "t.ini")
        with open(self.suite, "w", encoding="utf-8") as file:
            file.write(TINY)

    def serve(self, handler):
        handler.asked = []
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"127.0.0.1:{server.server_address[1]}"

    def run_on(self, address, *more, cloud=True, **environment):
        out = os.path.join(self.folder, "r.json")
        kept = {key: value for key, value in os.environ.items()
                if not key.startswith(("SLURM_", "KUBERNETES_")) and key != "container"}
        done = subprocess.run(
            [PROGRAM, "run", self.suite, "--device", "cpu", "--ranks", "1", "-q", "-o", out,
             *(["--cloud"] if cloud else []), *more],
            env={**kept, "CM_TEST_METADATA": address, **environment}, capture_output=True, text=True,
            timeout=60, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(out, encoding="utf-8") as file:
            text = file.read()
        self.assertNotIn(SECRET, text)
        return json.loads(text).get("placement")

    def test_aws(self):
        self.assertEqual(self.run_on(self.serve(Aws))["cloud"], {
            "provider": "aws", "instance_type": "p5.48xlarge", "zone": "us-east-1d",
            "zone_id": "use1-az6", "region": "us-east-1", "image": "ami-0abc",
            "life_cycle": "spot"})
        self.assertEqual(Aws.asked[0], ("PUT", "/latest/api/token"))
        self.assertFalse([path for _, path in Aws.asked if "iam" in path or "user-data" in path])

    def test_gcp(self):
        self.assertEqual(self.run_on(self.serve(Gcp))["cloud"], {
            "provider": "gcp", "instance_type": "a3-highgpu-8g", "zone": "us-central1-a",
            "image": "debian-12", "preemptible": "FALSE"})

    def test_azure(self):
        self.assertEqual(self.run_on(self.serve(Azure))["cloud"], {
            "provider": "azure", "instance_type": "Standard_ND96isr_H100_v5", "region": "eastus",
            "zone": "1", "image": "microsoft-dsvm:ubuntu-hpc:2204:22.04.1", "life_cycle": "Spot"})

    def test_oci(self):
        self.assertEqual(self.run_on(self.serve(Oci))["cloud"], {
            "provider": "oci", "instance_type": "BM.GPU.H100.8", "zone": "EMIr:PHX-AD-1",
            "fault_domain": "FAULT-DOMAIN-3", "region": "us-phoenix-1",
            "image": "ocid1.image.oc1.phx.x"})

    def test_not_asked(self):
        self.assertIsNone(self.run_on(self.serve(Aws), cloud=False))
        self.assertEqual(Aws.asked, [])

    def test_no_proxy(self):
        self.assertEqual(self.run_on(self.serve(Oci), http_proxy="http://127.0.0.1:9",
                                     HTTP_PROXY="http://127.0.0.1:9")["cloud"]["provider"], "oci")

    def test_strange(self):
        cloud = self.run_on(self.serve(Strange))["cloud"]
        self.assertIsNone(cloud["provider"])
        for value in cloud.values():
            self.assertTrue(value is None or (value.isprintable() and len(value) < 200), cloud)

    def test_nobody(self):
        """A port without a server, and one that takes connections and is silent."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            closed = f"127.0.0.1:{free.getsockname()[1]}"
        cloud = self.run_on(closed)["cloud"]
        self.assertIsNone(cloud["provider"])
        self.assertIn("no metadata service answered", cloud["reason"])
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            begin = time.monotonic()
            address = f"127.0.0.1:{silent.getsockname()[1]}"
            plain = self.run_on(address, cloud=False)
            without = time.monotonic() - begin
            begin = time.monotonic()
            cloud = self.run_on(address)["cloud"]
            longer = time.monotonic() - begin - without
        self.assertIsNone(plain)
        self.assertIsNone(cloud["provider"])
        self.assertLess(longer, 3)

    def test_scheduler_and_container(self):
        address = self.serve(Oci)
        placement = self.run_on(address, SLURM_JOB_ID="77", SLURM_JOB_NUM_NODES="4",
                                SLURM_JOB_PARTITION="gpu", SLURM_JOB_NODELIST="node[1-4]",
                                SLURM_JOB_ACCOUNT=SECRET, SLURM_JOB_USER=SECRET,
                                APPTAINER_CONTAINER=f"/home/{SECRET}/torch.sif",
                                KUBERNETES_SERVICE_HOST="10.0.0.1", NODE_NAME="node-17")
        self.assertEqual(placement["slurm"]["nodes"], "4")
        self.assertEqual(placement["slurm"]["partition"], "gpu")
        self.assertNotIn("node[", json.dumps(placement))
        self.assertNotIn("node-17", json.dumps(placement))
        self.assertEqual(placement["container"], {"runtime": "apptainer", "image": "torch.sif"})
        self.assertIn("node", placement["kubernetes"])
        shown = self.run_on(address, "--show-hosts", SLURM_JOB_ID="77",
                            SLURM_JOB_NODELIST="node[1-4]")
        self.assertEqual(shown["slurm"]["node_list"], "node[1-4]")
        self.assertIsNone(shown["kubernetes"])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
