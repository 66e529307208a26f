"""A party's catalog: its datasets for which an offer stands, as DCAT; schemas and ranges of row counts, no values."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from federation.dataspace.messages import CatalogRequest, MalformedMessageError
from federation.dataspace.party import Party
from federation.dataspace.states import Reply
from federation.dataspace.store import NoSuchProcessError, OfferRow, read_terms
from federation.dataspace.terms import COMPUTE, CONTEXT, KEYONG, VERSION, base_path
from federation.policy import dataset_iri, member_iri
from federation.statements import DatasetDescription


class NoSuchDatasetError(NoSuchProcessError):
    """There is no such dataset in this catalog."""

    code = "no-such-dataset"


class CatalogDesk:
    """Answers the catalog endpoints of one party."""

    def __init__(self, party: Party) -> None:
        self._party = party

    def catalog(self, body: bytes) -> Reply:
        """The whole catalog; at the coordinator, those of the members below it."""
        if CatalogRequest.read(body).filter:
            raise MalformedMessageError("filters are not known here; ask for the whole catalog")
        me = self._party.me
        datasets = [self._dataset(one, offers) for one, offers in self._offered()]
        told: dict[str, Any] = {
            "@context": [CONTEXT],
            "@id": _identity(me, "catalog"),
            "@type": "Catalog",
            "participantId": member_iri(me),
            "service": [self._service(me)],
        }
        if datasets:
            told["dataset"] = datasets
        if self._party.home.history.latest.coordinator.id == me:
            below = [self._below(member.id) for member in self._party.home.roster.members if member.id != me]
            if below:
                told["catalog"] = below
        return 200, told

    def dataset(self, identity: str) -> Reply:
        """One dataset, by the id that the catalog gives it."""
        for one, offers in self._offered():
            if dataset_iri(one.provider, one.dataset) == identity:
                return 200, {"@context": [CONTEXT], **self._dataset(one, offers)}
        raise NoSuchDatasetError("there is no such dataset in this catalog")

    def _offered(self) -> Iterable[tuple[DatasetDescription, Sequence[OfferRow]]]:
        for one in self._party.datasets():
            if offers := self._party.store.offers(one.dataset):
                yield one, offers

    def _dataset(self, one: DatasetDescription, offers: Sequence[OfferRow]) -> dict[str, Any]:
        return {
            "@id": dataset_iri(one.provider, one.dataset),
            "@type": "Dataset",
            "hasPolicy": [read_terms(row.terms).catalog_offer(row.id) for row in offers],
            "distribution": [
                {"@type": "Distribution", "format": COMPUTE, "accessService": _identity(one.provider, "service")}
            ],
            "http://purl.org/dc/terms/title": one.title,
            "http://purl.org/dc/terms/description": one.description,
            KEYONG + "columns": [{"name": column.name, "type": column.type} for column in one.columns],
            KEYONG + "rows": [one.rows_at_least, one.rows_at_most],
            KEYONG + "simulated": one.simulated,
        }

    def _service(self, member: str) -> dict[str, Any]:
        return {
            "@id": _identity(member, "service"),
            "@type": "DataService",
            "endpointURL": self._party.courier.base(member),
        }

    def _below(self, member: str) -> dict[str, Any]:
        service = self._service(member)
        return {
            "@id": _identity(member, "catalog"),
            "@type": "Catalog",
            "distribution": [{"@type": "Distribution", "format": "Catalog", "accessService": service["@id"]}],
            "service": [service],
        }


def versions(members: Iterable[str]) -> dict[str, Any]:
    """What ``/.well-known/dspace-version`` tells: each member's endpoints, below the address that was asked."""
    return {
        "protocolVersions": [
            {
                "version": VERSION,
                "path": base_path(member),
                "binding": "HTTPS",
                "serviceId": member_iri(member),
                "identifierType": "urn:keyong:member",
                "auth": {"protocol": "keyong-signed-call", "version": "1"},
            }
            for member in members
        ]
    }


def _identity(member: str, what: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{member_iri(member)}/{what}").urn)
