import pytest

from picochat.core.errors import BadInput, HubProblem
from picochat.data.importing.dataset_card import NO_CARD, Card, read_card
from picochat.data.importing.dataset_splits import SplitFiles, split_files


def _files(
    paths: list[str], card: Card = NO_CARD, config: str | None = None, split: str = "train"
) -> list[str]:
    return _found(paths, card, config, split).names


def _found(
    paths: list[str],
    card: Card = NO_CARD,
    config: str | None = None,
    split: str = "train",
    *,
    converted: bool = False,
) -> SplitFiles:
    return split_files(paths, card, config, split, "dataset o/n", HubProblem, converted=converted)


def _splits(paths: list[str], *, converted: bool = False) -> list[str]:
    """The splits of the unnamed or only config, as a refusal lists them."""
    with pytest.raises(HubProblem) as caught:
        _found(paths, split="?", converted=converted)
    assert caught.value.fix is not None
    return caught.value.fix.removeprefix("--split one of: ").split(", ")


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


@pytest.mark.parametrize(
    ("paths", "splits"),
    [
        (["train_sft.jsonl", "train_gen.jsonl"], ["train_gen", "train_sft"]),
        (
            [
                "data/train_sft-00000-of-00003-a1b2c3d4.parquet",
                "data/train_gen-00000-of-00001.parquet",
            ],
            ["train_gen", "train_sft"],
        ),
        (
            ["data/validated-00000-of-00002.parquet", "data/invalidated-00000-of-00001.parquet"],
            ["invalidated", "validated"],
        ),
        (["validated.jsonl", "invalidated.jsonl"], ["invalidated", "validated"]),
        (
            ["cfg/other-00000-of-00002.parquet", "cfg/train-00000-of-00001.parquet"],
            ["other", "train"],
        ),
        (
            ["clean/train.100-00000-of-00002.parquet", "clean/train.360-00000-of-00002.parquet"],
            ["train.100", "train.360"],
        ),
        (["my-test-of-train.jsonl", "train.jsonl"], ["my-test-of-train", "train"]),
        (["train-test-split/train.jsonl", "train-test-split/test.jsonl"], ["test", "train"]),
        (["evaluation/a.txt", "a.txt"], ["test", "train"]),
        # One split in several files, numbered or described in the usual ways.
        (["train-v1.1.json", "dev-v1.1.json"], ["train", "validation"]),
        (["my_train_file.jsonl", "train1.jsonl", "train_part-2.jsonl"], ["train"]),
        (["train_data.jsonl", "wiki-train.00000-of-00002.jsonl.gz"], ["train"]),
        # Names that say nothing of a split are those of the dataset and its parts.
        (["data/books-00000-of-00002.parquet", "data/books-00001-of-00002.parquet"], ["train"]),
        (["books-00000-of-00001.jsonl", "web-00000-of-00001.jsonl"], ["train"]),
        (["a.txt", "b.txt", "test.txt"], ["test", "train"]),
    ],
)
def test_each_split_has_its_own_name(paths: list[str], splits: list[str]) -> None:
    assert _splits(paths) == splits
    if "train" not in splits:
        with pytest.raises(HubProblem, match="has no split 'train'"):
            _files(paths)
    assert sorted(path for split in splits for path in _files(paths, split=split)) == sorted(paths)


def test_splits_of_the_hubs_copy_are_its_folders_and_a_part_is_said() -> None:
    paths = ["default/partial-train/0000.parquet", "default/invalid_rows/0000.parquet"]
    assert _splits(paths, converted=True) == ["invalid_rows", "train"]
    found = _found(paths, converted=True)
    assert found.names == paths[:1]
    assert ["only the first part of split train" in note for note in found.notes] == [True]
    assert _found(paths[:1]).notes == found.notes  # a local copy of that revision
    whole = _found(["default/train/0000.parquet"], converted=True)
    assert whole.notes == []


def test_files_without_a_split_beside_train_are_counted_and_can_be_taken() -> None:
    paths = ["train.jsonl", "extra.jsonl", "more.txt"]
    found = _found(paths)
    assert found.names == ["train.jsonl"]
    assert found.notes == [
        "1 .jsonl, 1 .txt left out: the names say no split, others are named train (the first:"
        " extra.jsonl); --split unnamed takes those"
    ]
    taken = _found(paths, split="unnamed")
    assert (taken.names, taken.notes) == (["extra.jsonl", "more.txt"], [])
    # Beside a part of the training rows they are not training rows, either.
    assert _splits(["train_sft.jsonl", "extra.jsonl"]) == ["train_sft", "unnamed"]


def test_splits_named_after_the_one_that_is_read_are_said() -> None:
    found = _found(["train.jsonl", "train_gen.jsonl", "train-b.txt", "test.jsonl"])
    assert found.names == ["train.jsonl"]
    assert found.notes == [
        "1 .jsonl, 1 .txt left out, as splits of their own names: train-b, train_gen; --split takes"
        " one of them"
    ]


def test_rows_in_a_second_format_are_left_out_with_a_word() -> None:
    found = _found(["train.parquet", "train.jsonl"])
    assert found.names == ["train.parquet"]
    assert found.notes == ["1 .jsonl left out: parquet files hold the split as well"]


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
    "data_files",
    [
        "{train: a.jsonl, test: b.jsonl}",
        "{train: ./a.jsonl, test: [./b.jsonl]}",
        "[{split: train, path: ./a.jsonl}, {split: test, path: b.jsonl}]",
    ],
)
def test_every_split_of_data_files_is_found(data_files: str) -> None:
    card = _card(f"- config_name: one\n  data_files: {data_files}")
    assert _files(["a.jsonl", "b.jsonl"], card) == ["a.jsonl"]
    assert _files(["a.jsonl", "b.jsonl"], card, split="test") == ["b.jsonl"]


@pytest.mark.parametrize("folder", ["./data", "data/", "data", "/data/."])
def test_paths_of_a_card_may_begin_with_a_dot(folder: str) -> None:
    paths = ["data/train.jsonl", "data/test.jsonl", "other/train.jsonl"]
    by_folder = _card(f"- config_name: one\n  data_dir: {folder}")
    by_path = _card(f"- config_name: one\n  data_dir: {folder}\n  data_files: ./train.*")
    assert _files(paths, by_folder) == _files(paths, by_path) == ["data/train.jsonl"]


@pytest.mark.parametrize("name", ["no", "on", "010", "12:30", "1.10", "2024-13-45", "null"])
def test_names_of_configs_and_splits_are_text_as_written(name: str) -> None:
    card = _card(
        f"- config_name: {name}\n  data_files:\n  - split: {name}\n    path: a.jsonl\n"
        "- config_name: other\n  data_files: b.jsonl"
    )
    assert _files(["a.jsonl", "b.jsonl"], card, name, name) == ["a.jsonl"]


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


def test_dataset_without_readable_files_is_refused_and_says_what_it_has() -> None:
    with pytest.raises(HubProblem, match=r"reads: it has 2 \.csv"):
        _files(["data.csv", "more.csv", "README.md", "LICENSE.txt"])


@pytest.mark.parametrize(
    ("front", "licence"),
    [
        ("license: odc-by", "odc-by"),
        ("license: [mit, apache-2.0]", "mit and apache-2.0"),
        ("license: other\nlicense_name: house", "house"),
        ("language: en", None),
        ("license: null", None),
        ("license:", None),
        ("license: other\nlicense_name:", "other"),
    ],
)
def test_licence_is_what_the_card_states(front: str, licence: str | None) -> None:
    assert read_card(f"---\n{front}\n---\nbody").licence == licence


@pytest.mark.parametrize(
    "readme",
    [
        "\n\n---\n{}\n---\nbody",
        "\ufeff---\n{}\n---\nbody",
        "---  \n{}\n--- \t\nbody",
        "---\r{}\r---\rbody",
        "---\r\n{}\r\n---",
        "\ufeff\r\n---\r\n{}\r\n---\r\nbody",
    ],
)
def test_front_matter_is_found_as_the_hub_finds_it(readme: str) -> None:
    end = "\r" if "\r" in readme else "\n"
    front = end.join(["license: mit", "configs:", "- config_name: one", "  data_files: a.jsonl"])
    card = read_card(readme.format(front))
    assert card.licence == "mit"
    assert _files(["a.jsonl", "b.jsonl"], card) == ["a.jsonl"]


def test_broken_card_is_bad_input_and_no_card_is_none() -> None:
    assert read_card("# Just a title") == NO_CARD
    with pytest.raises(BadInput, match="not valid YAML"):
        read_card("---\na: [1\n---\n")
