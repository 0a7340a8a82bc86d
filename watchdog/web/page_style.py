"""The style sheet of the status page, and the headers that permit it and nothing else."""

from __future__ import annotations

import base64
import hashlib
from typing import Final

# All colours have a contrast of 4.5 to 1 and more to their ground, in both schemes. A state is also a word and a sign.
CSS: Final = """
:root{color-scheme:light dark;--bg:#fff;--card:#f6f8fa;--line:#c9d1d9;--text:#1b1f24;--muted:#505963;--link:#0550ae;
--critical:#b3151f;--warning:#7a4b00;--ok:#1a6334;--value:#0550ae;--band:#d7e6f7;--axis:#d5dbe1}
@media(prefers-color-scheme:dark){:root{--bg:#0d1117;--card:#161b22;--line:#3d444d;--text:#e6edf3;--muted:#a3adb8;
--link:#79b8ff;--critical:#ff8f87;--warning:#e3b341;--ok:#7ee787;--value:#79b8ff;--band:#1b2d45;--axis:#2d343c}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--text);font:15px/1.45 system-ui,"Segoe UI","DejaVu Sans",sans-serif}
header,main,footer{max-width:80rem;margin:0 auto;padding:.6rem 1rem}
main{padding-top:0}
h1{font-size:1.35rem;margin:.2rem 0}h2{font-size:1.15rem;margin:1.4rem 0 .5rem;border-bottom:1px solid var(--line)}
h3{font-size:1rem;margin:0 0 .3rem}h1,h2,h3,p,li,dd,td,th,summary{overflow-wrap:anywhere}
p{margin:.2rem 0}a{color:var(--link)}
nav ul{display:flex;flex-wrap:wrap;gap:.2rem 1rem;list-style:none;padding:0;margin:.4rem 0}
:focus-visible{outline:3px solid var(--link);outline-offset:2px}
.skip{position:absolute;left:-99rem}.skip:focus{left:1rem;top:.3rem;background:var(--bg);padding:.3rem}
.muted{color:var(--muted)}.critical>h3,.sign.critical{color:var(--critical)}.warning>h3,.sign.warning{color:var(--warning)}
.sign.ok{color:var(--ok)}
.sign{font-weight:600}.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,21rem),1fr));gap:.7rem}
.wide{grid-template-columns:repeat(auto-fill,minmax(min(100%,34rem),1fr))}
article{background:var(--card);border:1px solid var(--line);border-left:5px solid var(--line);border-radius:4px;
padding:.55rem .7rem;min-width:0}
article.critical{border-left-color:var(--critical)}article.warning{border-left:5px double var(--warning)}
dl{display:grid;grid-template-columns:minmax(5.6rem,auto) 1fr;gap:.1rem .7rem;margin:.3rem 0}
dt{color:var(--muted)}dd{margin:0;min-width:0}
bdi{display:inline-block;max-width:100%;overflow:hidden;vertical-align:bottom;line-height:1.45}
h3{overflow:hidden}h3 bdi{display:inline}
code,.lines dd{font-family:ui-monospace,"DejaVu Sans Mono",monospace;font-size:.86em}
figure{margin:.3rem 0}figcaption{color:var(--muted);font-size:.86rem}
svg.chart{display:block;width:100%;height:auto}
.chart text{font-size:10px;fill:var(--muted)}.chart .end{text-anchor:end}
.axis{stroke:var(--axis)}.band{fill:var(--band)}.mark{fill:var(--critical)}
.value{fill:none;stroke:var(--value);stroke-width:1.6;stroke-linejoin:round}
.limit{fill:none;stroke-width:1.4}.limit.warning{stroke:var(--warning);stroke-dasharray:6 3}
.limit.critical{stroke:var(--critical);stroke-dasharray:2 2}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%}
th,td{text-align:left;vertical-align:top;padding:.22rem .5rem;border-bottom:1px solid var(--line)}
.number{text-align:right;white-space:nowrap}caption{text-align:left;color:var(--muted);padding:.2rem 0}
tbody th{font-weight:400;min-width:7rem}
@media(max-width:30rem){body{font-size:14px}header,main,footer{padding:.5rem .6rem}th,td{padding:.2rem .3rem}
.scroll{font-size:.8rem}tbody th{min-width:5rem}}
@media print{nav,.refresh,.skip{display:none}article{break-inside:avoid}}
""".strip()

_HASH = base64.b64encode(hashlib.sha256(CSS.encode()).digest()).decode()

HEADERS: Final = (
    (
        "Content-Security-Policy",
        f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Frame-Options", "DENY"),
)
"""No script, no picture, no connection, no frame: a defect in the escaping of a name could still run nothing."""
