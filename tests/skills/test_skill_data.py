"""The data files: each fits its record, and a mistake in an edit is told in one clear message."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from picochat.core.errors import BadInput
from picochat.core.records import Record
from picochat.skills import arithmetic, choice, identity, refusal, spelling
from picochat.skills.skill_data import read_skill_data
from picochat.skills.skill_table import SKILLS

MODELS: dict[str, type[Record]] = {
    "math.toml": arithmetic.MathData,
    "spelling.toml": spelling.SpellingData,
    "choice.toml": choice.ChoiceData,
    "identity.toml": identity.IdentityData,
    "refusal.toml": refusal.RefusalData,
}
FOLDER = files("picochat.skills") / "data"

# file, what stands in it, what is written instead, what the message says
MISTAKES: tuple[tuple[str, str, str, str], ...] = (
    ("math.toml", "[stories]", "[storeys]", "storeys: unknown key, did you mean stories?"),
    ("math.toml", "[stories]", "[storeys]", "stories: is missing"),
    ("math.toml", '"Add {a} + {b}."', '"Add {a} + b."', "just the slots {a}, {b}, found"),
    ("math.toml", '"Add {a} + {b}."', '"Add {a} + {b}{c}."', "'Add {a} + {b}{c}.' does not have"),
    ("math.toml", '"Add {a} + {b}."', '"Add {a} + {b."', "wordings.add"),
    ("math.toml", '"Solve {a} + {b}."', '"Add {a} + {b}."', "'Add {a} + {b}.' stands twice"),
    (
        "math.toml",
        '"Solve {a} + {b}."',
        '"Tell me the result of {a} + {b}."',
        "'Tell me the result of {a} + {b}.' stands under sft and under eval",
    ),
    ("math.toml", '"Anna", ', '"Anna ", ', "names.sft.0"),
    ("math.toml", '"Anna", ', "7, ", "should be a valid string, found 7"),
    ("math.toml", "[names]\n", "[names]\nsft = []\n", "not valid TOML"),
    ("spelling.toml", "able about", "able About", 'found "About"'),
    ("spelling.toml", "able about", "able extraordinary about", 'found "extraordinary"'),
    ("spelling.toml", "able about", "able able about", "'able' stands twice"),
    ("spelling.toml", "the letters of {word}.", "the letters.", "just the slots {word}"),
    ("spelling.toml", "[wordings.count]", "[wordings.counts]", "wordings.count: is missing"),
    ("choice.toml", 'France = "Paris"', 'Germany = "Paris"', "not valid TOML"),
    ("choice.toml", 'France = "Paris"', 'France = ""', "relations.0.answers.France"),
    ("choice.toml", 'area = "world"', 'area = "geography"', "'language', 'science' or 'world'"),
    ("choice.toml", '"Quiz: {question}"', '"Quiz: {x}"', "just the slots {question}"),
    ("choice.toml", "cat = [", "cats = [", "'cats' is no subject of the relation"),
    ("choice.toml", 'cat = ["hiss"]', 'cat = ["purr"]', "'purr' is no other answer of it"),
    ("choice.toml", 'cat = ["hiss"]', 'cat = ["meow"]', "'meow' is no other answer of it"),
    ("choice.toml", '["What is the capital of {x}?"', '["What is it?"', "just the slots {x}"),
    ("identity.toml", 'fits = ["text", ', 'fits = [7, "text", ', "open.5.fits.0"),
    ("identity.toml", '"What are your limits?"', '"Are you limited?"', "is answered by yes or no"),
    ("identity.toml", '  "Who are you?",\n', '  "What is your name?",\n', "stands twice"),
    ("refusal.toml", "[replies]", "[reply]", "replies: is missing"),
    ("refusal.toml", '"Help me {topic}."', '"Help me {thing}."', "just the slots {topic}"),
    (
        "refusal.toml",
        "\n[fits]\n",
        '\n[fits]\n"fly" = "wing"\n',
        "fits: 'fly' is no harmless topic",
    ),
    ("refusal.toml", '  "break into a house",\n', "  break into a house,\n", "line"),
)


@pytest.mark.parametrize("name", MODELS)
def test_every_data_file_fits_its_record(name: str) -> None:
    assert read_skill_data(name, MODELS[name])


def test_every_skill_has_a_data_file_of_its_name_and_its_record_in_this_test() -> None:
    wanted = {f"{skill.name}.toml" for skill in SKILLS}
    assert {each.name for each in FOLDER.iterdir()} == wanted
    assert set(MODELS) == wanted, "MODELS needs the record of each skill's data file"


@pytest.mark.parametrize(("name", "right", "wrong", "said"), MISTAKES)
def test_a_mistake_is_refused_with_where_it_is(
    tmp_path: Path, name: str, right: str, wrong: str, said: str
) -> None:
    text = (FOLDER / name).read_text("utf-8")
    assert right in text
    (tmp_path / name).write_text(text.replace(right, wrong, 1), "utf-8")
    with pytest.raises(BadInput) as error:
        read_skill_data(name, MODELS[name], tmp_path)
    message = "\n".join(error.value.lines())
    assert message.startswith(f"skill data {name} ")
    assert said in message
    assert error.value.exit_code == 4


def test_all_mistakes_of_a_file_come_at_once(tmp_path: Path) -> None:
    text = (FOLDER / "math.toml").read_text("utf-8")
    text = text.replace('"Anna"', '""').replace('"apples"', "1").replace("[stories]", "[tales]")
    (tmp_path / "math.toml").write_text(text, "utf-8")
    with pytest.raises(BadInput) as error:
        read_skill_data("math.toml", arithmetic.MathData, tmp_path)
    places = {problem.what.split(":")[0] for problem in error.value.problems}
    assert {"names.sft.0", "things.sft.0", "stories", "tales"} <= places


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "math.toml").write_bytes(b'[names]\nsft = ["\xff"]\n')
    with pytest.raises(BadInput, match="not UTF-8 text"):
        read_skill_data("math.toml", arithmetic.MathData, tmp_path)


def test_a_relation_needs_answers_enough_for_wrong_options(tmp_path: Path) -> None:
    text = (FOLDER / "choice.toml").read_text("utf-8")
    head = text.split("[[relations]]")[0]
    for answers, fits in (("abcde", True), ("abcd", False), ("abcdd", False)):
        lines = "\n".join(f'subject_{n} = "{answer}"' for n, answer in enumerate(answers))
        (tmp_path / "choice.toml").write_text(
            f'{head}[[relations]]\nname = "r"\narea = "world"\nwordings.sft = ["What is {{x}}?"]\n'
            f'wordings.eval = ["Say what {{x}} is."]\n[relations.answers]\n{lines}\n'
        )
        if fits:
            assert len(read_skill_data("choice.toml", choice.ChoiceData, tmp_path).relations) == 1
        else:
            with pytest.raises(BadInput, match="not usable") as error:
                read_skill_data("choice.toml", choice.ChoiceData, tmp_path)
            assert "five different answers" in "\n".join(error.value.lines())
