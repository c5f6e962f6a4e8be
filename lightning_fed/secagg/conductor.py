"""The order of the stages: what the server asks, whom, and what it does with those that do not answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lightning_fed.secagg.errors import ProtocolError
from lightning_fed.secagg.keys import Directory
from lightning_fed.secagg.messages import Terms
from lightning_fed.secagg.server import AdvertiseStage, Session, Unmasking, open_session

STAGES = ("before_keys", "after_keys", "after_shares", "after_masked_input", "at_unmasking")
LOST_AT = dict(zip(("advertise", "share_keys", "receive", "sign", "unmask"), STAGES, strict=True))
"""Where a hospital was lost that does not answer to a message of that name."""


@dataclass(frozen=True)
class Refusal:
    """A hospital's no to a message, with its reason."""

    hospital: int
    reason: str


Ask = Callable[[str, Mapping[int, Any]], Mapping[int, Any]]
"""Deliver a message to each hospital's `Client` method of that name; what came back, or a `Refusal`, by hospital.

Hospitals that are gone are simply not in it.
"""


class Conductor:
    """Takes a federation's hospitals through the protocol by a function that reaches them.

    Args:
        terms: of the experiment. directory: pinned identities. ask: reaches the hospitals.

    Attributes:
        lost: the stage at which each hospital was lost, of those lost since `forget`.
        refusals: the reasons of those that said no, or whose message the server refused.
    """

    def __init__(self, terms: Terms, directory: Directory, ask: Ask) -> None:
        self.terms, self.directory, self.ask = terms, directory, ask
        self.lost: dict[int, str] = {}
        self.refusals: list[Refusal] = []

    def forget(self) -> None:
        """A new round: nobody is lost yet."""
        self.lost, self.refusals = {}, []

    def set_up(self, cohort: Iterable[int], first_round: int, rounds: int = 1, attempt: int = 1) -> Session:
        """Advertise and share keys for some rounds.

        Raises:
            RoundAbortedError: too few hospitals are left.
        """
        opening = open_session(self.terms, cohort, first_round, rounds, attempt)
        advertise = AdvertiseStage(self.terms, opening, self.directory)
        openings = dict.fromkeys(opening.cohort, opening)
        keys = self._collect("advertise", openings, lambda _, sent: advertise.add(sent))
        share = advertise.close()
        books = {hospital: share.book(hospital) for hospital in keys}
        sharers = self._collect("share_keys", books, share.add)
        session = share.close()
        self._collect("receive", {hospital: session.deal(hospital) for hospital in sharers}, lambda *_: None)
        return session

    def open(self, session: Session, round: int, uploaded: Iterable[int]) -> Unmasking:
        """After the masked vectors of a round: who is in the sum, and what opens it.

        Raises:
            RoundAbortedError: too few hospitals are left, or their shares do not fit.
        """
        uploaded = set(uploaded)
        missing = (hospital for hospital in session.sharers if hospital not in uploaded)
        self.lost.update(dict.fromkeys(missing, LOST_AT["receive"]))
        sign = session.survivors(round, uploaded)
        lists = dict.fromkeys(sign.listed.survivors, sign.listed)
        self._collect("sign", lists, lambda _, sent: sign.add(sent))
        unmask = sign.close()
        requests = {hospital: unmask.request(hospital) for hospital in unmask.asked}
        self._collect("unmask", requests, lambda _, sent: unmask.add(sent))
        return unmask.close()

    def _collect(self, method: str, messages: Mapping[int, Any], take: Callable[[int, Any], None]) -> list[int]:
        """Ask all, take what came back, and note those of whom nothing did."""
        answers = self.ask(method, messages)
        taken = []
        for hospital in messages:
            answer = answers.get(hospital)
            if hospital not in answers:
                self.lost[hospital] = LOST_AT[method]
                continue
            if not isinstance(answer, Refusal):
                try:
                    speaker = getattr(answer, "hospital", hospital)
                    if speaker != hospital:
                        raise ProtocolError(f"it spoke for hospital {speaker}")
                    take(hospital, answer)
                    taken.append(hospital)
                    continue
                except (ProtocolError, AttributeError, TypeError, ValueError) as error:
                    answer = Refusal(hospital, str(error))  # also of a message that is none
            self.refusals.append(answer)
            self.lost[hospital] = LOST_AT[method]
        return taken


def refuse_politely(hospital: int, call: Callable[[], Any]) -> Any:
    """What a hospital's client answers, or its refusal as a value that can travel."""
    try:
        return call()
    except (ProtocolError, AttributeError, TypeError, ValueError) as error:  # also of a message that is none
        return Refusal(hospital, str(error))
