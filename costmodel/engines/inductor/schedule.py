"""Which stored results share a kernel: Inductor's scheduler (``torch/_inductor/scheduler.py``, ``fuse_nodes_once``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from costmodel.engines.inductor.stored import Buffer, Lowered

__all__ = ["Scheduler"]

#: ``config.max_fusion_size``: most stored results in one kernel.
MAX_FUSION_SIZE = 64


class _Loops(NamedTuple):
    """What a kernel iterates over: elements, rows that a reduction leaves (0: none), and whether it walks the
    elements in the order of memory, as pointwise kernels do."""

    elements: int
    rows: int
    in_order: bool


#: Rows of a normalization: its result has as many elements as its operand.
_NORMALIZED = -1


class Scheduler:
    """Joins buffers into groups; each group is one kernel."""

    def __init__(self, lowered: Lowered, counts: Mapping[int, int]) -> None:
        self.lowered, self.counts = lowered, counts
        buffers = lowered.buffers
        self.group = list(range(len(buffers)))
        self.members = [[i] for i in self.group]
        self.inputs = [self._inputs(b) for b in buffers]
        self.before = self._ancestors()
        self.loops = [self._loops(b) for b in buffers]

    def _count(self, spec: int) -> int:
        return self.counts[spec] if spec >= 0 else 0

    def _loops(self, buffer: Buffer) -> _Loops:
        if "reduction" in buffer.kind:
            return _Loops(self._count(buffer.space), self._count(buffer.rows), buffer.kind == "reduction")
        rows = _NORMALIZED if buffer.kind in ("norm", "softmax", "statistics") else 0
        return _Loops(self._count(buffer.space), rows, buffer.kind != "statistics")

    def _inputs(self, buffer: Buffer) -> set[int]:
        makers = self.lowered.makers
        found = {m for v in buffer.reads for m in makers.get(self.lowered.values[v].root, ())}
        return found | set(buffer.after)

    def _ancestors(self) -> list[int]:
        """Per buffer, a bit for each buffer that must have run before it."""
        before: list[int] = []
        for inputs in self.inputs:
            bits = 0
            for i in inputs:
                bits |= before[i] | 1 << i if i < len(before) else 0
            before.append(bits)
        return before

    def run(self) -> list[list[int]]:
        readers: dict[int, list[int]] = {}
        for j, buffer in enumerate(self.lowered.buffers):
            if buffer.kind == "extern":
                continue
            for i in sorted(self.inputs[j], reverse=True):
                self._try(i, j)
            for value in buffer.reads:
                root = self.lowered.values[value].root
                for i in reversed(readers.get(root, ())[-4:]):
                    self._try(i, j)
                if root in self.lowered.inputs or root in self.lowered.makers:  # not for weights: too little to share
                    readers.setdefault(root, []).append(j)
        return self._in_order()

    def _try(self, i: int, j: int) -> None:
        a, b = self.group[i], self.group[j]
        if a == b or "extern" in (self.lowered.buffers[i].kind, self.lowered.buffers[j].kind):
            return
        if len(self.members[a]) + len(self.members[b]) > MAX_FUSION_SIZE:
            return
        loops = self._joint_loops(self.loops[a], self.loops[b])
        if loops is None or self._reads_apart(a, b) or self._reads_apart(b, a):
            return
        if not self._between(a, b) and not self._between(b, a):
            self._join(a, b, loops)

    def _joint_loops(self, a: _Loops, b: _Loops) -> _Loops | None:
        """Loops that serve both: the same elements, or the rows that a reduction leaves."""
        if a.elements == b.elements and a.rows == b.rows and a.in_order == b.in_order:
            return a
        for wide, narrow in ((a, b), (b, a)):
            same = wide.elements == narrow.elements and wide.in_order
            if not narrow.rows and (same or (wide.rows and wide.rows == narrow.elements)):
                return wide
        return None

    def _reads_apart(self, a: int, b: int) -> bool:
        """Whether group ``b`` reads what ``a`` makes at other places than those at which its loops stand: no thread
        may, before all others have written (``can_fuse_vertical``: "memory deps did not match")."""
        made, makers = set(self.members[a]), self.lowered.makers
        apart = (root for member in self.members[b] for root in self.lowered.buffers[member].apart)
        return any(made.intersection(makers.get(root, ())) for root in apart)

    def _bits(self, group: int) -> int:
        return sum(1 << m for m in self.members[group])

    def _between(self, a: int, b: int) -> bool:
        """Whether a path leads from group ``a`` to group ``b`` through a third."""
        target = self._bits(a)
        both = target | self._bits(b)
        for member in self.members[b]:
            for i in self.inputs[member]:
                if not both >> i & 1 and self.before[i] & target:
                    return True
        return False

    def _join(self, a: int, b: int, loops: _Loops) -> None:
        a, b = min(a, b), max(a, b)
        for member in self.members[b]:
            self.group[member] = a
        self.members[a] += self.members[b]
        self.members[b] = []
        self.loops[a] = loops
        inside = self._bits(a)
        merged = inside
        for member in self.members[a]:
            merged |= self.before[member]
        for member in self.members[a]:
            self.before[member] = merged & ~(1 << member)
        for k in range(len(self.before)):
            if self.before[k] & inside and not inside >> k & 1:
                self.before[k] |= merged

    def _in_order(self) -> list[list[int]]:
        """Groups so that each comes after what it reads, otherwise in program order."""
        done: set[int] = set()
        order: list[list[int]] = []
        for root in dict.fromkeys(self.group):
            stack = [root]
            while stack:
                group = stack[-1]
                waits = {self.group[i] for m in self.members[group] for i in self.inputs[m]} - done - {group}
                if waits:
                    stack.append(min(waits))
                    continue
                stack.pop()
                if group not in done:
                    done.add(group)
                    order.append(sorted(self.members[group]))
        return order
