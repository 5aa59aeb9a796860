"""Facts computed again by the stages' own `facts_from`, and checks across artifacts.

A verdict, a card and every page are made of the facts in manifests. So each kind of artifact that
states facts has them computed again from its files, its inputs and the settings. CROSS_CHECKS adds,
by kind, what one artifact must say of another. The host states no facts; preflight and gate are
decided again (release/verify.py). Needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from picochat.config import RunConfig
from picochat.core.errors import PicochatError, Problem
from picochat.core.publish import Artifact
from picochat.core.records import to_jsonable
from picochat.facts import RunFacts, facts_of
from picochat.release.compare import compared, differences
from picochat.release.data_checks import (
    check_benchmarks,
    check_conversations,
    check_corpus,
    check_exercises,
    check_honesty,
    check_rows,
    check_shards,
    check_tokenizer,
    check_trivial,
)
from picochat.release.training_checks import (
    check_base,
    check_parity,
    check_scores,
    check_sft,
    check_summary,
)
from picochat.run.graph import ARTIFACTS, ArtifactSpec, read_facts

CrossCheck = Callable[[RunFacts], list[Problem]]

CROSS_CHECKS: Mapping[str, CrossCheck] = MappingProxyType(
    {
        "corpus": check_corpus,
        "exercises": check_exercises,
        "rows": check_rows,
        "benchmarks": check_benchmarks,
        "tokenizer": check_tokenizer,
        "shards": check_shards,
        "conversations": check_conversations,
        "honesty": check_honesty,
        "trivial": check_trivial,
        "base": check_base,
        "sft": check_sft,
        "scores": check_scores,
        "parity": check_parity,
        "summary": check_summary,
    }
)


def facts_problems(
    config: RunConfig,
    artifacts: Mapping[str, Artifact],
    specs: tuple[ArtifactSpec, ...] = ARTIFACTS,
    cross_checks: Mapping[str, CrossCheck] = CROSS_CHECKS,
) -> list[Problem]:
    """Everything that differs, in the order of the graph.

    specs: the kinds whose facts are computed again. cross_checks: by kind, run after its facts.
    """
    problems: list[Problem] = []
    readable = {
        spec.kind: artifacts[spec.kind]
        for spec in ARTIFACTS
        if spec.kind in artifacts and _has_known_facts(spec, artifacts[spec.kind])
    }
    run = read_facts(config, readable)
    for spec in (spec for spec in specs if spec.kind in readable):
        lacking = [name for name in spec.inputs if name not in artifacts]
        check = cross_checks.get(spec.kind)
        if spec.facts_from is None and check is None:
            continue
        if lacking and "preflight" not in artifacts:
            # A run that stopped before its first verdict: the bundle names what is missing, and
            # nothing rests on these facts.
            continue
        if lacking:
            what = f"its facts cannot be computed again without {', '.join(lacking)}"
            problems.append(Problem(f"{spec.kind}: {what}"))
            continue
        problems += compared(spec.kind, lambda spec=spec: _facts_again(spec, run))
        if check is not None:
            problems += compared(spec.kind, lambda check=check: check(run))
    return problems


def _has_known_facts(spec: ArtifactSpec, artifact: Artifact) -> bool:
    """Whether this version knows the facts; the check of manifests names those that it does not."""
    try:
        return spec.facts is None or facts_of(artifact, spec.facts) is not None
    except PicochatError:
        return False


def _facts_again(spec: ArtifactSpec, run: RunFacts) -> list[Problem]:
    if spec.facts_from is None:
        return []
    place = run.artifacts[spec.kind].place
    inputs = {name: run.artifacts[name] for name in spec.inputs}
    again = spec.facts_from(place, inputs, run.config)
    return differences(
        spec.kind, to_jsonable(getattr(run, spec.kind)), to_jsonable(again), "its files give"
    )


def facts_given_to(
    config: RunConfig, artifacts: Mapping[str, Artifact], spec: ArtifactSpec
) -> RunFacts:
    """What the stage of this kind was given: the facts of its inputs alone."""
    return read_facts(config, {name: artifacts[name] for name in spec.inputs})
