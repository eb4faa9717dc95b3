"""Chains that fusion would shorten, and the longest path, on graphs small enough to count."""

from __future__ import annotations

import pytest

from costmodel.explain.chains import fusible_share, longest_path
from costmodel.explain.ladder import differences
from tests.explain.networks import analysis


def test_a_chain_of_two_shares_one_tensor():
    found = analysis("two relus")
    assert list(fusible_share(found.plan, found.bound).values()) == pytest.approx([0.5, 0.5])
    assert fusible_share(analysis("one relu").plan, analysis("one relu").bound) == {}


def test_a_convolution_ends_a_chain():
    """conv, bn, relu twice: bn to relu can fuse, relu to conv cannot."""
    found = analysis("normed")
    ops = [found.bound.nodes[found.plan.launches[at].nodes[-1]].op for at in fusible_share(found.plan, found.bound)]
    assert sorted(ops) == ["aten.batch_norm", "aten.batch_norm", "aten.relu", "aten.relu"]


def test_the_longest_path_goes_through_the_longest_branch():
    graph = analysis("branches").bound
    convolutions = [i for i, node in enumerate(graph.nodes) if "conv" in node.op]
    additions = [i for i, node in enumerate(graph.nodes) if "add" in node.op]
    seconds = {**dict.fromkeys(convolutions, 1.0), convolutions[1]: 5.0, **dict.fromkeys(additions, 0.25)}
    length, path = longest_path(graph, seconds)
    behind = sum(1 for i in additions if i in path)
    assert length == 5.0 + 0.25 * behind
    assert convolutions[1] in path
    assert [i for i in path if i in convolutions] == [convolutions[1]]


def test_in_series_the_longest_path_is_all():
    found = analysis("series")
    seconds = dict.fromkeys(range(len(found.bound.nodes)), 2.0)
    length, path = longest_path(found.bound, seconds)
    assert length == 2.0 * len(found.bound.nodes) == 2.0 * len(path)


def test_differences_of_rungs_add_to_the_last():
    parts = differences(1.0, [("tiles", 4.0), ("cache_hits", 3.0), ("fixed", 3.5), ("host", 3.5)])
    assert parts == {"tiles": 3.0, "cache_hits": -1.0, "fixed": 0.5}
    assert 1.0 + sum(parts.values()) == 3.5
