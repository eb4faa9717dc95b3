"""The zoo's models: ``zoo:NAME``."""

from __future__ import annotations

from costmodel.errors import InputError
from costmodel.sources.building import building, reason
from costmodel.sources.loaded import LoadedModel, TensorInput
from costmodel.sources.registry import Options, source
from costmodel.sources.signatures import check_arguments, taken_by_call

__all__: list[str] = []


def zoo_names() -> dict[str, str | None]:
    """Name -> the module of the zoo that defines it."""
    from costmodel.zoo import entries

    return {name: entry.family for name, entry in entries().items()}


@source("zoo", names=zoo_names, bare=True)
def load(name: str, options: Options) -> LoadedModel:
    """A textbook network that no library ships."""
    from costmodel.zoo import entries

    entry = entries().get(name)
    if entry is None:
        from costmodel.sources.resolve import unknown_model

        raise unknown_model(name, "zoo")
    check_arguments(f"zoo:{name}", options.arguments, taken_by_call(entry.build)[0])
    try:
        with building():
            module = entry.build(**options.arguments).eval()
    except Exception as error:
        if options.arguments:
            raise InputError(f"zoo:{name} cannot be built so: {reason(error)}") from error
        raise
    return LoadedModel(
        name=name,
        source="costmodel zoo",
        module=module,
        template=((TensorInput(entry.input_name, entry.dims, entry.dtype),), {}),
        sizes=dict(entry.sizes),
        notes=[entry.paper],
        family=entry.family,
    )
