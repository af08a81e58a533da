"""Kubernetes' manifests: each against the schemas of Kubernetes, all against one another.

The schemas come with the Python package kubernetes-validate, in their strict form, in which a field
that Kubernetes does not know is an error. What no schema knows is checked here by hand: that names
and labels meet, that the times fit into one another, that the mirror accepts its configuration.
"""

import copy
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import kubernetes_validate
import yaml

# From the oldest version that knows `lifecycle.preStop.sleep` without being told to.
VERSIONS = [f"1.{minor}.0" for minor in range(30, 38)]
# timeouts.head, body and write: how long a client that stops can keep its connection busy.
DEFAULT_BUSY_SECONDS = 10 + 30 + 30
LABEL = "app.kubernetes.io/name"


class Manifests:
    """All manifests of a folder by their kind, and how many checks they have passed."""

    def __init__(self, folder: Path) -> None:
        self.passed = 0
        self.failures: list[str] = []
        self.by_kind: dict[str, dict] = {}
        listed = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
        paths = [path for path in sorted(folder.iterdir()) if path.name != "kustomization.yaml"]
        self.check("every file is listed", listed == [path.name for path in paths], listed)
        for path in paths:
            for manifest in yaml.safe_load_all(path.read_text()):
                for version in VERSIONS:
                    self.validate(path.name, manifest, version)
                assert manifest["kind"] not in self.by_kind, f"two of kind {manifest['kind']}"
                self.by_kind[manifest["kind"]] = manifest

    def validate(self, name: str, manifest: dict, version: str) -> None:
        """Check one against the schema of one version."""
        problem = ""
        try:
            kubernetes_validate.validate(manifest, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            problem = f"{error.path}: {error.message}"
        self.check(f"{name} is valid for Kubernetes {version}", not problem, problem)

    def check(self, what: str, holds: bool, detail: object = "") -> None:
        """Count one check."""
        if holds:
            self.passed += 1
        else:
            self.failures.append(f"{what}: {detail}")

    def spec(self, kind: str) -> dict:
        """What a manifest asks for."""
        return self.by_kind[kind]["spec"]


def names_meet(manifests: Manifests) -> None:
    """What refers to something else refers to something that is there."""
    deployment = manifests.spec("Deployment")
    labels = deployment["template"]["metadata"]["labels"]
    selectors = {
        "Deployment": deployment["selector"]["matchLabels"],
        "Service": manifests.spec("Service")["selector"],
        "PodDisruptionBudget": manifests.spec("PodDisruptionBudget")["selector"]["matchLabels"],
        "NetworkPolicy": manifests.spec("NetworkPolicy")["podSelector"]["matchLabels"],
    }
    for kind, selector in selectors.items():
        manifests.check(f"{kind} selects the pods", selector.items() <= labels.items(), selector)
    for kind, manifest in manifests.by_kind.items():
        own = manifest["metadata"]["labels"]
        manifests.check(f"{kind} bears the label", own.get(LABEL) == labels[LABEL], own)

    target = manifests.spec("HorizontalPodAutoscaler")["scaleTargetRef"]
    name = manifests.by_kind["Deployment"]["metadata"]["name"]
    manifests.check("the autoscaler scales the deployment", target["name"] == name, target)
    manifests.check("nobody else says how many replicas", "replicas" not in deployment)

    pod = deployment["template"]["spec"]
    [container] = pod["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    config = yaml.safe_load(manifests.by_kind["ConfigMap"]["data"]["config.yml"])
    configured = {"http": config["port"], "admin": config["admin"]["port"]}
    manifests.check("the ports are those of the configuration", ports == configured, ports)
    used = [port["targetPort"] for port in manifests.spec("Service")["ports"]]
    used += [container[f"{kind}Probe"]["httpGet"]["port"] for kind in ("readiness", "liveness")]
    # A restart for want of an answer is for SDKs' sake; whoever hangs on to the admin port must not cause it.
    probed = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("readiness", "liveness")}
    wanted = {
        "readiness": {"path": "/ready", "port": "admin"},
        "liveness": {"path": "/health", "port": "http"},
    }
    manifests.check("each probe asks where it should", probed == wanted, probed)
    rules = manifests.spec("NetworkPolicy")["ingress"]
    used += [port["port"] for rule in rules for port in rule["ports"]]
    manifests.check("all ports that are named exist", set(used) == set(ports), used)
    volume = {volume["name"]: volume for volume in pod["volumes"]}
    [mount] = container["volumeMounts"]
    source = volume[mount["name"]]["configMap"]["name"]
    config_map = manifests.by_kind["ConfigMap"]["metadata"]["name"]
    manifests.check("the configuration is mounted", source == config_map, source)
    path = f"{mount['mountPath']}/config.yml"
    manifests.check("... where it is read", container["args"] == ["-c", path], container["args"])


def times_and_sizes_fit(manifests: Manifests) -> None:
    """The pod is not killed while it drains, nor for memory that it was allowed to take."""
    pod = manifests.spec("Deployment")["template"]["spec"]
    [container] = pod["containers"]
    config = yaml.safe_load(manifests.by_kind["ConfigMap"]["data"]["config.yml"])
    drain = int(re.fullmatch(r"(\d+)s", config["timeouts"]["drain"])[1])
    wait = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    grace = pod["terminationGracePeriodSeconds"]
    manifests.check("it is not killed while it drains", grace >= wait + drain + 2, grace)

    alive = container["livenessProbe"]
    patience = alive["periodSeconds"] * alive["failureThreshold"]
    manifests.check("being full is not being dead", patience > DEFAULT_BUSY_SECONDS, patience)

    limits, requests = container["resources"]["limits"], container["resources"]["requests"]
    manifests.check("it has whole CPUs", limits["cpu"].isdigit(), limits)
    manifests.check("it has the quality of service `Guaranteed`", limits == requests, requests)
    memory = int(re.fullmatch(r"(\d+)Mi", limits["memory"])[1])
    needed = worst_case(config, int(limits["cpu"]))
    manifests.check("all it may take fits into its memory", needed <= memory, f"{needed} > {memory}")


def worst_case(config: dict, workers: int) -> float:
    """The MiB that a process takes at most, as docs/limits.md sums them up; all origins have TLS."""
    limits = config["limits"]
    requests = int(re.fullmatch(r"(\d+)MiB", limits["memory_bytes"])[1])
    dsns = [dsn for key in config["keys"] for dsn in key["outbound"]]
    origins = len({urlsplit(dsn).netloc.split("@")[1] for dsn in dsns})
    upstream_connections = limits["in_flight"] * origins
    per_worker = 32 + (24 * limits["connections"] + 88 * upstream_connections) / 1024
    return 24 + requests + workers * per_worker


def is_unprivileged(manifests: Manifests, user: str) -> None:
    """Nothing is allowed that is not needed."""
    pod = manifests.spec("Deployment")["template"]["spec"]
    [container] = pod["containers"]
    of_pod, of_container = pod["securityContext"], container["securityContext"]
    manifests.check("it does not run as root", of_pod["runAsNonRoot"] is True)
    owner = f"{of_pod['runAsUser']}:{of_pod['runAsGroup']}"
    manifests.check("it runs as the image's user", owner == user, owner)
    manifests.check("it starts on any node", of_pod["seccompProfile"] == {"type": "RuntimeDefault"})
    manifests.check("its files are read-only", of_container["readOnlyRootFilesystem"] is True)
    manifests.check("it gains nothing", of_container["allowPrivilegeEscalation"] is False)
    manifests.check("it has no capability", of_container["capabilities"] == {"drop": ["ALL"]})
    manifests.check("it has no token", pod["automountServiceAccountToken"] is False)


def merged(value: object, patch: object) -> object:
    """A strategic merge, as far as the overlay needs one: of mappings."""
    if not isinstance(value, dict) or not isinstance(patch, dict):
        return patch
    return {key: merged(value.get(key), patch[key]) if key in patch else value[key] for key in value | patch}


def built(manifests: Manifests, folder: Path) -> list[dict]:
    """What kustomize makes of an overlay; nothing where there is no kubectl."""
    if not shutil.which("kubectl"):
        print(f"SKIPPED: the overlay {folder.name} is not built: there is no kubectl")
        return []
    made = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True)
    manifests.check(f"kustomize builds the overlay {folder.name}", made.returncode == 0, made.stderr)
    return list(yaml.safe_load_all(made.stdout))


def overlay_changes_the_profile(manifests: Manifests, folder: Path) -> None:
    """The overlay gives the pod our profile, and changes nothing else."""
    base = manifests.by_kind["Deployment"]
    patched = merged(base, yaml.safe_load((folder / "deployment.yaml").read_text()))
    for version in VERSIONS:
        manifests.validate("the overlay", patched, version)
    profile = patched["spec"]["template"]["spec"]["securityContext"].pop("seccompProfile")
    wanted = {"type": "Localhost", "localhostProfile": "profiles/sentry-mirror.json"}
    manifests.check("the overlay has the profile", profile == wanted, profile)
    rest = copy.deepcopy(base)
    del rest["spec"]["template"]["spec"]["securityContext"]["seccompProfile"]
    manifests.check("the overlay changes nothing else", patched == rest)
    documents = built(manifests, folder)
    if not documents:
        return
    kinds = {document["kind"] for document in documents}
    manifests.check("the built overlay has everything of the base", kinds == set(manifests.by_kind), kinds)
    [deployment] = [document for document in documents if document["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]["spec"]
    manifests.check("... and the profile", pod["securityContext"]["seccompProfile"] == wanted)


def example_changes_what_people_change(manifests: Manifests, folder: Path, binary: Path) -> None:
    """The example of an overlay has another image, configuration, resources, and an Ingress."""
    by_kind = {document["kind"]: document for document in built(manifests, folder)}
    if not by_kind:
        return
    manifests.check("the example adds an Ingress", set(by_kind) == {*manifests.by_kind, "Ingress"}, set(by_kind))
    for document in by_kind.values():
        for version in VERSIONS:
            manifests.validate(f"the example's {document['kind']}", document, version)
    [container] = by_kind["Deployment"]["spec"]["template"]["spec"]["containers"]
    image = container["image"]
    manifests.check("... has its image", image == "registry.example.com/sentry-mirror:0.1.0", image)
    limits = container["resources"]
    manifests.check("... has whole CPUs", limits["limits"] == limits["requests"] == {"cpu": "2", "memory": "1Gi"}, limits)
    [rule] = by_kind["Ingress"]["spec"]["rules"]
    target = rule["http"]["paths"][0]["backend"]["service"]
    ports = [port["name"] for port in by_kind["Service"]["spec"]["ports"]]
    is_service = target["name"] == by_kind["Service"]["metadata"]["name"] and target["port"]["name"] in ports
    manifests.check("... leads to the Service", is_service, target)
    text = by_kind["ConfigMap"]["data"]["config.yml"]
    manifests.check("... has its configuration", text == (folder / "config.yml").read_text(), text)
    checked = subprocess.run([binary, "-c", folder / "config.yml", "--check"], capture_output=True, text=True)
    manifests.check("... which the mirror accepts", checked.returncode == 0 and not checked.stderr, checked.stderr)


def is_monitored(manifests: Manifests, path: Path) -> None:
    """The PodMonitor, whose schema is not at hand, finds the pods and their admin port."""
    spec = yaml.safe_load(path.read_text())["spec"]
    template = manifests.spec("Deployment")["template"]
    labels = template["metadata"]["labels"]
    manifests.check("the monitor selects the pods", spec["selector"]["matchLabels"] == labels)
    [endpoint] = spec["podMetricsEndpoints"]
    [container] = template["spec"]["containers"]
    ports = [port["name"] for port in container["ports"]]
    manifests.check("the monitor asks a port that exists", endpoint["port"] in ports, endpoint)


def mirror_accepts(manifests: Manifests, binary: Path, root: Path) -> None:
    """The mirror itself has nothing to complain about."""
    text = manifests.by_kind["ConfigMap"]["data"]["config.yml"]
    path = root / "target/deploy/config.yml"
    path.write_text(text)
    checked = subprocess.run([binary, "-c", path, "--check"], capture_output=True, text=True)
    is_content = checked.returncode == 0 and not checked.stderr
    manifests.check("the mirror accepts its configuration", is_content, checked.stderr)


def main() -> int:
    binary, root = Path(sys.argv[1]), Path(sys.argv[2])
    folder = root / "deploy/kubernetes"
    manifests = Manifests(folder / "base")
    names_meet(manifests)
    times_and_sizes_fit(manifests)
    user = re.search(r"^USER (\S+)$", (root / "Dockerfile").read_text(), re.MULTILINE)[1]
    is_unprivileged(manifests, user)
    overlay_changes_the_profile(manifests, folder / "io_uring")
    example_changes_what_people_change(manifests, folder / "example", binary)
    is_monitored(manifests, folder / "podmonitor.yaml")
    mirror_accepts(manifests, binary, root)
    for failure in manifests.failures:
        print(f"FAILED {failure}")
    print(f"{manifests.passed} passed, {len(manifests.failures)} failed")
    return 1 if manifests.failures else 0


if __name__ == "__main__":
    sys.exit(main())
