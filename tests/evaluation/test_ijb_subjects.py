import re

import pytest

from sphereface.errors import UserError
from sphereface.evaluation.ijb_subjects import read_template_subjects

from .. import ijb_golden as golden


@pytest.fixture
def write(tmp_path):
    def to_file(text):
        path = tmp_path / "probes.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return to_file


@pytest.mark.parametrize("name", ["gallery_G1", "gallery_G2", "probe_mixed"])
def test_the_golden_files(name):
    found = read_template_subjects(golden.FOLDER / f"ijbx_1N_{name}.csv", gallery=name != "probe_mixed")
    template, subject = golden.csv_columns(f"ijbx_1N_{name}.csv")
    order = template.argsort()
    assert found.template.tolist() == template[order].tolist()
    assert found.subject.tolist() == subject[order].tolist()


def test_columns_are_taken_by_name_and_templates_count_once(write):
    text = 'FILENAME,SUBJECT_ID, template_id ,X\n"a, b.jpg",7,30,1\nc.jpg,8,20,2\n\nd.jpg,7,30,3\n'
    found = read_template_subjects(write("\ufeff" + text.replace("\n", "\r\n")))
    assert (found.template.tolist(), found.subject.tolist()) == ([20, 30], [8, 7])


@pytest.mark.parametrize("header", ["subject,template", "SUBJECTID,TEMPLATEID", "Subject ID,Template ID"])
def test_names_without_an_underscore_count_too(write, header):
    found = read_template_subjects(write(f"{header}\n1,5\n2,4\n"))
    assert (found.template.tolist(), found.subject.tolist()) == ([4, 5], [2, 1])
    found = read_template_subjects(write(f",{header}\n0,1,5\n1,2,4\n"))  # as pandas writes it
    assert (found.template.tolist(), found.subject.tolist()) == ([4, 5], [2, 1])


def test_columns_of_other_names_are_taken_by_place(write):
    found = read_template_subjects(write("t,s,more\n5,1,x\n4,1,y\n"))
    assert (found.template.tolist(), found.subject.tolist()) == ([4, 5], [1, 1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("t,s\n5,1\n6\n", "line 3: got '6' · expected integers for template and subject"),
        ("t,s\n5,x\n", "line 2: got '5,x' · expected integers"),
        ("t,s\n-5,1\n", "line 2: got '-5,1'"),
        ("t,s\n5,1\n5,2\n", "line 3: template 5 has subject 2, but 1 in an earlier line · allowed: one subject"),
        ("t,s\n", "has no templates · expected a csv file with a header"),
        ("", "has no templates"),
        ("5,1\n6,2\n", "line 1: got '5,1' · expected a header, the names of the columns"),
        (b"t,s\n\xff,1\n", "cannot be read as UTF-8 text"),
    ],
)
def test_a_bad_file(write, text, message):
    with pytest.raises(UserError, match=re.escape(message)):
        read_template_subjects(write(text))


def test_a_gallery_has_one_template_for_each_subject(write):
    path = write("t,s\n5,1\n6,2\n7,1\n")
    assert len(read_template_subjects(path).template) == 3
    with pytest.raises(UserError, match="subject 1 has the templates 5, 7 · allowed in a gallery: one"):
        read_template_subjects(path, gallery=True)


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match="none.csv: cannot be read .* expected a csv file"):
        read_template_subjects(tmp_path / "none.csv")
