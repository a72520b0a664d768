"""What a cluster may grow to. What it has is in test_two_gpus."""

from pathlib import Path

import pytest

from brats.cluster.capacity import Machine, autoscaler_limit

BOOTSTRAP = """
max_workers: 3
head_node_type: head
available_node_types:
  head: {resources: {CPU: 0}, node_config: {}}
  worker: {resources: {CPU: 4, GPU: 1}, max_workers: 2, node_config: {}}
  large: {resources: {CPU: 8, GPU: 4}, max_workers: 2, node_config: {}}
"""


def test_autoscaler_limit_is_the_largest_workers_that_the_configuration_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "ray_bootstrap_config.yaml").write_text(BOOTSTRAP)
    assert autoscaler_limit() == [Machine(cpus=8, gpus=4)] * 2 + [Machine(cpus=4, gpus=1)]


@pytest.mark.parametrize("content", [None, "", "[1, 2]", "max_workers: 1", "a: b: c"])
def test_without_a_configuration_nothing_is_to_come(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    if content is not None:
        (tmp_path / "ray_bootstrap_config.yaml").write_text(content)
    assert autoscaler_limit() == []
