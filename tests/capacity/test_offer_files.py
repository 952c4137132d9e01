"""Prices from offer files as AWS publishes them, served on this machine in excerpts."""

import gzip
import json
import shutil
import threading
import tracemalloc
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from capacity import offer_files, prices
from capacity.__main__ import REFERENCE, main
from capacity.errors import UserError

TODAY = date(2027, 2, 3)
HEAD = """"FormatVersion","v1.0"
"Disclaimer","This pricing list is for informational purposes only."
"Publication Date","2027-01-28T17:07:46Z"
"Version","20270128170746"
"OfferCode","{offer}"
"SKU","OfferTermCode","RateCode","TermType","PriceDescription","EffectiveDate","StartingRange","EndingRange","Unit",\
"PricePerUnit","Currency","Product Family","serviceCode","Location","usageType","operation","Tenancy"
"""


def row(usage_type: str, usd: str, operation: str = "", term: str = "OnDemand", start: str = "0") -> str:
    described = f'"${usd}, for one, in ""{usage_type}"""'
    ends = "Inf" if start == "0" else ""
    return (
        f'"SKU1","JRTCKXETXF","SKU1.JRTCKXETXF.6YS6EN2CT7","{term}",{described},"2027-01-01","{start}","{ends}","Hrs",'
        f'"{usd}","USD","Family","Service","US East (N. Virginia)","{usage_type}","{operation}","Shared"\n'
    )


OFFERS = {
    "AmazonSageMaker": [
        row("USE1-Host:ml.m5.xlarge", "0.2400000000", "RunInstance"),
        row("USE1-Host:ml.m5.xlarge", "0.1500000000", "RunInstance", term="Reserved"),
        row("USE1-Host:ml.m5.xlarge.extra", "9.9"),
        row("USE1-Host:ml.m5.2xlarge", "0.4610000000"),
        row("USE1-Host:ml.c6i.xlarge", "0.2040000000"),
        row("USE1-Train:ml.m5.xlarge", "0.2300000000"),
        row("USE1-Notebk:ml.t3.medium", "0.0500000000"),
        row("USE1-Notebk:VolumeUsage.gp2", "0.1400000000"),
    ],
    "AmazonEC2": [
        row("BoxUsage:m5.2xlarge", "0.3840000000", "RunInstances"),
        row("BoxUsage:m5.2xlarge", "0.7520000000", "RunInstances:0002"),
        row("UnusedBox:m5.2xlarge", "0.3840000000", "RunInstances"),
        row("NatGateway-Hours", "0.0450000000", "NatGateway"),
        row("RegionalNatGateway-Hours", "0.0900000000", "NatGateway"),
    ],
    "AWSLambda": [
        row("Request", "0.0000002000"),
        row("Request-ARM", "0.0000001000"),
        row("Lambda-GB-Second", "0.0000166667"),
        row("Lambda-GB-Second", "0.0000150000", start="6000000000"),
        row("Lambda-Provisioned-Concurrency", "0.0000041667"),
        row("Lambda-Provisioned-GB-Second", "0.0000097222"),
    ],
    "AmazonVPC": [row("USE1-PublicIPv4:InUseAddress", "0.005"), row("VpcEndpoint-Hours", "0.0100000000")],
    "AmazonCloudWatch": [row("CW:AlarmMonitorUsage", "0.1000000000"), row("CW:HighResAlarmMonitorUsage", "0.3")],
    "awskms": [row("us-east-1-KMS-Keys", "1.0000000000")],
}


class Offers(BaseHTTPRequestHandler):
    """Serves `server.offers`, whole, packed or cut short."""

    def do_GET(self) -> None:
        offer = self.path.removeprefix("/offers/v1.0/aws/").removesuffix("/current/us-east-1/index.csv")
        if offer not in self.server.offers:
            self.send_error(404)
            return
        self.send_response(200)
        head, rows = self.server.head.format(offer=offer).encode(), "".join(self.server.offers[offer]).encode()
        if self.server.times:
            self.end_headers()
            self.wfile.write(head)
            for _ in range(self.server.times):
                self.wfile.write(rows)
                self.server.sent += len(rows)
            return
        body = head + rows
        if packed := self.server.packed and "gzip" in self.headers["Accept-Encoding"]:
            body = gzip.compress(body)
        self.send_header("Content-Length", str(len(body)))
        if packed:
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        self.wfile.write(body[: -self.server.missing_bytes or None])

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server():
    running = ThreadingHTTPServer(("127.0.0.1", 0), Offers)
    running.head, running.offers, running.packed, running.missing_bytes = HEAD, dict(OFFERS), False, 0
    running.times = running.sent = 0
    running.url = f"http://127.0.0.1:{running.server_address[1]}"
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield running
    running.shutdown()
    running.server_close()


@pytest.fixture
def price_file(tmp_path):
    return shutil.copy(prices.PRICE_FILE, tmp_path / "prices.json")


@pytest.mark.parametrize("packed", [False, True])
def test_prices_are_found_by_usage_type(server, price_file, packed):
    server.packed = packed
    before = prices.read(price_file).prices
    lines = offer_files.refresh(price_file, TODAY, server.url)
    after = prices.read(price_file).prices
    assert list(after) == list(before)
    assert after["hosting ml.m5.xlarge"].usd == 0.24
    assert after["hosting ml.m5.xlarge"].read == date(2027, 2, 1)
    assert after["hosting ml.c6i.xlarge"].source == "offer file of 2027-01-28"  # and no longer derived
    assert {name: one.usd for name, one in after.items() if name != "hosting ml.m5.xlarge"} == pytest.approx(
        {name: one.usd for name, one in before.items() if name != "hosting ml.m5.xlarge"}
    )
    assert "hosting ml.m5.xlarge: 0.23 USD became 0.24" in lines
    assert lines[-1].startswith(f"{len(before) - 2} of {len(before)} prices read")


def test_what_is_not_found_stays_as_it_was_and_is_named(server, price_file):
    server.offers["awskms"] = [row("us-east-1-KMS-Keys", "1"), row("us-east-1-KMS-Keys", "2")]
    before = prices.read(price_file).prices
    lines = offer_files.refresh(price_file, TODAY, server.url)
    after = prices.read(price_file).prices
    assert any(line.startswith("hosting ml.c7i.xlarge: no price of USE1-Host:ml.c7i.xlarge in http") for line in lines)
    assert any(line.startswith("kms key: 2 prices of us-east-1-KMS-Keys") for line in lines)
    for name in ("hosting ml.c7i.xlarge", "kms key"):
        assert after[name] == before[name]


def test_a_fresh_file_is_not_stale(server, price_file):
    offer_files.refresh(price_file, TODAY, server.url)
    assert {price.item for price in prices.read(price_file).stale(TODAY)} <= {
        "hosting ml.c7i.xlarge",
        "hosting ml.m7i.xlarge",
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda server: server.offers.pop("AmazonVPC"), "cannot be read: HTTP Error 404"),
        (lambda server: setattr(server, "missing_bytes", 40), "bytes early"),
        (lambda server: server.offers.update(awskms=[row("us-east-1-KMS-Keys", "free")]), ":7: PricePerUnit is 'free'"),
        (lambda server: server.offers.update(awskms=["a,b\n"]), "cannot be read"),
    ],
)
def test_a_failure_leaves_the_file_as_it_was(server, price_file, change, message):
    change(server)
    before = price_file.read_bytes()
    with pytest.raises(UserError, match=message):
        offer_files.refresh(price_file, TODAY, server.url)
    assert price_file.read_bytes() == before and [path.name for path in price_file.parent.iterdir()] == ["prices.json"]


def test_a_page_is_no_offer_file(server, price_file):
    server.head = "<html>\n" * 30
    with pytest.raises(UserError, match="no offer file: there is no row that names TermType"):
        offer_files.refresh(price_file, TODAY, server.url)


def test_a_large_file_is_never_whole_in_memory(server):
    server.offers["AmazonEC2"] = [row("BoxUsage:x1", "1.0", "RunInstances")] * 500 + OFFERS["AmazonEC2"]
    server.times = 100
    tracemalloc.start()
    url = f"{server.url}/offers/v1.0/aws/AmazonEC2/current/us-east-1/index.csv"
    _, found = offer_files._read(url, {("NatGateway-Hours", "")})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == {("NatGateway-Hours", ""): {0.045}}
    assert peak < 3e6 < server.sent


def test_the_command_refreshes_and_prints_the_bill(server, price_file, monkeypatch, capsys):
    monkeypatch.setattr(prices, "PRICE_FILE", price_file)
    assert main(["cost", "--config", str(REFERENCE), "--refresh", "--offers-url", server.url]) == 0
    printed = capsys.readouterr().out
    assert "hosting ml.m5.xlarge: 0.23 USD became 0.24" in printed and "175.20" in printed
    assert json.loads(price_file.read_text())["prices"][0]["read"] == f"{date.today():%Y-%m}"


def test_no_way_to_the_offer_files(price_file, monkeypatch, capsys):
    monkeypatch.setattr(prices, "PRICE_FILE", price_file)
    assert main(["cost", "--config", str(REFERENCE), "--refresh", "--offers-url", "http://127.0.0.1:1"]) == 2
    assert "cannot be read" in capsys.readouterr().err
