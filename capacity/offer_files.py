"""Refresh the price file from AWS's public offer files: one a service and region, CSV, no credentials.

EC2's has gigabytes: it is read as a stream, row by row. The instance type of SageMaker's prices stands in their usage
type alone, so that is what is looked for.
https://docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/using-the-aws-price-list-bulk-api-fetching-price-list-files-manually.html
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import re
from collections.abc import Iterator
from datetime import date
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from capacity import whole_file
from capacity.errors import UserError

OFFERS_URL = "https://pricing.us-east-1.amazonaws.com"
SILENCE_SECONDS = 60.0
HEAD_ROWS = 20  # five, as documented, and then the names of the columns
COLUMNS = ("TermType", "StartingRange", "PricePerUnit", "Currency", "usageType", "operation")

# AWS writes some usage types with the region before them (USE1-, us-east-1-), and in us-east-1 others without.
REGION_PREFIX = re.compile(r"([A-Z]{2,5}[0-9]?|[a-z]{2}(-[a-z]+)+-[0-9])-")


def refresh(path: Path, today: date, offers_url: str = OFFERS_URL) -> list[str]:
    """Bring a price file up to date, whole or not at all; what changed and what could not be found, a line each.

    Raises UserError where an offer file cannot be read; the price file is as it was then.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    by_offer: dict[str, list[dict[str, Any]]] = {}
    for entry in content["prices"]:
        by_offer.setdefault(entry["offer"], []).append(entry)
    lines, found = [], 0
    for offer, entries in by_offer.items():
        url = f"{offers_url}/offers/v1.0/aws/{offer}/current/{content['region']}/index.csv"
        published, prices = _read(url, {_key(entry) for entry in entries})
        for entry in entries:
            usd = prices[_key(entry)]
            if len(usd) != 1:
                what = f"{len(usd)} prices" if usd else "no price"
                lines.append(f"{entry['item']}: {what} of {entry['usage_type']} in {url}: left at {entry['usd']:g} USD")
                continue
            found += 1
            [now] = usd
            if now != entry["usd"]:
                lines.append(f"{entry['item']}: {entry['usd']:g} USD became {now:g}")
            entry |= {"usd": now, "read": f"{today:%Y-%m}", "source": f"offer file of {published}"}
    whole_file.write(path, _as_json(content).encode())
    return [*lines, f"{found} of {len(content['prices'])} prices read from {offers_url}; written: {path}"]


def _key(entry: dict[str, Any]) -> tuple[str, str]:
    """Usage type, without its region, and operation, where one usage type has several prices."""
    return _without_region(entry["usage_type"]), entry.get("operation", "")


def _without_region(usage_type: str) -> str:
    return REGION_PREFIX.sub("", usage_type, count=1) if REGION_PREFIX.match(usage_type) else usage_type


def _read(url: str, keys: set[tuple[str, str]]) -> tuple[str, dict[tuple[str, str], set[float]]]:
    """The day an offer file was published, and the on-demand prices in US dollars of each key, in its first tier."""
    found: dict[tuple[str, str], set[float]] = {key: set() for key in keys}
    usage_types = {usage_type for usage_type, _ in keys}
    try:
        with urlopen(Request(url, headers={"Accept-Encoding": "gzip"}), timeout=SILENCE_SECONDS) as response:
            packed = response.headers.get("Content-Encoding") == "gzip"
            stream = gzip.GzipFile(fileobj=response) if packed else io.BufferedReader(response)
            rows = csv.reader(io.TextIOWrapper(stream, encoding="utf-8", newline=""))
            published, columns = _head(url, rows)
            term, start, price, currency, usage, operation = (columns[name] for name in COLUMNS)
            for row in rows:
                if _without_region(row[usage]) not in usage_types or row[term] != "OnDemand" or row[currency] != "USD":
                    continue
                if row[start] not in ("", "0"):
                    continue
                for key in ((_without_region(row[usage]), row[operation]), (_without_region(row[usage]), "")):
                    if key in found:
                        found[key].add(_price(url, rows.line_num, row[price]))
            if response.length:
                raise EOFError(f"it ended {response.length} bytes early")
    except (OSError, EOFError, HTTPException, ValueError, csv.Error, IndexError) as error:
        raise UserError(f"{url}: cannot be read: {error}: try again later, or see --offers-url") from None
    return published, found


def _head(url: str, rows: Iterator[list[str]]) -> tuple[str, dict[str, int]]:
    """The day of publication and the place of each column, from the rows before the first price."""
    published = "unknown date"
    for _, row in zip(range(HEAD_ROWS), rows, strict=False):
        if row[:1] == ["Publication Date"]:
            published = row[1][:10]
        if set(COLUMNS) <= set(row):
            return published, {name: place for place, name in enumerate(row)}
    raise UserError(f"{url}: no offer file: there is no row that names {', '.join(COLUMNS)}")


def _price(url: str, line: int, text: str) -> float:
    try:
        usd = float(text)
    except ValueError:
        usd = math.nan
    if not 0 < usd < 1e6:
        raise UserError(f"{url}:{line}: PricePerUnit is {text!r}: not a price")
    return usd


def _as_json(content: dict[str, Any]) -> str:
    """One line a price, as the file is kept."""
    prices = ",\n".join(f"    {json.dumps(entry)}" for entry in content["prices"])
    head = "".join(f"  {json.dumps(key)}: {json.dumps(value)},\n" for key, value in content.items() if key != "prices")
    return f'{{\n{head}  "prices": [\n{prices}\n  ]\n}}\n'
