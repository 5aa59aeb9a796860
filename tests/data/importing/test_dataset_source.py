import pytest

from picochat.core.errors import BadInput, HubProblem
from picochat.data.importing.dataset_source import NO_CARD, Card, read_card, split_files


def _files(
    paths: list[str], card: Card = NO_CARD, config: str | None = None, split: str = "train"
) -> list[str]:
    return split_files(paths, card, config, split, "dataset o/n", HubProblem)


def _card(configs: str) -> Card:
    return read_card(f"---\nlicense: mit\nconfigs:\n{configs}\n---\ntext")


@pytest.mark.parametrize(
    ("paths", "config", "split", "expected"),
    [
        (
            ["cfg/train-00001.parquet", "cfg/train-00000.parquet"],
            "cfg",
            "train",
            ["cfg/train-00000.parquet", "cfg/train-00001.parquet"],
        ),
        (["cfg/0001.parquet", "other/0001.parquet"], "cfg", "train", ["cfg/0001.parquet"]),
        (["data/train-0.parquet", "data/test-0.parquet"], None, "test", ["data/test-0.parquet"]),
        (["train.jsonl", "valid.jsonl", "README.md"], None, "validation", ["valid.jsonl"]),
        (
            ["default/train/0000.parquet", "default/test/0000.parquet"],
            None,
            "train",
            ["default/train/0000.parquet"],
        ),
        (["only/a.parquet"], None, "train", ["only/a.parquet"]),
        (["train/a.txt", "train/b.txt"], None, "train", ["train/a.txt", "train/b.txt"]),
        (["x/train.parquet", "x/train.jsonl"], "x", "train", ["x/train.parquet"]),
    ],
)
def test_names_tell_config_and_split(
    paths: list[str], config: str | None, split: str, expected: list[str]
) -> None:
    assert _files(paths, config=config, split=split) == expected


def test_card_decides_before_names() -> None:
    card = _card(
        "- config_name: web\n  data_files:\n  - split: train\n    path: ['a/*.parquet',"
        " 'b/x.parquet']\n  - split: test\n    path: c/**"
    )
    paths = ["a/1.parquet", "a/2.parquet", "b/x.parquet", "b/y.parquet", "c/d/z.parquet"]
    assert _files(paths, card, "web") == ["a/1.parquet", "a/2.parquet", "b/x.parquet"]
    assert _files(paths, card, "web", "test") == ["c/d/z.parquet"]


def test_card_forms_of_data_files_and_the_default_config() -> None:
    card = _card(
        "- config_name: one\n  data_files: one/*.jsonl\n- config_name: two\n  data_dir: two\n "
        " default: true"
    )
    paths = ["one/a.jsonl", "two/train-0.parquet", "two/test-0.parquet"]
    assert _files(paths, card, "one") == ["one/a.jsonl"]
    assert _files(paths, card) == ["two/train-0.parquet"]


@pytest.mark.parametrize(
    ("config", "split", "says", "fix"),
    [
        ("wbe", "train", "no config 'wbe', did you mean web?", "--config one of: books, web"),
        (None, "train", "has 2 configs", "--config one of: books, web"),
        ("web", "trian", "no split 'trian', did you mean train?", "--split one of: test, train"),
    ],
)
def test_unknown_name_is_refused_with_those_that_exist(
    config: str | None, split: str, says: str, fix: str
) -> None:
    paths = ["web/train-0.parquet", "web/test-0.parquet", "books/train-0.parquet"]
    with pytest.raises(HubProblem) as caught:
        _files(sorted(paths), config=config, split=split)
    assert says in caught.value.what
    assert caught.value.fix == fix


def test_dataset_without_readable_files_is_refused() -> None:
    with pytest.raises(HubProblem, match="holds no file"):
        _files(["data.csv", "README.md", "LICENSE.txt"])


@pytest.mark.parametrize(
    ("front", "licence"),
    [
        ("license: odc-by", "odc-by"),
        ("license: [mit, apache-2.0]", "mit and apache-2.0"),
        ("license: other\nlicense_name: house", "house"),
        ("language: en", None),
    ],
)
def test_licence_is_what_the_card_states(front: str, licence: str | None) -> None:
    assert read_card(f"---\n{front}\n---\nbody").licence == licence


def test_broken_card_is_bad_input_and_no_card_is_none() -> None:
    assert read_card("# Just a title") == NO_CARD
    with pytest.raises(BadInput, match="not valid YAML"):
        read_card("---\na: [1\n---\n")
