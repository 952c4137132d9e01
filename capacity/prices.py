"""The price file: facts with the date they were read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from capacity.errors import UserError

PRICE_FILE = Path(__file__).with_name("prices.json")
STALE_DAYS = 183


@dataclass(frozen=True)
class Price:
    """US dollars for a unit, and when that was read: the first day of the month named in the file."""

    item: str
    unit: str
    usd: float
    read: date
    source: str


@dataclass(frozen=True)
class PriceList:
    """The prices of a region, by item."""

    path: Path
    region: str
    prices: dict[str, Price]

    def of(self, item: str, wanted_by: str) -> Price:
        """The price of an item. Raises UserError where the file has none; `wanted_by` says what asks for it."""
        try:
            return self.prices[item]
        except KeyError:
            raise UserError(f"{wanted_by}: {self.path.name} has no price of {item}: add it, or use another") from None

    def stale(self, today: date) -> list[Price]:
        """The prices that were read more than half a year ago."""
        return [price for price in self.prices.values() if (today - price.read).days > STALE_DAYS]


def read(path: Path = PRICE_FILE) -> PriceList:
    content = json.loads(path.read_text(encoding="utf-8"))
    prices = {
        entry["item"]: Price(
            entry["item"], entry["unit"], entry["usd"], date.fromisoformat(entry["read"] + "-01"), entry["source"]
        )
        for entry in content["prices"]
    }
    return PriceList(path, content["region"], prices)
