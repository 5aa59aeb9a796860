"""A model folder is asked as the model of a run is, whatever class and tokenizer it has."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from picochat.config import EvalConfig
from picochat.core.errors import BadInput
from picochat.data.benchmarks.layouts import BenchmarkRow
from picochat.evals.answerer import Answerer, fits
from picochat.evals.external import ask_benchmark
from picochat.evals.folder_answerer import FolderAnswerer, open_folder
from picochat.evals.gpt_answerer import GptAnswerer
from picochat.evals.replies import ask_all
from picochat.skills.mixture import make_rows
from picochat.skills.task_rows import EvalRow
from picochat.tokens.tokenizer import Tokenizer
from tests.export_builders import make_model
from tests.folder_builders import CONTEXT, OWN_MODEL, make_export, make_llama

SETTINGS = EvalConfig(max_new_tokens=40, batch_rows=16)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_export(tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> FolderAnswerer:
    folder = make_llama(tmp_path_factory.mktemp("llama") / "model")
    return open_folder(folder, CPU, torch.float32)


@pytest.fixture(scope="module")
def rows() -> list[EvalRow]:
    return make_rows("release_skills", 50, 30, "scratchpad", 1)[1]


def edge_rows(answerer: Answerer) -> list[EvalRow]:
    """Rows that leave less room than a reply may have, and one that does not fit at all."""
    found = [EvalRow(id="too long", user="dat " * 400)]
    for word in ("dat", "ben", "ging", "tion"):
        rows = (EvalRow(id=word, user=f"{word} " * words) for words in range(200, 0, -1))
        found.append(next(row for row in rows if fits(answerer, row)))
        assert len(answerer.row_prompt(found[-1])) + SETTINGS.max_new_tokens > CONTEXT
    return found


def test_an_exported_folder_gives_the_texts_and_likelihoods_of_the_model(
    export: Path, rows: list[EvalRow]
) -> None:
    tokenizer = Tokenizer.load(export / "tokenizer.json")
    ours, theirs = (
        GptAnswerer(make_model(OWN_MODEL), tokenizer),
        open_folder(export, CPU, torch.float32),
    )
    assert theirs.context == ours.context and theirs.bos == ours.bos
    rows = [*rows, *edge_rows(ours)]
    said, again = (ask_all(each, rows, SETTINGS, "rows") for each in (ours, theirs))
    assert {id: reply.text for id, reply in said.items()} == {
        id: reply.text for id, reply in again.items()
    }
    assert said["too long"].text == ""
    assert any(said[word].text for word in ("dat", "ben", "ging", "tion"))
    assert len({reply.text for reply in said.values()}) > len(rows) / 3
    for id, reply in said.items():
        if reply.log_likelihoods is not None:
            assert again[id].log_likelihoods == pytest.approx(reply.log_likelihoods, abs=1e-3)
    items = [
        BenchmarkRow(
            id=f"q-{n}",
            context="dat ben " * n,
            options=["ten", "ging " * n],
            correct=0,
            question="?",
        )
        for n in (1, 5, 40)
    ]
    ours_sums, their_sums = (
        ask_benchmark("q", items, each, None, SETTINGS) for each in (ours, theirs)
    )
    for one, other in zip(ours_sums, their_sums, strict=True):
        assert one.cut == other.cut
        assert one.log_likelihoods == pytest.approx(other.log_likelihoods, abs=1e-3)


def test_replies_and_likelihoods_do_not_depend_on_the_batch(
    llama: FolderAnswerer, rows: list[EvalRow]
) -> None:
    rows = [*rows[::3], *edge_rows(llama)]
    few = SETTINGS.model_copy(update={"max_new_tokens": 12})
    together = ask_all(llama, rows, few, "together")
    alone = ask_all(llama, rows, few.model_copy(update={"batch_rows": 1}), "alone")
    for id, reply in together.items():
        assert alone[id].text == reply.text, id
        if reply.log_likelihoods is not None:
            assert alone[id].log_likelihoods == pytest.approx(reply.log_likelihoods, abs=1e-4)
    assert len({reply.text for reply in together.values()}) > len(rows) / 2


def test_replies_are_greedy_whatever_the_folder_wants(llama: FolderAnswerer) -> None:
    """It would sample, punish repetition and end at 24 tokens with the prompt."""
    prompt = llama.row_prompt(EvalRow(id="r", user="What is 17 + 25?"))
    reply, ids = llama.greedy_replies([prompt], 40)[0], list(prompt)
    with torch.no_grad():
        for _ in range(40):
            ids.append(int(llama.model(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] in (1, 40):
                break
    wanted = ids[len(prompt) :]
    assert reply == (wanted[:-1] if wanted[-1] in (1, 40) else wanted)
    assert len(prompt) + len(reply) > 24


def test_every_token_that_ends_a_reply_ends_it(llama: FolderAnswerer) -> None:
    prompts = [llama.row_prompt(EvalRow(id="r", user=f"Spell word {n}.")) for n in range(12)]
    free = FolderAnswerer(llama.model, llama.tokenizer, llama.context, ends=())
    long = free.greedy_replies(prompts, 20)
    assert all(len(reply) == 20 for reply in long)
    end = long[0][5]
    ended = FolderAnswerer(llama.model, llama.tokenizer, llama.context, ends=(1, end))
    cut = [reply[: min(reply.index(e) if e in reply else 20 for e in (1, end))] for reply in long]
    assert ended.greedy_replies(prompts, 20) == cut != long


def test_an_option_is_encoded_alone_and_scored_as_one_text_behind_the_prompt(
    llama: FolderAnswerer,
) -> None:
    assert llama.tokenizer("Paris")["input_ids"][0] == llama.bos, "it would put BOS before it"
    prompt = llama.row_prompt(EvalRow(id="r", user="Which town?"))
    assert llama.bos == prompt[0] != prompt[1], "the template alone writes BOS"
    options = [llama.encode(text) for text in ("Paris", "a town in the north", "P")]
    assert all(llama.bos not in option for option in options)
    found = llama.option_log_likelihoods([(prompt, options), (prompt[:9], options[:1])])
    for ids, sum_nats in zip([(prompt, o) for o in options], found[0], strict=True):
        assert sum_nats == pytest.approx(nats(llama, *ids), abs=1e-4)
    assert found[1] == pytest.approx([nats(llama, prompt[:9], options[0])], abs=1e-4)


def nats(llama: FolderAnswerer, prompt: list[int], option: list[int]) -> float:
    ids = torch.tensor([[*prompt, *option]])
    with torch.no_grad():
        log_TV = torch.log_softmax(llama.model(ids).logits[0].double(), dim=-1)
    return sum(float(log_TV[len(prompt) - 1 + n, token]) for n, token in enumerate(option))


def test_small_passes_give_what_a_large_one_gives(
    llama: FolderAnswerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = llama.row_prompt(EvalRow(id="r", user="Which town?"))
    pairs = [(prompt, llama.encode("no " * n)) for n in range(1, 30)]
    large = llama.continuation_log_likelihoods(pairs)
    monkeypatch.setattr("picochat.evals.folder_answerer.MOST_LOGITS", 1)
    assert llama.continuation_log_likelihoods(pairs) == pytest.approx(large, abs=1e-4)


def test_a_template_that_does_not_take_a_turn_names_the_row(llama: FolderAnswerer) -> None:
    row = EvalRow(id="r-7", user="Who are you?", system="You are Picochat.")
    with pytest.raises(BadInput, match=r"row r-7: no system turn, please") as refused:
        llama.row_prompt(row)
    assert refused.value.fix == "leave `system` and `history` out of the eval rows"
    assert fits(llama, row.model_copy(update={"system": None}))


def test_a_folder_that_states_no_context_is_refused_and_read_with_one(tmp_path: Path) -> None:
    import transformers

    folder = make_llama(tmp_path / "model")
    config = transformers.BloomConfig(vocab_size=600, hidden_size=32, n_layer=1, n_head=2)
    transformers.BloomForCausalLM(config).save_pretrained(folder)
    with pytest.raises(BadInput, match="does not say how many tokens") as refused:
        open_folder(folder, CPU, torch.float32)
    assert refused.value.fix == 'write "max_position_embeddings": N into its config.json'
    path = folder / "config.json"
    path.write_text(path.read_text().replace("{", '{"max_position_embeddings": 99,', 1))
    assert open_folder(folder, CPU, torch.float32).context == 99
