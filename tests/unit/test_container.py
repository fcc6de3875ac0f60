"""Files that no Python imports: the image, the launcher's file, and that a wheel carries them."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator
from packaging.requirements import Requirement

from cluster.kuberay.pod import USER

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "cluster" / "Dockerfile"


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions with their arguments, comments left out and continued lines joined."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    split = [line.split(None, 1) for line in joined.splitlines() if line.strip()]
    return [(words[0], words[1]) for words in split]


def arguments(name: str) -> list[str]:
    return [rest for word, rest in instructions() if word == name]


def default(argument: str) -> str:
    (found,) = [rest.partition("=")[2] for rest in arguments("ARG") if rest.startswith(f"{argument}=")]
    return found


def test_everything_that_is_copied_is_there_and_let_through() -> None:
    through = (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text().splitlines()
    copied = [source for rest in arguments("COPY") for source in rest.split()[:-1]]
    assert {"pyproject.toml", "pipeline", "cluster", "jobs"} <= set(copied)
    for source in copied:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in through


def test_the_build_needs_no_more_than_what_is_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    copied = {source for rest in arguments("COPY") for source in rest.split()[:-1]}
    include = project["tool"]["setuptools"]["packages"]["find"]["include"]
    named = {project["project"]["readme"], *project["project"]["license-files"], *(one.rstrip("*") for one in include)}
    assert named <= copied


def test_the_image_runs_as_the_pods_user_and_starts_no_program_of_its_own() -> None:
    assert arguments("USER") == [f"{USER}:{USER}"]
    assert any(f"--uid {USER} " in rest for rest in arguments("RUN"))
    # Ray's launcher and KubeRay start shells in it.
    assert arguments("ENTRYPOINT") == []
    assert instructions()[-1][0] == "CMD"
    # Nothing is installed once the user is no longer root.
    order = [word for word, _ in instructions()]
    assert "RUN" not in order[order.index("USER") :]


def test_the_image_has_a_ray_with_tokens() -> None:
    # KubeRay's authOptions ask for 2.52.
    assert tuple(map(int, default("RAY_VERSION").split("."))) >= (2, 52, 0)


@pytest.mark.parametrize("package", ["torch", "torchvision"])
def test_two_builds_have_the_same_torch_and_the_program_takes_it(package: str) -> None:
    version = default(package.upper())
    assert re.fullmatch(r"[0-9]+\.[0-9]+\.[0-9]+", version)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (bound,) = [one for one in map(Requirement, project["dependencies"]) if one.name == package]
    assert version in bound.specifier
    (install,) = [rest for rest in arguments("RUN") if "TORCH_INDEX" in rest]
    assert f'"{package}==${{{package.upper()}}}"' in install.split()


def test_no_package_is_compiled_but_by_pip() -> None:
    # Packages carry files for newer Pythons than the image's, which compileall calls a failure.
    assert not [rest for rest in arguments("RUN") if "compileall" in rest]


@pytest.fixture(scope="module")
def launcher() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "cluster" / "autoscaler" / "aws.yaml").read_text())
    return found


def test_the_launchers_file_is_valid_by_rays_own_schema(launcher: dict[str, Any]) -> None:
    ray = importlib.util.find_spec("ray")
    assert ray is not None and ray.origin is not None
    schema = json.loads((Path(ray.origin).parent / "autoscaler" / "ray-schema.json").read_text())
    assert [one.message for one in Draft7Validator(schema).iter_errors(launcher)] == []
    assert launcher["head_node_type"] in launcher["available_node_types"]


def test_workers_are_spot_gpus_that_come_and_go(launcher: dict[str, Any]) -> None:
    head, worker = (launcher["available_node_types"][name] for name in ("head", "gpu-spot"))
    assert worker["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert (worker["min_workers"], worker["resources"]["GPU"]) == (0, 1)
    assert worker["max_workers"] <= launcher["max_workers"]
    assert launcher["idle_timeout_minutes"] > 0
    # Without its head a cluster is gone, so that one is paid for; and it keeps no units.
    assert "InstanceMarketOptions" not in head["node_config"]
    assert head["resources"] == {"CPU": 0}
    assert "--num-cpus=0" in launcher["head_start_ray_commands"][1]


def test_the_launched_cluster_asks_for_its_token_and_hides_its_dashboard(launcher: dict[str, Any]) -> None:
    assert "-e RAY_AUTH_MODE=token" in launcher["docker"]["run_options"]
    assert launcher["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}
    assert "--dashboard-host=127.0.0.1" in launcher["head_start_ray_commands"][1]


def test_aws_knows_the_fields_of_its_nodes(launcher: dict[str, Any]) -> None:
    session = pytest.importorskip("botocore.session", reason="no botocore here")
    validate = pytest.importorskip("botocore.validate")
    shape = session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    for name, node in launcher["available_node_types"].items():
        report = validate.ParamValidator().validate({"MinCount": 1, "MaxCount": 1, **node["node_config"]}, shape)
        assert not report.has_errors(), f"{name}: {report.generate_report()}"


def test_nodes_have_a_driver_for_the_images_cuda(launcher: dict[str, Any]) -> None:
    # Without a name Ray takes one of its own list, whose driver is from before CUDA 13.
    named = "resolve:ssm:/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id"
    nodes = launcher["available_node_types"].values()
    assert [node["node_config"]["ImageId"] for node in nodes] == [named] * 2
    # Ubuntu's root, which is to be larger than the container image.
    assert {node["node_config"]["BlockDeviceMappings"][0]["DeviceName"] for node in nodes} == {"/dev/sda1"}


def test_ray_hands_the_name_of_the_nodes_image_to_ec2_as_it_is(launcher: dict[str, Any]) -> None:
    pytest.importorskip("boto3", reason="no boto3 here")
    from ray.autoscaler._private.aws.config import _check_ami
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    given = copy.deepcopy(launcher)
    _check_ami(given)
    started: list[dict[str, Any]] = []
    provider = object.__new__(AWSNodeProvider)
    provider.cluster_name, provider.provider_config = given["cluster_name"], given["provider"]
    provider.ec2_fail_fast = SimpleNamespace(create_instances=lambda **node: started.append(node) or [])
    for name, node in given["available_node_types"].items():
        provider._create_node({**node["node_config"], "SubnetIds": ["subnet-1"]}, {}, 1)
        assert started[-1]["ImageId"] == launcher["available_node_types"][name]["node_config"]["ImageId"]
    assert len(started) == 2


def test_a_wheel_carries_every_file_that_is_no_python() -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    covered = {
        file for package, patterns in data.items() for pattern in patterns for file in folder(package).glob(pattern)
    }
    for room in ("pipeline", "cluster", "jobs"):
        for file in (ROOT / room).rglob("*"):
            if file.is_file() and file.suffix not in (".py", ".pyc") and "__pycache__" not in file.parts:
                assert file in covered, f"{file.relative_to(ROOT)} is in no package-data of pyproject.toml"


def folder(package: str) -> Path:
    return ROOT.joinpath(*package.split("."))
