"""Movement: bytes counted element by element; views told from copies by torch's own schemas."""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path
from typing import Any

import pytest

import costmodel.formulas
from costmodel.cost import Cost
from costmodel.formulas.movement import CONSTANTS, COPIES, GATHERS, MAYBE_VIEWS
from costmodel.formulas.registry import cost_of, is_free, known_operators
from costmodel.formulas.views import EMPTY, VIEWS, WIRING
from costmodel.symbols import symbol
from costmodel.tensor import TensorSpec, f32

from . import counting
from .counting import Counted

torch = pytest.importorskip("torch")

#: Views in fact, whose schema does not say so ("unsafe": the caller promises not to write through both).
UNDECLARED_VIEWS = {"_unsafe_view", "unsafe_split", "unsafe_split_with_sizes", "unsafe_chunk", "lift",
                    "_sparse_coo_tensor_with_dims_and_tensors"}  # fmt: skip
#: Declared as possible views; what they are depends on the operand, which their formula looks at.
CASTS = {"to", "type_as", "_autocast_to_reduced_precision", "_autocast_to_full_precision"}


def _cost(name: str, arguments: dict[str, Any], out: Any) -> Cost:
    cost = cost_of(f"aten.{name}", arguments, out)
    assert cost is not None
    return cost


def ids(*shape: Any) -> TensorSpec:
    return TensorSpec(shape, "int64")


def _declared() -> tuple[set[str], set[str]]:
    """Packets whose result may alias an operand without writing it, and packets that give a tensor of their own."""
    views, fresh = set(), set()
    for schema in torch._C._jit_get_all_schemas():
        if not schema.name.startswith("aten::"):
            continue
        name = schema.name.removeprefix("aten::")
        tensors = [r for r in schema.returns if "Tensor" in str(r.type)]
        if any(r.alias_info is not None and not r.alias_info.is_write for r in tensors):
            views.add(name)
        elif tensors and all(r.alias_info is None for r in tensors):
            fresh.add(name)
    return views, fresh


DECLARED_VIEWS, DECLARED_FRESH = _declared()


def short(operators: tuple[str, ...]) -> set[str]:
    return {operator.removeprefix("aten.") for operator in operators}


# -- the whole table -----------------------------------------------------------------------------------


def _torchvision_operators() -> str:
    """The text of torchvision's fake kernels, which names its operators; its library need not load."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        pytest.skip("torchvision is not installed")
    return (Path(spec.origin).parent / "_meta_registrations.py").read_text()


def _rooms_without_formulas() -> str:
    import costmodel

    root = Path(costmodel.__file__).parent
    return "".join(path.read_text() for path in root.rglob("*.py") if root / "formulas" not in path.parents)


#: What the trace records in the place of several packets, with what their arguments hold written out.
WRITTEN_OUT = {"sparse.sparse_mm": ("_sparse_mm", "_sparse_addmm", "mm", "addmm", "mv")}


def test_every_key_is_a_packet_of_torch() -> None:
    keys = set(known_operators()) - set(WRITTEN_OUT)
    assert set(WRITTEN_OUT) < set(known_operators())
    assert all(hasattr(torch.ops.aten, name) for names in WRITTEN_OUT.values() for name in names)
    assert len(keys) > 500
    unknown = []
    for key in sorted(keys):
        namespace, _, name = key.partition(".")
        if namespace == "bitsandbytes":  # a library of kernels beside torch
            known = name == "adam_blockwise"
        elif namespace == "torchvision":
            text = _torchvision_operators()
            known = f'register_meta("{name}")' in text or f"torchvision::{name}" in text
        elif namespace == "costmodel":  # what stands for several operators, put into graphs by name
            known = f'"{key}' in _rooms_without_formulas()
        elif namespace == "sparse":  # what a sparse tensor does by several kernels, called as its method
            known = callable(getattr(torch.Tensor, name, None))
        else:
            known = hasattr(getattr(torch.ops, namespace), name)
        unknown += [] if known else [key]
    assert unknown == []


def test_no_view_is_costed() -> None:
    undecided = short(MAYBE_VIEWS) | CASTS
    costed = {n for n in DECLARED_VIEWS if f"aten.{n}" in set(known_operators()) and not is_free(f"aten.{n}")}
    assert costed - DECLARED_FRESH <= undecided


def test_no_copy_is_free() -> None:
    free = {key.removeprefix("aten.") for key in known_operators() if is_free(key)}
    assert (free & DECLARED_FRESH) - DECLARED_VIEWS <= UNDECLARED_VIEWS | short(EMPTY) | short(WIRING)


def test_all_views_of_torch_are_known() -> None:
    """What the schemas declare as a view and a traced inference can meet (autograd, sparse and script aside)."""
    aside = ("_nested", "_test", "_grad", "_unpack", "_unwrap", "_ncf", "__getitem__", "_sparse")
    script = {"get", "keys", "pop", "setdefault", "as_tensor", "coalesce", "local_value", "to_here", "pin_memory"}
    met = {n for n in DECLARED_VIEWS if not n.startswith(aside)} - script - {"cpu", "cuda"}
    assert {n for n in met if f"aten.{n}" not in set(known_operators())} == set()


@pytest.mark.parametrize("name", sorted(short(VIEWS)))
def test_a_view_costs_nothing(name: str) -> None:
    assert name in DECLARED_VIEWS | UNDECLARED_VIEWS
    assert _cost(name, {"input": f32(4, 6)}, f32(6, 4)) == Cost()


@pytest.mark.parametrize("name", ["view", "transpose", "expand", "slice", "unbind", "view_as_real"])
def test_a_free_view_shares_memory_in_torch(name: str) -> None:
    arguments: dict[str, tuple[Any, ...]] = {
        "view": ([6, 4],), "transpose": (0, 1), "expand": ([4, 6],), "slice": (0, 1, 3),
        "unbind": (), "view_as_real": (),
    }  # fmt: skip
    tensor = torch.zeros(4, 6, dtype=torch.complex64 if name == "view_as_real" else torch.float32)
    result = getattr(torch.ops.aten, name)(tensor, *arguments[name])
    first = result[0] if isinstance(result, (tuple, list)) else result
    assert first.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr()
    assert is_free(f"aten.{name}")


# -- bytes, element by element ------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(short(COPIES)))
def test_a_copy_reads_and_writes_everything_once(name: str) -> None:
    assert name in DECLARED_FRESH | {"meshgrid", "resize_as", "_lazy_clone"}
    cost = _cost(name, {"input": f32(2, 3), "tensors": [f32(4), f32(5)], "dim": 0}, (f32(7), f32(8)))
    assert cost == Cost(bytes_read=(6 + 4 + 5) * 4, bytes_written=(7 + 8) * 4, launches=1)


def test_a_cast_reads_one_width_and_writes_another() -> None:
    cost = _cost("_to_copy", {"input": f32(3, 5), "dtype": "float16"}, TensorSpec((3, 5), "float16"))
    assert (cost.flops, cost.bytes_read, cost.bytes_written) == (0, 15 * 4, 15 * 2)
    assert _cost("to", {"input": f32(3, 5)}, TensorSpec((3, 5), "float16")) == cost
    assert _cost("to", {"input": f32(3, 5)}, f32(3, 5)) == Cost()


@pytest.mark.parametrize("name", sorted(short(MAYBE_VIEWS)))
def test_what_may_be_a_view_is_one_where_the_operand_is_contiguous(name: str) -> None:
    turned = TensorSpec((3, 5), strides=(1, 3))
    assert _cost(name, {"input": f32(3, 5)}, f32(15)) == Cost()
    assert _cost(name, {"input": turned}, f32(15)) == Cost(bytes_read=60, bytes_written=60, launches=1)


def test_materialising_an_expanded_tensor_reads_what_is_stored() -> None:
    """Grouped keys: 2 heads seen as 8; the copy reads each stored element once."""
    seen = TensorSpec((1, 2, 4, 10, 16), strides=(320, 160, 0, 16, 1))
    stored = {(h, t, d) for h, _, t, d in itertools.product(range(2), range(4), range(10), range(16))}
    cost = _cost("clone", {"input": seen}, f32(1, 2, 4, 10, 16))
    assert (cost.bytes_read, cost.bytes_written) == (len(stored) * 4, 4 * len(stored) * 4)


@pytest.mark.parametrize("name", sorted(short(CONSTANTS)))
def test_a_constant_is_only_written(name: str) -> None:
    cost = _cost(name, {"input": f32(3, 5), "size": [3, 5]}, f32(3, 5))
    assert cost == Cost(bytes_written=60, launches=1)


@pytest.mark.parametrize("name", sorted(short(EMPTY)))
def test_unwritten_memory_costs_nothing(name: str) -> None:
    assert _cost(name, {"size": [3, 5]}, f32(3, 5)) == Cost()


def test_copying_into_a_tensor_reads_the_source_only() -> None:
    cost = _cost("copy", {"input": f32(3, 5), "src": TensorSpec((5,), "float16")}, f32(3, 5))
    assert cost == Cost(bytes_read=5 * 2, bytes_written=60, launches=1)


@pytest.mark.parametrize("name", sorted(short(GATHERS)))
def test_a_gather_reads_what_it_fetches(name: str) -> None:
    """Out of a table of 1000 rows, 5 are fetched: walk the output and count."""
    index = ids(5)
    fetched = sum(1 for _ in itertools.product(range(5), range(8)))
    mask = TensorSpec((1000,), "bool")
    argument: dict[str, Any] = {"index": index}
    if name in ("index", "_unsafe_index"):
        argument = {"indices": [None, index]}
    elif name == "take_along_dim":
        argument = {"indices": index}
    elif name in ("masked_select", "_unsafe_masked_index"):
        argument = {"mask": mask}
    cost = _cost(name, {"input": f32(1000, 8), "dim": 0, **argument}, f32(5, 8))
    indices_read = 1000 if "mask" in argument else 5 * 8
    assert cost == Cost(bytes_read=fetched * 4 + indices_read, bytes_written=fetched * 4, launches=1)


def test_embedding_reads_rows_not_the_table() -> None:
    small = _cost("embedding", {"weight": f32(10, 8), "indices": ids(2, 3)}, f32(2, 3, 8))
    large = _cost("embedding", {"weight": f32(50000, 8), "indices": ids(2, 3)}, f32(2, 3, 8))
    assert small == large == Cost(bytes_read=6 * 8 * 4 + 6 * 8, bytes_written=6 * 8 * 4, launches=1)


@pytest.mark.parametrize(
    ("mode", "name", "weighed"), [(0, "sum", False), (1, "mean", False), (2, "max", False), (0, "sum", True)]
)
def test_embedding_bag_folds_its_rows(mode: int, name: str, weighed: bool) -> None:
    table, bags = counting.array(10, 4), [[1, 2, 5], [0, 7]]
    with counting.counting() as tally:
        for bag in bags:
            for d in range(4):
                column = [table[row, d] * Counted(0.5) if weighed else table[row, d] for row in bag]
                folded = column[0]
                for x in column[1:]:
                    folded = counting.max_(folded, x) if name == "max" else folded + x
                if name == "mean":
                    folded = folded / len(column)
    arguments = {"weight": f32(10, 4), "indices": ids(5), "offsets": ids(2), "mode": mode}
    arguments |= {"per_sample_weights": f32(5)} if weighed else {}
    cost = _cost("_embedding_bag", arguments, (f32(2, 4), ids(5), ids(2), ids(2)))
    assert cost.vector_flops == tally.flops
    assert cost.bytes_read == 5 * 4 * 4 + (5 + 2) * 8 + (5 * 4 if weighed else 0)


# -- scatters ------------------------------------------------------------------------------------------


def _scattered(add: bool, mean: bool = False) -> int:
    """FLOP of putting 6 elements into 4 places, folding them in by addition."""
    places, source = list(counting.array(4)), counting.array(6)
    with counting.counting() as tally:
        counts = [Counted(1)] * 4
        for i, x in enumerate(source):
            places[i % 4] = places[i % 4] + x if add else x
            counts[i % 4] = counts[i % 4] + 1 if mean else counts[i % 4]
        if mean:
            [p / c for p, c in zip(places, counts, strict=True)]
    return tally.flops


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("scatter", {"src": f32(6), "index": ids(6)}, _scattered(False)),
        ("scatter", {"src": f32(6), "index": ids(6), "reduce": "add"}, _scattered(True)),
        ("scatter_add", {"src": f32(6), "index": ids(6)}, _scattered(True)),
        ("scatter_reduce", {"src": f32(6), "index": ids(6), "reduce": "amax"}, _scattered(True)),
        ("scatter_reduce", {"src": f32(6), "index": ids(6), "reduce": "mean"}, _scattered(True, mean=True)),
        ("index_add", {"source": f32(6), "index": ids(6)}, _scattered(True)),
        ("index_add", {"source": f32(6), "index": ids(6), "alpha": 2}, 2 * _scattered(True)),
        ("index_reduce", {"source": f32(6), "index": ids(6), "reduce": "prod"}, _scattered(True)),
        ("index_put", {"values": f32(6), "indices": [ids(6)]}, _scattered(False)),
        ("index_put", {"values": f32(6), "indices": [ids(6)], "accumulate": True}, _scattered(True)),
    ],
)
def test_a_scatter_adds_once_for_each_element(name: str, arguments: dict[str, Any], expected: int) -> None:
    cost = _cost(name, {"input": f32(4), **arguments}, f32(4))
    assert cost == Cost(vector_flops=expected, bytes_read=4 * 4 + 6 * 4 + 6 * 8, bytes_written=4 * 4, launches=1)


@pytest.mark.parametrize(
    ("name", "arguments", "read", "written"),
    [
        # 6 indices of 8 B name 6 elements of 100; the source is 6 elements of 4 B
        ("scatter", {"src": f32(6), "index": ids(6)}, 6 * 8 + 6 * 4, 6 * 4),
        ("scatter", {"src": f32(6), "index": ids(6), "reduce": "add"}, 6 * 8 + 6 * 4 + 6 * 4, 6 * 4),
        ("scatter_add", {"src": f32(6), "index": ids(6)}, 6 * 8 + 6 * 4 + 6 * 4, 6 * 4),
        ("scatter_reduce", {"src": f32(6), "index": ids(6), "reduce": "amax"}, 6 * 8 + 6 * 4 + 6 * 4, 6 * 4),
        ("scatter_add", {"src": f32(300), "index": ids(300)}, 300 * 8 + 300 * 4 + 100 * 4, 100 * 4),  # all, at most
        ("index_copy", {"source": f32(6), "index": ids(6)}, 6 * 8 + 6 * 4, 6 * 4),
        ("index_add", {"source": f32(6), "index": ids(6)}, 6 * 8 + 6 * 4 + 6 * 4, 6 * 4),
        ("index_fill", {"dim": 0, "index": ids(6), "value": 1.0}, 6 * 8, 6 * 4),
        ("index_put", {"values": f32(), "indices": [ids(6)]}, 6 * 8 + 4, 6 * 4),
        ("index_put", {"values": f32(6), "indices": [ids(6)], "accumulate": True}, 6 * 8 + 6 * 4 + 6 * 4, 6 * 4),
        ("index_put", {"values": f32(), "indices": [TensorSpec((100,), "bool")]}, 100 + 4, 100 * 4),
    ],
)
def test_in_place_the_places_that_change_are_moved_and_no_others(
    name: str, arguments: dict[str, Any], read: int, written: int
) -> None:
    cost = _cost(name, {"input": f32(100), "in_place": True, **arguments}, f32(100))
    assert (cost.bytes_read, cost.bytes_written) == (read, written)


def test_indices_that_broadcast_name_rows_of_what_is_left() -> None:
    keys = f32(2, 8, 100, 16)  # [:, :, (5, 1), (3)] names 2 * 8 * 5 * 3 elements
    indices = [None, None, ids(5, 1), ids(3)]
    cost = _cost("index_put", {"input": keys, "indices": indices, "values": f32(5, 3), "in_place": True}, keys)
    assert cost.bytes_written == 2 * 8 * 5 * 3 * 4


def test_polar_numbers_are_two_products() -> None:
    with counting.counting() as tally:
        r, t = Counted(2.0), Counted(0.3)
        _ = r * counting.cos(t), r * counting.sin(t)
    cost = _cost("polar", {"abs": f32(3), "angle": f32(3)}, TensorSpec((3,), "complex64"))
    assert (cost.vector_flops, cost.bytes_written) == (3 * tally.flops, 24)


def test_a_number_for_the_host_is_one_element() -> None:
    assert _cost("_local_scalar_dense", {"input": f32()}, None) == Cost(bytes_read=4, launches=1)


@pytest.mark.parametrize("batch", [1, 5])
def test_symbolic_and_numeric_agree(batch: int) -> None:
    def at(n: Any) -> list[Cost]:
        return [
            _cost("cat", {"tensors": [f32(n, 3), f32(n, 4)], "dim": 1}, f32(n, 7)),
            _cost("constant_pad_nd", {"input": f32(n, 5), "pad": [1, 1]}, f32(n, 7)),
            _cost("embedding", {"weight": f32(100, 8), "indices": ids(n, 3)}, f32(n, 3, 8)),
            _cost("clone", {"input": TensorSpec((n, 4, 5), strides=(5, 0, 1))}, f32(n, 4, 5)),
            _cost("index_put", {"input": f32(n, 4), "indices": [ids(n)], "values": f32(n, 4)}, f32(n, 4)),
        ]

    assert [c.bind({"batch": batch}) for c in at(symbol("batch"))] == at(batch)


def test_sheets_are_all_imported() -> None:
    assert {"aten.relu", "aten.sum", "aten.conv2d", "aten._softmax", "aten.clone"} <= set(
        costmodel.formulas.known_operators()
    )
