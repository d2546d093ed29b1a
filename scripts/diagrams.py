#!/usr/bin/env python3
"""Draws the diagrams of the book's mathematics into docs/diagrams. Needs Python alone.

Each has a light ground of its own, so that it can be read on dark pages too. `--check` exits with 1 where a file is not
what the script draws.
"""

import sys
from pathlib import Path

INK, SOFT, GROUND = "#1f2933", "#616e7c", "#fbfaf7"
QUERY, KEY, LATENT, OPEN = "#3d6fb4", "#d98324", "#3a8f5c", "#b8dcc6"
PAPER = "#e4e7eb"
FOLDER = Path(__file__).resolve().parent.parent / "docs" / "diagrams"


class Drawing:
    """An SVG of fixed size, built element by element."""

    def __init__(self, width, height, title):
        self.size, self.title, self.parts = (width, height), title, []

    def rect(self, x, y, w, h, fill, stroke=INK, width=1.0, radius=2, dash=None):
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="{radius}" fill="{fill}" '
            f'stroke="{stroke}" stroke-width="{width:g}"{dashes}/>'
        )

    def text(self, x, y, words, size=14, anchor="middle", fill=INK, weight="normal"):
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}" fill="{fill}" '
            f'font-weight="{weight}">{words}</text>'
        )

    def line(self, x1, y1, x2, y2, stroke=SOFT, width=1.2, arrow=False):
        head = ' marker-end="url(#head)"' if arrow else ""
        self.parts.append(
            f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{stroke}" stroke-width="{width:g}"{head}/>'
        )

    def box(self, x, y, w, h, words, fill):
        self.rect(x, y, w, h, fill)
        ink = "#ffffff" if fill in (QUERY, KEY, LATENT) else INK
        self.text(x + w / 2, y + h / 2 + 5, words, 13, fill=ink)

    def svg(self):
        w, h = self.size
        head = (
            '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            f'orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="{SOFT}"/></marker></defs>'
        )
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img" '
            f'font-family="Roboto, Helvetica, Arial, sans-serif">\n<title>{self.title}</title>\n{head}\n'
            f'<rect width="{w}" height="{h}" rx="6" fill="{GROUND}"/>\n' + "\n".join(self.parts) + "\n</svg>\n"
        )


def pairs(n):
    """Keys and values of so many heads, in words."""
    return "1 key, 1 value" if n == 1 else f"{n} keys, {n} values"


def heads():
    """Which query heads read which keys and values."""
    d = Drawing(760, 230, "Query heads and what each of them reads in MHA, GQA, MQA and MLA")
    columns = [("MHA", 8, KEY), ("GQA, Hkv = 2", 2, KEY), ("MQA", 1, KEY), ("MLA and MTLA", 1, LATENT)]
    for i, (name, n_kv, colour) in enumerate(columns):
        x0 = 24 + 184 * i
        d.text(x0 + 80, 30, name, 15, weight="bold")
        for h in range(8):
            d.rect(x0 + 20 * h + 2, 54, 15, 28, QUERY)
        width = 160 / n_kv
        for k in range(n_kv):
            middle = x0 + width * (k + 0.5)
            for h in range(8 // n_kv):
                d.line(x0 + 20 * (k * 8 // n_kv + h) + 9.5, 82, middle, 138)
            d.rect(middle - 8, 140, 16, 36, colour)
        d.text(x0 + 80, 204, "one latent, one rope key" if colour == LATENT else pairs(n_kv), 13, fill=SOFT)
    d.text(18, 222, "blue: query heads (H = 8); below: what the cache holds of a token", 12, "start", SOFT)
    return d


def cache():
    """Cache elements a token, to scale."""
    d = Drawing(760, 270, "Cache elements per token and layer of each variant, to scale")
    rows = [
        ("MHA", 1024, "2 H D"), ("GQA, Hkv = 2", 256, "2 Hkv D"), ("MQA", 128, "2 D"), ("MLA", 288, "r + Dr"),
        ("MTLA, s = 2", 144, "(r + Dr) / s"), ("MTLA, s = 3", 96, "(r + Dr) / s"), ("MTLA, s = 4", 72, "(r + Dr) / s"),
    ]
    for i, (name, n, formula) in enumerate(rows):
        y = 18 + 32 * i
        d.text(110, y + 17, name, 14, "end")
        d.rect(122, y, 500 * n / 1024, 22, LATENT if n in (288, 144, 96, 72) else KEY)
        d.text(130 + 500 * n / 1024, y + 16, f"{n}  =  {formula}", 13, "start", SOFT)
    d.text(122, 258, "elements a token and layer at H 8, D 64, r 256, Dr 32", 12, "start", SOFT)
    return d


def absorb():
    """The two ways to compute latent attention."""
    d = Drawing(760, 290, "Latent attention for whole sequences and for decoding")
    d.text(190, 28, "whole sequences: decompress", 15, weight="bold")
    d.text(570, 28, "decoding: absorb", 15, weight="bold")
    d.box(20, 130, 110, 34, "c  [L, r]", LATENT)
    d.box(180, 80, 150, 34, "K = c W_UK, k^R", KEY)
    d.box(180, 180, 150, 34, "V = c W_UV", KEY)
    d.line(130, 142, 178, 100, arrow=True)
    d.line(130, 152, 178, 194, arrow=True)
    d.text(255, 140, "q K^T, softmax, times V", 13, fill=SOFT)
    d.text(190, 246, "320 FLOPs a pair (Dn 64, Dr 32, Dv 64);", 13, fill=SOFT)
    d.text(190, 264, "K and V are formed once for all queries", 13, fill=SOFT)
    d.line(380, 20, 380, 270)
    d.box(405, 80, 110, 34, "q_nope W_UK", QUERY)
    d.box(405, 180, 110, 34, "times W_UV", QUERY)
    d.box(590, 130, 130, 34, "c, k^R as cached", LATENT)
    d.line(515, 97, 588, 138, arrow=True)
    d.line(588, 156, 515, 197, arrow=True)
    d.text(535, 152, "softmax", 13, fill=SOFT)
    d.text(570, 246, "1088 FLOPs a pair, but reads only", 13, fill=SOFT)
    d.text(570, 264, "r + Dr elements of a token, for all heads", 13, fill=SOFT)
    return d


def merge():
    """Tokens and slots of MTLA with s = 3."""
    d = Drawing(760, 250, "Eight tokens in the slots of an MTLA cache with stride 3")
    for i in range(8):
        x = 60 + 82 * i
        d.box(x, 40, 60, 32, f"c{'₀₁₂₃₄₅₆₇'[i]}", LATENT)
        j = i // 3
        d.line(x + 30, 72, 170 + 246 * j - (30 if j == 2 else 0) + 16 * (i % 3 - 1), 140, arrow=True)
        left = i % 3 == 0
        d.text(x + (16 if left else 42), 96, f"w{'₀₁₂₃₄₅₆₇'[i]}", 12, "end" if left else "start", SOFT)
    for j, (x, words) in enumerate([(100, "w₀c₀ + w₁c₁ + w₂c₂"), (346, "w₃c₃ + w₄c₄ + w₅c₅"), (562, "w₆c₆ + w₇c₇")]):
        open_slot = j == 2
        d.rect(x, 142, 150, 34, OPEN if open_slot else LATENT, dash="5 3" if open_slot else None)
        d.text(x + 75, 164, words, 13, fill=INK if open_slot else "#ffffff")
        d.text(x + 75, 196, f"rope key of token {'257'[j]}", 13, fill=SOFT)
        d.text(x + 75, 214, "open: token 8 will add to it" if open_slot else f"slot {j}, closed", 13, fill=SOFT)
    d.text(20, 240, "s = 3: ceil(8 / 3) = 3 slots for 8 tokens", 12, "start", SOFT)
    d.text(380, 24, "latents of tokens 0 to 7, each weighed by its own w", 13, fill=SOFT)
    return d


def mask():
    """What each query of MTLA sees."""
    d = Drawing(560, 330, "The stride-aware mask for ten tokens and stride 3")
    n, s, side = 10, 3, 24
    for i in range(n):
        d.text(62, 62 + side * i + 17, str(i), 12, "end", SOFT)
        d.text(82 + side * i, 52, str(i), 12, fill=SOFT)
        for j in range(n):
            fill = PAPER
            if j < i and (j + 1) % s == 0:
                fill = LATENT
            if j == i:
                fill = OPEN
            d.rect(70 + side * j, 60 + side * i, side - 2, side - 2, fill, stroke="#ffffff")
    d.text(190, 30, "partial sum up to token j", 13, fill=SOFT)
    d.text(8, 186, "query", 13, "start", SOFT)
    for y, fill, words in [(90, LATENT, "a closed slot:"), (140, OPEN, "the query's own"), (190, PAPER, "not seen")]:
        d.rect(340, y, 22, 22, fill)
        d.text(372, y + 16, words, 13, "start")
    d.text(372, 124, "j &lt; i and (j + 1) mod s = 0", 12, "start", SOFT)
    d.text(372, 174, "partial sum: j = i", 12, "start", SOFT)
    d.text(20, 322, "s = 3. One column in three has anything below its diagonal.", 12, "start", SOFT)
    return d


def fold():
    """The same mask with the queries of a block as heads."""
    d = Drawing(640, 280, "The queries of a block as more heads over the closed slots")
    d.text(130, 28, "queries [T / s, s H]", 14, weight="bold")
    d.text(430, 28, "closed slots [T / s]", 14, weight="bold")
    for j in range(4):
        y = 48 + 48 * j
        for k in range(3):
            d.box(40 + 62 * k, y, 56, 32, f"q{j * 3 + k}", QUERY)
        for b in range(4):
            seen = b < j
            d.rect(320 + 56 * b, y, 48, 32, LATENT if seen else PAPER, stroke="#ffffff")
            d.text(344 + 56 * b, y + 21, str(b), 13, fill="#ffffff" if seen else SOFT)
        d.line(228, y + 16, 312, y + 16, arrow=True)
        d.text(560, y + 21, "+ diagonal", 13, "start", SOFT)
    d.text(20, 264, "s = 3: row j holds the queries of block j; all of them see the blocks before j, and each its own sum", 12, "start", SOFT)
    return d


def turns():
    """How the variants of a group are sampled."""
    d = Drawing(760, 190, "Variants of a group are warmed, then sampled in turns")
    colours = {"MHA": QUERY, "MQA": KEY, "MTLA": LATENT}
    x = 20
    for name, colour in colours.items():
        d.rect(x, 60, 66, 44, colour)
        d.text(x + 33, 87, name, 13, fill="#ffffff")
        x += 70
    d.text(122, 46, "warm each, by duration", 13, fill=SOFT)
    x += 22
    for i, order in enumerate([("MTLA", "MHA", "MQA"), ("MHA", "MQA", "MTLA"), ("MQA", "MTLA", "MHA")]):
        d.text(x + 70, 46, f"round {i}", 13, fill=SOFT)
        for name in order:
            d.rect(x, 60, 44, 44, colours[name])
            d.text(x + 22, 87, name, 11, fill="#ffffff")
            x += 47
        x += 24
    d.text(20, 140, "A slow spell of the machine falls on all of them. The order of a round is drawn from the seed.", 13, "start", SOFT)
    d.text(20, 162, "Sampling ends by interval, settled noise, number or wall time, and the row says which.", 13, "start", SOFT)
    return d


def main():
    check = "--check" in sys.argv
    stale = []
    for draw in (heads, cache, absorb, merge, mask, fold, turns):
        path, svg = FOLDER / f"{draw.__name__}.svg", draw().svg()
        if check and (not path.exists() or path.read_text() != svg):
            stale.append(path.name)
        if not check:
            FOLDER.mkdir(parents=True, exist_ok=True)
            path.write_text(svg)
    if stale:
        sys.exit(f"not what the script draws: {', '.join(stale)}; run scripts/diagrams.py")


if __name__ == "__main__":
    main()
