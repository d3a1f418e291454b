"""`rlheals report`: a chapter's figures, the snippets that the book includes, and one HTML page that needs no book."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlheals.book import claims, explore, front, models, pages, play, registration
from rlheals.chapters import scale
from rlheals.chapters.registry import CHAPTERS
from rlheals.chapters.sft import figures
from rlheals.chapters.sft.runs import SFTChapter
from rlheals.display.markup import Block, html_page, inline, to_html, to_markdown
from rlheals.display.style import Drawn
from rlheals.errors import BadInput
from rlheals.profiles.describe import profiles_table
from rlheals.profiles.profile import Profile
from rlheals.project import project_root
from rlheals.store.files import atomic_write, atomic_writes, make_folder, told
from rlheals.store.store import Store, default_store
from rlheals.tasks import load_task, task_names
from rlheals.tasks.gallery import Sample, gallery_html, gallery_markdown, samples_of

FRONT = "front_picture"
PAPER = "paper_curve"
INDEX = "index.html"
PLAYED, EXPLORED = "static/play", "static/explore"
"""Where the scripts lie that the page "Play" loads; the book copies what is in `static`."""
PICTURE = "docs/front_picture.svg"
"""Beside a README."""
MAX_README = 1_000_000
SLIPS = (
    lambda reply: reply.replace(")=24", ""),
    lambda reply: reply.translate(str.maketrans("+-*/", "-+/*")),
)
"""What makes a right answer with cards a partial one, and one that is not 24."""
OTHER_TASKS = [name for name in task_names() if name != "general_points"]


Figure = Drawn | str
"""What was drawn, or a sentence that says why nothing was."""


@dataclass(frozen=True)
class Report:
    """What was written: the page to open, every file, and in sentences the figures that could not be drawn."""

    index: Path
    files: tuple[str, ...]
    absent: tuple[str, ...]
    minutes: float


def report(
    profile: str | Profile = "lab",
    seeds: Sequence[int] | None = None,
    workers: int = 1,
    results: Path = Path("results"),
    out: Path = Path("report"),
    store: Store | None = None,
    quiet: bool = False,
) -> Report:
    """Compute or load the chapter's runs and write everything that is generated from them into `out`.

    Works in an empty folder without `results`: then there are no bands and no verdicts, and the pages say so.
    Raises BadInput when `out` cannot be written or the recorded study is damaged.
    """
    if out.exists() and not out.is_dir():
        raise BadInput(f"--out {str(out)!r}: is not a folder")
    with told("make the report's folder", out.absolute().parent):
        for place in (PLAYED, EXPLORED):
            make_folder((out / place).absolute())
    results = project_root() / results  # as the chapter finds it
    store = store or default_store()
    chapter = SFTChapter.open(profile, seeds, workers, results, store, quiet)
    drawn = [draw(figure, chapter) for figure in figures.SFT]
    parts, gallery = facts(chapter, results), samples_of(load_task("general_points"), SLIPS)
    shown = {FRONT: _front(chapter, results, drawn[0]), PAPER: drawn[figures.SFT.index(figures.paper_beside)]}
    files = {**figure_files(drawn), **snippets(parts, shown, gallery, out.name)}
    files |= {f"{PLAYED}/{name}": text for name, text in play.files(chapter, store).items()}
    files[f"{EXPLORED}/{explore.DATA}"] = explore.script(chapter, results)
    files[INDEX] = index_page(chapter.profile, parts, drawn, gallery)
    atomic_writes(out, files)
    absent = tuple(one for one in drawn if isinstance(one, str))
    return Report(out / INDEX, tuple(files), absent, chapter.minutes)


def _front(chapter: SFTChapter, results: Path, otherwise: Figure) -> Figure:
    """What the front page shows: where no second stage is recorded, SFT alone."""
    drawn = front.picture(chapter.profile.name, results)
    return drawn if len(drawn.frame) else otherwise


def draw(figure: Callable[[SFTChapter], Drawn], chapter: SFTChapter) -> Figure:
    """The figure, or why it cannot be drawn from what is there (most often: nothing is recorded)."""
    reason = "its data are not recorded here"
    try:
        drawn = figure(chapter)
        if len(drawn.frame):
            return drawn
    except BadInput as error:
        reason = str(error).rstrip(".")
    return f"The figure `{figure.__name__.replace('_', '-')}` is not drawn: {reason}."


def figure_files(drawn: Sequence[Figure]) -> dict[str, bytes | str]:
    """An image and its data per figure."""
    there = [one for one in drawn if isinstance(one, Drawn)]
    return {f"{one.name}.svg": one.svg for one in there} | {f"{one.name}.csv": one.csv() for one in there}


def facts(chapter: SFTChapter, results: Path) -> dict[str, list[Block]]:
    """The generated parts that are paragraphs and tables, by the name of their snippet."""
    found = claims.the_finding(results)
    return {
        "finding": found[:2],
        "finding_more": found[2:],
        "claims_counts": claims.counts(results, ""),
        "claims_table": claims.all_claims(results),
        "run_facts": pages.run_facts(chapter),
        "recorded": pages.recorded_page(results),
        "registration": registration.blocks(results),
        "profiles": profiles_table(),
        "models": models.models_table(results),
        "prompts": models.prompts(results),
        "scale": scale.scale_table(results),
        **{f"task_{name}": pages.task_facts(name) for name in OTHER_TASKS},
    }


def snippets(
    parts: dict[str, list[Block]], shown: dict[str, Figure], gallery: list[Sample], folder: str
) -> dict[str, bytes | str]:
    """The markdown that the book's pages include, and the figures among it. `folder`: where images lie for them."""
    files: dict[str, bytes | str] = {f"{name}.md": to_markdown(part) for name, part in parts.items()}
    files["gallery.md"] = gallery_markdown(gallery)
    for name in OTHER_TASKS:
        files[f"gallery_{name}.md"] = gallery_markdown(samples_of(load_task(name)))
    for name, figure in shown.items():
        if isinstance(figure, Drawn):
            files[f"{name}.svg"] = figure.svg
            above = f"{to_markdown([f'**{figure.takeaway}**'])}\n" if figure.takeaway else ""
            files[f"{name}.md"] = (
                f"{above}```{{figure}} {folder}/{name}.svg\n:alt: {figure.alt}\n:width: 100%\n\n"
                f"**{figure.title}.** {figure.caption} {figure.origin}\n```\n"
            )
        else:
            files[f"{name}.md"] = to_markdown([figure])
    return files


def index_page(
    profile: Profile, parts: dict[str, list[Block]], drawn: Sequence[Figure], gallery: list[Sample]
) -> str:
    """One HTML page with everything in it: it loads no other file."""
    boxes = "\n".join(
        one._repr_html_() if isinstance(one, Drawn) else f'<p class="note">{inline(one)}</p>' for one in drawn
    )
    sections = {
        "Claims and verdicts": to_html(parts["claims_table"]),
        "Figures": boxes,
        "This run": to_html(parts["run_facts"]),
        "The recorded study": to_html(parts["recorded"]),
        "Prompts, answers and verdicts": gallery_html(gallery),
        "Profiles": to_html(parts["profiles"]),
        "Larger models": to_html(parts["models"]),
    }
    title = f"RL fine-tuning heals OOD forgetting in SFT: report, profile {profile.name}"
    return html_page(title, profile.about, sections)


def update_readme(readme: Path, results: Path) -> bool:
    """Write the finding between README's two markers, and its picture; whether that changed anything.

    Computes nothing. A picture of which nothing is recorded is left as it is.
    """
    try:
        if readme.stat().st_size > MAX_README:
            raise BadInput(f"--readme {str(readme)!r}: has more than {MAX_README:,} bytes")
        text = readme.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8 text"
        raise BadInput(f"--readme {str(readme)!r}: {reason}") from None
    new = pages.rewritten_readme(text, to_markdown(claims.the_finding(results)[:2]))
    picture, drawn = (
        readme.parent / PICTURE,
        front.picture(CHAPTERS["sft"].claims.read().study.profile, results),
    )
    changed: dict[Path, str | bytes] = {readme: new} if new != text else {}
    if len(drawn.frame) and picture.is_file() and picture.read_bytes() != drawn.svg:
        changed[picture] = drawn.svg
    for file, content in changed.items():
        atomic_write(file, content)
    return bool(changed)
