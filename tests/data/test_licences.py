"""What licences ask of a model, and what a licence of the model must be for it."""

import pytest

from picochat.data.licences import (
    TERMS,
    USUAL,
    compare_licences,
    demands,
    fit,
    read_licence,
    terms_of,
)


@pytest.mark.parametrize("family", TERMS)
def test_each_licence_is_read_with_and_without_a_version(family: str) -> None:
    for text in (family, f"{family}-4.0", family.upper().replace("-", " ")):
        found = read_licence(text)
        assert found and found.family == family
        assert terms_of(text) is not None and set(terms_of(text) or ()) == set(TERMS[family])


@pytest.mark.parametrize(
    ("text", "family", "version"),
    [
        ("CC BY-SA 4.0", "cc-by-sa", (4,)),
        ("CC-BY-NC-SA-2.5-FR", "cc-by-nc-sa", (2, 5)),
        ("cc-by-sa-3.0-igo", "cc-by-sa", (3,)),
        ("ODC-By-1.0", "odc-by", (1,)),
        ("GPL-2.0-or-later", "gpl", (2,)),
        ("gpl-3.0-only", "gpl", (3,)),
        ("BSD-3-Clause", "bsd-3-clause", ()),
        ("CC0-1.0", "cc0", (1,)),
        ("public domain", "public-domain", ()),
    ],
)
def test_identifiers_of_spdx_and_of_the_hub_are_read(
    text: str, family: str, version: tuple[int, ...]
) -> None:
    found = read_licence(text)
    assert found and (found.family, found.version) == (family, version)


@pytest.mark.parametrize(
    "text", [None, "", "other", "cc", "llama3.1", "cc-by-4.0-nc", "my cc-by", "apache license 2.0"]
)
def test_an_unknown_licence_never_fits_and_never_contradicts(text: str | None) -> None:
    assert terms_of(text) is None
    assert {fit(text, model) for model in (None, "mit", "cc-by-nc-4.0")} == {"unknown"}


@pytest.mark.parametrize(
    ("source", "model", "expected"),
    [
        # attribution alone: the card gives it, under any licence
        ("odc-by", "mit", "fits"),
        ("cc-by-4.0", None, "fits"),
        ("cc0-1.0", "other", "fits"),
        # no commercial use
        ("cc-by-nc-4.0", "mit", "contradicts"),
        ("cc-by-nc-4.0", "cc-by-nc-4.0", "fits"),
        ("cc-by-nc-4.0", "cc-by-nc-sa-4.0", "fits"),
        ("cc-by-nc-4.0", "other", "unknown"),
        ("cc-by-nc-4.0", None, "unknown"),
        # share alike: the same licence, or one that it names
        ("cc-by-sa-4.0", "mit", "contradicts"),
        ("cc-by-sa-4.0", "cc-by-sa-4.0", "fits"),
        ("cc-by-sa-4.0", "CC BY-SA 4.0", "fits"),
        ("cc-by-sa-4.0", "cc-by-nc-sa-4.0", "contradicts"),
        ("cc-by-sa-3.0", "cc-by-sa-4.0", "fits"),
        ("cc-by-sa-4.0", "cc-by-sa-3.0", "contradicts"),
        ("cc-by-sa-1.0", "cc-by-sa-4.0", "contradicts"),
        ("cc-by-sa-4.0", "gpl-3.0", "fits"),
        ("cc-by-sa-3.0", "gpl-3.0", "contradicts"),
        ("cc-by-nc-sa-4.0", "cc-by-nc-4.0", "contradicts"),
        ("cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "fits"),
        ("gpl-2.0", "gpl-3.0", "contradicts"),
        ("gpl-2.0-or-later", "gpl-3.0", "fits"),
        ("odbl", "odbl-1.0", "fits"),
        ("cc-by-sa-4.0", "other", "unknown"),
        # no derived works: no licence at all
        ("cc-by-nd-4.0", "cc-by-nd-4.0", "contradicts"),
        ("cc-by-nc-nd-4.0", None, "contradicts"),
        # a list says neither that its licences are for parts nor that one may be chosen
        ("cc-by-4.0 and mit", "mit", "fits"),
        ("cc-by-sa-3.0 and gfdl", "mit", "contradicts"),
        ("cc-by-sa-3.0 and gfdl", "cc-by-sa-4.0", "unknown"),
        ("cc-by-4.0 and other", "mit", "unknown"),
    ],
)
def test_each_rule_of_fitting(source: str, model: str | None, expected: str) -> None:
    assert fit(source, model) == expected


def test_a_comparison_names_the_sources_and_the_licences_that_would_do() -> None:
    sources = {"web": "odc-by", "mix": "cc-by-nc-4.0", "notes": None}
    found = compare_licences(sources, "mit")
    assert (found.contradicted, found.unknown) == (("mix",), ("notes",))
    assert found.fitting == ("cc-by-nc-4.0", "cc-by-nc-sa-4.0")
    assert demands(sources, [*found.contradicted, *found.unknown]) == (
        "mix (cc-by-nc-4.0) asks for attribution, non-commercial use; notes states no licence"
    )


def test_without_a_licence_of_the_model_only_what_none_can_keep_contradicts() -> None:
    one = compare_licences({"wiki": "cc-by-sa-3.0"}, None)
    assert (one.contradicted, one.unknown) == ((), ("wiki",))
    assert one.fitting == ("cc-by-sa-4.0", "cc-by-sa-3.0")
    both = compare_licences({"web": "odc-by", "wiki": "cc-by-sa-4.0", "mix": "cc-by-nc-4.0"}, None)
    assert len(both.contradicted) == 1 and both.fitting == ()
    assert both.choice == "no licence of a model fits all of them"


@pytest.mark.parametrize("model", [None, "unknown", "llama3.1", "mit", "GPL-3.0", "cc-by-sa-4.0"])
@pytest.mark.parametrize(
    "licences",
    [
        ("cc-by-sa-4.0", "gpl-2.0-or-later"),
        ("cc-by-sa-4.0", "cc-by-nc-4.0", "other"),
        ("cc-by-nd-4.0",),
        ("mit", None),
    ],
)
def test_some_licence_fits_or_a_source_is_contradicted(
    licences: tuple[str | None, ...], model: str | None
) -> None:
    found = compare_licences({f"source {n}": text for n, text in enumerate(licences)}, model)
    assert found.fitting or found.contradicted
    assert not set(found.contradicted) & set(found.unknown)


def test_text_that_asks_for_attribution_alone_needs_no_licence_of_the_model() -> None:
    found = compare_licences({"web": "odc-by", "books": "odc-by"}, None)
    assert (found.contradicted, found.unknown) == ((), ())
    assert set(USUAL) <= set(found.fitting)


def test_a_licence_written_by_anybody_is_shown_as_one_short_line() -> None:
    shown = demands({"x": "a\x1b[2J\n" + "b" * 500}, ["x"])
    assert "\x1b" not in shown and "\n" not in shown and len(shown) < 120
