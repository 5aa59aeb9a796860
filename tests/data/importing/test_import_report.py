from picochat.data.importing.import_report import ImportRequest


def test_request_digest_ignores_places_and_nothing_else() -> None:
    base = ImportRequest(dataset="o/n", out="a.txt")
    assert (
        base.digest()
        == ImportRequest(dataset="o/n", out="b.txt", documents_dir="c", report="d").digest()
    )
    changes = [
        {"dataset": "o/m"},
        {"config": "c"},
        {"split": "test"},
        {"text_column": "t"},
        {"max_rows": 2},
        {"min_chars": 2},
    ]
    changes += [{"document_shard_rows": 2}, {"revision": "r"}, {"sample": "head"}, {"seed": 1}]
    digests = {base.model_copy(update=change).digest() for change in changes}
    assert len(digests | {base.digest()}) == len(changes) + 1
