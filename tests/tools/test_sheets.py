import torch

from lightning_gen.tools.sheets import FRAME, GAP, Panel, sheet


def grey(*levels: int) -> torch.Tensor:
    return torch.tensor(levels, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 32, 32).contiguous()


def cells_of(page: torch.Tensor, columns: int, rows: int) -> list[list[int]]:
    """The middle pixels of the cells of the grid in the page's lower right corner, which is 66 pixels a cell."""
    right, bottom = page.shape[2] - GAP, page.shape[1] - GAP
    return [
        [
            int(page[0, bottom - 66 * (rows - row) + 33, right - 66 * (columns - column) + 33])
            for column in range(columns)
        ]
        for row in range(rows)
    ]


def test_images_are_enlarged_framed_and_in_order() -> None:
    page = sheet([[Panel("", grey(10, 20, 30, 40, 50, 60), 3)]])
    assert page.shape[0] == 3
    assert page.shape[2] == 3 * 66 + 2 * GAP
    assert cells_of(page, 3, 2) == [[10, 20, 30], [40, 50, 60]]
    assert page[:, -GAP - 1, -GAP - 1].tolist() == [FRAME] * 3


def test_cells_without_an_image_are_white() -> None:
    assert cells_of(sheet([[Panel("", grey(10, 20, 30))]]), 2, 2) == [[10, 20], [30, 255]]


def test_colors_stay_colors() -> None:
    image = torch.tensor([200, 100, 50], dtype=torch.uint8)[None, :, None, None].expand(1, 3, 32, 32)
    assert sheet([[Panel("", image)]])[:, -GAP - 33, -GAP - 33].tolist() == [200, 100, 50]


def test_captions_and_row_names_take_room_of_their_own() -> None:
    plain = sheet([[Panel("", grey(10, 20), 1)]])
    named = sheet([[Panel("", grey(10, 20), 1, ["first", "second"])]])
    assert named.shape[1] == plain.shape[1]
    assert named.shape[2] > plain.shape[2]
    assert cells_of(named, 1, 2) == [[10], [20]]
    long = sheet([[Panel("a caption that is wider than its image", grey(10))]])
    assert long.shape[2] > plain.shape[2]
    assert (long[0, :GAP] == 255).all()
    assert (long[0, GAP : GAP + 16] < 128).any()


def test_panels_stand_side_by_side_and_rows_below_one_another() -> None:
    one = sheet([[Panel("", grey(10))]])
    row = sheet([[Panel("", grey(10)), Panel("", grey(10))]])
    column = sheet([[Panel("", grey(10))], [Panel("", grey(10))]])
    assert row.shape[1] == one.shape[1]
    assert row.shape[2] == 2 * one.shape[2] - GAP
    assert column.shape[2] == one.shape[2]
    assert column.shape[1] == 2 * one.shape[1] - GAP


def test_lines_of_a_caption_stand_below_one_another() -> None:
    one, two = (sheet([[Panel(caption, grey(10))]]) for caption in ("a line", "a line\na line"))
    line = two.shape[1] - one.shape[1]
    assert two.shape[2] == one.shape[2]
    assert cells_of(two, 1, 1) == [[10]]
    assert torch.equal(two[:, GAP : GAP + line], two[:, GAP + line : GAP + 2 * line])
    assert (two[0, GAP : GAP + line] < 128).any()
