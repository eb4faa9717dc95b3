"""The table of studies, and what one gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module

from costmodel.errors import InputError, librarian, near_matches
from costmodel.report import Document
from costmodel.studies.bench import Bench

__all__ = ["Report", "Study", "find", "names", "study"]

#: In the order in which they are written: the overview first.
_ROOMS = (
    "published_figures",
    "resnet50_a100",
    "resnet_abcd",
    "mobilenets_vs_resnet",
    "shufflenetv2_guidelines",
    "vgg_vs_googlenet_stem",
    "squeeze_and_excitation",
    "training",
    "llm_decode",
    "char_cnn",
)


@dataclass(frozen=True, slots=True)
class Report:
    """A page: its first document gives the title, the others are its chapters; SVG ``figures`` by their file name."""

    chapters: tuple[Document, ...]
    figures: Mapping[str, str] = field(default_factory=dict)


Study = Callable[[Bench], Report]
_STUDIES: dict[str, Study] = {}


def study(name: str) -> Callable[[Study], Study]:
    """Register the function below as the report ``name``."""

    def register(function: Study) -> Study:
        _STUDIES[name] = function
        return function

    return register


def names() -> tuple[str, ...]:
    """Every report, in the order in which they are written."""
    return _ROOMS


def find(name: str) -> Study:
    """The study of this name; raises InputError naming what there is."""
    if name not in _ROOMS:
        near = near_matches(name, _ROOMS)
        raise InputError(librarian(f"there is no report {name!r}", there_is=["all", *_ROOMS], near=near))
    import_module(f"costmodel.studies.{name}")
    return _STUDIES[name]
