"""Tables of results, for a terminal and as Markdown."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import rich.box
import rich.table


@dataclass(frozen=True)
class ResultTable:
    """Cells under headings.

    Attributes:
        title: over it.
        heads: of the columns.
        cells: by row; a line break in one is for the terminal alone.
        texts: columns that hold words, to the left; all others hold figures.
        tight: on a terminal, columns stand close together, since there are many.
    """

    title: str
    heads: Sequence[str]
    cells: Sequence[Sequence[str]]
    texts: AbstractSet[int]
    tight: bool = False

    def rich(self) -> rich.table.Table:
        """For a terminal."""
        table = rich.table.Table(title=self.title, title_justify="left")
        if self.tight:
            table.box, table.padding = rich.box.SIMPLE, (0, 0)
        for index, head in enumerate(self.heads):
            figures = index not in self.texts
            table.add_column(head, justify="right" if figures else "left", no_wrap=figures)
        for row in self.cells:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """With its title as a heading."""
        rules = ["---" if index in self.texts else "---:" for index in range(len(self.heads))]
        escaped = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in [self.heads, *self.cells]]
        lines = ["| " + " | ".join(row) + " |" for row in [escaped[0], rules, *escaped[1:]]]
        return "\n".join([f"## {self.title}", "", *lines])
