"""MET and CAT: versions and catalog. The kit's scenarios, reimplemented under their ids; and that none is missing."""

from __future__ import annotations

import http.client
import json
import re
import ssl
from pathlib import Path

import pytest

from federation.dataspace import WELL_KNOWN, HttpsCourier
from federation.dataspace.https import load_identity
from tests.dataspace.world import CONSUMER, DATASET, PROVIDER, SCHEMAS, World, check_schema, publish, said, terms

KIT = {"MET": 1, "CAT": 3, "CN": 15, "CN_C": 16, "TP": 16, "TP_C": 16}


def plain_get(world: World, path: str) -> tuple[int, dict[str, object]]:
    """A GET that no member signed, with a member's certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    load_identity(context, world[CONSUMER].party.home)
    connection = http.client.HTTPSConnection("127.0.0.1", world.port, context=context, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def test_met_01_01(world: World) -> None:
    """The versions are told, at the gateway and at each member."""
    for prefix in ("", f"/members/{PROVIDER}"):
        status, told = plain_get(world, prefix + WELL_KNOWN)
        assert status == 200
        check_schema(told, "common/protocol-version")
        versions = told["protocolVersions"]
        assert isinstance(versions, list)
        mine = next(one for one in versions if one["path"] == f"/members/{PROVIDER}/2025-1")
        assert (mine["version"], mine["binding"]) == ("2025-1", "HTTPS")


@pytest.fixture
def offer(world: World) -> str:
    return publish(world[PROVIDER], terms())


def test_cat_01_01(world: World, offer: str) -> None:
    """The catalog holds the dataset, with its offer."""
    status, told = world.kit(CONSUMER, PROVIDER).say("/catalog/request", said("CatalogRequestMessage"))
    assert (status, told["@type"], told["participantId"]) == (200, "Catalog", "urn:keyong:member:mill")
    (dataset,) = (one for one in told["dataset"] if one["@id"] == DATASET)
    assert offer in {one["@id"] for one in dataset["hasPolicy"]}


def test_cat_01_02(world: World, offer: str) -> None:
    """One dataset is told by its id."""
    status, told = world.kit(CONSUMER, PROVIDER).get(f"/catalog/datasets/{DATASET}")
    assert (status, told["@type"], told["@id"]) == (200, "Dataset", DATASET)


def test_cat_01_03(world: World) -> None:
    """One that is not there is an error of the catalog."""
    status, told = world.kit(CONSUMER, PROVIDER).get("/catalog/datasets/urn:nothing")
    assert (status, told["@type"]) == (404, "CatalogError")


def test_the_coordinators_catalog_names_those_below_it(world: World) -> None:
    kit = world.kit(CONSUMER, "inst")
    status, told = kit.say("/catalog/request", said("CatalogRequestMessage"))
    assert status == 200 and "dataset" not in told
    addresses = {one["service"][0]["endpointURL"] for one in told["catalog"]}
    courier = HttpsCourier(kit.home, f"https://127.0.0.1:{world.port}")
    assert courier.base(PROVIDER) in addresses


def test_none_of_the_kits_scenarios_is_missing() -> None:
    found = re.findall(
        r"(?:def test_|id=\")((?:met|cat|cn_c|cn|tp_c|tp)_0\d_0\d)",
        "".join(path.read_text() for path in Path(__file__).parent.glob("test_tck_*.py")),
    )
    assert len(found) == len(set(found)) == sum(KIT.values()) == 67
    for group, count in KIT.items():
        assert len([one for one in found if re.fullmatch(rf"{group.lower()}_0\d_0\d", one)]) == count


def test_the_kits_own_examples_are_told_apart_by_the_schemas() -> None:
    """The check that every other test here leans on refuses what it should."""
    if not SCHEMAS.is_dir():
        pytest.skip("the protocol's schemas are not at hand (KEYONG_SHARED)")
    from jsonschema import ValidationError

    good = said("ContractNegotiation", consumerPid="c", providerPid="p", state="REQUESTED")
    check_schema(good)
    for bad in (
        {**good, "state": "INITIAL"},
        {**good, "@context": "x"},
        {k: v for k, v in good.items() if k != "state"},
    ):
        with pytest.raises(ValidationError):
            check_schema(bad)
