"""Errors by number of labels as a page and as a picture."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

from lightning_gen.report.line_plot import Curve, draw_curves
from lightning_gen.report.page import build_page
from lightning_gen.report.parts import heading_cell, protocol_button
from lightning_gen.tracking.label_board import ALL, Cell, LabelBoard, Row, describe_label_board, heading

NOTES = """<details class="notes"><summary>How to read this page</summary>
<p>A row is a method, by the name of its experiment; a column is the number of real training images that kept their
label. A cell is the mean error in percent over seeds ± their sample standard deviation. A seed draws the labels as well
as the weights, so the deviation is of both.</p>
<p>Only errors on the same images share a table. What belongs to a method may differ: the images that keep their label
and their number, generated images, and whether weights are averaged. A star marks a cell whose runs are of several
settings.</p></details>"""


def label_page(boards: Sequence[LabelBoard], title: str) -> str:
    """The whole page as HTML.

    Args:
        boards: in the order of the page.
        title: plain text.
    """
    runs = {run.run for board in boards for row in board.rows for cell in row.cells.values() for run in cell.runs}
    header = (
        f'<header><h1>{escape(title)}</h1><p class="lead">{len(runs):,} run{"" if len(runs) == 1 else "s"} · '
        "only errors on the same images share a table</p></header>"
    )
    sections = "\n".join(_board(number, board) for number, board in enumerate(boards))
    body = f'<div class="page">{header}<main>{sections}{NOTES}</main></div>'
    return build_page(title, body, ["report.css", "label.css"], ["table.js"])


def draw_label_board(board: LabelBoard) -> bytes | None:
    """A PNG of error against number of labels; None where every run was given all labels or none.

    Runs with all labels are not drawn, as their records do not say how many images that is.
    """
    columns = [column for column in board.columns if column not in (ALL, "0")]
    curves = []
    for row in board.rows:
        cells = [(float(column), row.cells[column]) for column in columns if column in row.cells]
        if cells:
            points = [(number, cell.value) for number, cell in cells]
            curves.append(Curve(row.name, points, [cell.spread or 0.0 for _, cell in cells]))
    if not curves:
        return None
    return draw_curves(curves, x="labels", y=f"{board.score.replace('_', ' ')}, percent", log_x=True)


def _board(number: int, board: LabelBoard) -> str:
    several = len({row.data for row in board.rows}) > 1
    head = heading_cell("name", "method", "text") + (heading_cell("data", "data", "text") if several else "")
    head += "".join(
        heading_cell("value", heading(column), "number", sorted_now=not place)
        for place, column in enumerate(board.columns)
    )
    rows = "\n".join(_row(row, board.columns, several) for row in board.rows)
    picture = draw_label_board(board)
    figure = ""
    if picture is not None:
        uri = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
        figure = (
            f'<figure class="label-curves"><img src="{uri}" alt="errors of the table by number of labels"></figure>'
        )
    return (
        f'<section class="board" id="board-{number}" data-score="{escape(board.score)}" '
        f'aria-labelledby="title-{number}"><div class="head"><h2 id="title-{number}">{escape(board.score)} by number '
        f'of labels</h2><span class="direction">↓ lower is better</span>'
        f'<span class="facts">{escape(describe_label_board(board))}</span>'
        f"{protocol_button(number, board.protocol, board.protocol_hash)}</div>"
        f'<div class="scroll" role="region" tabindex="0" aria-labelledby="title-{number}"><table class="label-table">'
        f"<thead><tr>{head}</tr></thead><tbody>\n{rows}\n</tbody></table></div>{figure}</section>"
    )


def _row(row: Row, columns: Sequence[str], several: bool) -> str:
    data = f'<td class="data" data-value="{escape(row.data)}">{escape(row.data)}</td>' if several else ""
    cells = "".join(_cell(row.cells.get(column)) for column in columns)
    return (
        f'<tr><th scope="row" class="name" data-value="{escape(row.name)}">{_name(row, columns)}</th>{data}{cells}</tr>'
    )


def _name(row: Row, columns: Sequence[str]) -> str:
    runs = "".join(
        f"<li><b>{run.value:.2f}</b> {escape(heading(column))} labels, seed {run.seed} "
        f"<code>{escape(run.source if '://' in run.source else run.run)}</code></li>"
        for column in columns
        if column in row.cells
        for run in row.cells[column].runs
    )
    return (
        f"<details><summary><span>{escape(row.name)}</span><small>{escape(row.model)}</small></summary>"
        f'<ul class="runs">{runs}</ul></details>'
    )


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return '<td class="value" data-value=""></td>'
    spread = "" if cell.spread is None else f"± {cell.spread:.2f}"
    star = '<b class="tie" title="runs of several settings">*</b>' if cell.settings > 1 else ""
    shown = f'<b>{cell.value:.2f}</b>{star}<span class="pm">{spread}</span>'
    return f'<td class="value" data-value="{cell.value}">{shown}</td>'
