"""How answers stand on the screen."""

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from aetheris_client.admin.layout import Fields, Grid, RowStream

CELLS = st.lists(st.text(st.characters(exclude_categories=["C", "Z"])), min_size=3, max_size=3)
WIDTHS = st.one_of(st.none(), st.integers(1, 200))


def shown(*lines: object) -> list[str]:
    return [str(line) for line in lines]


def test_grid_that_fits_is_aligned_and_one_that_does_not_is_a_record_for_each_row():
    grid = Grid("Id", "Name", title="Things")
    grid.add_row("1", "東京")
    grid.add_row("22", "b")
    assert shown(*grid.lines(None)) == ["Things", "Id  Name", "1   東京", "22  b"]
    assert shown(*grid.lines(7)) == [
        "Things",
        *["Id    1", "Name  東京"],
        "",
        "Id    22",
        "Name  b",
    ]


@given(st.lists(CELLS), WIDTHS)
def test_grid_of_any_cells_at_any_width_breaks_none(rows: list[list[str]], width: int | None):
    grid = Grid("A", "B", "C")
    for row in rows:
        grid.add_row(*row)
    lines = shown(*grid.lines(width))
    for cell in (cell for row in rows for cell in row):
        assert any(cell in line for line in lines)


@given(CELLS, WIDTHS)
def test_row_that_comes_breaks_no_cell_and_keeps_the_edge_where_cells_can(
    row: list[str], width: int | None
):
    lines = shown(*RowStream([("A", 9), ("B", 9), ("C", 9)], width).row(*row))
    assert all(any(cell in line for line in lines) for cell in row)
    if width is not None and width < 31:
        widest = max(map(cell_len, row)) + 2
        assert all(cell_len(line) <= max(width, widest) for line in lines)


def test_names_and_values_are_aligned():
    assert shown(*Fields([("A", "1"), ("Long", "x" * 200)]).lines(10)) == [
        "A     1",
        "Long  " + "x" * 200,
    ]
