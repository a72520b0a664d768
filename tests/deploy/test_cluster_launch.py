"""What cluster.yaml makes of EC2, as an imitation of it (moto) sees it: the machines Ray would launch, and how."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.support import ROOT

pytestmark = pytest.mark.medium


@pytest.fixture(scope="module")
def ec2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An imitation of AWS with what docs/aws.md says must exist before; the values for cluster.yaml."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "a")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "b")
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        client = boto3.client("ec2", region_name="eu-central-1")
        iam = boto3.client("iam", region_name="eu-central-1")
        for name in ("brats-head", "brats-worker"):
            iam.create_instance_profile(InstanceProfileName=name)
        vpc = client.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnet = client.create_subnet(VpcId=vpc, CidrBlock="10.0.1.0/24")["Subnet"]["SubnetId"]
        client.modify_subnet_attribute(SubnetId=subnet, MapPublicIpOnLaunch={"Value": True})
        group = client.create_security_group(GroupName="brats", Description="brats", VpcId=vpc)["GroupId"]
        client.create_key_pair(KeyName="my-key")
        image = client.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
        yield {
            "ami-00000000000000000": image,
            "sg-00000000000000000": group,
            "subnet-00000000000000000": subnet,
        }
    server.stop()


def provider_of(config: dict[str, Any]) -> Any:
    """What starts and ends machines on EC2 for Ray."""
    from ray.autoscaler._private.providers import _get_node_provider

    return _get_node_provider(config["provider"], config["cluster_name"], use_cache=False)


def launch(provider: Any, config: dict[str, Any], kind: str, count: int) -> list[dict[str, Any]]:
    """Start machines; the requests to EC2. EC2 starts as many as one asks for, moto one for each request."""
    from ray.autoscaler.tags import TAG_RAY_NODE_KIND, TAG_RAY_USER_NODE_TYPE

    asked: list[dict[str, Any]] = []
    events = provider.ec2_fail_fast.meta.client.meta.events
    request = "provide-client-params.ec2.RunInstances"
    events.register(request, lambda params, **_: asked.append(dict(params)), unique_id="asked")
    tags = {TAG_RAY_NODE_KIND: "head" if kind == "head" else "worker", TAG_RAY_USER_NODE_TYPE: kind}
    provider.create_node(config["available_node_types"][kind]["node_config"], tags, count)
    events.unregister(request, unique_id="asked")
    return asked


def running(config: dict[str, Any], kind: str) -> list[Any]:
    """The instances of one kind that cost money, as EC2 describes them."""
    import boto3

    client = boto3.client("ec2", region_name=config["provider"]["region"])
    paid = ["pending", "running", "stopping", "stopped"]  # the disks of stopped ones
    filters = [
        {"Name": "tag:ray-user-node-type", "Values": [kind]},
        {"Name": "instance-state-name", "Values": paid},
    ]
    found = client.describe_instances(Filters=filters)
    return [instance for reservation in found["Reservations"] for instance in reservation["Instances"]]


def end_all(provider: Any) -> None:
    """What `ray down` does, once it has stopped Ray."""
    provider.terminate_nodes(provider.nodes_for_teardown({}))


@pytest.fixture(scope="module")
def bootstrapped(ec2: dict[str, str]) -> dict[str, Any]:
    """cluster.yaml, edited, as `ray up` sends it to the head."""
    from ray.autoscaler._private.commands import _bootstrap_config

    text = (ROOT / "cluster.yaml").read_text()
    for placeholder, value in ec2.items():
        text = text.replace(placeholder, value)
    config: dict[str, Any] = _bootstrap_config(yaml.safe_load(text), no_config_cache=True)
    return config


def test_gpu_machine_is_known_to_have_a_t4(bootstrapped: dict[str, Any]) -> None:
    resources = bootstrapped["available_node_types"]["gpu"]["resources"]
    assert resources["GPU"] == 1
    assert resources["CPU"] == 4
    assert resources["accelerator_type:T4"] == 1
    assert bootstrapped["available_node_types"]["head"]["resources"] == {"CPU": 0}


def test_ray_opens_nothing_and_makes_no_role_or_key(bootstrapped: dict[str, Any], ec2: dict[str, str]) -> None:
    import boto3

    client = boto3.client("ec2", region_name="eu-central-1")
    groups = client.describe_security_groups()["SecurityGroups"]
    world = [
        (group["GroupId"], rule)
        for group in groups
        for rule in group["IpPermissions"]
        if any(span["CidrIp"] == "0.0.0.0/0" for span in rule["IpRanges"])
    ]
    assert world == []
    assert [key["KeyName"] for key in client.describe_key_pairs()["KeyPairs"]] == ["my-key"]
    assert boto3.client("iam", region_name="eu-central-1").list_roles()["Roles"] == []
    for kind in bootstrapped["available_node_types"].values():
        node = kind["node_config"]
        assert node["SecurityGroupIds"] == [ec2["sg-00000000000000000"]]
        assert node["SubnetIds"] == [ec2["subnet-00000000000000000"]]


@pytest.fixture
def provider(bootstrapped: dict[str, Any]) -> Iterator[Any]:
    """Ray's hands on EC2; whatever they have started is ended after the test."""
    provider = provider_of(bootstrapped)
    yield provider
    end_all(provider)


@pytest.mark.parametrize(("kind", "count"), [("head", 1), ("gpu", 2)])
def test_machines_are_launched_as_written(
    bootstrapped: dict[str, Any], provider: Any, ec2: dict[str, str], kind: str, count: int
) -> None:
    (request,) = launch(provider, bootstrapped, kind, count)
    assert request["MaxCount"] == count
    assert request.get("Placement") == {"head": None, "gpu": {"GroupName": "my-group"}}[kind]
    (instance,) = running(bootstrapped, kind)
    assert instance["InstanceType"] == {"head": "m6i.large", "gpu": "g4dn.xlarge"}[kind]
    assert instance["ImageId"] == ec2["ami-00000000000000000"]
    assert instance["IamInstanceProfile"]["Arn"].endswith({"head": "/brats-head", "gpu": "/brats-worker"}[kind])
    assert instance.get("InstanceLifecycle") == {"head": None, "gpu": "spot"}[kind]
    assert [group["GroupId"] for group in instance["SecurityGroups"]] == [ec2["sg-00000000000000000"]]
    assert instance["SubnetId"] == ec2["subnet-00000000000000000"]
    assert instance["KeyName"] == "my-key"
    assert instance["MetadataOptions"]["HttpTokens"] == "required"
    assert [disk_of(mapping) for mapping in instance["BlockDeviceMappings"]] == [
        {"head": (100, "gp3", True), "gpu": (150, "gp3", True)}[kind]
    ]


def test_ray_down_ends_every_machine_and_disk(bootstrapped: dict[str, Any], provider: Any) -> None:
    import boto3

    for kind in ("head", "gpu", "gpu"):
        launch(provider, bootstrapped, kind, 1)
    client = boto3.client("ec2", region_name="eu-central-1")
    assert len(client.describe_volumes()["Volumes"]) == 3
    end_all(provider_of(bootstrapped))  # as another process, which finds the machines by their tag
    assert running(bootstrapped, "head") == running(bootstrapped, "gpu") == []
    assert client.describe_volumes()["Volumes"] == []


def disk_of(mapping: dict[str, Any]) -> tuple[int, str, bool]:
    """Size in GB, kind, and whether it is encrypted."""
    import boto3

    client = boto3.client("ec2", region_name="eu-central-1")
    (volume,) = client.describe_volumes(VolumeIds=[mapping["Ebs"]["VolumeId"]])["Volumes"]
    return volume["Size"], volume["VolumeType"], volume["Encrypted"]
