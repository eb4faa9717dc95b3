"""When the host has issued each launch of a step, seconds since the step began. Three ways make up every engine.

:func:`by_node`    a program calls operators one after the other, each of which launches what it needs
:func:`by_launch`  generated code launches kernel after kernel
a list of one time  the step was captured: one call issues all of it
"""

from __future__ import annotations

from collections.abc import Sequence

from costmodel.kernels.plan import KernelPlan

__all__ = ["by_launch", "by_node"]


def by_node(plan: KernelPlan, done_s: Sequence[float]) -> list[float]:
    """``done_s[n]`` is when the host is through with node ``n``; a launch is out with the last node that it serves."""
    return [done_s[launch.nodes[-1]] for launch in plan.launches]


def by_launch(plan: KernelPlan, launch_s: float, before_s: float = 0.0) -> list[float]:
    """Launches every ``launch_s``, after ``before_s`` of preparation.

    >>> from costmodel.kernels.plan import Launch
    >>> by_launch(KernelPlan((), (Launch(0, (0,)), Launch(0, (1,)))), 1.0, before_s=10.0)
    [11.0, 12.0]
    """
    return [before_s + (i + 1) * launch_s for i in range(len(plan.launches))]
