"""What a model says does not depend on which rows are asked together."""

import random

import pytest
import torch

from picochat.config import EvalConfig, ModelConfig
from picochat.evals.gpt_answerer import GptAnswerer
from picochat.evals.replies import ask_all
from picochat.model.gpt import GPT, initialise
from picochat.model.sampling import (
    continuation_log_likelihoods,
    greedy_replies,
    option_log_likelihoods,
)
from picochat.skills.mixture import make_rows
from picochat.skills.scoring import choice_candidates, score_reply
from picochat.skills.task_rows import EvalRow, Message
from picochat.tokens.chat_format import (
    is_askable,
    neutral_prompt,
    render_prompt,
    reply_room,
    row_prompt,
)
from picochat.tokens.tokenizer import Tokenizer, train

CONFIG = ModelConfig(
    context=128, layers=2, width=48, heads=4, kv_heads=2, head_width=12, mlp_width=64
)
SETTINGS = EvalConfig(max_new_tokens=16)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    sft, _ = make_rows("release_skills", 400, 50, "scratchpad", 1)
    place = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    place.write_bytes(train((f"{row.user}\n{row.assistant}" for row in sft), 400))
    return Tokenizer.load(place)


@pytest.fixture(scope="module")
def model() -> GPT:
    """Weights larger than a start's, so that replies differ and some of them end."""
    model = GPT(CONFIG, 400)
    initialise(model, 3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(8.0)
    return model.eval()


@pytest.fixture(scope="module")
def rows() -> list[EvalRow]:
    _, evals = make_rows("release_skills", 50, 80, "scratchpad", 1)
    return evals


def test_replies_in_batches_equal_those_of_one_row_at_a_time(
    model: GPT, tokenizer: Tokenizer, rows: list[EvalRow]
) -> None:
    answerer = GptAnswerer(model, tokenizer)
    watched = ask_all(answerer, rows, SETTINGS, "together")
    alone = ask_all(answerer, rows, SETTINGS.model_copy(update={"batch_rows": 1}), "alone")
    assert {row: said.text for row, said in watched.items()} == {
        row: said.text for row, said in alone.items()
    }
    assert (
        len({said.text for said in watched.values()}) > len(rows) / 2
    )  # the model does say different things
    for row, said in watched.items():
        if said.log_likelihoods is not None:
            assert said.log_likelihoods == pytest.approx(alone[row].log_likelihoods, abs=1e-5)


def test_a_choice_is_scored_by_what_the_question_adds_to_its_likelihood(
    model: GPT, tokenizer: Tokenizer
) -> None:
    row = words_row(
        3, choice_labels=["A", "B"], choice_options=["seven horses", "no"], correct_choice="A"
    )
    nothing = [Message(role="user", content="What is the answer?")]
    asked, alone = (
        [
            continuation_log_likelihoods(model, [(prompt, tokenizer.encode(option))])[0]
            for option in row.choice_options
        ]
        for prompt in (row_prompt(tokenizer, row), render_prompt(tokenizer, nothing))
    )
    said = ask_all(GptAnswerer(model, tokenizer), [row], SETTINGS, "rows")[row.id]
    wanted = [a - b for a, b in zip(asked, alone, strict=True)]
    assert said.log_likelihoods == pytest.approx(wanted, abs=1e-4)
    assert said.text == row.choice_options[wanted.index(max(wanted))]


def test_an_option_that_fits_behind_its_own_short_prompt_alone_is_no_error(
    model: GPT, tokenizer: Tokenizer
) -> None:
    """It is read after the question that asks nothing as well, whose prompt is longer."""
    row = EvalRow.model_validate({"id": "s", "user": "?", "choice_labels": ["A", "B"]})
    room = CONFIG.context - len(row_prompt(tokenizer, row)) - 1
    texts = ("x " * count for count in range(room, 0, -1))
    longest = next(text for text in texts if len(tokenizer.encode(text)) <= room)
    assert len(neutral_prompt(tokenizer)) + len(tokenizer.encode(longest)) > CONFIG.context
    options = row.model_copy(update={"choice_options": ["no", longest]})
    said = ask_all(GptAnswerer(model, tokenizer), [options], SETTINGS, "rows")["s"]
    assert said.log_likelihoods is None


def test_order_of_rows_changes_no_reply(
    model: GPT, tokenizer: Tokenizer, rows: list[EvalRow]
) -> None:
    shuffled = random.Random(5).sample(rows, len(rows))
    config = SETTINGS.model_copy(update={"batch_rows": 7})
    first, second = (
        ask_all(GptAnswerer(model, tokenizer), some, config, "rows") for some in (rows, shuffled)
    )
    assert first == second


def test_every_row_is_answered_within_the_limit(
    model: GPT, tokenizer: Tokenizer, rows: list[EvalRow]
) -> None:
    said = ask_all(GptAnswerer(model, tokenizer), rows, SETTINGS, "rows")
    assert set(said) == {row.id for row in rows}
    for row in rows:
        assert (said[row.id].log_likelihoods is not None) == bool(row.choice_labels)
        if row.choice_labels:
            assert said[row.id].text in choice_candidates(row)


def test_rows_that_end_do_not_change_those_that_go_on(model: GPT) -> None:
    generator = random.Random(0)
    prompts = [
        [generator.randrange(6, 400) for _ in range(length)]
        for length in (2, 5, 60, 9, 9, 30, 63, 4)
    ]
    free = greedy_replies(model, prompts, end=-1, max_new_tokens=20)
    end = free[3][4]
    stopped = greedy_replies(model, prompts, end=end, max_new_tokens=20)
    assert stopped == [reply[: reply.index(end)] if end in reply else reply for reply in free]
    assert stopped != free
    assert [len(reply) for reply in free] == [
        min(20, CONFIG.context - len(prompt)) for prompt in prompts
    ]


def test_options_that_share_a_prompt_have_the_likelihoods_of_whole_texts(
    model: GPT, tokenizer: Tokenizer
) -> None:
    questions = [
        ([6, 7, 8, 9], [[10, 11, 12], [13], [14, 15]]),
        ([20], [[21, 22, 23, 24], [25, 26]]),
        ([30] * 20, [[31]]),
    ]
    found = option_log_likelihoods(model, questions, pad=tokenizer.pad)
    assert [len(sums) for sums in found] == [3, 2, 1]
    for (prompt, options), sums in zip(questions, found, strict=True):
        assert sums == pytest.approx(
            continuation_log_likelihoods(model, [(prompt, option) for option in options]), abs=1e-4
        )


def test_options_of_one_token_need_no_second_reading(model: GPT, tokenizer: Tokenizer) -> None:
    found = option_log_likelihoods(model, [([6, 7, 8], [[9], [10]])], pad=tokenizer.pad)
    assert found[0] == pytest.approx(
        continuation_log_likelihoods(model, [([6, 7, 8], [9]), ([6, 7, 8], [10])]), abs=1e-5
    )


def words_row(words: int, **fields: object) -> EvalRow:
    return EvalRow.model_validate({"id": f"w{words}", "user": "word " * words, **fields})


def test_a_row_that_leaves_no_room_for_a_reply_is_not_asked(
    model: GPT, tokenizer: Tokenizer
) -> None:
    room = reply_room(CONFIG.context)
    rows = [words_row(n) for n in range(1, 200)]
    lengths = {row.id: len(row_prompt(tokenizer, row)) for row in rows}
    said = ask_all(GptAnswerer(model, tokenizer), rows, SETTINGS, "rows")
    assert set(said) == {row.id for row in rows}
    for row in rows:
        fits = lengths[row.id] + room <= CONFIG.context
        assert is_askable(tokenizer, row, CONFIG.context) == fits
        assert fits or not (said[row.id].text or said[row.id].cut)
    askable = [row for row in rows if lengths[row.id] + room <= CONFIG.context]
    longest = said[max(askable, key=lambda row: lengths[row.id]).id]
    # New weights may reply with special tokens alone, whose text is empty.
    assert longest.text or longest.cut, "a row that just fits is asked"


def test_an_option_longer_than_the_context_is_no_error(model: GPT, tokenizer: Tokenizer) -> None:
    row = words_row(
        3, choice_labels=["A", "B"], choice_options=["yes", "word " * 300], correct_choice="A"
    )
    assert not is_askable(tokenizer, row, CONFIG.context)
    said = ask_all(GptAnswerer(model, tokenizer), [row], SETTINGS, "rows")[row.id]
    assert (said.text, said.log_likelihoods) == ("", None)
    assert not score_reply(row, said.text).passed


def test_an_empty_reply_to_a_row_that_was_not_asked_never_passes() -> None:
    for row in make_rows("release_skills", 50, 80, "scratchpad", 1)[1]:
        assert score_reply(row, "").reason == "empty"
