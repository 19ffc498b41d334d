"""Take the pictures of docs/templates.md anew: `python -m docs.take_screenshots [--out FOLDER]`.

Every starter template is rendered with its sample by the renderer that sends it, in each language, and shown in frames
of a width and a colour scheme; headless Chromium photographs the frames side by side as one sheet. How letters look depends
on the fonts of the machine, so no test compares the pictures.
"""

import argparse
import html
import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from service.mail.render import Rendered, Template
from service.spool.templates import Folder

ROOT = Path(__file__).resolve().parent.parent
ORDER = ("verify-email", "password-reset", "welcome", "order-confirmation", "invoice")
LOCALES = {"en": "en", "zh": "zh-CN"}
COLUMNS = {600: 2, 320: 3}  # width of a mail in CSS pixels -> mails side by side
_GAP = 28
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--force-device-scale-factor=1",
    "--virtual-time-budget=4000", "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip
_DARK = "--blink-settings=preferredColorScheme=0"

_SHEET = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title></title><style>
:root {{ color-scheme: {scheme}; }}
body {{ margin: 0; padding: {gap}px; background: {ground}; color: {ink}; width: {inner}px; position: relative; }}
figure {{ margin: 0; position: absolute; width: {width}px; }}
figcaption {{ font: 13px/20px 'Noto Sans CJK SC', sans-serif; padding: 0 2px 8px; white-space: nowrap; overflow: hidden;
  text-overflow: ellipsis; }}
figcaption span {{ color: {faint}; }}
iframe {{ display: block; width: {width}px; border: 0; border-radius: 6px; color-scheme: {scheme}; }}
</style></head><body>{figures}<script>
const gap = {gap}, width = {width}, columns = {columns}
addEventListener('load', () => {{
  const figures = [...document.querySelectorAll('figure')]
  for (const figure of figures) {{
    const frame = figure.querySelector('iframe')
    frame.style.height = frame.contentDocument.documentElement.scrollHeight + 'px'
  }}
  const heights = figures.map(figure => figure.offsetHeight + gap)
  let best = Infinity, chosen = []
  for (let code = 0; code < columns ** figures.length; code++) {{ // few enough to try every arrangement
    const places = figures.map((_, index) => Math.floor(code / columns ** (figures.length - 1 - index)) % columns)
    const bottoms = Array(columns).fill(gap)
    places.forEach((column, index) => {{ bottoms[column] += heights[index] }})
    if (Math.max(...bottoms) < best) [best, chosen] = [Math.max(...bottoms), places]
  }}
  const bottoms = Array(columns).fill(gap)
  figures.forEach((figure, index) => {{
    figure.style.left = gap + chosen[index] * (width + gap) + 'px'
    figure.style.top = bottoms[chosen[index]] + 'px'
    bottoms[chosen[index]] += heights[index]
  }})
  document.title = best
}})
</script></body></html>
"""
_PALETTES = {
    "light": {"ground": "#ffffff", "ink": "#1c1e21", "faint": "#6a7078"},
    "dark": {"ground": "#000000", "ink": "#e6e9ec", "faint": "#8b949e"},
}


def rendered(template: Template, locale: str) -> Rendered:
    """The template with its sample."""
    return template.render(
        template.sample(locale), locale, deadline=time.monotonic() + 10, monotonic=time.monotonic, max_bytes=2**21
    )


def sheet(mails: Sequence[Rendered], width: int, scheme: str) -> str:
    """One page with every mail in a frame of its own."""
    columns = COLUMNS[width]
    figures = "".join(
        f"<figure><figcaption><span>{mail.template}</span>&ensp;{html.escape(mail.subject)}</figcaption>"
        f'<iframe srcdoc="{html.escape(mail.html)}"></iframe></figure>'
        for mail in mails
    )
    inner = columns * width + (columns - 1) * _GAP
    return _SHEET.format(
        figures=figures, width=width, columns=columns, inner=inner, gap=_GAP, scheme=scheme, **_PALETTES[scheme]
    )


def photograph(browser: str, page: Path, picture: Path, width: int, scheme: str) -> None:
    """The whole page, however high it is."""
    dark = (_DARK,) if scheme == "dark" else ()

    def run(profile: str, *flags: str) -> str:
        command = [browser, *_FLAGS, *dark, f"--user-data-dir={profile}", *flags, page.as_uri()]
        return subprocess.run(command, capture_output=True, timeout=120, check=True, text=True).stdout  # noqa: S603

    with tempfile.TemporaryDirectory() as profile:
        found = re.search(r"<title>(\d+)</title>", run(profile, f"--window-size={width},2000", "--dump-dom"))
        if found is None:
            raise SystemExit(f"{page.name}: the page told no height")
        run(profile, f"--window-size={width},{found[1]}", f"--screenshot={picture}")


def take(out: Path, browser: str) -> None:
    """Every sheet: language, width, scheme."""
    folder = Folder(ROOT / "templates")
    if faults := folder.read():
        raise SystemExit("\n".join(map(str, faults)))
    with tempfile.TemporaryDirectory() as pages:
        for short, locale in LOCALES.items():
            mails = [rendered(folder.templates[name], locale) for name in ORDER]
            for width, columns in COLUMNS.items():
                for scheme in _PALETTES:
                    name = f"{short}-{width}" + ("-dark" if scheme == "dark" else "")
                    page = Path(pages) / f"{name}.html"
                    page.write_text(sheet(mails, width, scheme), encoding="utf-8")
                    picture = out / f"{name}.png"
                    photograph(browser, page, picture, columns * (width + _GAP) + _GAP, scheme)
                    print(json.dumps({"picture": str(picture), "octets": picture.stat().st_size}))


def main() -> None:
    """Take them."""
    parser = argparse.ArgumentParser(prog="python -m docs.take_screenshots", description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "screenshots", help="default %(default)s")
    chosen = parser.parse_args()
    browser = next((path for name in _BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        raise SystemExit("Chromium is not installed")
    chosen.out.mkdir(parents=True, exist_ok=True)
    take(chosen.out, browser)


if __name__ == "__main__":
    main()
