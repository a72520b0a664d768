"""The policies of docs/aws.md for the machines of cluster.yaml: exactly what they allow."""

import json
import re
from typing import Any

import yaml

from tests.support import ROOT

AWS = (ROOT / "docs" / "aws.md").read_text()
CLUSTER: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text())
WORKER: dict[str, Any] = CLUSTER["available_node_types"]["gpu"]["node_config"]

Rule = tuple[str, str, dict[str, Any] | None]


def policies() -> list[list[Rule]]:
    """Action, resource and condition of all that is allowed, to every machine and to the head."""
    found = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", AWS, flags=re.DOTALL)]
    assert {policy["Version"] for policy in found} == {"2012-10-17"}
    return [
        [
            (action, resource, statement.get("Condition"))
            for statement in policy["Statement"]
            if statement["Effect"] == "Allow"
            for action in listed(statement["Action"])
            for resource in listed(statement["Resource"])
        ]
        for policy in found
    ]


def listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def test_every_action_is_named_and_only_describing_is_allowed_on_everything() -> None:
    every_machine, head = policies()
    rules = [*every_machine, *head]
    assert [action for action, _, _ in rules if "*" in action] == []
    assert [action for action, resource, _ in rules if resource == "*"] == ["ec2:DescribeInstances"]


def test_machines_read_one_bucket_and_write_where_the_jobs_do_alone() -> None:
    settings = CLUSTER["metadata"]["settings"]
    bucket, storage = re.findall(r"bucket=s3://(\S+)|BRATS_STORAGE=\$bucket/(\S+)", settings)
    arn = f"arn:aws:s3:::{bucket[0]}"
    assert policies()[0] == [
        ("s3:ListBucket", arn, None),
        ("s3:GetObject", f"{arn}/*", None),
        ("s3:PutObject", f"{arn}/{storage[1]}/*", None),
        ("s3:DeleteObject", f"{arn}/{storage[1]}/*", None),
        ("s3:AbortMultipartUpload", f"{arn}/{storage[1]}/*", None),
    ]


def test_head_may_start_and_end_the_workers_of_cluster_yaml_alone() -> None:
    ec2 = "arn:aws:ec2:*:*"
    of_type = {"StringEquals": {"ec2:InstanceType": WORKER["InstanceType"]}}
    just_started = {"StringEquals": {"ec2:CreateAction": "RunInstances"}}
    of_cluster = {"StringEquals": {"ec2:ResourceTag/ray-cluster-name": CLUSTER["cluster_name"]}}
    used = ("subnet", "network-interface", "security-group", "volume", "key-pair", "spot-instances-request")
    assert policies()[1] == [
        ("ec2:DescribeInstances", "*", None),
        ("ec2:RunInstances", f"{ec2}:instance/*", of_type),
        ("ec2:RunInstances", "arn:aws:ec2:*::image/*", None),  # images belong to no account
        *(("ec2:RunInstances", f"{ec2}:{kind}/*", None) for kind in used),
        ("ec2:RunInstances", f"{ec2}:placement-group/{WORKER['Placement']['GroupName']}", None),
        ("ec2:CreateTags", f"{ec2}:instance/*", just_started),
        ("ec2:CreateTags", f"{ec2}:instance/*", of_cluster),
        ("ec2:TerminateInstances", f"{ec2}:instance/*", of_cluster),
        ("iam:PassRole", f"arn:aws:iam::*:role/{WORKER['IamInstanceProfile']['Name']}", None),
    ]


def test_roles_have_the_names_of_the_profiles() -> None:
    head = CLUSTER["available_node_types"]["head"]["node_config"]["IamInstanceProfile"]["Name"]
    worker = WORKER["IamInstanceProfile"]["Name"]
    assert f"`{worker}` with the first, `{head}` with both" in " ".join(AWS.split())
