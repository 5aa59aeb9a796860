"""The most repeated lines of many documents, in bounded memory and with a bounded error.

A line counts once for each document that holds it. Lines of LINE_CHARACTERS characters after
stripping take part: shorter ones repeat by chance, longer ones are whole texts. When more than
twice `capacity` lines are held, the smallest counts are taken off all and what falls to zero is
forgotten (Misra and Gries, in batches): a kept count is too low by at most `error`, and every line
in more than `error` documents is kept. Does not see lines that differ in one character.
"""

from __future__ import annotations

from picochat.data.preview.record import RepeatedLine

LINE_CHARACTERS = (20, 400)
CAPACITY = 50_000
LEAST_DOCUMENTS = 3


class LineCounter:
    """Counts documents by line. `error`: by how much a count may be too low."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self.error = 0
        self.documents = 0
        self._counts: dict[str, int] = {}

    def add(self, text: str) -> None:
        """Count the lines of one document."""
        self.documents += 1
        least, most = LINE_CHARACTERS
        lines = {line for each in text.split("\n") if least <= len(line := each.strip()) <= most}
        for line in lines:
            self._counts[line] = self._counts.get(line, 0) + 1
        if len(self._counts) > 2 * self.capacity:
            self._prune()

    def most_repeated(self, count: int) -> list[RepeatedLine]:
        """The lines in the most documents, at least LEAST_DOCUMENTS; equal ones in alphabetical
        order.
        """
        repeated = [
            (found, line)
            for line, found in self._counts.items()
            if found >= max(LEAST_DOCUMENTS, 2 * self.error)
        ]
        repeated.sort(key=lambda item: (-item[0], item[1]))
        return [
            RepeatedLine(
                line=line,
                documents=found,
                documents_at_most=found + self.error,
                share=found / self.documents,
            )
            for found, line in repeated[:count]
        ]

    def _prune(self) -> None:
        taken = sorted(self._counts.values(), reverse=True)[self.capacity]
        self._counts = {
            line: found - taken for line, found in self._counts.items() if found > taken
        }
        self.error += taken
