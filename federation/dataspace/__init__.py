"""The Dataspace Protocol 2025-1: catalog, contract negotiation, and transfers as compute grants, for one party.

An agreement negotiated here is an agreement like any other: the same statement, signed by both, by the same entries of
both ledgers. No socket in this package but :class:`HttpsCourier`'s: :class:`Connector` takes bytes and gives bytes.

>>> from federation.dataspace import negotiation_step
>>> negotiation_step("provider", "AGREED")
('REQUESTED', 'ACCEPTED')
"""

from federation.dataspace.calls import TOKEN_BYTES, CallRefusedError
from federation.dataspace.catalog import versions
from federation.dataspace.connector import Connector, Request, Response
from federation.dataspace.https import GatewayAddressError, GatewayUnreachableError, HttpsCourier, server_context, trust
from federation.dataspace.negotiator import Negotiator
from federation.dataspace.offers import Terms, read_offer
from federation.dataspace.party import CounterpartyRefusedError, Courier, ForeignAddressError, Party
from federation.dataspace.reactions import Reactions
from federation.dataspace.states import NEGOTIATION_STATES, TRANSFER_STATES, negotiation_step, transfer_step
from federation.dataspace.store import DataspaceStore, NegotiationRow, OfferRow, TransferRow, read_terms, write_terms
from federation.dataspace.terms import BODY_BYTES, COMPUTE, VERSION, WELL_KNOWN
from federation.dataspace.transfer import Grantor

__all__ = [
    "BODY_BYTES",
    "COMPUTE",
    "NEGOTIATION_STATES",
    "TOKEN_BYTES",
    "TRANSFER_STATES",
    "VERSION",
    "WELL_KNOWN",
    "CallRefusedError",
    "Connector",
    "CounterpartyRefusedError",
    "Courier",
    "DataspaceStore",
    "ForeignAddressError",
    "GatewayAddressError",
    "GatewayUnreachableError",
    "Grantor",
    "HttpsCourier",
    "NegotiationRow",
    "Negotiator",
    "OfferRow",
    "Party",
    "Reactions",
    "Request",
    "Response",
    "Terms",
    "TransferRow",
    "negotiation_step",
    "read_offer",
    "read_terms",
    "server_context",
    "transfer_step",
    "trust",
    "versions",
    "write_terms",
]
