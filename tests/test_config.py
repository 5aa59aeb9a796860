"""Settings are resolved once, with origins; everything wrong with them is said at once."""

import pytest

from picochat.config import (
    ModelConfig,
    flatten,
    flops_per_token,
    parameter_count,
    resolve,
    step_tokens,
)
from picochat.core.errors import WrongUsage
from picochat.scales import SCALES, cost_of, find_scale, keys_lines, scales_lines


def test_the_runbooks_scale_is_exact() -> None:
    config = find_scale("h100-100m").config
    assert parameter_count(config.model, config.tokenizer.vocab_size) == 106_969_856
    assert config.base.steps == 33_000
    assert (config.base.sequences_per_step, config.model.context) == (128, 512)
    assert config.base.steps * step_tokens(config.base, config.model) == 2_162_688_000
    assert (config.model.heads, config.model.kv_heads, config.model.layers, config.model.width) == (
        12,
        4,
        16,
        768,
    )
    assert config.runtime.precision == "bf16" and config.gate.profile == "skill_release"
    assert round(flops_per_token(config.model, 8192) / 1e5) == 7172


def test_eight_gpus_see_the_same_tokens() -> None:
    one, eight = cost_of(find_scale("h100-100m")), cost_of(find_scale("h100-100m-ddp8"))
    assert one.base_tokens == eight.base_tokens and one.parameters == eight.parameters


def test_every_scale_is_listed_with_its_cost() -> None:
    names = [scale.name for scale in SCALES]
    assert names == [scale.config.scale for scale in SCALES] and len(set(names)) == len(names)
    text = "\n".join(scales_lines())
    assert all(name in text for name in names) and "106,969,856" in text
    assert len(keys_lines()) == 1 + len(flatten(SCALES[0].config))


def test_origins_tell_default_scale_flag_and_set() -> None:
    scale = find_scale("tiny").config
    resolved = resolve(
        scale,
        {"base.steps": 7, "seed": None},
        {"sft.muon_lr": "0.125", "gate.profile": "first_release"},
    )
    assert (resolved.config.base.steps, resolved.config.sft.muon_lr) == (7, 0.125)
    assert resolved.config.gate.profile == "first_release"
    origins = resolved.origins
    assert (origins["base.steps"], origins["sft.muon_lr"]) == ("flag", "set")
    assert (origins["model.width"], origins["seed"], origins["model.rope_theta"]) == (
        "scale",
        "default",
        "default",
    )


@pytest.mark.parametrize(
    ("flags", "settings", "said"),
    [
        ({}, {"base.stpes": "3"}, "base.stpes: unknown setting, did you mean base.steps?"),
        ({"base.steps": 3}, {"base.steps": "4"}, "base.steps: given both as a flag and by --set"),
        ({"base.steps": 0}, {}, "base.steps: Input should be greater than 0"),
        ({"runtime.device": "gpu"}, {}, "runtime.device: Input should be 'cpu' or 'cuda'"),
        ({}, {"model.kv_heads": "3"}, "heads (4) must be a multiple of kv_heads (3)"),
        ({}, {"base.muon_lr": "fast"}, "base.muon_lr: Input should be a valid number"),
    ],
)
def test_wrong_settings_are_named(
    flags: dict[str, object], settings: dict[str, str], said: str
) -> None:
    with pytest.raises(WrongUsage) as error:
        resolve(find_scale("tiny").config, flags, settings)
    assert said in "\n".join(error.value.lines()) and error.value.exit_code == 2


def test_unknown_scale_lists_the_known() -> None:
    with pytest.raises(WrongUsage, match="did you mean h100-100m") as error:
        find_scale("h100-100")
    assert "tiny" in (error.value.fix or "")


def test_parameter_count_matches_the_model() -> None:
    from picochat.model.gpt import GPT

    config = ModelConfig(
        context=32, layers=2, width=48, heads=3, kv_heads=1, head_width=16, mlp_width=96
    )
    assert parameter_count(config, 400) == sum(p.numel() for p in GPT(config, 400).parameters())


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (["none"], None),
        ([], None),
        (["auto"], ("auto",)),
        (["auto", "piqa=x.jsonl"], ("auto", "piqa=x.jsonl")),
    ],
)
def test_external_benchmarks_are_names_and_files(
    given: list[str], taken: tuple[str, ...] | None
) -> None:
    resolved = resolve(find_scale("h100-100m").config, {"external.benchmarks": given}, {})
    assert resolved.config.external.benchmarks == taken
    assert resolved.origins["external.benchmarks"] == "flag"


@pytest.mark.parametrize(
    "given", [["none", "auto"], ["a/b=x"], ["=x"], ["x="], ["a=1", "a=2"], ["Auto"]]
)
def test_external_benchmarks_that_mean_nothing_are_refused(given: list[str]) -> None:
    with pytest.raises(WrongUsage, match="cannot be used"):
        resolve(find_scale("tiny").config, {"external.benchmarks": given}, {})


def test_every_scale_that_claims_all_skills_asks_for_benchmarks() -> None:
    for scale in SCALES:
        assert (scale.config.external.benchmarks == ("auto",)) == (
            scale.config.gate.profile == "skill_release"
        ), scale.name
