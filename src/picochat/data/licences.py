"""What licences of text ask of a model that is trained on it, and which licences of a model fit.

TERMS is a reading of the licences' own words and no legal advice. Whether weights are a derived
work of their training text is disputed; here they count as one, the careful reading. Then:

- attribution: any licence of the model fits; the model card gives the attribution.
- non-commercial: the model's licence must be non-commercial too.
- share alike: the model's licence must be the same one, or one that it names.
- no derived works: no licence of a model fits.

What is not in TERMS is unknown and never a fit. Of several licences ("a and b") nobody can tell
whether they are for parts or to choose from: they fit, or contradict, only if all do. Does not see
rights that the licence of a collection does not cover, such as those in the pages of a crawl.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from picochat.present.printable import one_line

SHOWN_LICENCE = 60  # characters of an identifier, which anybody can have written
Fit = Literal["fits", "contradicts", "unknown"]

ATTRIBUTION, SHARE_ALIKE = "attribution", "share alike"
NON_COMMERCIAL, NO_DERIVATIVES = "non-commercial use", "no derived works"

# The identifier of SPDX and of the Hub in lower case, without version -> what it asks. Left out,
# because what they ask of a model is not plain: licences of changed files (LGPL, MPL, EPL), and
# those with rules of use (OpenRAIL, Llama, Gemma).
TERMS: dict[str, tuple[str, ...]] = {
    "0bsd": (),
    "cc0": (),
    "cdla-permissive": (),  # trained models are among the results that both CDLA leave free
    "cdla-sharing": (),
    "mit-0": (),
    "pddl": (),
    "public-domain": (),
    "unlicense": (),
    "wtfpl": (),
    "apache": (ATTRIBUTION,),
    "bsd": (ATTRIBUTION,),
    "bsd-2-clause": (ATTRIBUTION,),
    "bsd-3-clause": (ATTRIBUTION,),
    "cc-by": (ATTRIBUTION,),
    "etalab": (ATTRIBUTION,),
    "isc": (ATTRIBUTION,),
    "mit": (ATTRIBUTION,),
    "odc-by": (ATTRIBUTION,),
    "ogl-uk": (ATTRIBUTION,),
    "psf": (ATTRIBUTION,),
    "python": (ATTRIBUTION,),
    "agpl": (ATTRIBUTION, SHARE_ALIKE),
    "cc-by-sa": (ATTRIBUTION, SHARE_ALIKE),
    "gfdl": (ATTRIBUTION, SHARE_ALIKE),
    "gpl": (ATTRIBUTION, SHARE_ALIKE),
    "odbl": (ATTRIBUTION, SHARE_ALIKE),
    "cc-by-nc": (ATTRIBUTION, NON_COMMERCIAL),
    "cc-by-nc-sa": (ATTRIBUTION, NON_COMMERCIAL, SHARE_ALIKE),
    "cc-by-nd": (ATTRIBUTION, NO_DERIVATIVES),
    "cc-by-nc-nd": (ATTRIBUTION, NON_COMMERCIAL, NO_DERIVATIVES),
}
USUAL = ("mit", "apache-2.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0")
"""Licences of a model that are proposed, beside those of its sources."""

# The version, then the country of a ported Creative Commons licence, or what SPDX adds to the GPL.
IDENTIFIER = re.compile(
    r"(?P<family>.+?)"
    r"(?:-v?(?P<version>[1-9]\d*(?:\.\d+)*)(?:-(?!n[cd]|sa)[a-z]{2,3}|-only|(?P<later>-or-later|\+))?)?"
)


class Licence(NamedTuple):
    """A licence of TERMS. version: empty if it is not stated."""

    family: str
    version: tuple[int, ...]
    or_later: bool


def read_licence(text: str | None) -> Licence | None:
    """The licence that an identifier names ("cc-by-sa-4.0", "CC BY-SA 4.0"), None if unknown."""
    found = IDENTIFIER.fullmatch(_spelled(text or ""))
    if not found or found["family"] not in TERMS:
        return None
    # 3 is 3.0: without the zeros at the end, the two are equal.
    version = tuple(int(each) for each in re.findall(r"\d+", found["version"] or ""))
    while version and not version[-1]:
        version = version[:-1]
    # From version 2.0 on, CC licences with share alike name their later versions.
    later = found["family"] in ("cc-by-sa", "cc-by-nc-sa") and version >= (2,)
    return Licence(found["family"], version, later or bool(found["later"]))


def terms_of(text: str | None) -> tuple[str, ...] | None:
    """What the licences of a source ask, all of them together; None if one is unknown."""
    found = [read_licence(part) for part in _parts(text)]
    if None in found:
        return None
    terms = {term for licence in found if licence for term in TERMS[licence.family]}
    order = (ATTRIBUTION, NON_COMMERCIAL, SHARE_ALIKE, NO_DERIVATIVES)
    return tuple(term for term in order if term in terms)


def fit(source: str | None, model: str | None) -> Fit:
    """Whether a source under the one licence may become a model under the other.

    None stands for a licence that is not stated or not chosen yet.
    """
    fits: set[Fit] = {_fit_one(read_licence(part), read_licence(model)) for part in _parts(source)}
    return fits.pop() if len(fits) == 1 else "unknown"


def _spelled(text: str) -> str:
    """As SPDX and the Hub spell an identifier, in lower case: `CC BY-SA 4.0` is `cc-by-sa-4.0`."""
    return re.sub(r"[\s_]+", "-", text.strip().lower())


def _parts(text: str | None) -> list[str]:
    return re.split(r"\s+and\s+|\s*,\s*", text or "", flags=re.IGNORECASE)


def _fit_one(source: Licence | None, model: Licence | None) -> Fit:
    if source is None:
        return "unknown"
    terms = TERMS[source.family]
    if NO_DERIVATIVES in terms:
        return "contradicts"
    if SHARE_ALIKE not in terms and NON_COMMERCIAL not in terms:
        return "fits"
    if model is None:
        return "unknown"
    if NON_COMMERCIAL in terms and NON_COMMERCIAL not in TERMS[model.family]:
        return "contradicts"
    return "contradicts" if SHARE_ALIKE in terms and not _shares(source, model) else "fits"


def _shares(source: Licence, model: Licence) -> bool:
    """Whether the model's licence is the source's or one that it names. No version: any of them."""
    if source.family == "cc-by-sa" and source.version == (4,) and model.family == "gpl":
        return model.version == (3,)  # the list of compatible licences of Creative Commons
    same = source.version == model.version or not source.version or not model.version
    later = source.or_later and model.version > source.version
    return source.family == model.family and (same or later)


@dataclass(frozen=True)
class Comparison:
    """The licences of sources beside that of a model. The first two name sources.

    `contradicted`: what their licence asks, the model's does not keep. If the model's is not known
    or not chosen: what even the licence that keeps most does not keep. `unknown`: nobody can tell.
    `fitting`: licences of a model that contradict no source; there is one if none is contradicted.
    """

    contradicted: tuple[str, ...]
    unknown: tuple[str, ...]
    fitting: tuple[str, ...]

    @property
    def choice(self) -> str:
        if not self.fitting:
            return "no licence of a model fits all of them"
        return f"licences that contradict none of them: {', '.join(self.fitting)}"


def compare_licences(sources: Mapping[str, str | None], model: str | None) -> Comparison:
    """sources: name -> licence. model: the licence of the model, None if none is chosen."""
    own = [_spelled(part) for text in (*sources.values(), model) for part in _parts(text)]
    proposed = [*USUAL, *(each for each in own if read_licence(each))]
    against = {each: _named(sources, each, "contradicts") for each in proposed}
    contradicted = against.get(_spelled(model or ""), min(against.values(), key=len))
    unknown = _named(sources, model, "unknown")
    return Comparison(
        contradicted=contradicted,
        unknown=tuple(name for name in unknown if name not in contradicted),
        fitting=tuple(each for each, names in against.items() if not names),
    )


def _named(sources: Mapping[str, str | None], model: str | None, wanted: Fit) -> tuple[str, ...]:
    return tuple(name for name, text in sources.items() if fit(text, model) == wanted)


def demands(sources: Mapping[str, str | None], names: Iterable[str]) -> str:
    """What these sources ask: `wiki (cc-by-sa-4.0) asks for attribution, share alike; ...`."""
    found = {name: sources[name] for name in names}
    return "; ".join(
        f"{name} ({one_line(licence, SHOWN_LICENCE)}) {demand(licence)}"
        if licence
        else f"{name} states no licence"
        for name, licence in found.items()
    )


def demand(licence: str) -> str:
    """What a licence asks, as the end of a sentence: `asks for attribution`."""
    terms = terms_of(licence)
    if terms is None:
        return "asks what is not known here"
    return f"asks for {', '.join(terms) or 'nothing'}"
