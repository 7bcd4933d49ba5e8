"""The page of a report: one HTML file with its style, its pictures and its plots inside."""

import base64
import io
import json
import shlex
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from PIL import Image

from collabdm.documents.outcomes import DistilledSet
from collabdm.images import as_uint8
from collabdm.lab.results import EvaluationResults
from collabdm.report.gathering import Round
from collabdm.report.plots import INK
from collabdm.scoring.evaluation import Score

MOST_SHOWN = 50  # images of a class


ZOOM_SCRIPT = """
const view = document.querySelector("dialog"), big = view.querySelector("img"), text = view.querySelector("p");
document.addEventListener("click", event => {
  const small = event.target.closest("button.zoom");
  if (small) {
    big.src = small.firstElementChild.src;
    big.alt = text.textContent = small.title;
    view.showModal();
  } else if (view.open) view.close();
});
"""


def page(title: str, sections: Iterable[str]) -> str:
    """The whole page."""
    style = files("collabdm.report").joinpath("style.css").read_text(encoding="utf-8")
    viewer = '<dialog aria-label="One image, large"><img alt=""><p></p></dialog>'
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{escape(title)}</h1>\n" + "\n".join(sections) + f"\n</main>\n{viewer}\n"
        f"<script>{ZOOM_SCRIPT}</script>\n</body>\n</html>\n"
    )


def section(title: str, *parts: str) -> str:
    """A section, or nothing where it has no content."""
    content = "\n".join(filter(None, parts))
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>" if content else ""


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """A table that scrolls within itself where it is too wide; cells are HTML, the first column names the row."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>' + "".join(_cell(cell) for cell in row[1:]) + "</tr>\n" for row in rows
    )
    told = f"<p>{escape(caption)}</p>" if caption else ""
    return f'{told}<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>'


def _cell(cell: str) -> str:
    return cell if cell.startswith("<td") else f"<td>{cell}</td>"


def result_table(made: Round) -> str:
    """Every score with its spread."""
    if not made.scores:
        return ""
    rows = [
        (
            escape(s.what), escape(s.network), f"{100 * s.mean:.1f}" + (f" ± {100 * s.std:.1f}" if s.n > 1 else ""),
            str(s.n), f"{s.images:,}", f"{sent:,}" if (sent := made.bytes_of(s.what)) else "-",
        )
        for s in made.scores
    ]  # fmt: skip
    told = "Accuracy on real test images, hard labels; ± is the standard deviation over n trained networks."
    columns = ("trained on", "network", "accuracy, %", "n", "images", "bytes per site, at most")
    return table(columns, rows, told)


def robust_scores(made: Round) -> str:
    """The scores of DD-Ranking, where they were asked for."""
    found = made.results.robustness if isinstance(made.results, EvaluationResults) else None
    if found is None:
        return ""
    names = {"lrs": "label-robust score", "ars": "augmentation-robust score"}
    rows = [(told, f"{getattr(found, name):.3f} ± {found.std.get(name, 0):.3f}") for name, told in names.items()]
    points = {"hlr": "short of all the data, points", "ior": "over random real images, points"}
    rows += [
        (told, f"{100 * getattr(found, name):.1f} ± {100 * found.std.get(name, 0):.1f}")
        for name, told in points.items()
    ]
    return table(("DD-Ranking", "value"), rows, f"n = {found.n} trained networks")


def network_table(made: Round) -> str:
    """Sets by networks, where there are several networks."""
    networks = list(dict.fromkeys(s.network for s in made.scores))
    if len(networks) < 2:
        return ""
    found = {(s.what, s.network): s for s in made.scores}
    rows = [
        (escape(what), *(_accuracy(found.get((what, network))) for network in networks))
        for what in dict.fromkeys(s.what for s in made.scores)
    ]
    return table(("trained on", *networks), rows, "The same sets on other networks, %")


def _accuracy(score: Score | None) -> str:
    return f"{100 * score.mean:.1f} ± {100 * score.std:.1f}" if score else "-"


def holdings(made: Round) -> str:
    """Sites by classes: how many images each holds, darker where more."""
    if made.made is None or not made.made.sites:
        return ""
    counts, classes = made.made.sites, made.made.plan.classes
    largest = max(max(row) for row in counts.values()) or 1
    rows = []
    for site, held in counts.items():
        cells = [f'<td class="held" style="--share:{(n / largest) ** 0.5:.3f}">{n:,}</td>' for n in held]
        rows.append((escape(site), *cells, f"<td><b>{sum(held):,}</b></td>"))
    return table(("site", *classes, "all"), rows, "Images that each site holds of each class")


def images_by_class(made: DistilledSet | None) -> str:
    """The stored images, a row for each class; a click shows one large."""
    if made is None:
        return ""
    pixels = as_uint8(made.images.images).numpy()
    rows = []
    for y, name in enumerate(made.images.classes):
        index = made.images.of_class(y)[:MOST_SHOWN].tolist()
        buttons = "".join(
            f'<button class="zoom" title="{escape(name)}, {i + 1} of {len(index)}">'
            f'<img src="{picture(pixels[j])}" alt="{escape(name)} {i + 1}" width="48" height="48"></button>'
            for i, j in enumerate(index)
        )
        if buttons:
            rows.append(f'<div class="row"><h3>{escape(name)}</h3><div class="strip">{buttons}</div></div>')
    small = made.plan.pae**2
    told = f"<p>Each stored image holds {small} small ones (partition and expand).</p>" if small > 1 else ""
    return told + f'<div class="rows">{"".join(rows)}</div>'


def picture(pixels: Any) -> str:
    """Pixels (channels, height, width) of uint8 as the address of a PNG inside the page."""
    channels = len(pixels)
    levels = pixels.transpose(1, 2, 0) if channels == 3 else pixels[0]
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, format="PNG")
    return _address("png", buffer.getvalue())


def _address(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def image(webp: bytes, told: str) -> str:
    """A WebP picture inside the page, with its caption."""
    address = _address("webp", webp)
    return f'<figure><img src="{address}" alt="{escape(told)}"><figcaption>{escape(told)}</figcaption></figure>'


def plot(svg: bytes, told: str) -> str:
    """A plot inside the page, in the page's own ink."""
    text = svg.decode()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = text.replace("<svg ", f'<svg role="img" aria-label="{escape(told)}" ', 1)
    return f"<figure>{text}<figcaption>{escape(told)}</figcaption></figure>"


def provenance(made: Round, settings: str) -> str:
    """Where the numbers come from: the plan, versions, device, and the command that makes them again."""
    rows = []
    if made.made is not None:
        plan = made.made.plan
        rows += [("plan", f"<code>{plan.digest}</code>"), ("method", escape(made.made.method))]
        rows += [("seed, steps, ipc", f"{plan.seed}, {plan.steps}, {plan.ipc}")]
    if made.results is not None:
        compute = made.results.compute.document()
        rows.append(("computed on", escape(", ".join(f"{k} {v}" for k, v in compute.items() if v is not None))))
    versions = made.results.versions if made.results else made.made.versions if made.made else {}
    rows.append(("versions", escape(", ".join(f"{k} {v}" for k, v in versions.items()))))
    parts = [f'<div class="about">{table(("what", "value"), rows)}</div>']
    if settings:
        parts.append(
            f"<p>Save these settings as <code>experiment.toml</code>; the command makes the round again:</p>"
            f"<pre>collabdm simulate --config experiment.toml -o {escape(shlex.quote(made.name))}</pre>"
            f"<details><summary>experiment.toml</summary><pre>{escape(settings)}</pre></details>"
        )
    if made.made is not None:
        document = json.dumps(made.made.plan.model_dump(mode="json"), indent=1, ensure_ascii=False)
        parts.append(f"<details><summary>The plan</summary><pre>{escape(document)}</pre></details>")
    return "\n".join(parts)
