"""The licence of an export: the text of its LICENSE file, and what the sources' licences object.

For MIT the file is the whole text; for every other licence, its name and where its text stands.
Gives no legal advice: data/licences.py says what is compared, and how carefully.
"""

from __future__ import annotations

from picochat.core.errors import Problem
from picochat.data.licences import compare_licences, demands
from picochat.facts import RunFacts

MIT = """MIT License

Copyright (c) the publishers of {model_name}

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""


def licence_text(licence: str, model_name: str) -> str:
    """The text of the LICENSE file for `licence`.

    licence: an identifier as the Hub and SPDX spell it; `unknown` where the publisher chose no
    licence.
    """
    if licence.lower() == "mit":
        return MIT.format(model_name=model_name)
    if licence.lower() == "unknown":
        return (
            f"The publishers of {model_name} have not chosen a licence: all rights are reserved.\n"
        )
    return (
        f"{model_name} is published under the licence {licence}. Its text:"
        " https://spdx.org/licenses/ under that identifier.\n"
    )


def licence_objections(licence: str, facts: RunFacts | None) -> list[Problem]:
    """Why a model of a release profile may not have this licence: one problem for each source.

    None for the profile `research`, whose card says it instead.
    """
    if not facts or facts.config.gate.profile == "research":
        return []
    sources = facts.licences()
    return [
        Problem(demands(sources, [name]))
        for name in compare_licences(sources, licence).contradicted
    ]
