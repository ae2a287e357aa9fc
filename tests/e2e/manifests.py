#!/usr/bin/env python3
"""The examples for Compose, Kubernetes, Plane and systemd say nothing their readers do not know: manifests
against the schemas of Kubernetes, the Compose file against its specification's, the unit with systemd's own
check, and each variable they set against the server's --help.

Installs kubernetes-validate (PyPI) and dclint (npm); what cannot be had is skipped, by name.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import frag

REPOSITORY = frag.HERE.parent.parent
EXAMPLES = REPOSITORY / "examples"
VENV = pathlib.Path(tempfile.gettempdir(), f"frag-e2e-manifests-{os.getuid()}")
PYTHON = VENV / "bin" / "python"
# The versions the manifests are for: the API groups in them are stable since long.
KUBERNETES = "1.29"

if pathlib.Path(sys.prefix) != VENV:
    probe = [PYTHON, "-c", "import kubernetes_validate, yaml"]
    if not PYTHON.exists() or subprocess.run(probe, capture_output=True).returncode != 0:
        made = subprocess.run([sys.executable, "-m", "venv", "--clear", VENV]).returncode == 0
        pip = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "kubernetes-validate", "pyyaml"]
        if not made or subprocess.run(pip, timeout=180).returncode != 0:
            frag.skip("kubernetes-validate cannot be installed")
    os.execv(PYTHON, [PYTHON, __file__])

import kubernetes_validate
import yaml

failures = 0


def check(condition, what):
    global failures
    print(f"{'ok' if condition else 'FAILED'}: {what}")
    failures += not condition


def known_variables():
    text = subprocess.run([os.environ["FRAG_BIN"], "--help"], capture_output=True, text=True, check=True).stdout
    flags = re.findall(r"^  (?:-\w, )?--([a-z-]+)", text, re.MULTILINE)
    return {"FRAG_" + flag.upper().replace("-", "_") for flag in flags} | {"FRAG_TOKEN"}


def variables():
    """Each variable of ours in any example has its flag, or nobody would notice a misspelt one."""
    known = known_variables() | {"FRAG_URL"}
    named = {}
    for file in sorted(EXAMPLES.rglob("*")):
        if file.suffix in {".yaml", ".json", ".service", ".md"} and "node_modules" not in file.parts:
            for name in re.findall(r"\bFRAG_[A-Z_]+", file.read_text()):
                named.setdefault(name, file.relative_to(REPOSITORY))
    check(len(named) > 8, f"{len(named)} variables are set in the examples")
    for name, file in sorted(named.items()):
        check(name in known, f"{file}: {name} is a variable of the server's")


def kubernetes():
    for file in sorted((EXAMPLES / "kubernetes").glob("*.yaml")):
        documents = list(yaml.safe_load_all(file.read_text()))
        check(len(documents) > 3, f"{file.name}: {len(documents)} documents")
        for document in documents:
            name = f"{file.name}: {document['kind']} {document['metadata']['name']}"
            try:
                kubernetes_validate.validate(document, KUBERNETES, strict=True)
                check(True, name)
            except kubernetes_validate.ValidationError as error:
                check(False, f"{name}: {error.message} at {list(error.path)}")
            template = document.get("spec", {}).get("template", {}).get("spec")
            if template:
                restricted(name, template)
    broken = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "spec": {"replica": 1}}
    try:
        kubernetes_validate.validate(broken, KUBERNETES, strict=True)
        check(False, "a broken manifest is noticed")
    except kubernetes_validate.ValidationError:
        check(True, "a broken manifest is noticed")


def restricted(name, pod):
    """What the pod security standard `restricted` asks for."""
    check(pod["securityContext"]["runAsNonRoot"] is True, f"{name}: not root")
    check(pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", f"{name}: seccomp")
    for container in pod["containers"] + pod.get("initContainers", []):
        context = container["securityContext"]
        closed = not context["allowPrivilegeEscalation"] and context["capabilities"] == {"drop": ["ALL"]}
        check(closed and context["readOnlyRootFilesystem"], f"{name}: {container['name']} is locked")
        mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
        known = {volume["name"] for volume in pod.get("volumes", [])} | {"data"}
        check(mounted <= known, f"{name}: {container['name']} mounts what there is")


def compose():
    file = EXAMPLES / "compose" / "compose.yaml"
    check("services" in yaml.safe_load(file.read_text()), "compose.yaml is YAML")
    if shutil.which("npm") is None:
        print("skipped: no npm for dclint")
        return
    folder = pathlib.Path(tempfile.gettempdir(), f"frag-e2e-dclint-{os.getuid()}")
    tool = folder / "node_modules" / ".bin" / "dclint"
    if not tool.exists():
        command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", folder, "dclint@3"]
        if subprocess.run(command, capture_output=True, timeout=180).returncode != 0:
            print("skipped: dclint cannot be installed")
            return
    with tempfile.TemporaryDirectory() as empty:
        rules = pathlib.Path(empty, "rules.json")
        # Its schema check is what is asked for; the rest is taste.
        rules.write_text(json.dumps({"rules": {name: 0 for name in STYLE}}))
        ran = subprocess.run([tool, "--config", rules, file], capture_output=True, text=True)
        check(ran.returncode == 0, f"compose.yaml is as the specification has it {ran.stdout[-2000:]}{ran.stderr[-500:]}")
        broken = pathlib.Path(empty, "compose.yaml")
        broken.write_text(file.read_text().replace("    ports:", "    portz:"))
        ran = subprocess.run([tool, "--config", rules, broken], capture_output=True, text=True)
        check(ran.returncode != 0, "a broken Compose file is noticed")


STYLE = [
    "no-build-and-image",
    "no-unbound-port-interfaces",
    "require-quotes-in-ports",
    "require-project-name-field",
    "service-dependencies-alphabetical-order",
    "service-image-require-explicit-tag",
    "service-keys-order",
    "service-ports-alphabetical-order",
    "services-alphabetical-order",
    "top-level-properties-order",
]


def plane():
    request = json.loads((EXAMPLES / "plane" / "connect.json").read_text())
    check(set(request) == {"key", "spawn_config", "user", "auth"}, "the fields of a connect request")
    check(isinstance(request["auth"]["readOnly"], bool), "readOnly is a boolean: anything else is refused")


def systemd():
    if shutil.which("systemd-analyze") is None:
        print("skipped: no systemd-analyze")
        return
    source = EXAMPLES / "systemd" / "simple-artifact-server.service"
    with tempfile.TemporaryDirectory() as folder:
        unit = pathlib.Path(folder, source.name)
        text = source.read_text().replace("/usr/local/bin/simple-artifact-server", os.environ["FRAG_BIN"])
        unit.write_text(text)
        command = ["systemd-analyze", "verify", "--man=no"]
        ran = subprocess.run([*command, unit], capture_output=True, text=True)
        # What it says of units of this machine's is not ours.
        ours = [line for line in ran.stderr.splitlines() if source.stem in line]
        check(not ours, f"the unit is as systemd has it {ours}")
        unit.write_text(text.replace("KillMode=mixed", "KillMode=mixd"))
        ran = subprocess.run([*command, unit], capture_output=True, text=True)
        check(source.stem in ran.stderr, "a broken unit is noticed")
        unit.write_text(text)
        rated = subprocess.run(
            ["systemd-analyze", "security", "--offline=true", "--threshold=30", "--no-pager", unit],
            capture_output=True,
            text=True,
        )
        check(rated.returncode == 0, f"its exposure: {(rated.stdout or rated.stderr).splitlines()[-1:]}")


for part in [variables, kubernetes, compose, plane, systemd]:
    part()
sys.exit(failures > 0)
