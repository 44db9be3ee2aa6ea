"""Find the columns of a table of images, an image and a label per row, as ``datasets`` writes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ...errors import UserError, printable, shown
from ...extras import import_extra
from .grouping import Grouped, Label, by_label, checked_label
from .shards import log_empty

LABEL_COLUMNS = ("identity", "label", "cls")
_IMAGE_COLUMNS = ("image", "img", "jpg")
_SHOWN = 8
_LONGEST_TYPE = 80  # characters of a type in a message


class Columns(NamedTuple):
    """The columns of a table to read.

    Attributes:
        image: the column of the images.
        nested: whether it is a struct with the field ``bytes``, not only bytes.
        label: the column of the labels.
        names: of the identities, by label; None if the table has none.
        has_paths: whether the struct has a field ``path`` of texts. Its type is null where no image
            has a path, as for images from memory.
    """

    image: str
    nested: bool
    label: str
    names: list[str] | None
    has_paths: bool

    @property
    def paths(self) -> str | None:
        """The column of the images' paths."""
        return f"{self.image}.path" if self.has_paths else None

    @property
    def bytes(self) -> str:
        """The column of the encoded images, by its name in Parquet."""
        return f"{self.image}.bytes" if self.nested else self.image


def pyarrow(module: str = "pyarrow") -> Any:
    """Import pyarrow or a part of it. Raises UserError if it is not installed."""
    return import_extra("data.train", module, "parquet")


def find_columns(schema: Any, place: str) -> Columns:
    """Find the image and label columns by type, Hugging Face's features, and name.

    Args:
        schema: a ``pyarrow.Schema``.
        place: the table's name in messages.

    Raises:
        UserError: there is no such column, or several of which none has a usual name.
    """
    features = _features(schema)
    images = [field.name for field in schema if _is_image(field.type)]
    of_type = [name for name in _of_type(features, "Image") if name in images]
    likely = (
        [name for name in _IMAGE_COLUMNS if name in (of_type or images)] or of_type or images[:1] * (len(images) == 1)
    )
    image = next(iter(likely), "")
    labels = [field.name for field in schema if _is_label(field.type)]
    classes = [name for name in _of_type(features, "ClassLabel") if name in labels]
    label = next(iter([name for name in LABEL_COLUMNS if name in labels] or classes), "")
    for name, found, usual in ((image, of_type, _IMAGE_COLUMNS), (label, classes, LABEL_COLUMNS)):
        if name not in usual and len(found) > 1:
            what = "images" if found is of_type else "classes"
            raise UserError(
                f"{place}: got {len(found)} columns of {what}, {', '.join(map(shown, found[:_SHOWN]))} · allowed: one, "
                f"or one of them named {' or '.join(usual)} · rename the right one to {usual[0]}"
            )
    for name, wanted, found, allowed in (
        (image, _IMAGE_COLUMNS, images, "struct<bytes, path> or binary"),
        (label, LABEL_COLUMNS, labels, "integers or texts"),
    ):
        named = next((each for each in wanted if each in schema.names), "")
        if name not in found and named and named not in found and schema.names.count(named) == 1:
            kind = printable(str(schema.field(named).type))[:_LONGEST_TYPE]
            raise UserError(
                f"{place}: column {named}: got the type {kind} · allowed: {allowed} · write it again with another type"
            )
    if image not in images or label not in labels or schema.names.count(image) + schema.names.count(label) != 2:
        what = "the image" if image not in images else "the label"
        columns = ", ".join(f"{printable(field.name)[:40]}: {str(field.type)[:40]}" for field in list(schema)[:_SHOWN])
        raise UserError(
            f"{place}: cannot find the column of {what}, got {printable(columns)} · allowed: image (struct<bytes, "
            f"path> or binary) and one of {', '.join(LABEL_COLUMNS)} (integers or texts) · rename them"
        )
    feature = features.get(label)
    names = feature.get("names") if isinstance(feature, dict) else None
    kind = schema.field(image).type
    nested = bool(pyarrow().types.is_struct(kind))
    has_paths = nested and any(field.name == "path" and _is_text(field.type) for field in kind)
    return Columns(image, nested, label, _checked_names(names, f"{place}, {label}"), has_paths)


class Table(Protocol):
    """One file of a table.

    Attributes:
        path: the file.
        columns: its columns of images and labels.
        paths: of its images; None: unknown.
        labels: whole numbers or texts, as in the file; None: unknown.
    """

    path: Path
    columns: Columns
    paths: list[str | None]
    labels: list[Any]


def grouped_rows(tables: Sequence[Table], source: Path, form: str) -> tuple[list[str | None], Grouped]:
    """Group the rows of all files by identity, sorted by path within an identity.

    Without paths, the rows of an identity are in their order.

    Args:
        tables: the files.
        source: the path of the whole, for messages.
        form: of the files, for messages.

    Returns:
        The paths of all images, in the order of the rows, and the groups.

    Raises:
        UserError: there are no rows, files have different columns, or a label is missing or wrong.
    """
    labels = [label for table in tables for label in table.labels]
    if not labels:
        raise UserError(f"{source}: got no images · allowed: {form} files with rows")
    log_empty(source, [table.path for table in tables if not table.labels])
    columns, first = tables[0].columns, tables[0].path.name
    differ = (table for table in tables if table.columns._replace(has_paths=columns.has_paths) != columns)
    if other := next(differ, None):
        raise UserError(f"{other.path}: has other columns than {first} · allowed: files of one data set")
    paths = [path for table in tables for path in table.paths]
    place = f"{source}, column {columns.label}"
    known: dict[Any, Label | None] = {None: None}
    for value in set(labels) - {None}:
        known[value] = _named(checked_label(value, place), columns.names, place)
    complete = all(path is not None for path in paths)
    names = [str(path) if complete else f"{row:010d}" for row, path in enumerate(paths)]
    what, instead = f"the column {columns.label}", "write them into a column identity"
    files = [number for number, table in enumerate(tables) for _ in table.labels]
    rows = [known[value] for value in labels]
    return paths, by_label(names, rows, str(source), what, files=files, instead=instead)


def row_name(row: int, path: str | None) -> str:
    """Return the name of an image in messages: its row in its file, and its path if it is known."""
    return f"row {row} ({path})" if path else f"row {row}"


def no_bytes(place: str, missing: int, total: int) -> UserError:
    """Return the error for rows that contain a path instead of an image."""
    return UserError(
        f"{place}: {missing:,} of {total:,} rows contain no image, at most a path · allowed: rows with image bytes · "
        "train on the folder of images itself, or write the images with datasets: "
        "dataset.with_format('arrow').map(datasets.table.embed_table_storage, batched=True)"
    )


def _named(label: Label, names: list[str] | None, place: str) -> Label:
    if not isinstance(label, int) or names is None:
        return label
    if label >= len(names):
        raise UserError(f"{place}: got {label} · allowed: 0 to {len(names) - 1}, as the table has names for these")
    return names[label]


def _checked_names(names: Any, place: str) -> list[str] | None:
    if not isinstance(names, list) or not names or names == [str(number) for number in range(len(names))]:
        return None
    checked = [str(checked_label(name, place)) for name in names]
    if len(set(checked)) < len(checked):
        raise UserError(
            f"{place}: got {len(checked)} names, {len(set(checked))} of them different · allowed: one for each label"
        )
    return checked


def _features(schema: Any) -> dict[str, Any]:
    """Return the features that ``datasets`` stored; empty if there are none or they are invalid."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _of_type(features: dict[str, Any], kind: str) -> list[str]:
    return [name for name, feature in features.items() if isinstance(feature, dict) and feature.get("_type") == kind]


def _is_image(kind: Any) -> bool:
    types = pyarrow().types
    if types.is_struct(kind):
        fields = {field.name: field.type for field in kind}
        path = fields.get("path", pyarrow().null())
        return "bytes" in fields and _is_binary(fields["bytes"]) and (_is_text(path) or bool(types.is_null(path)))
    return _is_binary(kind)


def _is_binary(kind: Any) -> bool:
    types = pyarrow().types
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _is_text(kind: Any) -> bool:
    types = pyarrow().types
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _is_label(kind: Any) -> bool:
    """Return whether a type is integers or texts, or a dictionary of them, as in pandas."""
    types = pyarrow().types
    kind = kind.value_type if types.is_dictionary(kind) else kind
    return bool(types.is_integer(kind)) or _is_text(kind)
