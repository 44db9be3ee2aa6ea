"""Read the csv files of IJB-B and IJB-C that list the galleries and the probes.

| file | content |
|---|---|
| ``ijbc_1N_gallery_G1.csv``, ``_G2.csv`` | a header, then lines ``template,subject`` |
| ``ijbc_1N_probe_mixed.csv`` | a header, then lines ``template,subject`` |

IJB-B names the galleries ``_S1`` and ``_S2``. NIST's original files have a line for each image and
more columns, such as ``FILENAME``. Templates and subjects are integers in [0, 2^31).
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..metrics import IntArray
from .columns import bad_line, is_integer, open_columns, unreadable
from .template_rows import rows_of


@dataclass(frozen=True)
class TemplateSubjects:
    """The subjects of some templates, each template once, sorted.

    Attributes:
        path: the list.
        template, subject: (n,) int64.
    """

    path: Path
    template: IntArray
    subject: IntArray

    def rows(self, templates: IntArray) -> IntArray:
        """Return (n,) rows of the templates; :func:`.template_rows.rows_of` defines the errors."""
        return rows_of(templates, self.template, self.path)


@dataclass(frozen=True)
class SearchLists:
    """The lists of 1:N identification: two galleries, and the probes to search in both."""

    galleries: tuple[TemplateSubjects, ...]
    probes: TemplateSubjects

    def subjects(self, templates: IntArray) -> IntArray:
        """Return (T,) the subject of each of the (T,) sorted templates; −1 if no list names it.

        Raises:
            UserError: a list names an unknown template, or two lists give it different subjects.
        """
        known = np.full(len(templates), -1, dtype=np.int64)
        for listed in (*self.galleries, self.probes):
            rows = listed.rows(templates)
            unlike = np.flatnonzero((known[rows] >= 0) & (known[rows] != listed.subject))
            if len(unlike):
                at = int(unlike[0])
                raise UserError(
                    f"{listed.path}: template {listed.template[at]} has subject {listed.subject[at]}, but "
                    f"{known[rows[at]]} in another list ({len(unlike):,} such templates) · allowed: one subject for "
                    "each template"
                )
            known[rows] = listed.subject
        return known


def read_template_subjects(path: Path, *, gallery: bool = False) -> TemplateSubjects:
    """Read a list of templates and their subjects: the probes or a gallery of 1:N search.

    A template with several lines counts once.

    Args:
        path: a csv file with a header. If the header has columns such as ``TEMPLATE_ID`` and
            ``SUBJECT_ID``, these are read; otherwise the first two columns.
        gallery: allow only one template for each subject.

    Raises:
        UserError: the file cannot be read or has no header, a line has another form, a template has
            two subjects, or a subject is twice in the gallery.
    """
    subject_of: dict[int, int] = {}
    for number, template, subject in _template_lines(path):
        known = subject_of.setdefault(template, subject)
        if known != subject:
            raise UserError(
                f"{path}, line {number}: template {template} has subject {subject}, but {known} in an earlier line · "
                "allowed: one subject for each template"
            )
    templates = np.array(sorted(subject_of), dtype=np.int64)
    subjects = np.array([subject_of[template] for template in templates.tolist()], dtype=np.int64)
    if gallery:
        found, counts = np.unique(subjects, return_counts=True)
        if (counts > 1).any():
            again = found[counts > 1][0]
            names = ", ".join(map(str, templates[subjects == again].tolist()))
            raise UserError(f"{path}: subject {again} has the templates {names} · allowed in a gallery: one for each")
    return TemplateSubjects(path, templates, subjects)


def _template_lines(path: Path) -> list[tuple[int, int, int]]:
    """Return (number, template, subject) of each line after the header."""
    what = "a csv file with a header and lines 'template,subject'"
    with open_columns(path, what) as file:
        try:
            reader = csv.reader(file)
            lines = [(reader.line_num, line) for line in reader if any(line)]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise unreadable(path, error, what) from None
    if len(lines) < 2:
        raise UserError(f"{path}: has no templates · expected {what}")
    header = [re.sub(r"[\W_]", "", name).upper().removesuffix("ID") for name in lines[0][1]]
    if any(map(is_integer, header)):
        raise bad_line(path, lines[0][0], ",".join(lines[0][1]), "a header, the names of the columns")
    named = "TEMPLATE" in header and "SUBJECT" in header
    columns = (header.index("TEMPLATE"), header.index("SUBJECT")) if named else (0, 1)
    found = []
    for number, line in lines[1:]:
        fields = [line[column].strip() if column < len(line) else "" for column in columns]
        if not all(map(is_integer, fields)):
            raise bad_line(path, number, ",".join(line), "integers for template and subject")
        found.append((number, int(fields[0]), int(fields[1])))
    return found
