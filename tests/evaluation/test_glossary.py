import pytest

from sphereface.evaluation.glossary import GLOSSARY, anchor, find_terms, short_definition


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("TAR at FAR 1e-3", ["TAR", "FAR"]),
        ("false accept rate", ["FAR"]),
        ("Genuine pairs, impostor pairs and a rank-5 search", ["genuine pair", "impostor pair", "rank k"]),
        ("DIR: impostors, genuine and impostor pairs", ["DIR", "impostor", "genuine pair", "impostor pair"]),
        ("95 % interval of ten folds ± standard error", ["confidence interval", "fold", "standard error"]),
        ("d′, AUC", ["d′", "AUC"]),
        ("galleries of probes: FPIR, FNIR", ["gallery", "probe", "FPIR", "FNIR"]),
        ("view 2", ["view 1 and view 2"]),
        ("far, start, unfolded, manifold, embedding_dim, TARGET, eer", []),
    ],
)
def test_terms_are_found_in_their_forms_and_as_whole_words(text, terms):
    assert [term for _, _, term in find_terms(text)] == terms


def test_places_are_those_of_the_text():
    text = "the EER here"
    ((start, end, term),) = find_terms(text)
    assert (text[start:end], term) == ("EER", "EER")


@pytest.mark.parametrize("term", GLOSSARY)
def test_every_term_is_explained_in_one_to_three_short_sentences(term):
    sentences = GLOSSARY[term].removesuffix(".").split(". ")
    assert 1 <= len(sentences) <= 3
    assert GLOSSARY[term].endswith(".")
    assert all(len(sentence.split()) <= 35 for sentence in sentences)
    assert term in {found for _, _, found in find_terms(term)}


def test_the_issue_s_terms_are_there():
    wanted = (
        "genuine pair|impostor pair|threshold|cosine|FAR|TAR|ROC|AUC|EER|d′|fold|standard error|confidence interval|"
        "gallery|probe|rank k|FPIR|FNIR|view 1 and view 2|embedding"
    )
    assert set(wanted.split("|")) <= set(GLOSSARY)


def test_ids_differ_and_are_plain():
    ids = [anchor(term) for term in GLOSSARY]
    assert len(set(ids)) == len(ids)
    assert anchor("d′") == "term-d-prime"
    assert all(one.replace("-", "").isalnum() for one in ids)


def test_a_figure_named_after_a_term_is_explained_in_a_sentence():
    assert short_definition("AUC").endswith("1 is perfect, 0.5 is guessing.")
    assert short_definition("rank 5").startswith("The share of searches")
    assert short_definition("TAR at FAR 1e-3") == ""
    assert short_definition("speed") == ""


def test_it_cannot_be_changed():
    with pytest.raises(TypeError):
        GLOSSARY["AUC"] = ""
