"""The doctor on files: those that are shipped pass, and each kind of mistake in a copy is found."""

import io
import re
import shutil
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from cluster.cli import run
from cluster.doctor import check_file
from cluster.findings import error, ok, show
from cluster.head_state import check_answer
from cluster.launch_file import COMMANDS
from cluster.ray_commands import Image, Versions, start_flags

HOUSE = Path(__file__).resolve().parents[2]
SHIPPED = ["onprem.yaml", "aws.yaml", "gcp.yaml", "slurm.sh", "kuberay/cluster.yaml", "kuberay/job.yaml"]
HERE = Versions(ray="2.60.0", python="3.11")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a key and a token; one stands where the files' paths begin."""
    for name, mode in ((".ssh/id_ed25519", 0o600), (".ray/auth_token", 0o600)):
        file = tmp_path / name
        file.parent.mkdir()
        file.write_text("secret")
        file.chmod(mode)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_UP_enable_autoscaler_v2", raising=False)
    monkeypatch.chdir(HOUSE)
    return tmp_path


def found(path: Path, here: Versions = HERE) -> list[str]:
    """The findings that are not ok, as they are printed."""
    return [str(finding) for finding in check_file(path, here) if finding.level != "ok"]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_file_passes(name: str) -> None:
    findings = list(check_file(HOUSE / "ray_configs" / name, HERE))
    assert not [finding for finding in findings if finding.level == "error"]
    # What only its user can know is an example, and said to be.
    assert all("example" in str(each) or "empty" in str(each) for each in findings if each.level == "warning")
    assert any(finding.subject == "token" and finding.level == "ok" for finding in findings)


def test_every_shipped_file_is_looked_at() -> None:
    files = [path for path in (HOUSE / "ray_configs").rglob("*") if path.suffix in (".yaml", ".sh")]
    assert {str(path.relative_to(HOUSE / "ray_configs")) for path in files} == set(SHIPPED)


TOLERANT, REDIS = "  gcsFaultToleranceOptions", "RAY_REDIS_ADDRESS=127.0.0.1:1"
MISTAKES = [
    # file, what is written in it, what is instead, how the finding begins and what is in it
    ("onprem.yaml", "provider:", "provider: [", "error file", "no YAML"),
    ("onprem.yaml", "provider:", "head_node: {}\nprovider:", "error schema", "head_node is deprecated"),
    ("aws.yaml", "provider:", "min_workers: 1\nprovider:", "error schema", "min_workers is deprecated"),
    ("aws.yaml", "pull_before_run:", "pull:", "error schema", "docker.pull is deprecated"),
    ("aws.yaml", "idle_timeout_minutes: 15", "idle_minutes: 15", "error schema", "idle_minutes"),
    ("aws.yaml", "max_workers: 8", "max_workers: many", "error schema", "max_workers"),
    ("aws.yaml", "head_node_type: learners", "head_node_type: head", "error schema", "head_node_type"),
    ("onprem.yaml", "  head_ip: 192.0.2.10\n", "", "error schema", "head_ip"),
    ("onprem.yaml", "provider:\n  type: local", "provider:\n  type: loacl", "error schema", "Ray refuses"),
    ("onprem.yaml", "ray[default]==2.60.0", "ray[default]==2.40.0", "error ray", "2.40.0, this machine 2.60.0"),
    ("onprem.yaml", "ray[default]==2.60.0", "ray[default]", "warning ray", "nothing says which Ray"),
    ("aws.yaml", "ray:2.60.0-py311-gpu", "ray:2.49.0-py311-gpu", "error ray", "docker.head_image has 2.49.0"),
    ("aws.yaml", "ray:2.60.0-py311-gpu", "ray:latest", "warning image", "does not say which Ray"),
    ("aws.yaml", "2.60.0-py311-cpu", "2.60.0-py312-cpu", "error python", "not one version"),
    ("onprem.yaml", "id_ed25519", "id_none", "error ssh key", "there is no"),
    ("onprem.yaml", "  ssh_private_key: ~/.ssh/id_ed25519\n", "", "warning ssh key", "none is given"),
    ("onprem.yaml", "contrail/actors: actors", "contrail/actors: actresses", "error files", "there is no actresses"),
    ("aws.yaml", "  ~/.ray/auth_token: ~/.ray/auth_token\n", "", "error token", "not shipped"),
    ("gcp.yaml", "RAY_AUTH_MODE=token ray stop", "ray stop", "error token", "has no RAY_AUTH_MODE"),
    ("aws.yaml", "export RAY_AUTH_MODE=token", "export RAY_AUTH_MODE=off", "error token", "RAY_AUTH_MODE=off"),
    ("aws.yaml", "export RAY_AUTH_MODE=token", "RAY_AUTH_MODE=token ray stop; A=1", "error token", "no RAY_AUTH_MODE"),
    ("onprem.yaml", "ray start --head", "ray start --head --resources='{", "error schema", "No closing quotation"),
    ("onprem.yaml", "~/.ssh/id_ed25519", "~nobody-here/key", "error schema", "home directory"),
    ("onprem.yaml", "idle_timeout_minutes: 60", "since: 2024-13-45", "error file", "no YAML"),
    ("aws.yaml", "--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0", "error dashboard", "all interfaces"),
    ("aws.yaml", "--dashboard-host=127.0.0.1", "--dashboard-host ::", "error dashboard", "all interfaces"),
    ("aws.yaml", "--port=6379", "--redis-port=6379", "error ray start", "--redis-port, which is deprecated"),
    ("gcp.yaml", "--port=6379", "--porta=6379", "error ray start", "did you mean --port?"),
    ("gcp.yaml", "--autoscaling-config=~/ray_bootstrap_config.yaml", "", "error ray start", "--autoscaling-config"),
    ("gcp.yaml", "--address=$RAY_HEAD_IP:6379", "", "error ray start", "no --address"),
    ("onprem.yaml", " RAY_enable_autoscaler_v2=0", "", "error autoscaler", "RAY_UP_enable_autoscaler_v2=0"),
    ("onprem.yaml", "[192.0.2.11,", "[192.0.2.10,", "error machines", "in worker_ips, too"),
    ("onprem.yaml", "[192.0.2.11,", "[192.0.2.12,", "error machines", "twice"),
    ("onprem.yaml", "contrail-role=learners", "contrail-role=learner", "error labels", "learners, actors, evaluators"),
    ("onprem.yaml", " --labels=contrail-role=actors", "", "warning labels", "no contrail-role"),
    ("aws.yaml", "{contrail-role: actors}", "{contrail_role: actors}", "error labels", "did you mean contrail-role?"),
    ("gcp.yaml", "{CPU: 22}", "{CPU: 22, contrail: 1}", "error labels", "nothing asks for"),
    ("gcp.yaml", "{onHostMaintenance: TERMINATE}", "{preemptible: true}", "warning labels", "may vanish"),
    ("slurm.sh", "set -euo pipefail", "if", "error schema", "bash cannot read it"),
    ("slurm.sh", "ray symmetric-run", "ray symmetric", "error ray start", "no ray symmetric-run"),
    ("slurm.sh", "ray symmetric-run", "ray symmetric-run --head", "error ray start", "refuses --head"),
    ("slurm.sh", '--address "$head_address:6379" ', "", "error ray start", "no --address"),
    ("slurm.sh", "--num-gpus", "--gpus", "error ray start", "--gpus"),
    ("slurm.sh", "--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0", "error dashboard", "all interfaces"),
    ("slurm.sh", "-- contrail", "contrail", "error entrypoint", "no --"),
    ("slurm.sh", "#SBATCH --ntasks-per-node=1", "", "error job", "tasks a node"),
    ("slurm.sh", "#SBATCH --exclusive", "", "warning job", "others"),
    ("slurm.sh", "export RAY_AUTH_MODE=token", "", "error token", "ask for none"),
    ("kuberay/cluster.yaml", "apiVersion: ray.io/v1", "apiVersion: ray.io/v1alpha1", "error schema", "v1alpha1"),
    ("kuberay/cluster.yaml", "kind: RayCluster", "kind: Raycluster", "error file", "starts no cluster"),
    ("kuberay/cluster.yaml", "headGroupSpec:", "headSpec:", "error schema", "no headGroupSpec"),
    ("kuberay/cluster.yaml", "maxReplicas: 8", "maxReplica: 8", "error schema", "maxReplica,"),
    ("kuberay/cluster.yaml", "serviceType: ClusterIP", "replicas: 1", "error schema", "replicas is deprecated"),
    ("kuberay/cluster.yaml", "serviceType: ClusterIP", "serviceType: LoadBalancer", "error dashboard", "world outside"),
    ("kuberay/cluster.yaml", "Params: {}", "Params: {num-cpus: 0}", "error schema", "wanted a string"),
    ("kuberay/cluster.yaml", "Params: {}", 'Params: {redis-port: "x"}', "error ray start", "deprecated"),
    ("kuberay/cluster.yaml", "authOptions: {mode: token}", "", "error token", "ask for none"),
    ("kuberay/cluster.yaml", "mode: token", "mode: disabled", "error token", "ask for none"),
    ("kuberay/cluster.yaml", 'rayVersion: "2.60.0"', 'rayVersion: "2.50.0"', "error ray", "rayVersion is 2.50.0"),
    ("kuberay/cluster.yaml", 'rayVersion: "2.60.0"', "", "error ray", "no rayVersion"),
    ("kuberay/cluster.yaml", "ray2.60.0-py311", "newest", "warning image", "does not say which Ray"),
    ("kuberay/cluster.yaml", "mountPath: /dev/shm", "mountPath: /dev/shmem", "error shared memory", "64 MiB"),
    ("kuberay/cluster.yaml", "contrail-role: actors", "contrail-role: envs", "error labels", "contrail-role=envs"),
    ("kuberay/cluster.yaml", "groupName: actors", "replicas: 0", "error schema", "no groupName"),
    ("kuberay/job.yaml", "  entrypoint: ", "  entryPoint: ", "error schema", "no entrypoint"),
    ("kuberay/job.yaml", " --topology.address auto", "", "warning entrypoint", "does not join"),
    ("kuberay/job.yaml", "submissionMode: K8sJobMode", "deletionPolicy: DeleteSelf", "error schema", "deprecated"),
    ("kuberay/job.yaml", "submissionMode: K8sJobMode", "runtimeEnvYAML: '['", "error schema", "runtimeEnvYAML"),
    ("kuberay/cluster.yaml", "  rayVersion:", f"{TOLERANT}: {{}}\n  rayVersion:", "error redis", "no redisAddress"),
    ("kuberay/cluster.yaml", "  rayVersion:", f"{TOLERANT}: {{}}\n  rayVersion:", "error redis", "no redisPassword"),
    (
        "kuberay/cluster.yaml",
        "  rayVersion:",
        f"{TOLERANT}: {{at: a}}\n  rayVersion:",
        "error redis",
        "nothing reads",
    ),
    (
        "kuberay/cluster.yaml",
        "  rayVersion:",
        f"{TOLERANT}: {{redisPassword: {{value: secret}}}}\n  rayVersion:",
        "warning redis",
        "written in the manifest",
    ),
    ("aws.yaml", "export RAY_AUTH", f"export {REDIS} RAY_AUTH", "error redis", "no --redis-password"),
    ("gcp.yaml", "export RAY_AUTH", f"export {REDIS} RAY_AUTH", "warning redis", "no name in it"),
    (
        "onprem.yaml",
        "export RAY_AUTH",
        f"export {REDIS} RAY_AUTH",
        "error redis",
        "none can be reached at 127.0.0.1:1 ",
    ),
    (
        "kuberay/job.yaml",
        "submissionMode: K8sJobMode",
        "deletionStrategy: {onSuccess: {policy: DeleteSelf}}",
        "error schema",
        "onSuccess is deprecated",
    ),
]


@pytest.mark.parametrize(("name", "written", "instead", "begins", "words"), MISTAKES)
def test_mistake_is_found(name: str, written: str, instead: str, begins: str, words: str, tmp_path: Path) -> None:
    text = (HOUSE / "ray_configs" / name).read_text()
    assert written in text
    before, broken = found(HOUSE / "ray_configs" / name), tmp_path / Path(name).name
    broken.write_text(text.replace(written, instead))
    new = [line for line in found(broken) if line not in before]
    level, _, subject = begins.partition(" ")
    assert [line for line in new if re.match(rf"{level} +{subject} ", line) and words in line], new


@pytest.mark.parametrize(
    ("says", "begins", "words"),
    [
        (b"-NOAUTH Authentication required.\r\n", "ok", "asks for a password"),
        (b"+PONG\r\n", "error", "asks for no password"),
        (b"HTTP/1.1 400 Bad Request\r\n", "error", "is none"),
    ],
)
def test_redis_is_asked_whether_it_is_one_and_guarded(says: bytes, begins: str, words: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        asking = threading.Thread(target=answer, args=(server, says))
        asking.start()
        (finding,) = check_answer(address)
        asking.join()
    assert (finding.level, finding.subject) == (begins, "redis")
    assert words in finding.what and address in finding.what


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl, which makes a certificate")
def test_redis_is_asked_through_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=redis -days 1"
    named = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate]
    subprocess.run([*make.split(), *named], check=True, capture_output=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with context.wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True) as server:
        asking = threading.Thread(target=answer, args=(server, b"-NOAUTH Authentication required.\r\n"))
        asking.start()
        (finding,) = check_answer(f"rediss://127.0.0.1:{server.getsockname()[1]}")
        asking.join()
    assert (finding.level, "asks for a password" in finding.what) == ("ok", True), finding


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_redis_has_an_address_with_brackets() -> None:
    try:
        server = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no ::1")
    with server:
        asking = threading.Thread(target=answer, args=(server, b"+PONG\r\n"))
        asking.start()
        (finding,) = check_answer(f"[::1]:{server.getsockname()[1]}")
        asking.join()
    assert "asks for no password" in finding.what


def answer(server: socket.socket, says: bytes) -> None:
    """Say something to the first who asks."""
    server.settimeout(20)
    talk, _ = server.accept()
    with talk:
        assert talk.recv(100) == b"PING\r\n"
        talk.sendall(says)


def test_address_that_is_none_is_a_finding() -> None:
    (finding,) = check_answer("redis")
    assert finding.level == "error" and "none can be reached at redis" in finding.what


ONPREM = HOUSE / "ray_configs/onprem.yaml"
WAITING = "RAY_gcs_rpc_server_reconnect_timeout_s=600"
RESTARTING = [
    # what its comment tells one to write, so that the head may restart: what is there, and instead
    ("export RAY_AUTH_MODE", f"export {WAITING} RAY_AUTH_MODE"),
    ("RAY_enable_auto", "RAY_REDIS_ADDRESS=$REDIS:6379 RAY_external_storage_namespace=contrail RAY_enable_auto"),
    ("start --head", 'start --head --num-cpus=0 --redis-password="$(cat ~/.redis-password)"'),
    ("\n    --labels=contrail-role=learners", ""),
    ("contrail-role=actors", "contrail-role=learners"),
]


def restarting() -> str:
    """The shipped file for a head that may restart, without its comments."""
    text = "\n".join(line for line in ONPREM.read_text().splitlines() if not line.startswith("#"))
    for written, instead in RESTARTING:
        assert written in text
        text = text.replace(written, instead)
    return text


def test_head_that_may_restart_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "onprem.yaml").write_text(restarting())
    assert found(tmp_path / "onprem.yaml") == found(ONPREM)


@pytest.mark.parametrize(
    ("written", "instead", "words"),
    [
        (f"export {WAITING} RAY_AUTH_MODE=token RAY_USAGE", "export RAY_AUTH_MODE=token RAY_USAGE", "worker_start"),
        (f"export {WAITING} RAY_AUTH_MODE=token RAY_REDIS", "export RAY_AUTH_MODE=token RAY_REDIS", "head_start"),
        ("--num-cpus=0", "--num-cpus=8", "lets the head have CPUs"),
        (" --num-cpus=0", "", "lets the head have CPUs"),
        ("start --head", "start --head --labels=contrail-role=learners", "dies with it"),
    ],
)
def test_head_that_restarts_without_its_runs_is_found(written: str, instead: str, words: str, tmp_path: Path) -> None:
    text = restarting()
    assert written in text
    (tmp_path / "onprem.yaml").write_text(text.replace(written, instead))
    (new,) = set(found(tmp_path / "onprem.yaml")) - set(found(ONPREM))
    assert words in new and new.startswith("warning")


def test_pod_of_a_head_that_may_restart_is_no_mistake(tmp_path: Path) -> None:
    shipped = HOUSE / "ray_configs/kuberay/cluster.yaml"
    values = yaml.safe_load(shipped.read_text())
    cluster = values["spec"]
    password = {"valueFrom": {"secretKeyRef": {"name": "redis", "key": "password"}}}
    cluster["gcsFaultToleranceOptions"] = {"redisAddress": "redis:6379", "redisPassword": password}
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(values))
    labels, cpus = [line for line in found(tmp_path / "cluster.yaml") if line not in found(shipped)]
    assert "headGroupSpec has a contrail-role" in labels and "headGroupSpec lets the head have CPUs" in cpus
    cluster["headGroupSpec"] |= {"labels": {}, "rayStartParams": {"num-cpus": "0"}}
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(values))
    assert found(tmp_path / "cluster.yaml") == found(shipped)


def test_open_ports_are_found(tmp_path: Path) -> None:
    rule = "{FromPort: 8265, ToPort: 8265, IpProtocol: tcp, IpRanges: [{CidrIp: 0.0.0.0/0}]}"
    group = f"  security_group: {{GroupName: mine, IpPermissions: [{rule}]}}\n"
    text = (HOUSE / "ray_configs/aws.yaml").read_text().replace("provider:\n", "provider:\n" + group)
    (tmp_path / "aws.yaml").write_text(text)
    assert [line for line in found(tmp_path / "aws.yaml") if "opens 8265-8265 to everybody" in line]


@pytest.mark.parametrize(
    ("secret", "mode", "words"),
    [
        (".ssh/id_ed25519", 0o644, "so ssh will not take it: chmod 600"),
        (".ray/auth_token", 0o644, "chmod 600"),
        (".ray/auth_token", None, "ray get-auth-token --generate"),
    ],
)
def test_secret_with_wrong_rights_is_found(home: Path, secret: str, mode: int | None, words: str) -> None:
    if mode is None:
        (home / secret).write_text("")
    else:
        (home / secret).chmod(mode)
    assert [line for line in found(HOUSE / "ray_configs/onprem.yaml") if words in line]


def test_other_autoscaler_may_be_chosen_where_ray_up_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (HOUSE / "ray_configs/onprem.yaml").read_text()
    (tmp_path / "onprem.yaml").write_text(text.replace(" RAY_enable_autoscaler_v2=0", ""))
    monkeypatch.setenv("RAY_UP_enable_autoscaler_v2", "0")
    assert not [line for line in found(tmp_path / "onprem.yaml") if "autoscaler" in line]


def test_file_is_compared_with_what_is_installed_here() -> None:
    lines = found(HOUSE / "ray_configs/aws.yaml", Versions(ray="2.61.0", python="3.12"))
    assert [line for line in lines if line.startswith("error") and "2.60.0, this machine 2.61.0" in line]
    assert [line for line in lines if line.startswith("warning") and "have 3.11, this one 3.12" in line]
    old = found(HOUSE / "ray_configs/slurm.sh", Versions(ray="2.48.0", python="3.11"))
    assert [line for line in old if "no symmetric-run" in line]


@pytest.mark.parametrize("key", ["provider", "auth", "docker", "file_mounts", "available_node_types", *COMMANDS])
def test_broken_shape_is_a_finding_and_no_crash(tmp_path: Path, key: str) -> None:
    values = {"cluster_name": "contrail", "provider": "{type: local, head_ip: a, worker_ips: [b]}", key: "7"}
    (tmp_path / "broken.yaml").write_text("".join(f"{name}: {value}\n" for name, value in values.items()))
    assert [line for line in found(tmp_path / "broken.yaml") if re.match("error +schema", line)]


@pytest.mark.parametrize("field", ["workerGroupSpecs", "headGroupSpec", "authOptions"])
def test_broken_shape_of_a_manifest_is_a_finding(tmp_path: Path, field: str) -> None:
    spec = {"headGroupSpec": "{}", field: "7"}
    text = "kind: RayCluster\nspec:\n" + "".join(f"  {name}: {value}\n" for name, value in spec.items())
    (tmp_path / "broken.yaml").write_text(text)
    assert [line for line in found(tmp_path / "broken.yaml") if "of another kind" in line]


def test_flags_of_a_shell_command() -> None:
    command = (
        "A=1 ray stop; ulimit -n 9; /opt/bin/ray start --head --port=6379 --resources='{\"a\": 1}' --labels a=b && ls"
    )
    assert start_flags(command) == {"--head": "", "--port": "6379", "--resources": '{"a": 1}', "--labels": "a=b"}
    assert start_flags('ray symmetric-run --address "$head:1" -- python x.py --own') == {"--address": "$head:1"}
    assert start_flags("ray stop") is None


def test_flags_of_a_shell_command_after_what_another_prints() -> None:
    command = "ray start --node-ip-address=$(hostname -I | awk '{print $1}') --head\nray start --address=b:1"
    assert start_flags(command) == {"--node-ip-address": "$", "--head": ""}


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_token_that_others_can_read_is_an_error_on_slurm(home: Path, mode: int) -> None:
    (home / ".ray/auth_token").chmod(mode)
    assert bool([line for line in found(HOUSE / "ray_configs/slurm.sh") if "may read" in line]) == (mode == 0o644)


def test_slurm_script_with_all_of_bash_is_understood(tmp_path: Path) -> None:
    more = "nodes=(a b)\necho \"${#nodes[@]} it's\"\ncat <<END\ndon't\nEND\n"
    text = (HOUSE / "ray_configs/slurm.sh").read_text()
    (tmp_path / "slurm.sh").write_text(text.replace("set -euo pipefail\n", "set -euo pipefail\n" + more))
    assert found(tmp_path / "slurm.sh") == []


def test_job_for_a_cluster_that_is_there_needs_none_of_its_own(tmp_path: Path) -> None:
    spec = "{entrypoint: contrail --help, clusterSelector: {ray.io/cluster: contrail}}"
    (tmp_path / "job.yaml").write_text(f"apiVersion: ray.io/v1\nkind: RayJob\nspec: {spec}\n")
    assert found(tmp_path / "job.yaml") == []


def test_versions_of_an_image_are_in_its_tag() -> None:
    assert Image.of("rayproject/ray:2.60.0-py311-gpu") == Image("rayproject/ray:2.60.0-py311-gpu", "2.60.0", "3.11")
    assert Image.of("registry:5000/ray").ray is None


def test_command_says_it_in_lines_and_exits_by_it(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "ray_configs/kuberay/cluster.yaml"]) in (0, 1)  # 1 where another Ray is installed
    *lines, last = capsys.readouterr().out.splitlines()
    assert all(re.match(r"(ok|warning|error) +\S", line) for line in lines)
    assert re.fullmatch(r"\d+ errors, \d+ warnings", last)
    assert run(["doctor", str(home / "none.yaml")]) == 1
    assert "cannot be read" in capsys.readouterr().out


def test_findings_are_coloured_on_a_terminal_and_plain_in_a_pipe() -> None:
    findings = [ok("a", "fine"), error("b", "bad\nindeed [bold]", "mend it")]
    pipe, terminal = io.StringIO(), io.StringIO()
    assert show(findings, Console(file=pipe, width=20)) == 1
    assert pipe.getvalue().splitlines()[1] == "error    b               bad indeed [bold]: mend it"
    show(findings, Console(file=terminal, force_terminal=True))
    assert "\x1b[" in terminal.getvalue()
    assert show([ok("a", "fine")], Console(file=io.StringIO())) == 0
